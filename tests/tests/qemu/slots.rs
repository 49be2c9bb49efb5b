//! The corners of the DIMM controller: odd sizes and places, and events that overtake each other.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use boot::ost;
use boot::plug;
use boot::qemu::{Machine, backend};
use boot::size::{gib, mib};
use serde_json::json;
use system_tests::check::same;
use system_tests::dimms::{SUCCESS, dimm, dimm_at, dimm_on};
use system_tests::memory::BLOCK_BYTES;
use system_tests::scenario;
use system_tests::scenario::{FIRST_HOT, Scenario, two_nodes};
use system_tests::vm::Vm;

use crate::iomem;

const FOUR_GIB: u64 = FIRST_HOT * BLOCK_BYTES;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut alike: Vec<_> = (0..14).map(|number| dimm(&format!("d{number}"), mib(128))).collect();
    alike.insert(6, dimm_at("small", mib(64), 0x2_0000_0000));
    vec![
        scenario!(whole_blocks_of_a_dimm_are_used_and_the_rest_is_reported),
        scenario!(a_dimm_off_the_block_grid_gives_its_whole_blocks),
        scenario!(a_dimm_without_a_whole_block_is_refused_and_can_go),
        scenario!(a_dimm_beyond_the_addresses_that_can_be_held_is_refused_and_can_go)
            .emulated()
            .on(Machine { maxmem: gib(70 << 10), ..Machine::default() }),
        scenario!(a_refused_dimm_is_told_until_it_is_taken_after_all),
        scenario!(dimms_that_are_alike_are_told_in_one_line_at_boot).on(Machine { dimms: alike, ..two_nodes() }),
        scenario!(a_dimm_deleted_before_it_was_handled_leaves_nothing),
        scenario!(one_dimm_comes_while_another_goes),
        scenario!(a_dimm_asked_for_twice_goes_once),
        scenario!(events_of_empty_slots_are_cleared),
    ]
}

/// The range of `iomem` that ends or starts as said, and belongs to somebody.
fn reported(vm: &mut Vm, start: u64, bytes: u64) -> Result<()> {
    let map = iomem::map(vm)?;
    iomem::is_a_tree(&map)?;
    let found = map.iter().find(|entry| (entry.start, entry.end) == (start, start + bytes - 1));
    ensure!(found.is_some(), "iomem does not report {start:#x}-{:#x}: {map:#x?}", start + bytes - 1);
    Ok(())
}

fn whole_blocks_of_a_dimm_are_used_and_the_rest_is_reported(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    vm.plug(&dimm("d0", mib(192)))?;
    vm.expect_blocks(&[(32..=32, "offline"), (33..=33, "absent")])?;
    reported(vm, FOUR_GIB + BLOCK_BYTES, 64 << 20)?;
    let log = vm.kernel_log()?;
    ensure!(log.iter().any(|line| line.contains("dimm") && line.contains("64 MiB")), "no word of the tail: {log:#?}");

    vm.cmd("online 32")?;
    vm.memcheck()?;
    vm.unplug("d0")?;
    vm.unchanged_since("a DIMM that came and went", &before)
}

fn a_dimm_off_the_block_grid_gives_its_whole_blocks(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    // From 2 MiB into block 32 to 2 MiB into block 34: one whole block.
    vm.plug(&dimm_at("d0", mib(256), FOUR_GIB + (2 << 20)))?;
    vm.expect_blocks(&[(32..=32, "absent"), (33..=33, "offline"), (34..=34, "absent")])?;
    reported(vm, FOUR_GIB + (2 << 20), 126 << 20)?;
    reported(vm, FOUR_GIB + 2 * BLOCK_BYTES, 2 << 20)?;
    vm.cmd("online_movable 33")?;

    // A neighbour that shares block 34 and brings block 35.
    vm.plug(&dimm_at("d1", mib(254), FOUR_GIB + 2 * BLOCK_BYTES + (2 << 20)))?;
    vm.expect_blocks(&[(33..=33, "Movable"), (34..=34, "absent"), (35..=35, "offline"), (36..=36, "absent")])?;
    vm.unplug("d0")?;
    vm.expect_blocks(&[(33..=34, "absent"), (35..=35, "offline")])?;
    vm.unplug("d1")?;
    vm.unchanged_since("DIMMs that came and went", &before)
}

