//! Which zone a block gets when a policy chooses: what is shown beforehand is what comes, and whole devices go together.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use boot::size::{gib, mib};
use system_tests::check::{contains, same};
use system_tests::dimms::{dimm, dimm_on};
use system_tests::scenario;
use system_tests::scenario::{FIRST_HOT, Scenario};
use system_tests::vm::{Vm, errno_of};

const AUTO_MOVABLE: &str = "memory_hotplug.online_policy=auto-movable";

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(auto_movable_takes_three_devices_for_each_node_of_their_size).params(&[AUTO_MOVABLE]),
        scenario!(auto_movable_takes_six_devices_for_the_machine)
            .params(&[AUTO_MOVABLE, "memory_hotplug.auto_movable_numa_aware=N"]),
        scenario!(auto_movable_decides_about_a_device_once).params(&[AUTO_MOVABLE]),
        scenario!(contig_zones_keeps_to_the_zone_around_a_block),
        scenario!(movable_node_makes_what_no_zone_claims_movable).params(&["movable_node"]),
        scenario!(memory_comes_as_the_default_state_says).params(&["memhp_default_state=online", "movable_node"]),
        scenario!(online_blocks_change_their_zone_with_what_they_hold),
        scenario!(a_change_of_zone_that_is_cancelled_leaves_the_blocks_where_they_are),
        scenario!(boot_blocks_become_movable_but_not_all_of_them),
        scenario!(nothing_becomes_movable_by_policy_while_kernel_memory_is_scarce).params(&["movable_node"]),
        scenario!(boot_memory_goes_but_for_the_reserve),
    ]
}

/// Brings a whole device online by policy, and fails unless it gets the zone that was shown for each of its blocks.
fn obtains(vm: &mut Vm, first: u64, last: u64, zone: &str) -> Result<()> {
    let blocks = vm.blocks()?;
    for (number, block) in blocks.range(first..=last) {
        same(&format!("shown first for block {number}"), block.valid_zones[0].as_str(), zone)?;
    }
    vm.cmd(&format!("online {first}-{last}"))?;
    vm.expect_blocks(&[(first..=last, zone)])
}

/// Devices of 1 GiB on a node with as much boot memory, of which so many can be Movable.
fn come_one_after_the_other(vm: &mut Vm, movable: u64, all: u64) -> Result<()> {
    for number in 0..all {
        vm.plug(&dimm_on(&format!("d{number}"), gib(1), 0))?;
        let first = FIRST_HOT + 8 * number;
        obtains(vm, first, first + 7, if number < movable { "Movable" } else { "Normal" })?;
    }
    // What is Normal licenses nothing, and what goes makes room.
    vm.cmd("offline dimm0")?;
    vm.cmd(&format!("offline dimm{}", all - 1))?;
    let last = FIRST_HOT + 8 * (all - 1);
    obtains(vm, last, last + 7, "Movable")?;
    obtains(vm, FIRST_HOT, FIRST_HOT + 7, "Normal")
}

fn auto_movable_takes_three_devices_for_each_node_of_their_size(vm: &mut Vm) -> Result<()> {
    come_one_after_the_other(vm, 3, 5)?;
    // The other node has a ratio of its own.
    vm.plug(&dimm_on("other", gib(1), 1))?;
    obtains(vm, 72, 79, "Movable")
}

fn auto_movable_takes_six_devices_for_the_machine(vm: &mut Vm) -> Result<()> {
    come_one_after_the_other(vm, 6, 8)
}

fn auto_movable_decides_about_a_device_once(vm: &mut Vm) -> Result<()> {
    // Block by block, in any order, by hand and by itself: 2 GiB fit where 4 GiB do not.
    vm.plug(&dimm_on("small", gib(2), 0))?;
    vm.plug(&dimm_on("large", gib(2), 0))?;
    obtains(vm, 40, 40, "Movable")?;
    obtains(vm, 48, 48, "Normal")?;
    for (first, last) in [(47, 47), (32, 39), (41, 46)] {
        obtains(vm, first, last, "Movable")?;
    }
    vm.cmd("offline dimm0")?;
    obtains(vm, 49, 63, "Normal")?;
    vm.cmd("offline dimm1")?;
    vm.cmd("online_kernel 35")?;
    obtains(vm, 47, 47, "Normal")?;
    obtains(vm, 48, 63, "Movable")?;
    vm.cmd("auto_online online")?;
    vm.plug(&dimm_on("third", gib(2), 0))?;
    vm.expect_blocks(&[(64..=79, "Normal")])
}

