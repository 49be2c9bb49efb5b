//! Which memory there is: at boot, and after modules came.

use anyhow::{Result, ensure};
use boot::ost;
use boot::plug;
use boot::qemu::Machine;
use boot::size::mib;
use serde_json::json;
use system_tests::check::{contains, same};
use system_tests::dimms::{SUCCESS, dimm, dimm_at, dimm_on};
use system_tests::memory::{BLOCK_BYTES, Usage};
use system_tests::scenario;
use system_tests::scenario::{Scenario, two_nodes};
use system_tests::vm::Vm;

use crate::iomem;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let cold = vec![dimm_on("d0", mib(128), 0), dimm_on("d1", mib(256), 1), dimm("d2", mib(1024))];
    vec![
        scenario!(boot_memory_is_online_in_normal_of_its_node),
        scenario!(a_dimm_comes_offline_and_the_firmware_hears_success),
        scenario!(a_dimm_belongs_to_its_own_node_not_to_that_of_the_window),
        scenario!(dimms_of_different_sizes_fill_slots_without_overlap),
        scenario!(cold_plugged_dimms_are_there_after_boot).on(Machine { dimms: cold, ..two_nodes() }),
        scenario!(a_dimm_at_a_chosen_address_leaves_room_below),
        scenario!(two_dimms_that_came_while_the_guest_stood_still_are_both_found),
        scenario!(what_qemu_refuses_the_guest_never_sees),
        scenario!(only_memory_that_is_known_to_be_there_can_be_probed),
    ]
}

fn boot_memory_is_online_in_normal_of_its_node(vm: &mut Vm) -> Result<()> {
    let blocks = vm.blocks()?;
    same("present blocks", blocks.keys().copied().collect::<Vec<_>>(), (0..16).collect::<Vec<_>>())?;
    for (number, block) in &blocks {
        same(&format!("place of block {number}"), block.place(), "Normal")?;
        same(&format!("node of block {number}"), block.node, number / 8)?;
        same(&format!("start of block {number}"), block.start, number * BLOCK_BYTES)?;
    }
    let list = vm.json("lsmem")?;
    same("block size", &list["block_size"], &json!(BLOCK_BYTES))?;
    same("online", &list["online"], &json!(16 * BLOCK_BYTES))?;
    same("offline", &list["offline"], &json!(0))?;
    ensure!(vm.groups()?.values().all(|group| group.kind == "boot"), "{:?}", vm.groups()?);

    let usage = vm.usage()?;
    ensure!(usage.free <= usage.total && usage.total < 16 * BLOCK_BYTES, "{usage:?}");
    same("offline in meminfo", usage.offline, 0)?;
    // The struct pages of 16 blocks, 32 bytes a frame, lie in the blocks themselves. Those at both ends hold something.
    same("memmap", (usage.memmap.used, usage.memmap.reserved), (2 << 20, 16 << 20))
}

fn a_dimm_comes_offline_and_the_firmware_hears_success(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    vm.plug(&dimm("d0", mib(384)))?;

    vm.expect_blocks(&[(0..=15, "Normal"), (16..=31, "absent"), (32..=34, "offline"), (35..=36, "absent")])?;
    for number in 32..=34 {
        let block = vm.block(number)?;
        same("valid zones", &block.valid_zones, &["Normal".to_owned(), "Movable".to_owned()])?;
        same("group", block.group.as_deref(), Some("dimm0"))?;
    }
    let after = vm.usage()?;
    same("total", after.total, before.total)?;
    same("offline", after.offline, 3 * BLOCK_BYTES)?;
    let (source, status) = vm.last_word(0)?;
    ensure!(matches!(source, 1 | 0x200) && status == SUCCESS, "last _OST: source {source:#x}, status {status:#x}");

    let table = vm.cmd("lsmem")?;
    ensure!(table.lines().any(|line| line.contains("32-34") && line.contains("offline")), "{table}");
    Ok(())
}

fn a_dimm_belongs_to_its_own_node_not_to_that_of_the_window(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm_on("d0", mib(128), 0))?;
    vm.plug(&dimm_on("d1", mib(128), 1))?;
    same("node of d0", vm.block(32)?.node, 0)?;
    same("node of d1", vm.block(33)?.node, 1)?;
    let before = vm.usage()?;
    vm.cmd("online 32,33")?;
    let after = vm.usage()?;
    for node in [0, 1] {
        let present = |usage: &Usage| usage.zone(node, "Normal").present;
        same(&format!("present on node {node}"), present(&after), present(&before) + BLOCK_BYTES)?;
    }
    Ok(())
}

fn dimms_of_different_sizes_fill_slots_without_overlap(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm_on("d0", mib(128), 0))?;
    vm.plug(&dimm_on("d1", mib(256), 1))?;
    vm.plug(&dimm("d2", mib(1024)))?;
    three_dimms_are_known(vm)
}

fn cold_plugged_dimms_are_there_after_boot(vm: &mut Vm) -> Result<()> {
    contains("banner", &vm.console.log(), " of memory in 16 blocks;")?;
    three_dimms_are_known(vm)
}