fn a_dimm_without_a_whole_block_is_refused_and_can_go(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    for module in [
        dimm("small", mib(64)),
        dimm_at("astride", mib(128), FOUR_GIB + (64 << 20)),
        dimm_at("tiny", mib(2), FOUR_GIB + BLOCK_BYTES - (2 << 20)),
    ] {
        let id = module.id.clone().unwrap_or_default();
        let status = vm.plug_status(&module)?;
        ensure!(status != SUCCESS, "{id}: the guest claims success");
        vm.unchanged_since("a DIMM without a whole block", &before)?;
        same(&id, vm.refused()?, BTreeMap::from([("dimm0".to_owned(), "it holds no whole block".to_owned())]))?;
        vm.unplug(&id)?;
        same(&format!("{id}, gone"), vm.refused()?, BTreeMap::new())?;
        vm.unchanged_since("a DIMM without a whole block that went", &before)?;
    }
    Ok(())
}

fn a_dimm_beyond_the_addresses_that_can_be_held_is_refused_and_can_go(vm: &mut Vm) -> Result<()> {
    const END: u64 = 64 << 40;
    let before = vm.trace()?;
    for (id, address) in [("beyond", END), ("astride", END - BLOCK_BYTES)] {
        let status = vm.plug_status(&dimm_at(id, mib(256), address))?;
        ensure!(status != SUCCESS, "{id}: the guest claims success");
        let log = vm.kernel_log()?;
        let place = format!("{address:#x}-{:#x}", address + (256 << 20) - 1);
        let reason = format!("dimm0: 256 MiB at {place}, node 0, not added: it lies beyond the addresses");
        ensure!(log.iter().any(|line| line.contains(&reason)), "{id}: not in the log: {reason}\n{log:#?}");
        vm.unchanged_since(id, &before)?;
        vm.unplug(id)?;
        vm.unchanged_since(&format!("{id}, gone"), &before)?;
    }
    vm.plug(&dimm_at("last", mib(256), END - 2 * BLOCK_BYTES))?;
    vm.cmd("online_movable dimm0")?;
    vm.memcheck()?;
    vm.unplug("last")?;
    vm.unchanged_since("the last blocks that can be, gone", &before)
}

fn a_refused_dimm_is_told_until_it_is_taken_after_all(vm: &mut Vm) -> Result<()> {
    vm.cmd("inject add.map ENOMEM")?;
    let status = vm.plug_status(&dimm_on("d0", mib(256), 1))?;
    ensure!(status != SUCCESS, "the guest claims success");
    let why = "failure injected at add.map";
    same("refused", vm.refused()?, BTreeMap::from([("dimm0".to_owned(), why.to_owned())]))?;
    let list = vm.json("groups")?;
    let group = list["groups"].as_array().and_then(|groups| groups.iter().find(|group| group["name"] == "dimm0"));
    let group = group.context("no dimm0")?;
    same("blocks", (&group["first"], &group["last"]), (&json!(null), &json!(null)))?;
    same("place", (&group["start"], &group["size"]), (&json!(FOUR_GIB), &json!(256 << 20)))?;
    same("slot and node", (&group["slot"], &group["node"]), (&json!(0), &json!(1)))?;
    let table = vm.cmd("groups")?;
    ensure!(table.lines().any(|line| line.ends_with(&format!("refused: {why}"))), "{table}");

    vm.cmd("inject add.map EIO")?;
    same("sentence", vm.fails("probe 0x1_0000_0000", "EIO")?, format!("dimm0: {why}"))?;
    same("DIMMs that are refused", vm.refused()?.len(), 1)?;
    vm.cmd("probe 0x1_0000_0000")?;
    same("refused", vm.refused()?, BTreeMap::new())?;
    same("state", &vm.json("groups")?["groups"][2]["state"], &json!("present"))?;

    vm.plug_status(&dimm("small", mib(64)))?;
    same("sentence", vm.fails("probe 0x1_1000_0000", "EINVAL")?.as_str(), "dimm1: it holds no whole block")
}

