//! What lies where.

use anyhow::{Result, ensure};
use boot::qemu::Machine;
use boot::size::{gib, mib};
use system_tests::check::same;
use system_tests::memory::FRAME_BYTES;
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::Vm;

use crate::iomem::{self, Entry};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let left_out = Machine { memory: mib(1025), ..Machine::default() };
    let two_gib = Machine { memory: gib(2), ..Machine::default() };
    vec![
        scenario!(system_ram_is_what_the_kernel_has).with("where_a_block_is_left_out").on(left_out),
        scenario!(system_ram_is_what_the_kernel_has).with("where_mem_hides_some").on(two_gib).params(&["mem=1100M"]),
    ]
}

/// Whole frames of a range, or all that it touches.
fn inside(entry: &Entry) -> (u64, u64) {
    (entry.start.div_ceil(FRAME_BYTES), (entry.end + 1) / FRAME_BYTES)
}

fn around(entry: &Entry) -> (u64, u64) {
    (entry.start / FRAME_BYTES, (entry.end + 1).div_ceil(FRAME_BYTES))
}

fn system_ram_is_what_the_kernel_has(vm: &mut Vm) -> Result<()> {
    let map = iomem::map(vm)?;
    iomem::is_a_tree(&map)?;
    let (mut frames, mut unused) = (0, 0);
    for entry in &map {
        let (first, end) = if entry.owner == "Firmware" { around(entry) } else { inside(entry) };
        let is_there = |vm: &mut Vm, pfn| Ok::<_, anyhow::Error>(vm.frame_state(pfn)? != "absent");
        if entry.owner.starts_with("System RAM") && first < end {
            ensure!(is_there(vm, first)? && is_there(vm, end - 1)?, "the kernel has no {entry:#x?}");
            frames += end - first;
        } else if entry.owner.starts_with("Unused RAM") {
            ensure!(!is_there(vm, first)? && !is_there(vm, end - 1)?, "the kernel has {entry:#x?}");
            unused += end - first;
        } else if entry.owner == "Firmware" && is_there(vm, first)? {
            // It lies in RAM, and in blocks.
            frames += end - first;
        }
    }
    ensure!(unused > 0, "nothing is unused in {map:#x?}");
    let present: u64 = vm.usage()?.zones.iter().map(|zone| zone.present).sum();
    same("bytes in zones", present, frames * FRAME_BYTES)
}
