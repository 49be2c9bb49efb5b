//! Steps that fail on purpose: the stated errno, no trace, and success once the cause is gone.

use anyhow::{Context, Result, bail, ensure};
use boot::size::mib;
use serde::Deserialize;
use system_tests::check::same;
use system_tests::dimms::{SUCCESS, dimm};
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::Vm;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(a_failing_online_leaves_the_block_offline),
        scenario!(a_failing_change_of_zone_leaves_the_blocks_where_they_are),
        scenario!(a_failing_offline_leaves_the_block_online_and_its_data_intact),
        scenario!(a_failing_add_is_told_to_the_firmware),
        scenario!(a_failing_remove_keeps_the_group),
        scenario!(an_allocation_that_fails_takes_nothing),
        scenario!(a_failure_during_device_del_restores_every_block),
        scenario!(a_failure_of_auto_online_leaves_known_memory_offline),
        scenario!(what_inject_does_not_know_is_refused),
    ]
}

/// The step that only blocks pass which are online already.
const RELABEL: &str = "online.relabel";

/// The step that costs a block, and no allocation that finds memory elsewhere.
const OPEN: &str = "alloc.open";

#[derive(Debug, Deserialize)]
struct Points {
    points: Vec<Point>,
}

#[derive(Debug, Deserialize)]
struct Point {
    name: String,
    op: String,
    armed: Option<String>,
}

/// The failure points of one operation; a new kind of operation must be noticed here.
fn points(vm: &mut Vm, op: &str) -> Result<Vec<String>> {
    let all = vm.ask::<Points>("inject -l")?.points;
    let known = ["add", "online", "offline", "remove", "alloc", "migrate", "standby", "piece"];
    ensure!(all.iter().all(|point| known.contains(&point.op.as_str()) && point.armed.is_none()), "{all:?}");
    let names: Vec<_> = all.into_iter().filter(|point| point.op == op).map(|point| point.name).collect();
    ensure!(!names.is_empty(), "no failure point for {op}");
    Ok(names)
}

/// Fails at `point` once in each of three ways, then works and is undone.
fn fails_then_works(vm: &mut Vm, point: &str, command: &str, undo: &str) -> Result<()> {
    for errno in ["ENOMEM", "EBUSY", "EIO"] {
        vm.cmd("notify log")?;
        let before = vm.trace()?;
        vm.cmd(&format!("inject {point} {errno}"))?;
        vm.fails(command, errno).with_context(|| format!("{errno} at {point}"))?;
        vm.unchanged_since(&format!("{errno} at {point}"), &before)?;
        whoever_accepted_heard_of_the_cancellation(vm).with_context(|| format!("{errno} at {point}"))?;
        vm.memcheck()?;
    }
    vm.cmd(command)?;
    vm.cmd(undo).map(drop)
}

fn whoever_accepted_heard_of_the_cancellation(vm: &mut Vm) -> Result<()> {
    let log = vm.json("notify log")?;
    let calls = log["calls"].as_array().context("no calls")?;
    let heard = |call: &str, answer: Option<&str>| {
        calls.iter().filter(|c| c["call"] == call && answer.is_none_or(|answer| c["answer"] == answer)).count()
    };
    same("cancelled after accepted", heard("cancelled", None), heard("prepare", Some("ok")))?;
    same("committed", heard("committed", None), 0)
}

fn a_failing_online_leaves_the_block_offline(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(384)))?;
    vm.cmd("notify add watcher 0")?;
    for point in points(vm, "online")?.into_iter().filter(|point| point != RELABEL) {
        fails_then_works(vm, &point, "online 33", "offline 33")?;
        fails_then_works(vm, &point, "online_movable 32-34", "offline 32-34")?;
    }
    Ok(())
}

fn a_failing_change_of_zone_leaves_the_blocks_where_they_are(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(384)))?;
    vm.cmd("online_kernel 32-34")?;
    let id = vm.fill("fill 8M --in 33")?;
    fails_then_works(vm, RELABEL, "online_movable 33", "online_kernel 33")?;
    fails_then_works(vm, RELABEL, "online_movable 32-34", "online_kernel 32-34")?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}")).map(drop)
}

fn a_failing_offline_leaves_the_block_online_and_its_data_intact(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(384)))?;
    vm.cmd("online_movable 32-34")?;
    vm.cmd("notify add watcher 0")?;
    for point in points(vm, "offline")? {
        let fills = [33, 34].map(|block| vm.fill(&format!("fill 16M --writers 2 --in {block}")));
        fails_then_works(vm, &point, "offline 33-34", "online_movable 33-34")?;
        vm.cmd("verify").with_context(|| point.clone())?;
        for id in fills {
            vm.cmd(&format!("free {}", id?))?;
        }
    }
    Ok(())
}

