//! From QEMU's start to the prompt: what a machine costs before anything is asked of it.
//!
//! Not counted in instructions: most of it is QEMU's own work, and what it translates.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::report::Unit;
use super::samples::{Row, Samples};
use crate::accelerator::Accelerator;
use crate::guest::Guest;
use crate::qemu::{Machine, Software, Way};
use crate::size::{Bytes, gib};

pub(super) const START: &str = "From QEMU's start to the prompt";

/// The way in, in the words of the rows.
const BY_PVH: [&str; 3] = ["by PVH: CPU time of QEMU", "by PVH: the kernel's own clock", "by PVH: memory of the host"];
const BY_BIOS: [&str; 3] = [
    "from a disk by BIOS: CPU time of QEMU",
    "from a disk by BIOS: the kernel's own clock",
    "from a disk by BIOS: memory of the host",
];
const BY_UEFI: [&str; 3] = [
    "from a disk by UEFI: CPU time of QEMU",
    "from a disk by UEFI: the kernel's own clock",
    "from a disk by UEFI: memory of the host",
];

/// As for everything that a guest does.
const PATIENCE: Duration = Duration::from_secs(600);

const USUAL: Bytes = gib(1);
const MUCH: [Bytes; 2] = [gib(130), gib(600)];

pub(super) const REMARK: (&str, &str) = (
    START,
    "Under TCG, on two CPUs; the CPU time is that of all threads of QEMU, the kernel's own clock tells how long ago it was entered. Linux \
     is loaded by QEMU from files as well, through its own boot protocol; its clock is not asked. Of the memory of the host a part is \
     QEMU's own, for each page of the guest's memory that there could be, and for the code that it translates.",
);

/// altmap, by each way, with little memory and with much.
pub(super) fn altmap(software: Software<'_>, rounds: u32, is_quick: bool, samples: &mut Samples) -> Result<()> {
    let much: &[Bytes] = if is_quick { &[] } else { &MUCH };
    for (way, names) in [(Way::Pvh, BY_PVH), (Way::SeaBios, BY_BIOS), (Way::Ovmf, BY_UEFI)] {
        for memory in [USUAL].iter().chain(much) {
            for _ in 0..=rounds {
                once(&machine(way, *memory, Vec::new()), software, names, samples)?;
            }
        }
    }
    Ok(())
}

/// Linux, which QEMU loads: beside our quickest way.
pub(super) fn linux(software: Software<'_>, params: Vec<String>, rounds: u32, samples: &mut Samples) -> Result<()> {
    (0..=rounds).try_for_each(|_| once(&machine(Way::Pvh, USUAL, params.clone()), software, BY_PVH, samples))
}

/// What it may cost.
pub(super) fn limit(row: &Row) -> Option<f64> {
    let is_usual = row.size == Some(USUAL.0);
    match row.what {
        what if what == BY_PVH[0] && is_usual => Some(350e6),
        what if what == BY_PVH[1] => Some(if is_usual { 100e6 } else { 300e6 }),
        _ => None,
    }
}

fn machine(way: Way, memory: Bytes, params: Vec<String>) -> Machine {
    Machine { way, memory, maxmem: Bytes(memory.0 + gib(64).0), params, ..Machine::default() }
}

fn once(machine: &Machine, software: Software<'_>, names: [&'static str; 3], samples: &mut Samples) -> Result<()> {
    let mut guest = Guest::start(machine, software, Accelerator::Tcg, None)?;
    guest.console.expect_prompt(Instant::now() + PATIENCE).context("booting")?;
    let cpu_time = guest.qemu.cpu_time()?;
    let host_memory = guest.qemu.resident_bytes()?;
    let row = |what, unit| Row { table: START, what, size: Some(machine.memory.0), unit };
    samples.add(row(names[0], Unit::Nanoseconds), cpu_time.as_nanos() as f64);
    if let Some(clock) = last_stamp(&guest.console.log()) {
        samples.add(row(names[1], Unit::Nanoseconds), clock.as_nanos() as f64);
    }
    samples.add(row(names[2], Unit::Bytes), host_memory as f64);
    Ok(())
}

/// When the kernel wrote its last line of the log before the banner: `[seconds.microseconds] `.
fn last_stamp(log: &str) -> Option<Duration> {
    let stamp = |line: &str| {
        let (seconds, micros) = line.strip_prefix('[')?.split_once(']')?.0.trim().split_once('.')?;
        Some(Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros.parse().ok()?))
    };
    let before_banner = log.lines().take_while(|line| !line.starts_with("altmap "));
    before_banner.filter_map(stamp).last()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_read_from_the_last_line_before_the_banner() {
        let log = "SeaBIOS\n[0.006296] acpi: x\n[1.111556] smp: 2 CPUs\naltmap 0.1.0: 1G\naltmap> \n[9.000000] x: y\n";
        assert_eq!(last_stamp(log), Some(Duration::from_micros(1_111_556)));
        assert_eq!(last_stamp("altmap> "), None);
    }
}
