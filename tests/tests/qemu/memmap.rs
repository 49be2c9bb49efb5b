//! Where struct pages lie, and what adding memory costs.

use anyhow::{Context, Result, ensure};
use boot::qemu::Machine;
use boot::size::{gib, mib};
use serde_json::{Value, json};
use system_tests::check::{contains, same};
use system_tests::dimms::{SUCCESS, dimm, dimm_on};
use system_tests::memory::{BLOCK_BYTES, BLOCK_FRAMES, FRAME_BYTES};
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::Vm;

/// Struct pages of a block: 32 bytes a frame.
const MEMMAP_BYTES: u64 = 1 << 20;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let small = Machine { memory: mib(128), ..Machine::default() };
    vec![
        scenario!(the_head_of_every_added_block_holds_its_struct_pages),
        scenario!(boot_memory_keeps_its_struct_pages_in_its_own_blocks),
        scenario!(the_place_of_struct_pages_is_chosen_per_dimm),
        scenario!(struct_pages_of_another_block_keep_theirs_online),
        scenario!(kernel_memory_tells_where_and_when_it_was_taken),
        scenario!(one_gib_costs_the_boot_memory_at_most_64_kib),
        scenario!(struct_pages_that_do_not_fit_refuse_the_dimm).on(small.clone()),
        scenario!(sixteen_gib_fit_into_a_128_mib_guest).on(small),
        scenario!(a_tebibyte_becomes_known_for_64_kib).on(Machine { maxmem: gib(2 << 10), ..Machine::default() }),
    ]
}

fn the_head_of_every_added_block_holds_its_struct_pages(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm_on("d0", mib(256), 0))?;
    let before = vm.usage()?;
    vm.cmd("online_movable 32-33")?;
    let memmap_frames = MEMMAP_BYTES / FRAME_BYTES;
    let head = [vm.head_frames(32)?, vm.head_frames(33)?];
    // The first block of a group also holds the tables that map the group alone.
    ensure!(head[0] >= memmap_frames && head[0] <= memmap_frames + 16, "head of the first block: {head:?}");
    same("head of the second block", head[1], memmap_frames)?;

    let zone = vm.usage()?.zone(0, "Movable");
    same("present", zone.present, 2 * BLOCK_BYTES)?;
    same("managed", zone.managed, zone.present - (head[0] + head[1]) * FRAME_BYTES)?;
    same("free", zone.free, zone.managed)?;

    // Neither offline and online nor use moves it.
    for command in ["offline 33", "online_movable 33", "offline 32-33", "online_kernel 32-33"] {
        vm.cmd(command)?;
        same("heads", [vm.head_frames(32)?, vm.head_frames(33)?], head)?;
    }
    let id = vm.fill("kfill 127M --in 33")?;
    same("heads", [vm.head_frames(32)?, vm.head_frames(33)?], head)?;
    same("a frame behind the head", vm.frame_state(33 * BLOCK_FRAMES + memmap_frames)?, "allocated")?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}"))?;
    vm.cmd("offline 32-33")?;
    vm.expect_usage(&before)?;
    same("a frame behind the head, offline", vm.frame_state(33 * BLOCK_FRAMES + memmap_frames)?, "offline")
}

fn boot_memory_keeps_its_struct_pages_in_its_own_blocks(vm: &mut Vm) -> Result<()> {
    let usage = vm.usage()?;
    same("struct pages", usage.memmap.reserved, 16 * MEMMAP_BYTES)?;
    // Blocks in the middle of a node hold nothing of the firmware: their head is free for it.
    for block in [3, 9, 12] {
        same(&format!("head of block {block}"), vm.head_frames(block)?, MEMMAP_BYTES / FRAME_BYTES)?;
    }
    let id = vm.fill("kfill 1G")?;
    same("head of block 3", vm.head_frames(3)?, MEMMAP_BYTES / FRAME_BYTES)?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}"))?;
    vm.expect_usage(&usage)
}

