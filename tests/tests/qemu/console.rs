//! The serial console as people and scripts use it.

use anyhow::{Context, Result, ensure};
use boot::plug;
use boot::size::mib;
use serde_json::{Value, json};
use system_tests::check::{contains, same};
use system_tests::dimms::dimm;
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::{PATIENCE, Vm, soon};

const UP: &str = "\x1b[A";
const DOWN: &str = "\x1b[B";
const RIGHT: &str = "\x1b[C";
const LEFT: &str = "\x1b[D";

/// What a UART with a slow reader must not lose.
const BURST_BYTES: usize = 64 << 10;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(a_line_can_be_edited),
        scenario!(every_line_ending_ends_a_line),
        scenario!(a_burst_of_64_kib_loses_no_byte),
        scenario!(garbage_of_64_kib_changes_nothing),
        scenario!(nonsense_is_refused_in_one_line),
        scenario!(log_lines_never_break_into_output),
        scenario!(log_lines_move_above_a_half_typed_line),
        scenario!(every_reading_command_speaks_json),
    ]
}

fn a_line_can_be_edited(vm: &mut Vm) -> Result<()> {
    let version = vm.cmd("version")?;
    let typed = [
        format!("vrsion{}e", LEFT.repeat(5)),
        "sion\x01ver".to_owned(),
        "ersion\x01v\x05".to_owned(),
        "ersion\x1b[Hv\x1b[F".to_owned(),
        "ersion\x1b[1~v\x1b[4~".to_owned(),
        "garbage\x15version".to_owned(),
        format!("versionjunk{}\x0b", LEFT.repeat(4)),
        "version junk\x17".to_owned(),
        "versionX\x7f".to_owned(),
        "versionX\x08".to_owned(),
        format!("verXsion{}\x1b[3~", LEFT.repeat(5)),
        format!("verson{}{RIGHT}i", LEFT.repeat(3)),
        "vers\t".to_owned(),
        UP.to_owned(),
        format!("not this one{UP}"),
        format!("{UP}{UP}{DOWN}"),
        "\x0cversion".to_owned(),
        // Keys nobody knows are ignored.
        "\x1b[99~\x1b[Z\x1b[5~ver\x1b[24~sion".to_owned(),
    ];
    for line in typed {
        same(&format!("typed {line:?}"), vm.cmd(&line)?, version.clone())?;
    }
    // Completion knows options and block numbers, too.
    vm.plug(&dimm("d0", mib(128)))?;
    vm.cmd("online_m\t 3\t")?;
    vm.expect_blocks(&[(32..=32, "Movable")])?;
    vm.cmd("offline dim\t")?;
    vm.expect_blocks(&[(32..=32, "offline")])?;

    // Ctrl-C forgets the line.
    vm.type_raw(b"online 32\x03")?;
    vm.expect("online 32^C")?;
    vm.console.expect_prompt(soon())?;
    vm.expect_blocks(&[(32..=32, "offline")])
}

fn every_line_ending_ends_a_line(vm: &mut Vm) -> Result<()> {
    let before = vm.console.log().matches("error: EINVAL").count();
    vm.type_raw(b"crword\rlfword\ncrlfword\r\nlastword\r")?;
    sync(vm, "endings")?;
    let log = vm.console.log();
    let errors: Vec<_> = log.lines().filter(|line| line.starts_with("error: EINVAL")).skip(before).collect();
    let words = ["crword", "lfword", "crlfword", "lastword", "endings"];
    ensure!(errors.len() == words.len(), "{errors:?}");
    for (error, word) in errors.iter().zip(words) {
        contains("the refusal", error, word)?;
    }
    Ok(())
}

/// An unknown word that comes back in a refusal, after everything typed before was dealt with.
fn sync(vm: &mut Vm, word: &str) -> Result<()> {
    vm.type_raw(format!("{word}\r").as_bytes())?;
    vm.wait_for(&format!("the refusal of {word}"), |vm| {
        let log = vm.console.log();
        let refused = log.lines().any(|line| line.starts_with("error: ") && line.contains(word));
        Ok((refused && log.ends_with("altmap> \n")).then_some(()))
    })
}

fn a_burst_of_64_kib_loses_no_byte(vm: &mut Vm) -> Result<()> {
    let words: Vec<_> = (0..BURST_BYTES / 64).map(|number| format!("w{number:062}")).collect();
    let burst: String = words.iter().map(|word| format!("{word}\r")).collect();
    same("length", burst.len(), BURST_BYTES)?;
    vm.type_raw(burst.as_bytes())?;
    sync(vm, "thelastone")?;
    let log = vm.console.log();
    let mut errors = log.lines().filter(|line| line.starts_with("error: EINVAL"));
    for word in &words {
        let error = errors.next().with_context(|| format!("nothing about {word}"))?;
        contains("the refusal", error, word)?;
    }
    contains("the end", errors.next().context("nothing about the last one")?, "thelastone")
}

