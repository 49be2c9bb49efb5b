//! Firmware tables as no firmware should make them.

use std::path::Path;

use anyhow::{Result, ensure};
use boot::qemu::{Board, Machine, VirtioMem};
use boot::size::{gib, mib};
use serde_json::json;
use system_tests::check::same;
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::Vm;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/acpi/damaged/srat.dat");
    // Without slots the firmware makes no SRAT of its own, so this is the one that the kernel finds.
    let extra = vec!["-acpitable".to_owned(), format!("file={}", table.display())];
    let srat = scenario!(a_damaged_srat_is_reported_line_by_line).on(Machine { slots: 0, extra, ..Machine::default() });
    let mut scenarios = vec![srat];
    for (variant, base, buses) in [
        ("in_ram", 0x1000_0000, [0, 255]),
        ("at_zero", 0, [0, 255]),
        ("in_a_controller", 0xfec0_0000, [0, 0]),
        ("out_of_reach", 1 << 51, [0, 255]),
        ("backwards", 0xb000_0000, [9, 8]),
    ] {
        let scenario = scenario!(configuration_space_that_cannot_be_there_is_left_alone).with(variant);
        scenarios.push(scenario.on(with_mcfg(variant, base, buses)));
    }
    scenarios
}

/// A machine whose firmware makes no MCFG of its own, with this one.
fn with_mcfg(name: &str, base: u64, buses: [u8; 2]) -> Machine {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mcfg-{name}"));
    // Behind eight reserved bytes, an entry: base, segment, buses (PCI Firmware 3.3 §4.1.2).
    let table = [&[0; 8][..], &base.to_le_bytes(), &[0; 2], &buses, &[0; 4]].concat();
    std::fs::write(&file, table).expect("the directory for this is writable");
    let extra = ["-acpitable".to_owned(), format!("sig=MCFG,rev=1,data={}", file.display())].to_vec();
    let device = VirtioMem { size: gib(1), requested: mib(256), node: None, block: None, standby: false };
    Machine { board: Board::Pc, extra, virtio_mems: vec![device], ..Machine::default() }
}

/// One line tells of it, and what is on the bus works all the same.
fn configuration_space_that_cannot_be_there_is_left_alone(vm: &mut Vm) -> Result<()> {
    vm.settled("vmem0", mib(256))?;
    let log = vm.kernel_log()?;
    let said = log.iter().filter(|line| line.contains("is not used: ") || line.contains("acpi: MCFG: "));
    same("lines about it", said.count(), 1)
}

/// Two good ranges of node 0, and behind them every kind of entry that makes no sense.
fn a_damaged_srat_is_reported_line_by_line(vm: &mut Vm) -> Result<()> {
    let srat = vm.json("srat")?;
    same("nodes", &srat["nodes"], &json!([0, 1]))?;
    same("window", &srat["window"], &json!(null))?;
    let starts: Vec<_> = srat["ranges"].as_array().into_iter().flatten().map(|range| range["start"].as_u64()).collect();
    same("ranges", starts, vec![Some(0), Some(0x10_0000), Some(0x1000_0000), Some(0x1100_0000)])?;

    let log = vm.console.log();
    for said in [
        "memory at 0x100000 with 0x3ff00000 bytes for node 0 overlaps 0x10000000 of node 1, cut there",
        "memory at 0x20000000000000 is beyond any physical address, ignored",
        "memory at 0xfffffffffffff000 is beyond any physical address, ignored",
        "memory at 0x0 is enabled but has no length, ignored",
        "memory at 0x200000000 is in proximity domain 200, but node ids end at 127, ignored",
        "entry at byte 328 of type 1 has 8 bytes instead of 40, ignored",
        "entry at byte 336 says it is 0 bytes long; the rest of the table is ignored",
    ] {
        ensure!(log.contains(&format!("acpi: SRAT: {said}")), "not in the log: {said}\n{log}");
    }
    vm.memcheck()
}
