//! Listeners: who is asked, in which order, and who hears that nothing came of it.

use anyhow::{Context, Result};
use boot::size::mib;
use system_tests::check::{contains, same};
use system_tests::dimms::{BUSY, dimm};
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::Vm;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(listeners_are_asked_by_priority_and_told_of_a_veto_in_reverse),
        scenario!(a_veto_against_offline_refuses_device_del),
    ]
}

/// What scripted listeners heard since the last look: `name call`, with `veto` where one refused.
fn heard(vm: &mut Vm) -> Result<Vec<String>> {
    let log = vm.json("notify log")?;
    let calls = log["calls"].as_array().context("no calls")?.clone();
    let scripted = calls.iter().filter(|call| ["low", "mid", "high"].iter().any(|name| call["listener"] == *name));
    let words = scripted.map(|call| {
        let veto = if call["call"] == "prepare" && call["answer"] == "veto" { " veto" } else { "" };
        let text = |key: &str| call[key].as_str().unwrap_or("?").to_owned();
        format!("{} {}{veto}", text("listener"), text("call"))
    });
    Ok(words.collect())
}

fn three_listeners(vm: &mut Vm) -> Result<()> {
    vm.cmd("notify add low -5")?;
    vm.cmd("notify add high 10")?;
    vm.cmd("notify add mid 5")?;
    vm.cmd("notify log").map(drop)
}

fn listeners_are_asked_by_priority_and_told_of_a_veto_in_reverse(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    three_listeners(vm)?;
    for (change, command, undo) in [("online", "online 32", "offline 32"), ("offline", "offline 33", "online 33")] {
        if change == "offline" {
            vm.cmd("online 33")?;
        }
        vm.cmd(&format!("notify veto low {change}"))?;
        heard(vm)?;
        let before = vm.trace()?;
        let sentence = vm.fails(command, "EBUSY")?;
        contains("who refused", &sentence, "low")?;
        vm.unchanged_since("a veto", &before)?;
        let calls = heard(vm)?;
        same("calls", calls, ["high prepare", "mid prepare", "low prepare veto", "mid cancelled", "high cancelled"])?;

        vm.cmd("notify allow low")?;
        vm.cmd(command)?;
        let mut calls = heard(vm)?;
        let told = calls.split_off(3);
        same("asked", calls, ["high prepare", "mid prepare", "low prepare"])?;
        same("told", told.iter().filter(|call| call.ends_with("committed")).count(), 3)?;
        vm.cmd(undo)?;
    }
    vm.fails("notify add low 3", "EEXIST")?;
    vm.fails("notify veto nobody online", "ENOENT")?;
    vm.fails("notify veto low sideways", "EINVAL")?;
    vm.fails("notify add \"bad name\" 3", "EINVAL")?;
    vm.fails("notify add loud 99999999999", "EINVAL")?;
    vm.cmd("notify remove low")?;
    vm.fails("notify remove low", "ENOENT").map(drop)
}

fn a_veto_against_offline_refuses_device_del(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    vm.cmd("online_movable 32")?;
    vm.cmd("online_kernel 33")?;
    three_listeners(vm)?;
    vm.cmd("notify veto mid offline")?;
    let before = vm.trace()?;
    same("answer", vm.unplug_status("d0")?, BUSY)?;
    vm.unchanged_since("a vetoed device_del", &before)?;
    vm.cmd("notify remove mid")?;
    vm.unplug("d0")?;
    vm.expect_blocks(&[(32..=33, "absent")])
}