fn dimms_that_are_alike_are_told_in_one_line_at_boot(vm: &mut Vm) -> Result<()> {
    let log = vm.kernel_log()?;
    let said: Vec<_> = log.iter().filter_map(|line| line.split_once("dimm: ")).map(|(_, said)| said).collect();
    same("lines", said.len(), 2)?;
    ensure!(said[0].starts_with("dimm6: 64 MiB at ") && said[0].ends_with(": it holds no whole block"), "{said:?}");
    same("the others", said[1], "14 DIMMs of 128 MiB each added on node 0: dimm0-dimm5, dimm7-dimm14")
}

fn a_dimm_deleted_before_it_was_handled_leaves_nothing(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    for _ in 0..3 {
        vm.qmp("stop", json!({}))?;
        plug::insert(&mut vm.qmp, &dimm("d0", mib(256)))?;
        vm.qmp("device_del", json!({"id": "d0"}))?;
        vm.qmp("cont", json!({}))?;
        let answers = vm.answers(&["d0"], ost::Event::Ejection)?;
        ensure!(answers["d0"] == SUCCESS, "{answers:?}");
        vm.qmp("object-del", json!({"id": backend("d0")}))?;
        vm.expect_blocks(&[(32..=33, "absent")])?;
        vm.unchanged_since("a DIMM that nobody saw", &before)?;
    }
    vm.plug(&dimm("d1", mib(256)))?;
    vm.expect_blocks(&[(32..=33, "offline")])
}

fn one_dimm_comes_while_another_goes(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    vm.cmd("online_movable dimm0")?;
    vm.qmp("stop", json!({}))?;
    plug::insert(&mut vm.qmp, &dimm("d1", mib(128)))?;
    vm.qmp("device_del", json!({"id": "d0"}))?;
    plug::insert(&mut vm.qmp, &dimm("d2", mib(128)))?;
    vm.qmp("cont", json!({}))?;
    vm.wait_for("both to come and one to go", |vm| {
        let modules = vm.modules()?;
        let blocks = vm.blocks()?;
        let settled = !modules.contains_key("d0") && [34, 35].iter().all(|block| blocks.contains_key(block));
        Ok(settled.then_some(()))
    })?;
    vm.expect_blocks(&[(32..=33, "absent"), (34..=35, "offline"), (36..=36, "absent")])
}

fn a_dimm_asked_for_twice_goes_once(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    vm.plug(&dimm("d0", mib(256)))?;
    vm.cmd("online dimm0")?;
    vm.qmp("stop", json!({}))?;
    vm.qmp("device_del", json!({"id": "d0"}))?;
    // Some QEMUs refuse the second request, others pass it on.
    vm.qmp("device_del", json!({"id": "d0"})).ok();
    vm.qmp("cont", json!({}))?;
    let answers = vm.answers(&["d0"], ost::Event::Ejection)?;
    ensure!(answers["d0"] == SUCCESS, "{answers:?}");
    vm.qmp("object-del", json!({"id": backend("d0")}))?;
    vm.unchanged_since("a DIMM that came and went", &before)?;
    vm.plug(&dimm("d0", mib(256)))?;
    vm.expect_blocks(&[(32..=33, "offline")])
}

/// The host pokes the controller: a module leaves while its events are pending, so that the slot is empty and they stay.
fn events_of_empty_slots_are_cleared(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    for (pending, poke) in [("remove", Some("o /b 0xa14 2")), ("insert and remove", None)] {
        vm.qmp("stop", json!({}))?;
        plug::insert(&mut vm.qmp, &dimm("d0", mib(256)))?;
        vm.qmp("device_del", json!({"id": "d0"}))?;
        vm.monitor("o /w 0xa00 0")?;
        if let Some(poke) = poke {
            vm.monitor(poke)?;
        }
        vm.monitor("o /b 0xa14 8")?;
        ensure!(!vm.modules()?.contains_key("d0"), "the host did not pull the module");
        vm.qmp("object-del", json!({"id": backend("d0")}))?;
        vm.qmp("cont", json!({}))?;

        vm.wait_for("the flags to be cleared", |vm| Ok(vm.slot_zero_flags()?.contains("= 0x00").then_some(())))
            .with_context(|| format!("{pending} on an empty slot"))?;
        vm.unchanged_since(&format!("{pending} on an empty slot"), &before)?;
        vm.plug(&dimm("d1", mib(128)))?;
        vm.unplug("d1")?;
        vm.unchanged_since("a DIMM that came and went", &before)?;
    }
    Ok(())
}
