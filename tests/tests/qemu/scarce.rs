//! Little of Normal memory left: that is the kernel's, and Movable memory can be used to its end without it.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use boot::ost;
use boot::qemu::{Machine, backend};
use boot::size::mib;
use serde_json::json;
use system_tests::check::{contains, same};
use system_tests::dimms::{SUCCESS, dimm};
use system_tests::memory::BLOCK_BYTES;
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::Vm;

/// What bulk users leave of the memory that the kernel can get.
const KEPT: u64 = 1 << 20;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let small = Machine { memory: mib(256), ..Machine::default() };
    let many = Machine { slots: 256, ..small.clone() };
    vec![
        scenario!(movable_memory_is_used_to_its_end_whatever_the_kernel_is_left).on(small.clone()),
        scenario!(page_tables_leave_movable_blocks_while_normal_is_short).on(small),
        scenario!(dimms_by_the_hundred_need_little_of_normal).on(many.clone()),
        scenario!(dimms_by_the_hundred_are_known_or_refused).on(many),
    ]
}

/// Takes kernel memory until the kernel can get exactly so much more.
fn leave_kernel(vm: &mut Vm, bytes: u64) -> Result<u64> {
    let taken = vm.usage()?.kernel_available - bytes;
    let id = vm.fill(&format!("kfill {taken}"))?;
    same("what the kernel can get", vm.usage()?.kernel_available, bytes)?;
    Ok(id)
}

/// Fills Movable memory but for what less than 2 MiB of it are missing to.
fn fill_movable(vm: &mut Vm) -> Result<u64> {
    let size = vm.usage()?.free_in("Movable") - (2 << 20);
    vm.fill(&format!("fill {size}"))
}

fn movable_memory_is_used_to_its_end_whatever_the_kernel_is_left(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    vm.cmd("online_movable dimm0")?;
    let before = vm.usage()?;
    // A task has a stack, which is the kernel's.
    let task = vm.job("events -f")?;
    let cost = before.kernel_available - vm.usage()?.kernel_available;
    end(vm, task)?;
    for (left, has_task) in [(KEPT - (8 << 10), true), (KEPT, false), (KEPT + (8 << 10), false)] {
        leave_kernel(vm, left + if has_task { cost } else { 0 })?;
        let task = if has_task { Some(vm.job("events -f")?) } else { None };
        same("what is left at first", vm.usage()?.kernel_available, left)?;
        let id = fill_movable(vm)?;
        let full = vm.usage()?;
        ensure!(full.free_in("Movable") < 2 << 20, "{full:?}");
        ensure!((left.min(KEPT)..=left).contains(&full.kernel_available), "{full:?}");
        vm.memcheck()?;
        for size in [8 << 20, full.free_in("Movable") + (8 << 10)] {
            let sentence = vm.fails(&format!("fill {size}"), "ENOMEM")?;
            contains("the sentence", &sentence, "beside what is left for the kernel")?;
            vm.fails(&format!("kfill {size}"), "ENOMEM")?;
            same("what is left after refusals", vm.usage()?.kernel_available, full.kernel_available)?;
        }
        // There is room for a page, and for its tables.
        let page = vm.fill("fill 4K")?;
        vm.cmd("verify")?;
        let left_beside = vm.usage()?.kernel_available;
        ensure!((left.min(KEPT)..=full.kernel_available).contains(&left_beside), "left beside a page: {left_beside}");
        for id in [page, id] {
            vm.cmd(&format!("free {id}"))?;
        }
        task.map_or(Ok(()), |task| end(vm, task))?;
        vm.free_everything()?;
        same("what the kernel can get", vm.usage()?.kernel_available, before.kernel_available)?;
    }
    Ok(())
}

/// Ends a job that does not end by itself.
fn end(vm: &mut Vm, job: u64) -> Result<()> {
    vm.cmd(&format!("kill {job}"))?;
    vm.fails(&format!("wait {job}"), "ECANCELED").map(drop)
}

