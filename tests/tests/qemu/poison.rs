//! Memory errors: what is poisoned is nobody's from then on, and nothing else is lost.

use anyhow::{Context, Result, ensure};
use boot::size::mib;
use system_tests::check::{contains, same};
use system_tests::dimms::dimm;
use system_tests::memory::{BLOCK_FRAMES, FRAME_BYTES};
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::Vm;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(a_poisoned_page_is_never_allocated_again),
        scenario!(what_cannot_be_poisoned_stays_as_it_is),
        scenario!(what_is_held_is_poisoned_when_it_is_given_back),
        scenario!(the_frames_of_an_offline_block_can_be_poisoned),
        scenario!(a_block_with_hundreds_of_errors_takes_what_moves_beside_them),
    ]
}

/// Bytes that `meminfo` calls poisoned.
fn poisoned(vm: &mut Vm) -> Result<u64> {
    bytes_of(vm, "poisoned")
}

fn bytes_of(vm: &mut Vm, what: &str) -> Result<u64> {
    let usage = vm.json("meminfo")?;
    usage[what].as_u64().with_context(|| format!("`{what}` is not in {usage}"))
}

fn fill(vm: &mut Vm, command: &str, bytes: u64) -> Result<String> {
    let filled = vm.json(&format!("{command} {bytes} --in 33"))?;
    same("size", filled["size"].as_u64(), Some(bytes))?;
    Ok(filled["id"].to_string())
}

fn a_poisoned_page_is_never_allocated_again(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(384)))?;
    vm.cmd("online_movable 32-34")?;
    let before = vm.usage()?;
    let managed = vm.managed(33)?;
    let filled = fill(vm, "fill --writers 2", 64 << 20)?;
    let bad = 33 * BLOCK_FRAMES + 6000;
    same("its state", vm.frame_state(bad)?.as_str(), "allocated")?;
    vm.cmd(&format!("poison pfn:{bad}"))?;
    vm.cmd(&format!("verify {filled}"))?;
    same("total", vm.usage()?.total, before.total - FRAME_BYTES)?;
    for command in ["offline 33", "online_movable 33", "offline 33", "online_movable 33"] {
        same("its state", vm.frame_state(bad)?.as_str(), "poisoned")?;
        same("poisoned", poisoned(vm)?, FRAME_BYTES)?;
        vm.cmd(command).with_context(|| command.to_owned())?;
        vm.memcheck()?;
    }
    let everything = fill(vm, "fill", managed - FRAME_BYTES)?;
    vm.fails("fill 4K --in 33", "ENOMEM")?;
    same("its state", vm.frame_state(bad)?.as_str(), "poisoned")?;
    vm.memcheck()?;
    for id in [filled, everything] {
        vm.cmd(&format!("verify {id}"))?;
        vm.cmd(&format!("free {id}"))?;
    }
    vm.cmd("offline 32-34")?;
    vm.cmd("remove dimm0")?;
    same("poisoned", poisoned(vm)?, 0)
}

fn what_cannot_be_poisoned_stays_as_it_is(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    vm.cmd("online_kernel 32-33")?;
    let filled = fill(vm, "kfill", 1 << 20)?;
    let head = 33 * BLOCK_FRAMES;
    let before = vm.trace()?;
    for (pfn, errno, owner) in [
        (head, "EBUSY", "memmap"),
        // The window of the graphics card.
        (0xb8, "ENODEV", "no memory"),
        (99 * BLOCK_FRAMES, "ENODEV", "no memory"),
    ] {
        let sentence = vm.fails(&format!("poison pfn:{pfn}"), errno)?;
        contains("the refusal", &sentence, owner)?;
    }
    vm.unchanged_since("refused poison", &before)?;
    same("poisoned", poisoned(vm)?, 0)?;
    vm.cmd(&format!("verify {filled}")).map(drop)
}

