//! Bringing memory into use: zones, policies, and what cannot be.

use anyhow::{Context, Result, ensure};
use boot::size::mib;
use system_tests::check::same;
use system_tests::dimms::{dimm, dimm_on};
use system_tests::memory::BLOCK_BYTES;
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::Vm;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(online_adds_what_the_head_leaves),
        scenario!(each_zone_gets_the_blocks_it_was_asked_for),
        scenario!(the_first_valid_zone_is_the_one_obtained),
        scenario!(any_order_of_blocks_can_come_online_as_movable),
        scenario!(what_cannot_come_online_changes_nothing),
        scenario!(auto_online_takes_what_comes_and_leaves_what_is_there),
        scenario!(the_default_state_parameter_is_auto_online).params(&["memhp_default_state=online_kernel"]),
    ]
}

fn online_adds_what_the_head_leaves(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(384)))?;
    let before = vm.usage()?;
    vm.cmd("online 34")?;
    let after = vm.usage()?;
    let managed = vm.managed(34)?;
    ensure!((BLOCK_BYTES - (2 << 20)..BLOCK_BYTES).contains(&managed), "managed: {managed}");
    same("total", after.total, before.total + managed)?;
    same("offline", after.offline, 2 * BLOCK_BYTES)?;
    vm.expect_blocks(&[(32..=33, "offline"), (34..=34, "Normal")])?;

    let online = vm.trace()?;
    vm.fails("online 34", "EINVAL")?;
    vm.unchanged_since("online twice", &online)?;

    vm.cmd("offline 34")?;
    vm.expect_usage(&before)
}

fn each_zone_gets_the_blocks_it_was_asked_for(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm_on("d0", mib(384), 0))?;
    let before = vm.usage()?;
    vm.cmd("online_kernel 32")?;
    vm.cmd("online_movable 33")?;
    vm.expect_blocks(&[(32..=32, "Normal"), (33..=33, "Movable"), (34..=34, "offline")])?;
    let after = vm.usage()?;
    for (zone, block) in [("Normal", 32), ("Movable", 33)] {
        let (was, is) = (before.zone(0, zone), after.zone(0, zone));
        same(&format!("present in {zone}"), is.present, was.present + BLOCK_BYTES)?;
        same(&format!("managed in {zone}"), is.managed, was.managed + vm.managed(block)?)?;
    }
    Ok(())
}

fn the_first_valid_zone_is_the_one_obtained(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm_on("d0", mib(1024), 0))?;
    // Between two Movable blocks, beyond them, below them, and between Normal and Movable.
    vm.cmd("online_movable 34,36")?;
    for block in [35, 39, 32, 33] {
        obtains_what_was_shown(vm, block)?;
    }
    // The same questions under the other policy, where the ratio runs out; a module goes to one zone as a whole.
    vm.unplug("d0")?;
    for id in ["d0", "d1", "d2", "d3"] {
        vm.plug(&dimm_on(id, mib(256), 0))?;
    }
    vm.cmd("policy auto-movable --ratio 50")?;
    for block in [34, 39, 32, 33, 38, 37] {
        obtains_what_was_shown(vm, block)?;
    }
    let zones: Vec<_> = vm.blocks()?.range(32..).map(|(_, block)| block.place().to_owned()).collect();
    ensure!(zones.iter().any(|zone| zone == "Normal") && zones.iter().any(|zone| zone == "Movable"), "{zones:?}");
    Ok(())
}

fn obtains_what_was_shown(vm: &mut Vm, number: u64) -> Result<()> {
    let shown = vm.block(number)?.valid_zones;
    let first = shown.first().cloned().with_context(|| format!("block {number} has no valid zone"))?;
    vm.cmd(&format!("online {number}"))?;
    same(&format!("zone of block {number}, shown {shown:?}"), vm.block(number)?.place(), first)
}