fn a_failing_add_is_told_to_the_firmware(vm: &mut Vm) -> Result<()> {
    // With struct pages in system memory an add passes every one of its points.
    vm.cmd("memmap_on_memory off")?;
    for point in points(vm, "add")? {
        for errno in ["ENOMEM", "EIO"] {
            let before = vm.trace()?;
            vm.cmd(&format!("inject {point} {errno}"))?;
            let status = vm.plug_status(&dimm("d0", mib(256)))?;
            ensure!(status != SUCCESS, "{errno} at {point}: the guest claims success");
            vm.unchanged_since(&format!("{errno} at {point}"), &before)?;
            let last = vm.operations()?.pop().context("the journal is empty")?;
            same(&format!("journal after {point}"), (last.op.as_str(), last.result.as_str()), ("add", errno))?;
            vm.memcheck()?;
            // Still plugged: it can be added by hand now, or go.
            if errno == "EIO" {
                vm.cmd("probe 0x1_0000_0000 256M")?;
                vm.expect_blocks(&[(32..=33, "offline")])?;
            }
            vm.unplug("d0")?;
            vm.unchanged_since("the module that went", &before)?;
        }
    }
    vm.plug(&dimm("d0", mib(256)))?;
    vm.expect_blocks(&[(32..=33, "offline")])
}

fn a_failing_remove_keeps_the_group(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    for point in points(vm, "remove")? {
        fails_then_works(vm, &point, "remove dimm0", "probe 0x1_0000_0000 256M")?;
    }
    Ok(())
}

fn an_allocation_that_fails_takes_nothing(vm: &mut Vm) -> Result<()> {
    for point in points(vm, "alloc")?.into_iter().filter(|point| point != OPEN) {
        let before = vm.trace()?;
        vm.cmd(&format!("inject {point} ENOMEM"))?;
        vm.fails("kfill 4M", "ENOMEM")?;
        vm.unchanged_since(&point, &before)?;
        let id = vm.fill("kfill 4M")?;
        vm.cmd(&format!("free {id}"))?;
        vm.unchanged_since(&point, &before)?;
    }
    Ok(())
}

fn a_failure_during_device_del_restores_every_block(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(512)))?;
    vm.cmd("online_movable 32,34")?;
    vm.cmd("online_kernel 33")?;
    let before = vm.trace()?;
    let all: Vec<_> = [points(vm, "offline")?, points(vm, "remove")?].concat();
    for point in all {
        vm.cmd(&format!("inject {point} EIO"))?;
        let status = vm.unplug_status("d0")?;
        ensure!(status != SUCCESS, "{point}: the module is gone");
        vm.unchanged_since(&format!("a device_del that failed at {point}"), &before)?;
        vm.memcheck()?;
    }
    vm.unplug("d0")?;
    vm.expect_blocks(&[(32..=35, "absent")])
}

fn a_failure_of_auto_online_leaves_known_memory_offline(vm: &mut Vm) -> Result<()> {
    vm.cmd("auto_online online_movable")?;
    let mut points = points(vm, "online")?.into_iter().filter(|point| point != RELABEL);
    let Some(point) = points.next_back() else { bail!("no point") };
    vm.cmd(&format!("inject {point} ENOMEM --times 8"))?;
    // The memory is known, and that is what the firmware asks.
    vm.plug(&dimm("d0", mib(256)))?;
    vm.expect_blocks(&[(32..=33, "offline")])?;
    vm.cmd("inject off")?;
    vm.cmd("online_movable 32-33").map(drop)
}

fn what_inject_does_not_know_is_refused(vm: &mut Vm) -> Result<()> {
    vm.fails_with_one_of("inject nowhere ENOMEM", &["ENOENT", "EINVAL"])?;
    vm.fails("inject online.begin EWHATEVER", "EINVAL")?;
    vm.fails("inject online.begin", "EINVAL")?;
    vm.fails("inject online.begin ENOMEM --times 0", "EINVAL")?;
    vm.fails("inject online.begin ENOMEM --times 99999999999999999999", "EINVAL")?;
    vm.cmd("inject online.begin ENOMEM --times 2")?;
    let armed: Vec<_> = vm.ask::<Points>("inject -l")?.points.into_iter().filter_map(|point| point.armed).collect();
    same("armed", &armed, &["ENOMEM"])?;
    vm.plug(&dimm("d0", mib(128)))?;
    for _ in 0..2 {
        vm.fails("online 32", "ENOMEM")?;
    }
    vm.cmd("online 32").map(drop)
}
