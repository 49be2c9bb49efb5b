//! The kernel entered as a PVH guest, on every board that QEMU has for it. That memory comes and goes there, too, is told with the
//! other machines.

use anyhow::{Result, ensure};
use boot::qemu::{Board, Dimm, Exit, Machine, Way};
use boot::size::{gib, mib};
use serde_json::json;
use system_tests::check::{contains, same};
use system_tests::dimms::dimm;
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::Vm;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = vec![
        scenario!(a_microvm_without_acpi_runs_one_cpu).on(Machine { cpus: 8, ..microvm(&["-machine", "acpi=off"]) }),
        scenario!(words_of_the_command_line_and_of_fw_cfg_are_both_obeyed)
            .on(pvh(
                Board::Q35,
                &["-append", "maxcpus=1 memhp_default_state=online memory_hotplug.memmap_on_memory=off"],
            ))
            .params(&["memhp_default_state=online_movable", "loglevel=7"]),
        scenario!(what_lies_in_usable_memory_survives)
            .on(pvh(Board::Q35, &["-initrd", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])),
        scenario!(a_module_that_is_in_from_the_start_lies_on_its_node).on(Machine {
            memory: gib(2),
            nodes: 2,
            dimms: vec![Dimm { node: Some(1), ..dimm("cold", mib(256)) }],
            ..pvh(Board::Q35, &[])
        }),
        scenario!(all_of_64_gib_on_64_cpus_is_there).on(Machine {
            cpus: 64,
            memory: gib(64),
            maxmem: gib(128),
            ..pvh(Board::Q35, &[])
        }),
        scenario!(a_panic_names_functions).on(microvm(&[])).ends(),
        scenario!(reboot_comes_back).on(microvm(&[])),
        refused(scenario!(a_cpu_without_long_mode_is_told))
            .with("on_qemu32")
            .on(within_32_bits(pvh(Board::Q35, &["-S", "-cpu", "qemu32"]))),
        refused(scenario!(a_cpu_without_long_mode_is_told))
            .with("on_pentium3")
            .on(microvm(&["-S", "-cpu", "pentium3"])),
        refused(scenario!(a_cpu_without_nx_is_told)).on(pvh(Board::Q35, &["-S", "-cpu", "qemu64,-nx"])),
        scenario!(poweroff_leaves_by_the_debug_exit).on(microvm(&[])).ends(),
        scenario!(poweroff_leaves_without_the_debug_exit)
            .with("by_acpi")
            .on(microvm(&["-set", "device.debug-exit.iobase=0x5f4"]))
            .ends(),
        scenario!(poweroff_leaves_without_the_debug_exit)
            .with("by_a_triple_fault")
            .on(microvm(&["-set", "device.debug-exit.iobase=0x5f4", "-machine", "acpi=off", "-no-reboot"]))
            .ends(),
    ];
    for cpus in [1, 8] {
        for (name, machine) in [
            ("q35", pvh(Board::Q35, &[])),
            ("q35_with_qboot", pvh(Board::Q35, &["-bios", "qboot.rom"])),
            ("pc", pvh(Board::Pc, &[])),
            ("microvm", microvm(&[])),
            ("microvm_with_6_gib", Machine { memory: gib(6), ..microvm(&[]) }),
        ] {
            let scenario = scenario!(all_memory_and_every_cpu_is_there).with(&format!("on_{name}_with_{cpus}"));
            scenarios.push(scenario.on(Machine { cpus, ..machine }));
        }
    }
    scenarios
}

fn pvh(board: Board, extra: &[&str]) -> Machine {
    let extra = extra.iter().map(|word| (*word).to_owned()).collect();
    Machine { board, way: Way::Pvh, extra, ..Machine::default() }
}

/// As QEMU 10 wants it for a CPU that reaches no further.
fn within_32_bits(machine: Machine) -> Machine {
    Machine { slots: 0, ..machine }
}

fn microvm(extra: &[&str]) -> Machine {
    Machine { slots: 0, ..pvh(Board::Microvm, extra) }
}

/// The machine stands still until somebody hears what it says.
fn refused(scenario: Scenario) -> Scenario {
    scenario.unbooted().ends()
}