fn what_is_held_is_poisoned_when_it_is_given_back(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(384)))?;
    vm.cmd("online_kernel 33; online_movable 34")?;
    let kernel = fill(vm, "kfill", 1 << 20)?;
    let frame = 33 * BLOCK_FRAMES + vm.head_frames(33)? + 100;
    let sentence = vm.fails(&format!("poison pfn:{frame}"), "EBUSY")?;
    contains("the refusal", &sentence, "kfill")?;
    contains("the refusal", &sentence, "when it is given back")?;
    let movable = vm.fill("fill 64M --writers 2 --in 34")?;
    vm.cmd(&format!("pin {movable} 6000 --stay"))?;
    let why = vm.json("why 34")?;
    let pinned =
        why["blocks"][0]["blockers"][0]["pfn"].as_u64().with_context(|| format!("nothing is pinned: {why}"))?;
    vm.fails(&format!("poison pfn:{pinned}"), "EBUSY")?;
    let both = |vm: &mut Vm| Ok::<_, anyhow::Error>((bytes_of(vm, "poisoned")?, bytes_of(vm, "faulty")?));
    same("poisoned and faulty", both(vm)?, (0, 2 * FRAME_BYTES))?;
    vm.memcheck()?;
    vm.fails("offline 33-34", "EBUSY")?;
    vm.cmd(&format!("verify {kernel}; verify {movable}; free {kernel}; unpin {movable} 6000"))?;
    vm.cmd("offline 33-34")?;
    same("poisoned and faulty", both(vm)?, (2 * FRAME_BYTES, 0))?;
    vm.cmd(&format!("verify {movable}"))?;
    vm.cmd("online_movable 33-34")?;
    for pfn in [frame, pinned] {
        same("its state", vm.frame_state(pfn)?.as_str(), "poisoned")?;
    }
    vm.memcheck()?;
    vm.cmd(&format!("free {movable}")).map(drop)
}

fn the_frames_of_an_offline_block_can_be_poisoned(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    let (offline, untouched) = (33 * BLOCK_FRAMES + 5000, 33 * BLOCK_FRAMES + 9000);
    let managed = vm.managed(33)?;
    vm.cmd(&format!("poison {:#x}", offline * FRAME_BYTES))?;
    vm.fails(&format!("poison pfn:{offline}"), "EEXIST")?;
    vm.cmd("online_movable 33")?;
    vm.cmd(&format!("poison pfn:{untouched}"))?;
    let filled = fill(vm, "fill", managed - 2 * FRAME_BYTES)?;
    for pfn in [offline, untouched] {
        same("state", vm.frame_state(pfn)?.as_str(), "poisoned")?;
    }
    same("free", vm.usage()?.zone(1, "Movable").free, 0)?;
    let neighbour = vm.frame_state(untouched + 1)?;
    ensure!(neighbour == "allocated", "the next frame is {neighbour}");
    vm.memcheck()?;
    vm.cmd(&format!("free {filled}"))?;
    vm.cmd("offline 33")?;
    same("poisoned", poisoned(vm)?, 2 * FRAME_BYTES)
}

fn a_block_with_hundreds_of_errors_takes_what_moves_beside_them(vm: &mut Vm) -> Result<()> {
    const ERRORS: u64 = 300;
    vm.plug(&dimm("d0", mib(384)))?;
    let managed = vm.managed(33)?;
    let bad: Vec<u64> = (0..ERRORS).map(|n| 33 * BLOCK_FRAMES + 500 + 107 * n).collect();
    let poison =
        |vm: &mut Vm, frames: &[u64]| frames.iter().try_for_each(|pfn| vm.cmd(&format!("poison pfn:{pfn}")).map(drop));
    let (offline, online) = bad.split_at(bad.len() / 2);
    poison(vm, offline)?;
    vm.cmd("online_movable 32-33")?;
    poison(vm, online)?;
    same("poisoned", poisoned(vm)?, ERRORS * FRAME_BYTES)?;
    let left = managed - ERRORS * FRAME_BYTES;

    let filled = vm.json(&format!("fill --writers 2 {left} --in 32"))?["id"].to_string();
    vm.cmd("offline 32")?;
    let free = vm.usage()?.zone(1, "Movable").free;
    ensure!(free < left, "nothing has moved into the block with errors");
    vm.cmd(&format!("verify {filled}"))?;
    for pfn in &bad {
        same("its state", vm.frame_state(*pfn)?.as_str(), "poisoned")?;
    }
    vm.memcheck()?;
    vm.cmd(&format!("free {filled}"))?;

    for command in ["offline 33", "online_movable 33", "offline 33", "online_kernel 33"] {
        vm.cmd(command).with_context(|| command.to_owned())?;
        same("poisoned", poisoned(vm)?, ERRORS * FRAME_BYTES)?;
        vm.memcheck()?;
    }
    let everything = fill(vm, "fill", left)?;
    vm.fails("fill 4K --in 33", "ENOMEM")?;
    vm.cmd(&format!("verify {everything}; free {everything}; offline 33; remove dimm0"))?;
    same("poisoned", poisoned(vm)?, 0)
}