fn kernel_memory_tells_where_and_when_it_was_taken(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(128)))?;
    vm.cmd("online 32")?;
    let first = 32 * BLOCK_FRAMES + vm.head_frames(32)?;
    let page = format!("page pfn:{first}");
    let free = vm.json(&page)?;
    ensure!(free["site"].is_null() && free["since_ns"].is_null(), "of a free frame: {free}");
    let id = vm.fill("kfill 1M --in 32")?;
    let taken = vm.json(&page)?;
    let site = taken["site"].as_str().with_context(|| format!("no site in {taken}"))?;
    ensure!(site.starts_with("kernel/src/fill/"), "{site}");
    let since = taken["since_ns"].as_u64().with_context(|| format!("no time in {taken}"))?;
    let now = vm.operations()?.last().context("no operations")?.t;
    ensure!(since <= now + 600_000_000_000 && now < since + 600_000_000_000, "taken at {since}, online at {now}");
    contains("page", &vm.cmd(&page)?, site)?;
    vm.cmd(&format!("free {id}"))?;
    Ok(())
}

fn the_place_of_struct_pages_is_chosen_per_dimm(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    vm.plug(&dimm("inside", mib(128)))?;
    let inside = vm.usage()?;
    vm.cmd("memmap_on_memory off")?;
    vm.plug(&dimm("outside", mib(128)))?;
    let outside = vm.usage()?;
    // What the second one's struct pages take is gone at add, before anybody brings it online.
    ensure!(
        inside.free - outside.free >= MEMMAP_BYTES && inside.free - outside.free <= MEMMAP_BYTES + (64 << 10),
        "free before: {}, after: {}",
        inside.free,
        outside.free
    );
    ensure!(before.free - inside.free <= 64 << 10, "free before: {}, after: {}", before.free, inside.free);
    same("reserved", outside.memmap.reserved, inside.memmap.reserved + MEMMAP_BYTES)?;

    vm.cmd("online 32")?;
    let first = vm.usage()?.total - outside.total;
    vm.cmd("online 33")?;
    let second = vm.usage()?.total - outside.total - first;
    let head = vm.head_frames(32)? * FRAME_BYTES;
    same("what the second brings", second, BLOCK_BYTES)?;
    same("what the first brings", first, BLOCK_BYTES - head)?;
    same("head of the second", vm.head_frames(33)?, 0)?;
    same("policy", &vm.json("policy")?["memmap_on_memory"], false)?;

    vm.unplug("outside")?;
    vm.cmd("memmap_on_memory on")?;
    vm.unplug("inside")?;
    vm.expect_usage(&before)
}

/// What `why` says of struct pages that keep boot blocks online: number of the block, first frame, and how many.
fn struct_pages_in_the_way(vm: &mut Vm) -> Result<Vec<(u64, u64, u64)>> {
    let why = vm.json("why 0-15")?;
    let mut found = Vec::new();
    for block in why["blocks"].as_array().context("no blocks")? {
        for blocker in block["blockers"].as_array().context("no blockers")? {
            same("kind of struct pages", blocker["kind"] == "memmap", blocker["owner"] == "memmap")?;
            if blocker["kind"] == "memmap" {
                same("verdict", block["verdict"].as_str(), Some("blocked"))?;
                let number = |value: &Value| value.as_u64().with_context(|| format!("{blocker}"));
                found.push((number(&block["block"])?, number(&blocker["pfn"])?, number(&blocker["pages"])?));
            }
        }
    }
    Ok(found)
}

