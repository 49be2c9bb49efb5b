//! Nodes and windows where the SRAT says more than is true, contradicts itself, or is not there.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use boot::qemu::{Board, Machine};
use boot::size::{Bytes, gib, mib};
use serde_json::{Value, json};
use system_tests::check::{contains, lacks, same};
use system_tests::dimms::dimm;
use system_tests::memory::BLOCK_BYTES;
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::Vm;

use crate::iomem;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = vec![
        scenario!(dimms_come_and_go_without_an_srat).with("on_q35").on(old(Board::Q35, gib(1))),
        scenario!(dimms_come_and_go_without_an_srat).with("on_pc").on(old(Board::Pc, gib(1))),
        scenario!(dimms_come_and_go_without_an_srat).with("in_256_mib").on(old(Board::Q35, mib(256))),
        scenario!(an_empty_srat_is_told_from_none).on(with_srat("empty", gib(1), &[])),
        scenario!(a_block_is_on_the_node_with_most_of_it).on(with_srat("shared", gib(1), &SHARED_BLOCKS)),
    ];
    for memory in [mib(128), gib(1)] {
        for bits in [40, 46] {
            let variant = format!("in_{}_mib_with_{bits}_bits", memory.0 >> 20);
            let cpu = || vec!["-cpu".to_owned(), format!("max,phys-bits={bits}")];
            let on = |name: &str, table: &[Range]| {
                let machine = with_srat(&format!("{name}-{variant}"), memory, table);
                Machine { extra: [machine.extra, cpu()].concat(), ..machine }
            };
            scenarios.push(scenario!(everything_may_come).with(&variant).on(on("all", &all_hotpluggable(memory))));
            scenarios.push(scenario!(nodes_in_turn_overlap_once).with(&variant).on(on("turns", &four_in_turn(memory))));
        }
    }
    // What is so old does not boot by PVH.
    scenarios.into_iter().map(Scenario::by_bios).collect()
}

/// Start, end, node, and whether memory may come there.
type Range = (u64, u64, u32, bool);

/// Blocks 2 and 5 are shared. Node 0 ends a page too late, and node 2 lies in the middle of memory of node 1.
const SHARED_BLOCKS: [Range; 5] = [
    (0, 2 * BLOCK_BYTES + 4096, 0, false),
    (2 * BLOCK_BYTES, 8 * BLOCK_BYTES, 1, false),
    (5 * BLOCK_BYTES + (16 << 20), 5 * BLOCK_BYTES + (48 << 20), 2, false),
    (4 << 30, 8 << 30, 1, true),
    (12 << 30, 16 << 30, 0, true),
];

/// Hyper-V's way: whatever is there may go, and more may come in ranges that double up to the last address of all.
fn all_hotpluggable(memory: Bytes) -> Vec<Range> {
    let doubling = (32..52).map(|bits| (1 << bits, 2 << bits, 0, true));
    [(0, memory.0, 0, true)].into_iter().chain(doubling).collect()
}

/// Four nodes in turn, as VMware has it, up to 2^48. The second one claims a page of the third and one of the window of the first.
fn four_in_turn(memory: Bytes) -> Vec<Range> {
    let share = memory.0 / 4;
    let there = (0..4).map(|node| (node * share, (node + 1) * share, node as u32, false));
    let may_come = (32..48).map(|bits| (1 << bits, 2 << bits, bits % 4, true));
    let mut ranges: Vec<Range> = there.chain(may_come).collect();
    ranges[1].1 += 4096;
    ranges[5].0 -= 4096;
    ranges
}

/// A machine too old for an SRAT of its own; the first DIMM lands at 4 GiB.
fn old(board: Board, memory: Bytes) -> Machine {
    let name = if board == Board::Q35 { "pc-q35-2.10" } else { "pc-i440fx-2.10" };
    let extra = vec!["-machine".to_owned(), name.to_owned()];
    Machine {
        board,
        memory,
        maxmem: gib(8),
        slots: 4,
        dimms: vec![dimm("cold", mib(256))],
        extra,
        ..Machine::default()
    }
}