fn any_order_of_blocks_can_come_online_as_movable(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(1024)))?;
    // Below a Movable block, inside a Normal span, scattered: all of them work.
    for (command, block) in [
        ("online_kernel", 39),
        ("online_movable", 35),
        ("online_kernel", 32),
        ("online_movable", 38),
        ("online_movable", 33),
    ] {
        vm.cmd(&format!("{command} {block}"))?;
        vm.memcheck()?;
    }
    vm.cmd("online_movable 37,34,36")?;
    vm.expect_blocks(&[(32..=32, "Normal"), (33..=38, "Movable"), (39..=39, "Normal")])?;
    vm.cmd("offline 33,38,32,35-37,39,34")?;
    vm.expect_blocks(&[(32..=39, "offline")])
}

fn what_cannot_come_online_changes_nothing(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(384)))?;
    vm.cmd("online_movable 33")?;
    let before = vm.trace()?;
    vm.fails("online 99", "ENOENT")?;
    vm.fails("online 31", "ENOENT")?;
    vm.fails("online dimm7", "ENOENT")?;
    vm.fails_with_one_of("online abc", &["ENOENT", "EINVAL"])?;
    vm.fails("online", "EINVAL")?;
    vm.fails("online \"\"", "EINVAL")?;
    vm.fails("online 32 34", "EINVAL")?;
    vm.fails("online 34-32", "EINVAL")?;
    vm.fails("online -1", "EINVAL")?;
    vm.fails("online 32,,34", "EINVAL")?;
    vm.fails("online 99999999999999999999999999", "EINVAL")?;
    vm.fails("online 4294967328", "EINVAL")?;
    vm.fails("online 18446744073709551648", "EINVAL")?;
    vm.fails("online_movable 33", "EINVAL")?;
    vm.fails("online_movable 32-33", "EINVAL")?;
    // All or none: one of them is online already, or is not there.
    vm.fails("online 32-34", "EINVAL")?;
    vm.fails("online 34-35", "ENOENT")?;
    vm.fails("offline 32", "EINVAL")?;
    vm.fails("offline 33-34", "EINVAL")?;
    vm.fails("offline 99", "ENOENT")?;
    vm.fails("offline", "EINVAL")?;
    vm.fails("remove 33", "EINVAL")?;
    vm.fails("remove dimm0", "EBUSY")?;
    vm.fails("remove 0", "EINVAL")?;
    vm.fails("auto_online sometimes", "EINVAL")?;
    vm.fails("memmap_on_memory perhaps", "EINVAL")?;
    vm.fails("policy random", "EINVAL")?;
    vm.unchanged_since("a refused command", &before)
}

fn auto_online_takes_what_comes_and_leaves_what_is_there(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("old", mib(128)))?;
    for (number, (setting, place)) in
        [("online_movable", "Movable"), ("online_kernel", "Normal"), ("online", "Normal"), ("offline", "offline")]
            .into_iter()
            .enumerate()
    {
        vm.cmd(&format!("auto_online {setting}"))?;
        same("auto_online", vm.cmd("auto_online")?.trim(), setting)?;
        let before = vm.usage()?;
        vm.plug(&dimm(&format!("d{number}"), mib(256)))?;
        // The answer to the firmware comes when everything is over, so there is nothing to wait for.
        let first = 33 + 2 * number as u64;
        vm.expect_blocks(&[(32..=32, "offline"), (first..=first + 1, place)])?;
        let gained = if place == "offline" { 0 } else { vm.managed(first)? + vm.managed(first + 1)? };
        same(&format!("total gained with {setting}"), vm.usage()?.total - before.total, gained)?;
    }
    same("policy", &vm.json("policy")?["auto_online"], "offline")
}

fn the_default_state_parameter_is_auto_online(vm: &mut Vm) -> Result<()> {
    same("auto_online", vm.cmd("auto_online")?.trim(), "online_kernel")?;
    same("policy", &vm.json("policy")?["auto_online"], "online_kernel")?;
    vm.plug(&dimm("d0", mib(256)))?;
    vm.expect_blocks(&[(32..=33, "Normal")])
}