fn page_tables_leave_movable_blocks_while_normal_is_short(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(384)))?;
    vm.cmd("online_movable dimm0")?;
    leave_kernel(vm, KEPT)?;
    let tables = vm.usage()?.page_tables;
    let id = fill_movable(vm)?;
    let filled = vm.usage()?;
    same("what is left", filled.kernel_available, KEPT)?;
    ensure!(filled.page_tables - tables > 512 << 10, "there are few page tables: {filled:?}");
    vm.memcheck()?;

    vm.plug(&dimm("d1", mib(512)))?;
    vm.cmd("online_movable dimm1")?;
    // Tables of the kernel's own that map it.
    let left = vm.usage()?.kernel_available;
    for blocks in ["32", "33-34"] {
        contains("why", &vm.cmd(&format!("why {blocks}"))?, "ok")?;
        vm.cmd(&format!("offline {blocks}"))?;
        vm.memcheck()?;
        vm.cmd(&format!("verify {id}"))?;
    }
    same("what is left after it moved", vm.usage()?.kernel_available, left)?;
    vm.unplug("d0")?;

    // In Normal the blocks may be, too, and come back with the tables.
    vm.cmd("online_kernel dimm1")?;
    vm.memcheck()?;
    vm.cmd("online_movable dimm1")?;
    vm.cmd(&format!("verify {id}"))?;
    vm.memcheck()?;

    // Large pages are split where there is no place for them as a whole, and need page tables then.
    vm.cmd(&format!("free {id}"))?;
    let left = vm.usage()?.kernel_available;
    let small = vm.fill("fill 300M --in 35-37")?;
    let large = vm.fill("fill 60M --huge --in 38")?;
    vm.cmd("offline 38")?;
    vm.cmd("verify")?;
    vm.memcheck()?;
    for fill in [small, large] {
        vm.cmd(&format!("free {fill}"))?;
    }
    same("what is left in the end", vm.usage()?.kernel_available, left)
}

const DIMMS: u64 = 255;

/// Plugs modules of a block each, one after the other as fast as QEMU takes them; the numbers of those that the guest took.
fn plug_hundreds(vm: &mut Vm) -> Result<BTreeSet<u64>> {
    let ids: Vec<_> = (0..DIMMS).map(|n| format!("d{n}")).collect();
    vm.qmp.forget_events();
    for id in &ids {
        let memory =
            json!({"qom-type": "memory-backend-ram", "id": backend(id), "size": BLOCK_BYTES, "reserve": false});
        vm.qmp("object-add", memory)?;
        vm.qmp("device_add", json!({"driver": "pc-dimm", "id": id, "memdev": backend(id)}))?;
    }
    let names: Vec<_> = ids.iter().map(String::as_str).collect();
    let answers = vm.answers(&names, ost::Event::Insertion)?;
    Ok((0..DIMMS).filter(|n| answers[&format!("d{n}")] == SUCCESS).collect())
}

fn dimms_by_the_hundred_need_little_of_normal(vm: &mut Vm) -> Result<()> {
    leave_kernel(vm, KEPT)?;
    let known = plug_hundreds(vm)?;
    same("known", known.len() as u64, DIMMS)?;
    same("groups", vm.groups()?.keys().filter(|name| name.starts_with("dimm")).count() as u64, DIMMS)?;
    use_some_to_the_end(vm, &known)
}

fn dimms_by_the_hundred_are_known_or_refused(vm: &mut Vm) -> Result<()> {
    vm.cmd("memmap_on_memory off")?;
    leave_kernel(vm, 8 << 20)?;
    let known = plug_hundreds(vm)?;
    ensure!((4..8).contains(&known.len()), "known: {known:?}");
    let groups: BTreeSet<_> = vm.groups()?.into_keys().filter(|name| name.starts_with("dimm")).collect();
    same("groups", groups, known.iter().map(|n| format!("dimm{n}")).collect())?;
    ensure!(vm.usage()?.kernel_available >= KEPT, "the kernel has too little left");
    // Which the log of a boot may have forgotten, and the console has not.
    let refused = vm.console.log().matches("not added: no memory for the struct pages and page tables").count() as u64;
    same("refused", refused, DIMMS - known.len() as u64)?;
    use_some_to_the_end(vm, &known)
}

/// Uses all of a few modules, of the first and the last ones.
fn use_some_to_the_end(vm: &mut Vm, known: &BTreeSet<u64>) -> Result<()> {
    for n in known.iter().take(1).chain(known.iter().rev().take(2)) {
        vm.cmd(&format!("online_movable dimm{n}"))?;
    }
    vm.memcheck()?;
    let left = vm.usage()?.kernel_available;
    if left > KEPT {
        leave_kernel(vm, KEPT)?;
    }
    let id = fill_movable(vm)?;
    let full = vm.usage()?;
    ensure!(full.free_in("Movable") < 2 << 20, "{full:?}");
    same("what is left", full.kernel_available, left.min(KEPT))?;
    vm.cmd(&format!("verify {id}"))?;
    vm.memcheck()?;
    vm.free_everything()
}