/// The same with this SRAT.
fn with_srat(name: &str, memory: Bytes, ranges: &[Range]) -> Machine {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("srat-{name}"));
    std::fs::write(
        &file,
        ranges.iter().fold(vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], |table, range| [table, entry(range)].concat()),
    )
    .expect("the directory for this is writable");
    let machine = old(Board::Q35, memory);
    let table = vec!["-acpitable".to_owned(), format!("sig=SRAT,rev=3,data={}", file.display())];
    Machine { extra: [machine.extra, table].concat(), ..machine }
}

/// ACPI 6.5 §5.2.16.2.
fn entry(&(start, end, node, may_come): &Range) -> Vec<u8> {
    let flags: u32 = 1 | u32::from(may_come) << 1;
    let mut entry = vec![1, 40];
    entry.extend(node.to_le_bytes());
    entry.extend([0; 2]);
    entry.extend(start.to_le_bytes());
    entry.extend((end - start).to_le_bytes());
    entry.extend([0; 4]);
    entry.extend(flags.to_le_bytes());
    entry.extend([0; 8]);
    entry
}

/// A DIMM that was there at boot and one that comes later, above all boot memory; both go again.
fn dimms_come_and_go(vm: &mut Vm) -> Result<()> {
    vm.expect_blocks(&[(32..=33, "offline"), (34..=37, "absent")])?;
    let before = vm.trace()?;
    vm.plug(&dimm("hot", mib(384)))?;
    vm.expect_blocks(&[(32..=36, "offline"), (37..=37, "absent")])?;
    for block in 32..=36 {
        same(&format!("node of block {block}"), vm.block(block)?.node, 0)?;
    }
    vm.cmd("online_movable 32-36")?;
    let id = vm.fill("fill 32M --in 34")?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}"))?;
    vm.memcheck()?;
    vm.unplug("hot")?;
    vm.cmd("offline 32-33")?;
    vm.unchanged_since("a DIMM that came and went", &before)?;
    vm.unplug("cold")?;
    vm.expect_blocks(&[(32..=37, "absent")])?;
    vm.plug(&dimm("again", mib(128)))?;
    vm.expect_blocks(&[(32..=32, "offline"), (33..=33, "absent")])
}

/// Boot memory is known once, whatever names it.
fn boot_memory_counts_once(vm: &mut Vm) -> Result<()> {
    let list = vm.json("lsmem")?;
    let boot: u64 = vm.groups()?.values().filter(|group| group.kind == "boot").map(|group| group.size).sum();
    same("online", &list["online"], &json!(boot))?;
    let usage = vm.usage()?;
    ensure!(usage.total < boot && usage.total > boot - (24 << 20), "{usage:?} of {boot:#x}");
    Ok(())
}

fn dimms_come_and_go_without_an_srat(vm: &mut Vm) -> Result<()> {
    let srat = vm.json("srat")?;
    same("nodes", &srat["nodes"], &json!([0]))?;
    same("ranges", &srat["ranges"], &json!([]))?;
    same("window", &srat["window"], &json!(null))?;
    contains("srat", &vm.cmd("srat")?, "the firmware has no SRAT")?;
    let map = iomem::map(vm)?;
    iomem::is_a_tree(&map)?;
    let window = map.iter().find(|entry| entry.owner == "Hotplug window").context("no window")?;
    // QEMU keeps a gibibyte beside each slot, for its alignment.
    same("start of the window", window.start, 4 << 30)?;
    ensure!(((15 << 30) - 1..16 << 30).contains(&window.end), "{window:#x?}");
    boot_memory_counts_once(vm)?;
    dimms_come_and_go(vm)
}

