//! Thousands of blocks: what the shell says of them takes no memory, and can be cut short.

use anyhow::{Context, Result, ensure};
use boot::qemu::Machine;
use boot::serial::of_job;
use boot::size::gib;
use serde_json::Value;
use system_tests::check::same;
use system_tests::dimms::dimm;
use system_tests::memory::Usage;
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::{Vm, soon};

const BLOCKS: u64 = 8192;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let machine = Machine { maxmem: gib(2 << 10), ..Machine::default() };
    vec![
        scenario!(what_is_said_of_thousands_of_blocks_takes_no_memory).on(machine.clone()),
        scenario!(a_long_answer_can_be_cut_short).on(machine.clone()),
        scenario!(a_job_tells_a_long_line_above_the_prompt).on(machine.clone()),
        scenario!(of_thousands_of_completions_some_are_listed).on(machine),
    ]
}

/// Plugs a DIMM of many blocks; the first of them.
fn plug_many(vm: &mut Vm) -> Result<u64> {
    vm.plug(&dimm("huge", gib(1 << 10)))?;
    let group = vm.groups()?["dimm0"].clone();
    same("blocks", group.last - group.first + 1, BLOCKS)?;
    Ok(group.first)
}

/// What the kernel has taken for itself.
fn taken(vm: &mut Vm) -> Result<(u64, Usage)> {
    let heap = vm.json("meminfo")?["heap"].as_u64().context("heap")?;
    Ok((heap, vm.usage()?))
}

fn what_is_said_of_thousands_of_blocks_takes_no_memory(vm: &mut Vm) -> Result<()> {
    let altmaps = |map: &str| map.matches("altmap of block").count() as u64;
    let boot_altmaps = altmaps(&vm.cmd("iomem -a")?);
    let first = plug_many(vm)?;
    let boot = vm.blocks()?.len() as u64 - BLOCKS;
    let (heap, usage) = taken(vm)?;
    let table = vm.cmd("lsmem -a")?;
    same("rows", table.lines().filter(|line| line.starts_with("0x")).count() as u64, boot + BLOCKS)?;
    let all = vm.json("lsmem -a")?;
    let numbers: Vec<_> = all["ranges"].as_array().into_iter().flatten().map(|range| range["first"].as_u64()).collect();
    same("blocks", numbers.len() as u64, boot + BLOCKS)?;
    ensure!(numbers[boot as usize..].iter().copied().eq((first..first + BLOCKS).map(Some)), "{numbers:?}");
    same("offline", &all["offline"], &Value::from(1u64 << 40))?;

    let every = vm.cmd("iomem -a")?;
    same("altmaps", altmaps(&every), boot_altmaps + BLOCKS)?;
    vm.json("iomem -a")?;
    for brief in ["lsmem", "groups", "iomem", "meminfo", "zoneinfo", "buddyinfo"] {
        let answer = vm.cmd(brief)?;
        ensure!(answer.lines().count() < 64, "`{brief}` says: {answer}");
    }
    let map = vm.cmd("iomem")?;
    ensure!(map.contains("altmaps of blocks ") && map.contains("altmap of block "), "{map}");

    let (heap_after, usage_after) = taken(vm)?;
    // The command history keeps what was typed.
    ensure!(heap_after < heap + (16 << 10), "the heap held {heap} bytes and holds {heap_after}");
    same("totals", usage_after, usage)
}

fn a_long_answer_can_be_cut_short(vm: &mut Vm) -> Result<()> {
    plug_many(vm)?;
    for command in ["lsmem -a", "lsmem -a -J", "iomem -a -J"] {
        let log = vm.console.log().len();
        vm.type_raw(format!("{command}; lsmem\r").as_bytes())?;
        let under_way = |vm: &mut Vm| Ok((vm.console.log().len() > log + 4096).then_some(()));
        vm.wait_for("the beginning of the answer", under_way)?;
        vm.type_raw(b"\x03")?;
        same("answer", vm.expect("error: ")?.as_str(), "error: ECANCELED: cancelled")?;
        vm.console.expect_prompt(soon())?;
        let said = vm.console.log()[log..].to_owned();
        ensure!(!said.contains("Total offline"), "`{command}` did not end, or the next command ran: {said}");
    }
    vm.cmd("version").map(drop)
}

fn a_job_tells_a_long_line_above_the_prompt(vm: &mut Vm) -> Result<()> {
    plug_many(vm)?;
    let job = vm.job("lsmem -a -J")?;
    for _ in 0..3 {
        vm.cmd("version")?;
    }
    vm.cmd(&format!("wait {job}"))?;
    let log = vm.console.log();
    let lines: Vec<_> = log.lines().filter_map(of_job).filter(|line| line.contains("\"block_size\"")).collect();
    same("lines", lines.len(), 1)?;
    let list: Value = serde_json::from_str(lines[0]).context("the job's line is broken into")?;
    ensure!(list["ranges"].as_array().is_some_and(|ranges| ranges.len() as u64 > BLOCKS), "{list}");

    // One that is stopped leaves no half line behind.
    let job = vm.job("lsmem -a -J")?;
    vm.cmd(&format!("kill {job}")).ok();
    vm.cmd(&format!("wait {job}")).ok();
    same("version", vm.cmd("version")?.lines().count(), 1)
}

fn of_thousands_of_completions_some_are_listed(vm: &mut Vm) -> Result<()> {
    let first = plug_many(vm)?;
    let heap = taken(vm)?.0;
    vm.type_raw(b"online \t\t")?;
    // The group is one of the candidates.
    vm.expect(&format!("... and {} more", BLOCKS + 1 - 100))?;
    vm.type_raw(b"\x15")?;
    vm.cmd(&format!("online_movable {}\t", first + 7))?;
    same("zone", vm.block(first + 7)?.place(), "Movable")?;
    vm.cmd("offline dim\t").ok();
    let heap_after = taken(vm)?.0;
    ensure!(heap_after < heap + (16 << 10), "the heap held {heap} bytes and holds {heap_after}");
    Ok(())
}
