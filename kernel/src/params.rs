//! Kernel parameters: words in the command line that came with the kernel and in QEMU's fw_cfg file `opt/altmap/cmdline`,
//! spelled as Linux spells them.
//!
//! A word that nobody knows, or whose value makes no sense, is reported and ignored; of two words that set the same
//! thing the last counts, and those of the file come last. Double quotes keep blanks in a word.
#![deny(unsafe_code)]

use crate::arch::GsiMode;
use crate::drivers::fw_cfg;
use crate::drivers::virtio::Slot;
use crate::entry;
use crate::logging;
use crate::memory::host::{Amount, KernelCore};
use crate::memory::mm;
use crate::sources::virtio_mem::Mode;
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use mm::record::policy::{AutoOnline, OnlinePolicy, Policy};
use thiserror::Error;

const FILE: &str = "opt/altmap/cmdline";
const LONGEST_BYTES: usize = 64 << 10;

/// What the parameters say; `None` where they are silent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Params {
    auto_online: Option<AutoOnline>,
    memmap_on_memory: Option<bool>,
    online_policy: Option<OnlinePolicy>,
    auto_movable_ratio: Option<u32>,
    numa_aware: Option<bool>,
    movable_node: bool,
    /// How boot memory is split.
    pub(crate) kernelcore: KernelCore,
    /// How the memory of virtio-mem devices comes.
    pub(crate) virtio_mem_mode: Mode,
    /// Memory above this address is left alone.
    pub(crate) mem_limit: Option<u64>,
    /// How many CPUs run at most, the one that booted included.
    pub(crate) max_cpus: Option<usize>,
    /// What the console shows, by Linux's numbers.
    pub(crate) loglevel: Option<u8>,
    /// Run the in-kernel tests whose names contain this, or one of its parts between commas, instead of the shell.
    pub(crate) selftest: Option<String>,
    /// Where devices of virtio's memory-mapped bus may be.
    pub(crate) virtio_slots: Vec<Slot>,
    run: String,
    problems: Vec<ParamProblem>,
}

/// A word that has no effect.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ParamProblem {
    #[error("unknown parameter '{0}' ignored")]
    Unknown(String),
    #[error("parameter '{word}' ignored: {wanted} expected")]
    BadValue { word: String, wanted: &'static str },
    #[error("a double quote is not closed")]
    OpenQuote,
    #[error("not text, ignored as a whole")]
    NotText,
}

static PARAMS: spin::Once<Params> = spin::Once::new();

/// Reads the parameters, the first time that they are asked for.
pub(crate) fn get() -> &'static Params {
    PARAMS.call_once(|| {
        let command_line = entry::facts().map_or(&[][..], |facts| &facts.command_line);
        let file = fw_cfg::file(FILE, LONGEST_BYTES).unwrap_or_default();
        let mut params = Params::default();
        params.read_bytes(command_line);
        params.read_bytes(&file);
        params
    })
}

impl Params {
    fn read_bytes(&mut self, line: &[u8]) {
        match core::str::from_utf8(line) {
            Ok(line) => self.read(line),
            Err(_) => self.problems.push(ParamProblem::NotText),
        }
    }

    /// Reads a whole line of parameters; what earlier ones said stays where this one is silent.
    fn read(&mut self, line: &str) {
        let (words, is_open) = words(line);
        for word in words {
            if let Err(problem) = self.word(&word) {
                self.problems.push(problem);
            }
        }
        if is_open {
            self.problems.push(ParamProblem::OpenQuote);
        }
    }

    /// Commands for the shell to run after boot, as they would be typed; empty if there are none.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// Puts into effect what is not asked for later, and logs what was ignored. Memory has been started.
    pub(crate) fn obey(&self) {
        if let Some(loglevel) = self.loglevel {
            logging::set_console_level(loglevel);
        }
        mm().set_policy(|policy| self.apply(policy));
        for problem in &self.problems {
            log::warn!(target: "params", "{problem}");
        }
    }

