//! `kernelcore=` and `movablecore=`: boot memory in two zones, and the block that is in both.

use anyhow::{Context, Result, ensure};
use boot::qemu::Machine;
use boot::size::mib;
use serde_json::json;
use system_tests::check::{contains, same};
use system_tests::dimms::dimm_on;
use system_tests::memory::{BLOCK_BYTES, BLOCK_FRAMES};
use system_tests::scenario;
use system_tests::scenario::{Scenario, two_nodes};
use system_tests::vm::Vm;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(boot_memory_is_split_evenly_over_the_nodes).params(&["kernelcore=512M"]),
        scenario!(of_both_parameters_the_one_for_the_kernel_counts).params(&["kernelcore=75%", "movablecore=1G"]),
        scenario!(both_parts_of_a_mixed_block_are_used).params(&["movablecore=1G"]),
        scenario!(whatever_is_movable_at_boot_can_leave)
            .on(Machine { memory: mib(2000), ..two_nodes() })
            .params(&["kernelcore=600M"]),
    ]
}

/// The same blocks, struct pages and memory as without a parameter.
fn totals_are_those_of_the_machine(vm: &mut Vm) -> Result<()> {
    let list = vm.json("lsmem")?;
    same("online", &list["online"], &json!(16 * BLOCK_BYTES))?;
    let usage = vm.usage()?;
    same("memmap", usage.memmap.reserved, 16 << 20)?;
    // Of blocks in which something is, at both ends, and in which both zones are.
    let mixed = vm.blocks()?.values().filter(|block| block.place() == "mixed").count() as u64;
    same("memmap in use", usage.memmap.used, (2 + mixed) << 20)?;
    let present: u64 = usage.zones.iter().map(|zone| zone.present).sum();
    ensure!((2047 << 20..=2 << 30).contains(&present), "present: {present}");
    same("managed", usage.zones.iter().map(|zone| zone.managed).sum::<u64>(), usage.total)?;
    vm.memcheck()
}

fn boot_memory_is_split_evenly_over_the_nodes(vm: &mut Vm) -> Result<()> {
    // A hole below 1 MiB moves the line of node 0 into block 2; on node 1 it lies between two blocks, as firmware has frames in the
    // last one.
    vm.expect_blocks(&[
        (0..=1, "Normal"),
        (2..=2, "mixed"),
        (3..=7, "Movable"),
        (8..=8, "Normal"),
        (9..=14, "Movable"),
        (15..=15, "Normal"),
    ])?;
    totals_are_those_of_the_machine(vm)?;
    let usage = vm.usage()?;
    for node in [0, 1] {
        let normal = usage.zone(node, "Normal").present;
        ensure!((256 << 20..=260 << 20).contains(&normal), "Normal of node {node}: {normal}");
    }
    contains("lsmem", &vm.cmd("lsmem")?, "mixed")?;
    same("valid zones", vm.block(2)?.valid_zones.len(), 0)?;

    let before = vm.trace()?;
    contains("the reason", &vm.fails("offline 2", "EINVAL")?, "both zones")?;
    vm.fails("offline 1-3", "EINVAL")?;
    for command in ["online", "online_kernel", "online_movable"] {
        vm.fails(&format!("{command} 2"), "EINVAL")?;
    }
    vm.fails("why 2", "EINVAL")?;
    vm.unchanged_since("a mixed block", &before)
}

fn whatever_is_movable_at_boot_can_leave(vm: &mut Vm) -> Result<()> {
    let log = vm.kernel_log()?;
    ensure!(log.iter().any(|line| line.contains("block 15 is Normal")), "{log:?}");
    let blocks = vm.blocks()?;
    let movable: Vec<u64> =
        blocks.iter().filter(|(_, block)| block.place() == "Movable").map(|(number, _)| *number).collect();
    ensure!(movable.len() >= 8, "Movable: {movable:?}");
    for block in movable {
        vm.cmd(&format!("offline {block}")).with_context(|| format!("block {block} is Movable"))?;
    }
    vm.memcheck()
}

fn of_both_parameters_the_one_for_the_kernel_counts(vm: &mut Vm) -> Result<()> {
    totals_are_those_of_the_machine(vm)?;
    let usage = vm.usage()?;
    let normal: u64 = [0, 1].map(|node| usage.zone(node, "Normal").present).iter().sum();
    ensure!((1535 << 20..=1544 << 20).contains(&normal), "Normal: {normal}");
    // What is Movable can go, and come back where the policy says.
    vm.expect_blocks(&[(7..=7, "Movable")])?;
    vm.cmd("offline 7")?;
    vm.cmd("online_movable 7")?;
    same("totals", vm.usage()?.total, usage.total)
}

fn both_parts_of_a_mixed_block_are_used(vm: &mut Vm) -> Result<()> {
    vm.expect_blocks(&[(0..=3, "Normal"), (4..=4, "mixed"), (5..=7, "Movable"), (8..=10, "Normal")])?;
    totals_are_those_of_the_machine(vm)?;
    let before = vm.usage()?;
    let zone_of = |vm: &mut Vm, pfn: u64| Ok::<_, anyhow::Error>(vm.json(&format!("page pfn:{pfn}"))?["zone"].clone());
    same("its first frame", zone_of(vm, 4 * BLOCK_FRAMES)?, "Normal")?;
    same("its last frame", zone_of(vm, 5 * BLOCK_FRAMES - 1)?, "Movable")?;
    // Kernel memory ends where Movable begins, though that is empty.
    vm.fails("kfill 1100M", "ENOMEM")?;
    let kernel = (before.kernel_available >> 20) - 24;
    let kfill = vm.fill(&format!("kfill {kernel}M"))?;
    same("Movable", vm.usage()?.free_in("Movable"), before.free_in("Movable"))?;
    vm.memcheck()?;
    let movable = (before.free_in("Movable") >> 20) - 24;
    let fill = vm.fill(&format!("fill {movable}M"))?;
    ensure!(vm.usage()?.free_in("Movable") < 64 << 20, "{:?}", vm.usage()?);
    vm.memcheck()?;
    for id in [kfill, fill] {
        vm.cmd(&format!("verify {id}"))?;
        vm.cmd(&format!("free {id}"))?;
    }
    same("free in Movable", vm.usage()?.free_in("Movable"), before.free_in("Movable"))?;
    // Added memory of that node does not mind.
    vm.plug(&dimm_on("d0", mib(256), 0))?;
    vm.cmd("online_movable dimm0")?;
    vm.unplug("d0")
}