fn struct_pages_of_another_block_keep_theirs_online(vm: &mut Vm) -> Result<()> {
    // Those of its own go and come with a block.
    same("at first", struct_pages_in_the_way(vm)?, Vec::new())?;
    vm.plug(&dimm("inside", mib(128)))?;
    same("of a block that has its own", struct_pages_in_the_way(vm)?, Vec::new())?;
    vm.cmd("memmap_on_memory off")?;
    vm.plug(&dimm("outside", mib(256)))?;
    let found = struct_pages_in_the_way(vm)?;
    same("frames", found.iter().map(|(_, _, pages)| pages).sum::<u64>(), 2 * MEMMAP_BYTES / FRAME_BYTES)?;
    for (block, pfn, pages) in found {
        for pfn in [pfn, pfn + pages - 1] {
            let page = vm.json(&format!("page pfn:{pfn}"))?;
            same("owner", (&page["owner"], &page["block"]), (&json!("memmap"), &json!(block)))?;
        }
        let line = format!("pfn:{pfn:#x}  {pages} pages of memmap  memmap");
        contains("for people", &vm.cmd(&format!("why {block}"))?, &line)?;
        vm.fails(&format!("offline {block}"), "EBUSY")?;
    }
    vm.unplug("outside")?;
    same("in the end", struct_pages_in_the_way(vm)?, Vec::new())?;
    vm.unplug("inside")
}

fn one_gib_costs_the_boot_memory_at_most_64_kib(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    vm.plug(&dimm("d0", gib(1)))?;
    vm.cmd("online_movable dimm0")?;
    let after = vm.usage()?;
    let taken = before.free_in("Normal") - after.free_in("Normal");
    ensure!(taken <= 64 << 10, "Normal lost {taken} bytes; before {before:?}, after {after:?}");

    // The same in zone Normal, where the new memory must not hide what the old one lost.
    vm.cmd("offline dimm0")?;
    vm.cmd("online_kernel dimm0")?;
    let after = vm.usage()?;
    let gained = after.total - before.total;
    ensure!(after.free + (64 << 10) >= before.free + gained, "before {before:?}, after {after:?}");
    vm.unplug("d0")?;
    vm.expect_usage(&before)
}

fn struct_pages_that_do_not_fit_refuse_the_dimm(vm: &mut Vm) -> Result<()> {
    vm.cmd("memmap_on_memory off")?;
    let before = vm.trace()?;
    // 128 MiB of struct pages: all the memory there is.
    let status = vm.plug_status(&dimm("big", gib(16)))?;
    ensure!(status != SUCCESS, "the guest claims success");
    vm.unchanged_since("a refused add", &before)?;
    let last = vm.operations()?.pop();
    ensure!(last.as_ref().is_some_and(|last| last.op == "add" && last.result == "ENOMEM"), "{last:?}");
    vm.unplug("big")?;
    vm.unchanged_since("a refused DIMM that went", &before)?;

    vm.plug(&dimm("small", mib(256)))?;
    vm.cmd("online dimm0")?;
    vm.unplug("small")?;
    vm.unchanged_since("a DIMM that fits", &before)
}

fn sixteen_gib_fit_into_a_128_mib_guest(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    vm.plug(&dimm("big", gib(16)))?;
    vm.cmd("online_movable dimm0")?;
    let after = vm.usage()?;
    let taken = before.free_in("Normal") - after.free_in("Normal");
    ensure!(taken <= 128 << 10, "Normal lost {taken} bytes");
    ensure!(after.zone(0, "Movable").present == 16 << 30, "{after:?}");
    vm.unplug("big")?;
    vm.expect_usage(&before)
}

fn a_tebibyte_becomes_known_for_64_kib(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    vm.plug(&dimm("huge", gib(1 << 10)))?;
    let after = vm.usage()?;
    ensure!(before.free - after.free <= 64 << 10, "free before: {}, after: {}", before.free, after.free);
    same("offline", after.offline, 1 << 40)?;
    let group = vm.groups()?["dimm0"].clone();
    for block in [group.first, (group.first + group.last) / 2, group.last] {
        vm.cmd(&format!("online_movable {block}"))?;
        let id = vm.fill(&format!("fill 16M --in {block}"))?;
        vm.cmd(&format!("verify {id}"))?;
        vm.cmd(&format!("free {id}"))?;
    }
    vm.unplug("huge")?;
    vm.expect_usage(&before)
}