    /// Changes settings to what the parameters say.
    fn apply(&self, policy: &mut Policy) {
        policy.auto_online = self.auto_online.unwrap_or(policy.auto_online);
        policy.memmap_on_memory = self.memmap_on_memory.unwrap_or(policy.memmap_on_memory);
        policy.online_policy = self.online_policy.unwrap_or(policy.online_policy);
        policy.auto_movable_ratio = self.auto_movable_ratio.unwrap_or(policy.auto_movable_ratio);
        policy.numa_aware = self.numa_aware.unwrap_or(policy.numa_aware);
        policy.movable_node |= self.movable_node;
    }

    fn word(&mut self, word: &str) -> Result<(), ParamProblem> {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        // Linux makes no difference between the two either.
        let name = name.replace('-', "_");
        let wanted = |wanted| move || ParamProblem::BadValue { word: word.to_owned(), wanted };
        let text = value.unwrap_or_default();
        match name.as_str() {
            "memhp_default_state" => {
                let states = "offline, online, online_kernel or online_movable";
                self.auto_online = Some(AutoOnline::from_name(text).ok_or_else(wanted(states))?);
            }
            "memory_hotplug.memmap_on_memory" => {
                self.memmap_on_memory = Some(switch(value).ok_or_else(wanted("on or off"))?);
            }
            "memory_hotplug.online_policy" => {
                let policies = "contig-zones or auto-movable";
                self.online_policy = Some(OnlinePolicy::from_name(text).ok_or_else(wanted(policies))?);
            }
            "memory_hotplug.auto_movable_ratio" => {
                self.auto_movable_ratio = Some(text.parse().ok().ok_or_else(wanted("a number"))?);
            }
            "memory_hotplug.auto_movable_numa_aware" => {
                self.numa_aware = Some(switch(value).ok_or_else(wanted("on or off"))?);
            }
            "virtio_mem.mode" => {
                self.virtio_mem_mode = Mode::from_name(text).ok_or_else(wanted("requested or standby"))?;
            }
            "movable_node" if value.is_none() => self.movable_node = true,
            "mem" => self.mem_limit = Some(size(text).filter(|size| *size > 0).ok_or_else(wanted("a size"))?),
            "loglevel" => self.loglevel = Some(text.parse().ok().ok_or_else(wanted("a number"))?),
            // The one that boots runs in any case, so zero, too, means one.
            "maxcpus" => self.max_cpus = Some(text.parse().ok().ok_or_else(wanted("a number"))?),
            "kernelcore" => self.kernelcore.kernel = Some(amount(text).ok_or_else(wanted("a size or a percentage"))?),
            "movablecore" => self.kernelcore.movable = Some(amount(text).ok_or_else(wanted("a size or a percentage"))?),
            "virtio_mmio.device" => {
                self.virtio_slots.push(slot(text).ok_or_else(wanted("SIZE@ADDRESS:INTERRUPT"))?);
            }
            "selftest" => self.selftest = Some(text.to_owned()),
            "run" if value.is_some() => self.run = text.to_owned(),
            _ => return Err(ParamProblem::Unknown(word.to_owned())),
        }
        Ok(())
    }
}

/// The words of a line without their quotes, and whether a quote was left open.
fn words(line: &str) -> (Vec<String>, bool) {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut is_word = false;
    let mut is_quoted = false;
    for character in line.chars() {
        match character {
            '"' => {
                is_quoted = !is_quoted;
                is_word = true;
            }
            // What ends a C string ends the line there, wherever it came from.
            character if !is_quoted && (character.is_whitespace() || character == '\0') => {
                if is_word {
                    words.push(core::mem::take(&mut word));
                    is_word = false;
                }
            }
            character => {
                word.push(character);
                is_word = true;
            }
        }
    }
    if is_word {
        words.push(word);
    }
    (words, is_quoted)
}

/// Linux's spellings of a switch; the name alone turns it on.
fn switch(value: Option<&str>) -> Option<bool> {
    match value {
        None | Some("1" | "y" | "Y" | "on" | "true") => Some(true),
        Some("0" | "n" | "N" | "off" | "false") => Some(false),
        Some(_) => None,
    }
}

/// A place and a line, which is as on the ISA bus; a number at the end names the device for others.
fn slot(text: &str) -> Option<Slot> {
    let (len, place) = text.split_once('@')?;
    let mut parts = place.split(':');
    let (start, gsi) = (size(parts.next()?)?, parts.next()?.parse().ok()?);
    Some(Slot { start, len: size(len)?, gsi, mode: GsiMode::ISA })
}

