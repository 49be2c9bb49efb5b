//! Memory goes: offline, device_del, and everything that adding took comes back.

use anyhow::{Result, ensure};
use boot::ost;
use boot::qemu::backend;
use boot::size::mib;
use serde_json::json;
use system_tests::check::{contains, same};
use system_tests::dimms::{BUSY, SUCCESS, dimm, dimm_on};
use system_tests::memory::{BLOCK_BYTES, BLOCK_FRAMES};
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::Vm;

/// Where all of physical memory is mapped, and where struct pages of 32 bytes lie.
const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
const VMEMMAP: u64 = 0xffff_c000_0000_0000;
const STRUCT_PAGE_BYTES: u64 = 32;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(a_removed_dimm_leaves_neither_blocks_nor_mappings),
        scenario!(online_idle_blocks_are_taken_offline_by_device_del),
        scenario!(a_busy_dimm_is_refused_and_every_block_stays_as_it_was),
        scenario!(a_dimm_in_pieces_goes_as_a_whole),
        scenario!(nobody_who_looks_waits_for_a_removal),
        scenario!(a_block_with_kernel_memory_stays_online_and_usable),
        scenario!(sixteen_dimms_go_in_any_order),
        scenario!(sixty_four_rounds_cost_nothing),
        scenario!(remove_takes_whole_offline_groups_only),
        scenario!(a_free_boot_block_goes_offline_and_comes_back),
    ]
}

fn a_removed_dimm_leaves_neither_blocks_nor_mappings(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    let addresses = [33, 34].map(|block| DIRECT_MAP + block * BLOCK_BYTES);
    let struct_pages = [33, 34].map(|block| VMEMMAP + block * BLOCK_FRAMES * STRUCT_PAGE_BYTES);
    vm.plug(&dimm("d0", mib(384)))?;
    vm.cmd("online dimm0")?;
    let translated = |vm: &mut Vm, address: u64, what| {
        contains(&format!("{address:#x} {what}"), &vm.monitor(&format!("gva2gpa {address:#x}"))?, "gpa:")
    };
    for address in addresses {
        translated(vm, address, "while online")?;
    }
    for address in struct_pages {
        let answer = vm.monitor(&format!("gva2gpa {address:#x}"))?;
        ensure!(!answer.contains("gpa:"), "struct pages at {address:#x} of an untouched block: {answer}");
    }
    let id = vm.fill("fill 8K --in 33")?;
    translated(vm, struct_pages[0], "while in use")?;
    vm.cmd(&format!("free {id}"))?;
    same("first frame while online", vm.frame_state(32 * BLOCK_FRAMES)?, "memmap")?;

    vm.cmd("offline 32-34")?;
    vm.expect_blocks(&[(32..=34, "offline")])?;
    vm.unplug("d0")?;
    vm.expect_blocks(&[(32..=34, "absent")])?;
    for address in addresses.into_iter().chain(struct_pages) {
        contains(&format!("{address:#x} when gone"), &vm.monitor(&format!("gva2gpa {address:#x}"))?, "Unmapped")?;
    }
    same("first frame when gone", vm.frame_state(32 * BLOCK_FRAMES)?, "absent")?;
    vm.unchanged_since("a DIMM that came and went", &before)?;
    vm.fails("online 32", "ENOENT")?;
    vm.fails("online dimm0", "ENOENT").map(drop)
}

fn online_idle_blocks_are_taken_offline_by_device_del(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    vm.plug(&dimm("d0", mib(384)))?;
    vm.cmd("online_movable 32")?;
    vm.cmd("online_kernel 34")?;
    vm.unplug("d0")?;
    vm.wait_for("the last word about the empty slot", |vm| Ok((vm.last_word(0)? == (3, SUCCESS)).then_some(())))?;
    vm.unchanged_since("a DIMM that came and went", &before)
}

