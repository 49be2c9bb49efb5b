//! A machine that boots with much memory: what nobody uses of it costs neither struct pages nor memory of the host.

use anyhow::{Result, ensure};
use boot::qemu::{Machine, Way};
use boot::size::{Bytes, gib, mib};
use system_tests::check::same;
use system_tests::dimms::dimm;
use system_tests::memory::BLOCK_BYTES;
use system_tests::scenario;
use system_tests::scenario::{FIRST_HOT, Scenario};
use system_tests::vm::Vm;

const MEMMAP_BYTES: u64 = 1 << 20;

fn vast(way: Way, memory: Bytes) -> Machine {
    Machine { way, memory, maxmem: gib(700), ..Machine::default() }
}

pub(crate) fn scenarios() -> Vec<Scenario> {
    let costs_nothing = || scenario!(boot_memory_costs_nothing_before_it_is_used);
    vec![
        costs_nothing().with("by_pvh").on(vast(Way::Pvh, gib(130))),
        costs_nothing().with("by_pvh_with_600_gib").on(vast(Way::Pvh, gib(600))),
        costs_nothing().with("by_bios").on(vast(Way::SeaBios, gib(130))).by_bios(),
        costs_nothing().with("by_bios_with_600_gib").on(vast(Way::SeaBios, gib(600))).by_bios(),
        costs_nothing().with("by_uefi").on(vast(Way::Ovmf, gib(130))),
        scenario!(what_is_movable_of_much_boot_memory_goes_and_comes_back)
            .on(vast(Way::Pvh, gib(130)))
            .params(&["kernelcore=8G"]),
        scenario!(a_module_lands_above_it_all).on(vast(Way::Pvh, gib(600))),
    ]
}

/// Struct pages are in use of few blocks, and the host gave little more than to a small machine.
fn costs_next_to_nothing(vm: &mut Vm) -> Result<()> {
    const HOST_LIMIT: u64 = 512 << 20;
    let usage = vm.usage()?;
    ensure!(usage.memmap.used <= 8 * MEMMAP_BYTES, "{usage:?}");
    same("struct pages of all blocks", usage.memmap.reserved, vm.blocks()?.len() as u64 * MEMMAP_BYTES)?;
    let host = vm.host_memory()?;
    ensure!(host <= HOST_LIMIT, "QEMU uses {host} bytes");
    vm.memcheck()
}

fn boot_memory_costs_nothing_before_it_is_used(vm: &mut Vm) -> Result<()> {
    costs_next_to_nothing(vm)?;
    let before = vm.usage()?;
    let block = FIRST_HOT + 500;
    vm.cmd(&format!("offline {block}"))?;
    same("offline", vm.usage()?.offline, BLOCK_BYTES)?;
    vm.cmd(&format!("online {block}"))?;
    same("struct pages in use", vm.usage()?.memmap.used, before.memmap.used)?;

    let fill = vm.fill(&format!("fill 64M --in {block}"))?;
    same("struct pages in use", vm.usage()?.memmap.used, before.memmap.used + MEMMAP_BYTES)?;
    vm.cmd(&format!("verify {fill}"))?;
    vm.memcheck()?;
    // It goes elsewhere, and so do the struct pages of the block.
    vm.cmd(&format!("offline {block}"))?;
    vm.cmd(&format!("verify {fill}"))?;
    vm.cmd(&format!("free {fill}"))?;
    vm.cmd(&format!("online_movable {block}"))?;
    vm.expect_blocks(&[(block..=block, "Movable"), (block + 1..=block + 1, "Normal")])?;
    vm.cmd(&format!("online_kernel {block}"))?;
    vm.expect_usage(&before)?;
    costs_next_to_nothing(vm)
}

fn what_is_movable_of_much_boot_memory_goes_and_comes_back(vm: &mut Vm) -> Result<()> {
    costs_next_to_nothing(vm)?;
    let before = vm.usage()?;
    let blocks = vm.blocks()?;
    let movable: Vec<u64> =
        blocks.values().filter(|block| block.place() == "Movable").map(|block| block.number).collect();
    let (first, last) = (movable[0], movable[movable.len() - 1]);
    same("one after the other", last - first + 1, movable.len() as u64)?;
    ensure!(movable.len() as u64 * BLOCK_BYTES > 120 << 30, "Movable: {first} to {last}");
    vm.cmd(&format!("offline {first}-{last}"))?;
    same("offline", vm.usage()?.offline, movable.len() as u64 * BLOCK_BYTES)?;
    vm.cmd(&format!("online_movable {first}-{last}"))?;
    vm.expect_usage(&before)?;
    // The lowest is used first, of which a part may be open: that of the block in which Movable begins.
    let fill = vm.fill("fill 200M")?;
    let used = vm.usage()?.memmap.used;
    ensure!((before.memmap.used..=before.memmap.used + 2 * MEMMAP_BYTES).contains(&used), "struct pages: {used}");
    vm.cmd(&format!("verify {fill}"))?;
    vm.cmd(&format!("free {fill}"))?;
    costs_next_to_nothing(vm)
}

fn a_module_lands_above_it_all(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    vm.plug(&dimm("d0", mib(256)))?;
    let first = vm.modules()?["d0"].address / BLOCK_BYTES;
    ensure!(first * BLOCK_BYTES >= gib(600).0, "it is at block {first}");
    vm.cmd("online_movable dimm0")?;
    let fill = vm.fill(&format!("fill 64M --in {first}"))?;
    vm.cmd(&format!("verify {fill}"))?;
    vm.cmd(&format!("free {fill}"))?;
    vm.unplug("d0")?;
    vm.expect_usage(&before)
}