/// Of 128 MiB, 256 MiB and 1 GiB, one after the other.
fn three_dimms_are_known(vm: &mut Vm) -> Result<()> {
    vm.expect_blocks(&[(0..=15, "Normal"), (32..=42, "offline"), (43..=44, "absent")])?;
    let groups = vm.groups()?;
    for (name, slot, first, last) in [("dimm0", 0, 32, 32), ("dimm1", 1, 33, 34), ("dimm2", 2, 35, 42)] {
        let group = &groups[name];
        same(name, (group.slot, group.first, group.last), (Some(slot), first, last))?;
        same(name, (group.kind.as_str(), group.online, group.offline), ("dimm", 0, group.size))?;
    }
    let map = iomem::map(vm)?;
    iomem::is_a_tree(&map)?;
    for (start, blocks) in [(32, 1), (33, 2), (35, 8)] {
        let (start, end) = (start * BLOCK_BYTES, (start + blocks) * BLOCK_BYTES - 1);
        ensure!(
            map.iter().any(|entry| (entry.start, entry.end) == (start, end)),
            "no {start:#x}-{end:#x} in {map:#x?}"
        );
    }
    vm.cmd("online_movable 32-42")?;
    vm.memcheck()?;
    vm.cmd("offline 32-42")?;
    vm.expect_blocks(&[(32..=42, "offline")])
}

fn a_dimm_at_a_chosen_address_leaves_room_below(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm_at("high", mib(256), 0x1_8000_0000))?;
    vm.expect_blocks(&[(32..=47, "absent"), (48..=49, "offline"), (50..=50, "absent")])?;
    vm.plug(&dimm("low", mib(256)))?;
    vm.expect_blocks(&[(32..=33, "offline"), (34..=47, "absent"), (48..=49, "offline")])?;
    for blocks in ["48-49", "32-33"] {
        vm.cmd(&format!("online {blocks}"))?;
        vm.memcheck()?;
    }
    for block in [32, 33, 48, 49] {
        let id = vm.fill(&format!("fill 8M --in {block}"))?;
        vm.cmd(&format!("verify {id}"))?;
        vm.cmd(&format!("free {id}"))?;
    }
    Ok(())
}

fn two_dimms_that_came_while_the_guest_stood_still_are_both_found(vm: &mut Vm) -> Result<()> {
    vm.qmp("stop", json!({}))?;
    plug::insert(&mut vm.qmp, &dimm("d0", mib(128)))?;
    plug::insert(&mut vm.qmp, &dimm("d1", mib(256)))?;
    vm.qmp("cont", json!({}))?;
    let answers = vm.answers(&["d0", "d1"], ost::Event::Insertion)?;
    ensure!(answers.values().all(|status| *status == SUCCESS), "{answers:?}");
    vm.expect_blocks(&[(32..=34, "offline"), (35..=35, "absent")])
}

fn what_qemu_refuses_the_guest_never_sees(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    let before = vm.trace()?;
    let one = mib(128);
    vm.qemu_refuses("an address that is not aligned", &dimm_at("x", one, 0x1_8000_1000), json!({}))?;
    vm.qemu_refuses("an address that is taken", &dimm_at("x", one, 0x1_0800_0000), json!({}))?;
    vm.qemu_refuses("an address below the window", &dimm_at("x", one, 0x8000_0000), json!({}))?;
    vm.qemu_refuses("an address beyond the window", &dimm_at("x", one, 0x40_0000_0000), json!({}))?;
    vm.qemu_refuses("a taken slot", &dimm("x", one), json!({"slot": 0}))?;
    vm.qemu_refuses("a slot beyond the last", &dimm("x", one), json!({"slot": 16}))?;
    vm.qemu_refuses("a node that is not there", &dimm_on("x", one, 9), json!({}))?;
    vm.qemu_refuses("more than maxmem", &dimm("x", mib(15 << 10)), json!({}))?;
    vm.qemu_refuses("no size", &dimm("x", mib(0)), json!({}))?;
    vm.unchanged_since("what QEMU refused", &before)?;

    // With every slot taken there is none for a seventeenth.
    for slot in 1..16 {
        vm.plug(&dimm(&format!("d{slot}"), one))?;
    }
    vm.qemu_refuses("no free slot", &dimm("x", one), json!({}))?;
    vm.expect_blocks(&[(32..=48, "offline"), (49..=49, "absent")])
}

fn only_memory_that_is_known_to_be_there_can_be_probed(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    vm.fails("probe 0x2_0000_0000", "ENODEV")?;
    vm.fails("probe 0x2_0000_0000 1G", "ENODEV")?;
    vm.fails("probe 0x1_0000_1000", "EINVAL")?;
    vm.fails("probe 0", "EEXIST")?;
    vm.fails("probe 0x4000_0000_0000", "EINVAL")?;
    vm.fails("probe 0xffff_ffff_ffff_ffff", "EINVAL")?;
    vm.unchanged_since("a refused probe", &before)?;

    // A module that was removed by hand is still in its slot.
    vm.plug(&dimm("d0", mib(256)))?;
    let plugged = vm.trace()?;
    vm.fails("probe 0x1_0000_0000", "EEXIST")?;
    vm.cmd("remove dimm0")?;
    vm.expect_blocks(&[(32..=33, "absent")])?;
    vm.unchanged_since("remove after plug", &before)?;
    vm.cmd("probe 0x1_0000_0000 256M")?;
    vm.expect_blocks(&[(32..=33, "offline")])?;
    vm.fails("probe 0x1_0000_0000 256M", "EEXIST")?;
    vm.expect_usage(&plugged.usage())?;
    vm.unplug("d0")?;
    vm.unchanged_since("plug, remove, probe and unplug", &before)
}