fn a_busy_dimm_is_refused_and_every_block_stays_as_it_was(vm: &mut Vm) -> Result<()> {
    let empty = vm.trace()?;
    vm.plug(&dimm("d0", mib(512)))?;
    vm.cmd("online_movable 32")?;
    vm.cmd("online_kernel 33,34")?;
    let id = vm.fill("kfill 1M --in 33")?;
    let before = vm.trace()?;
    for _ in 0..2 {
        same("answer to device_del", vm.unplug_status("d0")?, BUSY)?;
        same("last word", vm.last_word(0)?, (3, BUSY))?;
        vm.unchanged_since("a refused device_del", &before)?;
    }
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}"))?;
    vm.unplug("d0")?;
    vm.unchanged_since("a DIMM that came and went", &empty)
}

fn a_dimm_in_pieces_goes_as_a_whole(vm: &mut Vm) -> Result<()> {
    let empty = vm.trace()?;
    vm.plug(&dimm("d0", mib(256)))?;
    vm.cmd("remove dimm0")?;
    for block in [32, 33] {
        vm.cmd(&format!("probe {:#x} 128M", block * BLOCK_BYTES))?;
    }
    vm.cmd("online_movable 32-33")?;
    // Nobody would let a block back in, so a removal that fails half way could not be repaired.
    vm.cmd("notify add doorman 0")?;
    vm.cmd("notify veto doorman online")?;
    let before = vm.trace()?;
    vm.cmd("inject remove.begin EIO")?;
    same("answer to device_del", vm.unplug_status("d0")?, 1)?;
    vm.unchanged_since("a refused device_del", &before)?;
    vm.cmd("notify remove doorman")?;
    vm.unplug("d0")?;
    vm.unchanged_since("a DIMM that came and went", &empty)
}

/// Half of the DIMM is in use, so that its removal takes a while; the other half is not added.
fn nobody_who_looks_waits_for_a_removal(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(2048)))?;
    vm.cmd("remove dimm0")?;
    vm.cmd("probe 0x1_0000_0000 1G")?;
    vm.cmd("online_movable probe0")?;
    vm.fill("fill 480M --in probe0 --writers 2")?;
    vm.qmp.forget_events();
    vm.qmp("device_del", json!({"id": "d0"}))?;
    let is_going = |vm: &mut Vm| Ok((vm.block(32)?.state == "going-offline").then_some(()));
    vm.wait_for("the removal to begin", is_going)?;
    contains("iomem", &vm.cmd("iomem")?, "Part of dimm0, unused: not added")?;
    vm.cmd("groups")?;
    // Whoever wants to change what is in the slot waits, and need not.
    let job = vm.job("probe 0x1_4000_0000")?;
    vm.cmd(&format!("kill {job}"))?;
    vm.fails(&format!("wait {job}"), "ECANCELED")?;
    same("state after all that", vm.block(32)?.state.as_str(), "going-offline")?;

    let job = vm.job("probe 0x1_4000_0000")?;
    same("answer to device_del", vm.answers(&["d0"], ost::Event::Ejection)?["d0"], SUCCESS)?;
    vm.fails(&format!("wait {job}"), "ENODEV")?;
    vm.qmp("object-del", json!({"id": backend("d0")}))?;
    vm.expect_blocks(&[(32..=47, "absent")])?;
    vm.cmd("verify").map(drop)
}

fn a_block_with_kernel_memory_stays_online_and_usable(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    vm.cmd("online_kernel 32-33")?;
    let id = vm.fill("kfill 64K --in 32")?;
    let before = vm.trace()?;
    vm.fails("offline 32", "EBUSY")?;
    // All or none: the free block stays as well.
    vm.fails("offline 32-33", "EBUSY")?;
    vm.unchanged_since("a refused offline", &before)?;
    let second = vm.fill("kfill 64M --in 32")?;
    for id in [second, id] {
        vm.cmd(&format!("verify {id}"))?;
        vm.cmd(&format!("free {id}"))?;
    }
    vm.cmd("offline 32-33")?;
    vm.cmd("online_kernel 32-33")?;
    let online = vm.trace()?;
    vm.fails("offline 32-33 --within 0", "ETIMEDOUT")?;
    vm.unchanged_since("an offline without time", &online)?;
    // The kernel's own text never goes.
    let boot = vm.trace()?;
    vm.fails("offline 0", "EBUSY")?;
    vm.unchanged_since("a refused offline", &boot)
}