fn contig_zones_keeps_to_the_zone_around_a_block(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm_on("d0", gib(1), 0))?;
    vm.cmd("online_movable 32")?;
    // Beside a Movable block, between two of them, and where both zones reach.
    obtains(vm, 33, 33, "Normal")?;
    vm.cmd("offline 33")?;
    vm.cmd("online_movable 36")?;
    obtains(vm, 34, 34, "Movable")?;
    vm.cmd("online_kernel 38")?;
    obtains(vm, 35, 35, "Normal")?;
    obtains(vm, 37, 37, "Normal")?;
    // On a node of its own nothing of that counts.
    vm.plug(&dimm_on("d1", mib(256), 1))?;
    obtains(vm, 40, 41, "Normal")
}

fn movable_node_makes_what_no_zone_claims_movable(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm_on("d0", gib(1), 0))?;
    obtains(vm, 37, 37, "Movable")?;
    obtains(vm, 33, 33, "Movable")?;
    vm.cmd("online_kernel 35")?;
    obtains(vm, 34, 34, "Movable")?;
    obtains(vm, 36, 36, "Movable")?;
    obtains(vm, 32, 32, "Normal")
}

fn memory_comes_as_the_default_state_says(vm: &mut Vm) -> Result<()> {
    same("auto_online", vm.cmd("auto_online")?.trim(), "online")?;
    vm.plug(&dimm("d0", mib(256)))?;
    vm.expect_blocks(&[(32..=33, "Movable")])?;
    vm.cmd("auto_online online_kernel")?;
    vm.plug(&dimm("d1", mib(256)))?;
    vm.expect_blocks(&[(32..=33, "Movable"), (34..=35, "Normal")])
}

fn online_blocks_change_their_zone_with_what_they_hold(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm_on("d0", mib(512), 0))?;
    vm.cmd("online_movable dimm0")?;
    let total = vm.usage()?.total;
    let fill = vm.fill("fill 200M --writers 2 --in 32-33")?;
    for block in [32, 33, 35] {
        vm.cmd(&format!("online_kernel {block}"))?;
        vm.memcheck()?;
    }
    vm.expect_blocks(&[(32..=33, "Normal"), (34..=34, "Movable"), (35..=35, "Normal")])?;
    same("total", vm.usage()?.total, total)?;
    vm.fails("online_kernel 33", "EINVAL")?;
    vm.fails("online 33", "EINVAL")?;
    vm.fails("online_kernel 33-34", "EINVAL")?;
    vm.cmd(&format!("verify {fill}"))?;
    vm.cmd(&format!("free {fill}"))?;

    // The kernel's own memory keeps every one of them in Normal.
    let kfill = vm.fill("kfill 1M --in 33")?;
    let before = vm.trace()?;
    contains("the reason", &vm.fails("online_movable 32-33", "EBUSY")?, "kfill")?;
    vm.unchanged_since("a refused change", &before)?;
    vm.cmd(&format!("free {kfill}"))?;
    vm.cmd("online_movable 32-33,35")?;
    vm.expect_blocks(&[(32..=35, "Movable")])?;
    same("total", vm.usage()?.total, total)?;
    let last = vm.operations()?.pop().map(|operation| (operation.op, operation.start, operation.result));
    same("the journal", last, Some(("online".to_owned(), 35 << 27, "ok".to_owned())))?;
    vm.cmd("offline dimm0").map(drop)
}

/// By somebody at the keyboard, and at once by the next command of the same line, or soon after.
fn a_change_of_zone_that_is_cancelled_leaves_the_blocks_where_they_are(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm_on("d0", mib(512), 0))?;
    vm.cmd("online_movable 32-35")?;
    let fill = vm.fill("fill 400M --writers 2 --in 32-35")?;
    let (mut zone, mut other) = (("online_movable", "Movable"), ("online_kernel", "Normal"));
    let mut cancelled = 0;
    for number in 0..16 {
        let before = vm.usage()?;
        let command = format!("{} 32-35", other.0);
        let end = if number % 4 == 3 {
            vm.interrupt(&command, Duration::ZERO)
        } else {
            let job = vm.job("version")? + 1;
            let meanwhile = "version; ".repeat(number / 4);
            // It may be over.
            vm.cmd(&format!("{command} & {meanwhile}kill {job}")).ok();
            vm.cmd(&format!("wait {job}"))
        };
        match end.as_ref().map_err(errno_of) {
            Ok(_) => (zone, other) = (other, zone),
            Err(Some("ECANCELED")) => {
                cancelled += 1;
                vm.expect_usage(&before)?;
            }
            Err(_) => bail!("{end:?}"),
        }
        vm.expect_blocks(&[(32..=35, zone.1)])?;
        vm.memcheck()?;
        vm.cmd(&format!("verify {fill}"))?;
    }
    ensure!(cancelled > 0, "every change was over before it could be cancelled");
    vm.cmd(&format!("free {fill}")).map(drop)
}