fn cpu_count(vm: &mut Vm) -> Result<usize> {
    let cpus = vm.json("cpus")?;
    Ok(cpus["cpus"].as_array().into_iter().flatten().filter(|cpu| cpu["online"] == true).count())
}

fn all_memory_and_every_cpu_is_there(vm: &mut Vm) -> Result<()> {
    let machine = vm.qmp("query-cpus-fast", json!({}))?;
    same("CPUs", cpu_count(vm)?, machine.as_array().map_or(0, Vec::len))?;
    let memory = vm.qmp("query-memory-size-summary", json!({}))?;
    same("memory online", &vm.json("lsmem")?["online"], &memory["base-memory"])
}

fn a_microvm_without_acpi_runs_one_cpu(vm: &mut Vm) -> Result<()> {
    same("CPUs", cpu_count(vm)?, 1)?;
    same("memory online", &vm.json("lsmem")?["online"], &json!(gib(1).0))?;
    let log = vm.kernel_log()?;
    let told: Vec<_> = log.iter().filter(|line| line.contains("] acpi: ")).collect();
    same("lines about it", told.len(), 1)?;
    contains("dmesg", told[0], "no ACPI root pointer")
}

fn all_of_64_gib_on_64_cpus_is_there(vm: &mut Vm) -> Result<()> {
    all_memory_and_every_cpu_is_there(vm)
}

fn a_module_that_is_in_from_the_start_lies_on_its_node(vm: &mut Vm) -> Result<()> {
    vm.expect_blocks(&[(0..=15, "Normal"), (32..=33, "offline")])?;
    let groups = vm.json("groups")?;
    let nodes: Vec<_> = groups["groups"].as_array().into_iter().flatten().map(|group| &group["node"]).collect();
    same("nodes", nodes, vec![&json!(0), &json!(1), &json!(1)])?;
    vm.cmd("online_movable dimm0")?;
    vm.fill("fill 100M --in 33")?;
    vm.free_everything()
}

fn words_of_the_command_line_and_of_fw_cfg_are_both_obeyed(vm: &mut Vm) -> Result<()> {
    same("CPUs", cpu_count(vm)?, 1)?;
    let policy = vm.json("policy")?;
    same("auto_online", &policy["auto_online"], &json!("online_movable"))?;
    same("memmap_on_memory", &policy["memmap_on_memory"], &json!(false))
}

fn what_lies_in_usable_memory_survives(vm: &mut Vm) -> Result<()> {
    let id = vm.fill("fill 800M")?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}"))?;
    // QEMU puts the module as high below 4 GiB as it goes, at a page of its own.
    let module = include_bytes!("../../Cargo.toml");
    let (end, room) = (gib(1).0, mib(1).0);
    let memory = vm.physical_memory(end - room, room)?;
    ensure!(memory.chunks(4096).any(|page| page.starts_with(&module[..module.len().min(4096)])), "the module is gone");
    Ok(())
}

fn a_panic_names_functions(vm: &mut Vm) -> Result<()> {
    vm.console.submit("panic")?;
    same("end", vm.end()?, Exit::Failure)?;
    contains("log", &vm.console.log(), "kernel::shell::")
}

fn reboot_comes_back(vm: &mut Vm) -> Result<()> {
    vm.type_raw(b"reboot\r")?;
    vm.event("RESET", |event| (event.name == "RESET").then_some(()))?;
    vm.console.expect_prompt(system_tests::vm::soon())
}

fn hears(vm: &mut Vm, sentence: &str) -> Result<()> {
    vm.qmp("cont", json!({}))?;
    vm.expect(sentence)?;
    same("end", vm.end()?, Exit::Failure)
}

fn a_cpu_without_long_mode_is_told(vm: &mut Vm) -> Result<()> {
    hears(vm, "altmap cannot run: this CPU has no long mode")
}

fn a_cpu_without_nx_is_told(vm: &mut Vm) -> Result<()> {
    hears(vm, "altmap cannot run: this CPU has no NX bit")
}

fn poweroff_leaves_by_the_debug_exit(vm: &mut Vm) -> Result<()> {
    vm.console.submit("poweroff")?;
    same("end", vm.end()?, Exit::Success)
}

fn poweroff_leaves_without_the_debug_exit(vm: &mut Vm) -> Result<()> {
    vm.console.submit("poweroff")?;
    same("end", vm.end()?, Exit::PoweredOff)
}
