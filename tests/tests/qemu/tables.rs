//! Firmware tables as no firmware should make them.

use std::path::Path;

use anyhow::{Result, ensure};
use boot::qemu::Machine;
use serde_json::json;
use system_tests::check::same;
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::Vm;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/acpi/damaged/srat.dat");
    // Without slots the firmware makes no SRAT of its own, so this is the one that the kernel finds.
    let extra = vec!["-acpitable".to_owned(), format!("file={}", table.display())];
    vec![scenario!(a_damaged_srat_is_reported_line_by_line).on(Machine { slots: 0, extra, ..Machine::default() })]
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