/// A size, or a percentage of all boot memory.
fn amount(text: &str) -> Option<Amount> {
    match text.strip_suffix('%') {
        Some(digits) => {
            let percent = digits.parse().ok().filter(|percent| *percent <= 100 && !digits.starts_with('+'))?;
            Some(Amount::Percent(percent))
        }
        None => size(text).map(Amount::Bytes),
    }
}

/// A size in bytes: a number with a fraction if it has a unit, in decimal, or in hexadecimal behind `0x`.
fn size(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'));
    }
    let (number, shift) = match text.char_indices().next_back()? {
        (end, unit) if unit.is_ascii_alphabetic() => (&text[..end], unit_shift(unit)?),
        _ => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) || fraction.len() > 9 {
        return None;
    }
    if number.contains('.') && (fraction.is_empty() || shift == 0) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    let scale = 10u128.pow(fraction.len() as u32);
    let part = (u128::from(fraction.parse::<u64>().unwrap_or(0)) << shift) / scale;
    whole.checked_add(u64::try_from(part).ok()?)
}

fn unit_shift(unit: char) -> Option<u32> {
    Some(match unit.to_ascii_uppercase() {
        'K' => 10,
        'M' => 20,
        'G' => 30,
        'T' => 40,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm::record::policy::OnlineAs;
    use mm::section::kind::ZoneKind;
    use std::vec;

    impl Params {
        fn parse(line: &str) -> Self {
            let mut params = Self::default();
            params.read(line);
            params
        }
    }

    fn problems(line: &str) -> Vec<String> {
        Params::parse(line).problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_word_is_understood() {
        let params = Params::parse(
            "memhp_default_state=online_movable memory_hotplug.memmap_on_memory=off \
             memory_hotplug.online_policy=auto-movable memory_hotplug.auto_movable_ratio=150 \
             memory_hotplug.auto_movable_numa_aware=N movable_node mem=1.5G loglevel=7 maxcpus=4 \
             selftest=memory run=\"online 32; lsmem -J\"",
        );
        assert_eq!(params.problems, []);
        let mut policy = Policy::DEFAULT;
        params.apply(&mut policy);
        let expected = Policy {
            auto_online: AutoOnline::As(OnlineAs::Zone(ZoneKind::Movable)),
            memmap_on_memory: false,
            online_policy: OnlinePolicy::AutoMovable,
            auto_movable_ratio: 150,
            numa_aware: false,
            movable_node: true,
        };
        assert_eq!(policy, expected);
        assert_eq!((params.mem_limit, params.loglevel), (Some(3 << 29), Some(7)));
        assert_eq!((params.selftest.as_deref(), params.run()), (Some("memory"), "online 32; lsmem -J"));
    }

    #[test]
    fn silence_changes_nothing() {
        let params = Params::parse(" \t\n");
        assert_eq!(params, Params::default());
        let mut policy = Policy::DEFAULT;
        params.apply(&mut policy);
        assert_eq!(policy, Policy::DEFAULT);
        assert_eq!(params.run(), "");
    }

    #[test]
    fn unknown_words_are_reported_and_ignored() {
        let line = "quiet mem=1G root=/dev/sda movable_node=1 run";
        assert_eq!(
            problems(line),
            ["quiet", "root=/dev/sda", "movable_node=1", "run"]
                .map(|word| format!("unknown parameter '{word}' ignored"))
        );
        assert_eq!(Params::parse(line).mem_limit, Some(1 << 30));
    }

    #[test]
    fn senseless_values_are_reported_and_ignored() {
        assert_eq!(
            problems("mem=lots loglevel=-1 maxcpus=x memhp_default_state memory_hotplug.memmap_on_memory=maybe"),
            [
                "parameter 'mem=lots' ignored: a size expected",
                "parameter 'loglevel=-1' ignored: a number expected",
                "parameter 'maxcpus=x' ignored: a number expected",
                "parameter 'memhp_default_state' ignored: offline, online, online_kernel or online_movable expected",
                "parameter 'memory_hotplug.memmap_on_memory=maybe' ignored: on or off expected",
            ]
        );
        for word in ["kernelcore=mirror", "kernelcore", "movablecore=101%", "movablecore=%", "kernelcore=+5%"] {
            assert_eq!(problems(word), [format!("parameter '{word}' ignored: a size or a percentage expected")]);
        }
    }

    #[test]
    fn boot_memory_is_split_by_size_or_by_percentage() {
        let kernelcore = |line| Params::parse(line).kernelcore;
        assert_eq!(kernelcore(""), KernelCore::default());
        assert_eq!(kernelcore("kernelcore=512M").kernel, Some(Amount::Bytes(512 << 20)));
        let both = KernelCore { kernel: Some(Amount::Percent(30)), movable: Some(Amount::Bytes(3 << 29)) };
        assert_eq!(kernelcore("kernelcore=30% movablecore=1.5G"), both);
    }

    #[test]
    fn of_two_words_the_last_counts() {
        let params = Params::parse("mem=1G loglevel=3 mem=2G run=a run=b mem=none");
        assert_eq!((params.mem_limit, params.run()), (Some(2 << 30), "b"));
        assert_eq!(params.problems.len(), 1);
    }

    #[test]
    fn of_two_lines_every_word_counts_and_the_later_one_more() {
        let mut params = Params::parse("mem=1G loglevel=3 movable_node run=\"a b");
        params.read("mem=2G maxcpus=4 loglevel=none");
        assert_eq!((params.mem_limit, params.loglevel, params.max_cpus), (Some(2 << 30), Some(3), Some(4)));
        assert_eq!((params.movable_node, params.run()), (true, "a b"));
        assert_eq!(params.problems.len(), 2);
        params.read_bytes(b"mem=4G \xff");
        assert_eq!(params.mem_limit, Some(2 << 30));
        assert_eq!(params.problems.last(), Some(&ParamProblem::NotText));
    }

    #[test]
    fn slots_are_where_they_are_said_to_be() {
        let mut params = Params::default();
        params.read("virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=1K@0x1000:5:3");
        let slot = |start, len, gsi| Slot { start, len, gsi, mode: GsiMode::ISA };
        assert_eq!(params.virtio_slots, [slot(0xfeb0_0e00, 512, 12), slot(0x1000, 1024, 5)]);
        for senseless in ["", "512", "512@", "512@0xfeb00e00", "@0x1000:1", "512@x:1", "512@0x1000:", "512@0x1000:-1"] {
            assert_eq!(super::slot(senseless), None, "{senseless}");
        }
    }

    #[test]
    fn dashes_are_underscores() {
        let params = Params::parse("memhp-default-state=online memory-hotplug.online-policy=contig-zones");
        assert_eq!(params.problems, []);
        assert_eq!(params.auto_online, Some(AutoOnline::As(OnlineAs::ByPolicy)));
    }

    #[test]
    fn quotes_keep_blanks() {
        assert_eq!(words(r#"a "b c"  run="d; e" f"g h"i "" "#).0, ["a", "b c", "run=d; e", "fg hi", ""]);
        assert_eq!(words(r#"run="a b"#), (vec!["run=a b".to_owned()], true));
        assert_eq!(problems(r#"run="memcheck"#), ["a double quote is not closed"]);
        assert_eq!(Params::parse(r#""run=a b""#).run(), "a b");
    }

    #[test]
    fn a_string_end_ends_a_word() {
        assert_eq!(Params::parse("run=a\0").run(), "a");
    }

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for (text, bytes) in
            [("4096", 4096), ("4k", 4096), ("128M", 128 << 20), ("1.5G", 3 << 29), ("2T", 2 << 40), ("0x1000", 4096)]
        {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in
            ["", "G", "-1", "+1", "1.5", "1.G", ".5G", "1e3", "1GG", "16777216T", "0x", "0x+1", "1.0000000001G", "é"]
        {
            assert_eq!(size(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(line in "\\PC{0,200}") {
            Params::parse(&line);
        }

        #[test]
        fn any_value_is_survived(name in "[a-z_]{0,3}mem|run|loglevel|selftest", value in "[0-9.GMTKx\"; -]{0,12}") {
            Params::parse(&format!("{name}={value}"));
        }
    }
}
