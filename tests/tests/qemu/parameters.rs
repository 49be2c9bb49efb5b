//! Kernel parameters, as they come through fw_cfg.

use anyhow::{Result, ensure};
use boot::qemu::{Exit, Machine};
use boot::size::{gib, mib};
use serde_json::json;
use system_tests::check::{contains, lacks, same};
use system_tests::dimms::dimm;
use system_tests::memory::{BLOCK_BYTES, FRAME_BYTES};
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::Vm;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(policies_are_read_back).params(&[
            "memhp_default_state=online_movable",
            "memory_hotplug.memmap_on_memory=off",
            "memory_hotplug.online_policy=auto-movable",
            "memory_hotplug.auto_movable_ratio=150",
            "memory_hotplug.auto_movable_numa_aware=off",
        ]),
        scenario!(what_is_unknown_is_reported_and_ignored).params(&[
            "frobnicate=7",
            "memhp_default_state=sometimes",
            "memory_hotplug.auto_movable_ratio=many",
            "=",
            "loglevel=99999999999999999999",
        ]),
        scenario!(commands_run_after_boot).params(&["run=\"kfill 1M; online 99; memcheck\""]),
        scenario!(a_machine_can_be_told_to_boot_and_leave)
            .params(&["run=\"lsmem; meminfo -J; poweroff\""])
            .unbooted()
            .ends(),
        scenario!(memory_hidden_at_boot_can_be_probed)
            .on(Machine { memory: gib(2), ..Machine::default() })
            .params(&["mem=1G"]),
    ]
}

fn policies_are_read_back(vm: &mut Vm) -> Result<()> {
    let policy = vm.json("policy")?;
    for (name, value) in [
        ("auto_online", json!("online_movable")),
        ("memmap_on_memory", json!(false)),
        ("online_policy", json!("auto-movable")),
        ("auto_movable_ratio", json!(150)),
        ("numa_aware", json!(false)),
    ] {
        same(name, &policy[name], &value)?;
    }
    vm.plug(&dimm("d0", mib(128)))?;
    vm.expect_blocks(&[(32..=32, "Movable")])?;
    same("head", vm.head_frames(32)? * FRAME_BYTES, 0)
}

fn what_is_unknown_is_reported_and_ignored(vm: &mut Vm) -> Result<()> {
    let log = vm.kernel_log()?.join("\n");
    for word in ["frobnicate", "sometimes", "many"] {
        contains("dmesg", &log, word)?;
    }
    let policy = vm.json("policy")?;
    same("auto_online", &policy["auto_online"], "offline")?;
    same("ratio", &policy["auto_movable_ratio"], 301)
}

fn commands_run_after_boot(vm: &mut Vm) -> Result<()> {
    vm.cmd("verify 1")?;
    let log = vm.console.log();
    contains("the log", &log, "error: ENOENT: ")?;
    contains("the log", &log, "memcheck: ok")?;
    vm.cmd("free 1").map(drop)
}

fn a_machine_can_be_told_to_boot_and_leave(vm: &mut Vm) -> Result<()> {
    same("exit", vm.end()?, Exit::Success)?;
    let log = vm.console.log();
    contains("the log", &log, "Total online memory")?;
    contains("the log", &log, "\"page_tables\"")?;
    lacks("the log", &log, "error: ")
}

fn memory_hidden_at_boot_can_be_probed(vm: &mut Vm) -> Result<()> {
    let list = vm.json("lsmem")?;
    same("online", &list["online"], &json!(8 * BLOCK_BYTES))?;
    let before = vm.trace()?;
    vm.cmd("probe 0x4000_0000 256M")?;
    vm.expect_blocks(&[(8..=9, "offline"), (10..=10, "absent")])?;
    vm.cmd("online_movable 8-9")?;
    let id = vm.fill("fill 64M --in 8")?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}"))?;
    ensure!(vm.block(8)?.group.is_some_and(|group| group.starts_with("probe")), "{:?}", vm.block(8)?);
    vm.cmd("offline 8-9")?;
    vm.cmd("remove 8-9")?;
    vm.unchanged_since("probe and remove", &before)
}