fn sixteen_dimms_go_in_any_order(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    for slot in 0..16 {
        vm.plug(&dimm_on(&format!("d{slot}"), mib(128), slot % 2))?;
        let zone = if slot % 3 == 0 { "online" } else { "online_movable" };
        vm.cmd(&format!("{zone} {}", 32 + slot))?;
    }
    vm.memcheck()?;
    for slot in [5, 0, 15, 9, 3, 12, 7, 1, 14, 2, 11, 8, 4, 13, 6, 10] {
        vm.unplug(&format!("d{slot}"))?;
        vm.memcheck()?;
    }
    vm.unchanged_since("sixteen DIMMs that came and went", &before)
}

fn sixty_four_rounds_cost_nothing(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    for round in 0..64 {
        vm.plug(&dimm("d0", mib(256)))?;
        vm.cmd(if round % 2 == 0 { "online_movable dimm0" } else { "online dimm0" })?;
        vm.cmd("offline dimm0")?;
        vm.unplug("d0")?;
        if round % 16 == 0 {
            let (now, start) = (vm.usage()?, before.usage());
            ensure!(now == start, "after round {round}: {now:?}, at the start {start:?}");
        }
    }
    vm.unchanged_since("64 rounds", &before)
}

fn remove_takes_whole_offline_groups_only(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    vm.plug(&dimm("d0", mib(384)))?;
    vm.plug(&dimm("d1", mib(128)))?;
    vm.cmd("online 33")?;
    let online = vm.trace()?;
    vm.fails("remove dimm0", "EBUSY")?;
    vm.fails("remove 32-34", "EBUSY")?;
    vm.fails("remove 32", "EINVAL")?;
    vm.fails("remove 34-35", "EINVAL")?;
    vm.fails("remove boot0", "EINVAL")?;
    vm.fails("remove 99", "ENOENT")?;
    vm.unchanged_since("a refused remove", &online)?;
    vm.cmd("offline 33")?;
    vm.cmd("remove 32-35")?;
    vm.unchanged_since("plug and remove", &before)?;
    // The modules are still plugged; asked for, they go.
    vm.unplug("d1")?;
    vm.unplug("d0")?;
    vm.unchanged_since("plug, remove and unplug", &before)
}

fn a_free_boot_block_goes_offline_and_comes_back(vm: &mut Vm) -> Result<()> {
    let untouched = vm.trace()?;
    let before = untouched.usage();
    let managed = vm.managed(12)?;
    vm.cmd("offline 12")?;
    vm.cmd("online_kernel 12")?;
    vm.unchanged_since("an untouched block that went and came", &untouched)?;
    same("untouched", vm.usage()?.untouched, before.untouched)?;
    vm.cmd("offline 12")?;
    vm.expect_blocks(&[(11..=11, "Normal"), (12..=12, "offline"), (13..=13, "Normal")])?;
    let usage = vm.usage()?;
    same("total", usage.total, before.total - managed)?;
    same("offline", usage.offline, BLOCK_BYTES)?;
    vm.memcheck()?;
    let id = vm.fill("fill 256M --node 1")?;
    same("a frame of it", vm.frame_state(12 * BLOCK_FRAMES + BLOCK_FRAMES / 2)?, "offline")?;
    vm.cmd(&format!("free {id}"))?;
    vm.cmd("online_movable 12")?;
    vm.expect_blocks(&[(12..=12, "Movable")])?;
    vm.cmd("offline 12")?;
    vm.cmd("online_kernel 12")?;
    vm.expect_blocks(&[(8..=15, "Normal")])?;
    vm.expect_usage(&before)?;
    vm.fails("remove 12", "EINVAL").map(drop)
}