fn garbage_of_64_kib_changes_nothing(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    vm.cmd("online 32")?;
    let before = vm.trace()?;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let garbage: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(BURST_BYTES)
    .collect();
    vm.type_raw(&garbage)?;
    // Whatever sequence is half typed ends here.
    vm.type_raw(b"~~\r\x03\x15\r")?;
    sync(vm, "aftergarbage")?;
    vm.unchanged_since("garbage", &before)?;

    vm.type_raw(&vec![b'x'; BURST_BYTES])?;
    vm.type_raw(b"\x15\r")?;
    sync(vm, "afterlongline")?;
    vm.unchanged_since("a line of 64 KiB", &before)
}

fn nonsense_is_refused_in_one_line(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    let sentence = vm.fails("frobnicate 7", "EINVAL")?;
    contains("the sentence", &sentence, "frobnicate")?;
    for line in [
        "lsmem -z",
        "lsmem extra",
        "meminfo --huge",
        "help frobnicate",
        "page",
        "page nowhere",
        "page 0xffff_ffff_ffff_ffff_ffff",
        "page pfn:99999999999999999999",
        "poison",
        "poison nowhere",
        "poison 0x4000_0000_0000",
        "fill",
        "fill 0",
        "fill -1",
        "fill 1.5X",
        "fill 99999999999999999999T",
        "kfill lots",
        "offline 0 --within soon",
        "offline 0 --within",
        "policy auto-movable --ratio -5",
        "wait abc",
        "\"unfinished",
        "&",
    ] {
        vm.fails(line, "EINVAL").with_context(|| format!("`{line}`"))?;
    }
    vm.fails("fill 64T", "ENOMEM")?;
    vm.fails("kfill 64T", "ENOMEM")?;
    for line in ["verify 4711", "free 4711", "wait 4711", "kill 4711", "page 0x4000_0000_0000"] {
        vm.fails_with_one_of(line, &["ENOENT", "EINVAL"]).with_context(|| format!("`{line}`"))?;
    }
    same("an empty line", vm.cmd("")?, "")?;
    same("blanks", vm.cmd("    ")?, "")?;
    vm.unchanged_since("nonsense", &before)
}

fn log_lines_never_break_into_output(vm: &mut Vm) -> Result<()> {
    for round in 0..12 {
        let id = "d0";
        let came = round % 2 == 0;
        vm.console.submit("lsmem -a; lsmem -a -J; lsmem -a")?;
        if came {
            plug::insert(&mut vm.qmp, &dimm(id, mib(1024)))?;
        } else {
            vm.qmp("device_del", json!({ "id": id }))?;
        }
        ensure!(vm.console.prompt_after_entry(soon()), "no prompt in round {round}");
        vm.wait_for("the end of the event", |vm| {
            let here = vm.blocks()?.contains_key(&39);
            let known = vm.modules()?.contains_key(id);
            Ok((here == came && known == came).then_some(()))
        })?;
        if !came {
            vm.qmp("object-del", json!({"id": boot::qemu::backend(id)}))?;
        }
    }
    let log = vm.console.log();
    for line in log.lines() {
        let whole_json = !line.starts_with('{') || serde_json::from_str::<Value>(line).is_ok();
        ensure!(whole_json, "broken into: {line}");
        let stamped = line.contains("] dimm: ") || line.contains("] hotplug: ") || line.contains("] memory: ");
        ensure!(!stamped || line.starts_with('['), "broken into: {line}");
        let row = line.starts_with("0x");
        ensure!(!row || line.contains("line") || line.contains("Normal"), "broken into: {line}");
    }
    Ok(())
}

fn log_lines_move_above_a_half_typed_line(vm: &mut Vm) -> Result<()> {
    let version = vm.cmd("version")?;
    vm.type_raw(b"vers")?;
    vm.expect("altmap> vers")?;
    vm.plug(&dimm("d0", mib(128)))?;
    // Redrawn, and still a line to go on with.
    vm.expect("altmap> vers")?;
    let output = vm.console.output("ion", PATIENCE)?;
    same("the output", output, version)?;
    let log = vm.console.log();
    ensure!(log.lines().all(|line| !line.contains("vers[")), "broken into:\n{log}");
    Ok(())
}

fn every_reading_command_speaks_json(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    vm.cmd("online 32")?;
    for line in [
        "lsmem",
        "lsmem -a",
        "meminfo",
        "zoneinfo",
        "buddyinfo",
        "iomem",
        "srat",
        "groups",
        "page 0x1_0000_0000",
        "events",
        "policy",
        "notifiers",
        "inject -l",
        "tasks",
        "cpus",
        "jobs",
        "dmesg",
        "version",
        "help",
        "memcheck",
        "notify log",
        "auto_online",
        "bench page",
        "memmap_on_memory",
    ] {
        let output = vm.cmd(&format!("{line} -J"))?;
        same(&format!("lines of `{line} -J`"), output.lines().count(), 1)?;
        vm.json(line)?;
        // What `dmesg` prints looks like the log, which is left out of what a command printed.
        let may_be_silent = ["jobs", "notify log", "dmesg"].contains(&line);
        ensure!(!vm.cmd(line)?.trim().is_empty() || may_be_silent, "`{line}` says nothing");
    }
    let help = vm.cmd("help")?;
    for word in ["lsmem", "online_movable", "offline", "inject", "memcheck"] {
        contains("help", &help, word)?;
        ensure!(vm.cmd(&format!("help {word}"))?.lines().count() > 1, "help {word}");
    }
    Ok(())
}