fn an_empty_srat_is_told_from_none(vm: &mut Vm) -> Result<()> {
    let text = vm.cmd("srat")?;
    contains("srat", &text, "the firmware's SRAT names no memory")?;
    lacks("srat", &text, "no SRAT")?;
    same("ranges", &vm.json("srat")?["ranges"], &json!([]))?;
    dimms_come_and_go(vm)
}

fn a_block_is_on_the_node_with_most_of_it(vm: &mut Vm) -> Result<()> {
    for (block, node) in [(0, 0), (1, 0), (2, 1), (4, 1), (5, 1), (7, 1)] {
        same(&format!("node of block {block}"), vm.block(block)?.node, node)?;
    }
    let log = vm.console.log();
    for said in [
        "acpi: SRAT: memory at 0x10000000 with 0x30000000 bytes for node 1 overlaps 0x0 of node 0, cut there",
        "memory: block 2 lies on 2 nodes; node 1 has most and gets all of it",
        "memory: block 5 lies on 2 nodes; node 1 has most and gets all of it",
    ] {
        contains("the log", &log, said)?;
    }
    // Between the windows nothing may come.
    let windows: Vec<_> = iomem::map(vm)?.into_iter().filter(|entry| entry.owner == "Hotplug window").collect();
    let bounds = windows.iter().map(|window| (window.start, window.end)).collect::<Vec<_>>();
    same("windows", bounds, vec![(4 << 30, (8 << 30) - 1), (12 << 30, (16 << 30) - 1)])?;
    boot_memory_counts_once(vm)?;
    dimms_come_and_go(vm)
}

fn everything_may_come(vm: &mut Vm) -> Result<()> {
    windows_end_where_addresses_end(vm, 1 << 52)?;
    lacks("the log", &vm.console.log(), "acpi: SRAT: ")?;
    boot_memory_counts_once(vm)?;
    dimms_come_and_go(vm)
}

fn nodes_in_turn_overlap_once(vm: &mut Vm) -> Result<()> {
    windows_end_where_addresses_end(vm, 1 << 48)?;
    let log = vm.console.log();
    let conflicts = log.lines().filter(|line| line.contains("acpi: SRAT: ")).count();
    same("conflicts", conflicts, 2)?;
    let srat = vm.json("srat")?;
    same("nodes", &srat["nodes"], &json!([0, 1, 2, 3]))?;
    let share = srat["ranges"][0]["size"].as_u64().context("no ranges")?;
    let there: Vec<&Value> =
        srat["ranges"].as_array().into_iter().flatten().filter(|range| range["hotpluggable"] == false).collect();
    for (node, range) in there.iter().enumerate() {
        let (start, size) = (node as u64 * share, share);
        same(
            "range",
            range,
            &&json!({"start": start, "size": size, "node": node, "hotpluggable": false, "nonvolatile": false}),
        )?;
    }
    same("ranges of boot memory", there.len(), 4)?;
    boot_memory_counts_once(vm)?;
    dimms_come_and_go(vm)
}

/// The firmware's windows reach to `said_end`, those of the CPU less far: that is said in one line, and shown.
fn windows_end_where_addresses_end(vm: &mut Vm, said_end: u64) -> Result<()> {
    let bits = if vm.console.log().contains("have 40 bits here") { 40 } else { 46 };
    let end: u64 = 1 << bits;
    let said = format!(
        "the SRAT lets memory come up to {said_end:#x}, cut to {end:#x}: physical addresses have {bits} bits here"
    );
    same("lines about it", vm.console.log().lines().filter(|line| line.contains(&said)).count(), 1)?;
    let window = vm.json("srat")?["window"].clone();
    let bound = |key: &str| window[key].as_u64().with_context(|| format!("{key} of {window}"));
    same("end of the window", bound("start")? + bound("size")?, end)?;
    let map = iomem::map(vm)?;
    let last = map.iter().rfind(|entry| entry.owner == "Hotplug window").context("no window")?;
    same("end of the last window", last.end, end - 1)
}