fn boot_blocks_become_movable_but_not_all_of_them(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    let boot = vm.trace()?;
    vm.fails_with_one_of("online_movable 0-15", &["EBUSY", "ENOMEM"])?;
    vm.unchanged_since("a refused change", &boot)?;
    // Most of them hold nothing that stays.
    let mut movable = Vec::new();
    for block in 0..16 {
        if vm.cmd(&format!("online_movable {block}")).is_ok() {
            movable.push(block);
        }
        vm.memcheck()?;
    }
    ensure!(movable.len() >= 8 && movable.len() < 16, "Movable: {movable:?}");
    let usage = vm.usage()?;
    same("total", usage.total, before.total)?;
    ensure!(usage.kernel_available < before.kernel_available - ((8 * 100) << 20), "the kernel has as much as before");
    let id = vm.fill("fill 500M")?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}"))?;
    for block in &movable {
        vm.cmd(&format!("online_kernel {block}"))?;
    }
    vm.expect_usage(&before)
}

fn nothing_becomes_movable_by_policy_while_kernel_memory_is_scarce(vm: &mut Vm) -> Result<()> {
    let usage = vm.usage()?;
    ensure!(usage.kernel_available <= usage.available, "{usage:?}");
    vm.plug(&dimm("d0", mib(256)))?;
    vm.plug(&dimm("d1", mib(256)))?;
    same("shown first", vm.block(32)?.valid_zones[0].as_str(), "Movable")?;
    let taken = (usage.kernel_available >> 20) - 8;
    let id = vm.fill(&format!("kfill {taken}M"))?;
    let left = vm.usage()?.kernel_available;
    ensure!(left < 16 << 20, "the kernel can still get {left}");
    obtains(vm, 32, 33, "Normal")?;
    contains("the log", &vm.kernel_log()?.join("\n"), "kept Normal")?;
    ensure!(vm.usage()?.kernel_available > left + (200 << 20), "Normal memory did not help");
    obtains(vm, 34, 35, "Movable")?;

    // Whoever insists is obeyed, and warned.
    let warnings = |vm: &mut Vm| {
        let log = vm.kernel_log()?;
        Ok::<_, anyhow::Error>(log.iter().filter(|line| line.contains("page tables of all Movable memory")).count())
    };
    vm.cmd("offline 34-35")?;
    same("warnings when Movable memory went", warnings(vm)?, 0)?;
    vm.cmd("offline 32-33")?;
    same("warnings when Normal memory went", warnings(vm)?, 1)?;
    vm.cmd("online_movable 32-33")?;
    vm.expect_blocks(&[(32..=33, "Movable")])?;
    same("warnings when Movable memory came", warnings(vm)?, 2)?;
    vm.cmd(&format!("free {id}")).map(drop)
}

fn boot_memory_goes_but_for_the_reserve(vm: &mut Vm) -> Result<()> {
    let verdict =
        |vm: &mut Vm, block: u64| Ok::<_, anyhow::Error>(vm.json(&format!("why {block}"))?["blocks"][0].clone());
    let mut last = 14;
    while verdict(vm, last)?["verdict"] != "ok" {
        last -= 1;
    }
    // All that is free elsewhere is taken, piece by piece.
    let (mut fills, mut pages) = (Vec::new(), (512 << 20) / 4096);
    while pages > 0 {
        match vm.fill(&format!("kfill {}K --in 0-{},{}-15", pages * 4, last - 1, last + 1)) {
            Ok(id) => fills.push(id),
            Err(_) => pages /= 2,
        }
    }
    let before = vm.trace()?;
    for verb in ["offline", "online_movable"] {
        contains("the reason", &vm.fails(&format!("{verb} {last}"), "ENOMEM")?, "hotplug itself")?;
        vm.unchanged_since(verb, &before)?;
    }
    let verdict = verdict(vm, last)?;
    same("the verdict", verdict["verdict"].as_str(), Some("blocked"))?;
    same("the owner", verdict["blockers"][0]["owner"].as_str(), Some("reserve"))?;

    vm.cmd(&format!("free {}", fills[0]))?;
    vm.cmd(&format!("offline {last}"))?;
    vm.memcheck()
}
