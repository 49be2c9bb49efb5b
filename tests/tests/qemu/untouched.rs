//! Blocks that are online and that nobody has used.

use anyhow::{Result, ensure};
use boot::size::{gib, mib};
use system_tests::check::same;
use system_tests::dimms::dimm;
use system_tests::memory::{BLOCK_BYTES, BLOCK_FRAMES};
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::Vm;

const MEMMAP_BYTES: u64 = 1 << 20;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(a_block_costs_nothing_before_it_is_used),
        scenario!(the_lowest_block_is_used_first_and_the_rest_can_go),
        scenario!(blocks_that_hold_nothing_become_untouched_again),
        scenario!(blocks_are_opened_while_others_go_offline),
        scenario!(a_used_dimm_goes_once_it_is_free_again),
    ]
}

/// How many of the blocks have struct pages in use.
fn opened(vm: &mut Vm, blocks: std::ops::RangeInclusive<u64>) -> Result<Vec<u64>> {
    let mut opened = Vec::new();
    for block in blocks {
        if vm.frame_state((block + 1) * BLOCK_FRAMES - 1)? != "untouched" {
            opened.push(block);
        }
    }
    Ok(opened)
}

fn a_block_costs_nothing_before_it_is_used(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", gib(1)))?;
    let before = vm.usage()?;
    vm.cmd("online_movable dimm0")?;
    let online = vm.usage()?;
    same("struct pages in use", online.memmap.used, before.memmap.used)?;
    same("untouched", online.untouched - before.untouched, online.total - before.total)?;
    same("free", online.free - before.free, online.total - before.total)?;
    same("opened", opened(vm, 32..=39)?, Vec::<u64>::new())?;

    let id = vm.fill("fill 4K --in 35")?;
    same("opened", opened(vm, 32..=39)?, vec![35])?;
    same("struct pages in use", vm.usage()?.memmap.used, before.memmap.used + MEMMAP_BYTES)?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}"))?;
    vm.cmd("offline dimm0")?;
    let after = vm.usage()?;
    same("untouched", after.untouched, before.untouched)?;
    same("totals", after, before)
}

fn the_lowest_block_is_used_first_and_the_rest_can_go(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", gib(1)))?;
    vm.cmd("online_movable dimm0")?;
    let id = vm.fill("fill 200M")?;
    same("opened", opened(vm, 32..=39)?, vec![32, 33])?;
    vm.cmd("offline 34-39")?;
    vm.cmd(&format!("pin {id} 0 --stay"))?;
    vm.fails("offline 32", "EBUSY")?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("unpin {id} 0"))?;
    // Below what is open, a block that comes back is used first.
    vm.cmd(&format!("free {id}"))?;
    vm.cmd("offline 32")?;
    vm.cmd("online_movable 32,34")?;
    let id = vm.fill("fill 230M")?;
    same("opened", opened(vm, 32..=34)?, vec![32, 33])?;
    vm.cmd(&format!("free {id}"))?;
    vm.expect_blocks(&[(32..=34, "Movable"), (35..=39, "offline")])
}

fn blocks_that_hold_nothing_become_untouched_again(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", gib(1)))?;
    vm.cmd("online_movable dimm0")?;
    let before = vm.usage()?;
    let id = vm.fill("fill 900M --in dimm0")?;
    same("opened", opened(vm, 32..=39)?.len(), 8)?;
    vm.cmd(&format!("free {id}"))?;
    // Whoever closes them does so after the shell has answered.
    let left = vm.wait_for("blocks to be closed", |vm| {
        let opened = opened(vm, 32..=39)?.len();
        Ok((opened < 8).then_some(opened))
    })?;
    ensure!(left > 0, "a few blocks stay open for what comes next, and where the cache of a CPU has a part");
    let after = vm.usage()?;
    same("free", after.free, before.free)?;
    ensure!(after.memmap.used < before.memmap.used + 8 * MEMMAP_BYTES, "{after:?}");
    Ok(())
}

fn blocks_are_opened_while_others_go_offline(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", gib(2)))?;
    vm.cmd("online_movable dimm0")?;
    for _ in 0..3 {
        vm.job("fill 300M --in 32-40")?;
        vm.cmd("offline 44-47")?;
        vm.cmd("online_movable 44-47")?;
        vm.cmd("wait")?;
        vm.cmd("verify")?;
        vm.free_everything()?;
    }
    vm.expect_blocks(&[(32..=47, "Movable")])
}

fn a_used_dimm_goes_once_it_is_free_again(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    vm.plug(&dimm("d0", mib(512)))?;
    vm.cmd("online_movable 32-33")?;
    vm.cmd("online_kernel 34-35")?;
    let id = vm.fill("fill 300M --in dimm0")?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}"))?;
    let usage = vm.usage()?;
    ensure!(usage.total > before.usage().total + 3 * BLOCK_BYTES, "{usage:?}");
    vm.unplug("d0")?;
    vm.unchanged_since("a DIMM that was used", &before)
}
