//! Ways out: power button, commands, panic; and back in.

use std::time::Duration;

use anyhow::{Result, ensure};
use boot::qemu::{Board, Exit, Machine, Way};
use boot::size::{gib, mib};
use serde_json::json;
use system_tests::check::{contains, same};
use system_tests::dimms::dimm;
use system_tests::memory::BLOCK_BYTES;
use system_tests::scenario;
use system_tests::scenario::{Scenario, two_nodes};
use system_tests::vm::{Vm, soon};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(the_power_button_leaves_with_success).ends(),
        without_debug_exit().with("on_q35").on(away_from_debug_exit(two_nodes())),
        without_debug_exit().with("on_pc").on(away_from_debug_exit(Machine { board: Board::Pc, ..two_nodes() })),
        scenario!(the_power_button_works_while_a_job_runs).ends(),
        scenario!(poweroff_leaves_with_success).ends(),
        scenario!(a_panic_says_who_called_whom_and_leaves_with_failure).ends(),
        scenario!(reboot_comes_back_to_the_prompt),
        scenario!(a_reset_in_a_removal_comes_back).with("by_pvh").on(by_pvh()),
        scenario!(a_reset_in_a_removal_comes_back).with("by_bios").by_bios(),
        scenario!(the_power_button_in_a_removal_switches_off).with("by_pvh").on(by_pvh()).ends(),
        scenario!(the_power_button_in_a_removal_switches_off).with("by_bios").by_bios().ends(),
        selftest().with("on_q35").on(with_a_module()).by_bios(),
        selftest().with("on_pc_with_ovmf").on(Machine { board: Board::Pc, way: Way::Ovmf, ..with_a_module() }),
        selftest().with("in_128_mib_on_the_plainest_cpu").on(Machine {
            memory: mib(128),
            extra: vec!["-cpu".to_owned(), "qemu64".to_owned()],
            ..Machine::default()
        }),
        inside(scenario!(selftest_adds_and_removes_what_is_hidden_above_4_gib))
            .on(Machine { memory: gib(6), ..Machine::default() })
            .params(&["selftest", "mem=5G"]),
    ]
}

fn by_pvh() -> Machine {
    Machine { way: Way::Pvh, ..two_nodes() }
}

fn without_debug_exit() -> Scenario {
    scenario!(the_power_button_switches_off_what_has_no_debug_exit).ends()
}

/// The device answers at ports where the kernel does not look for it.
fn away_from_debug_exit(machine: Machine) -> Machine {
    Machine { extra: vec!["-set".to_owned(), "device.debug-exit.iobase=0x5f4".to_owned()], ..machine }
}

/// What runs inside the kernel.
fn selftest() -> Scenario {
    inside(scenario!(selftest_passes_and_leaves_with_success))
}

fn inside(scenario: Scenario) -> Scenario {
    scenario.params(&["selftest"]).unbooted().ends()
}

fn with_a_module() -> Machine {
    Machine { dimms: vec![dimm("d0", mib(256))], ..two_nodes() }
}

/// Whether QEMU answers is left to what follows: it may be gone before it has.
fn press_power_button(vm: &mut Vm) {
    let _ = vm.qmp("system_powerdown", json!({}));
}

/// Asks for a module back that is full of what somebody writes to, and lets so much time pass.
fn begin_a_removal(vm: &mut Vm, id: &str, after: Duration) -> Result<()> {
    vm.plug(&dimm(id, mib(256)))?;
    let first = vm.modules()?[id].address / BLOCK_BYTES;
    vm.cmd(&format!("online_movable {first}-{}", first + 1))?;
    vm.fill(&format!("fill 200M --in {first}-{} --writers 2", first + 1))?;
    vm.qmp("device_del", json!({ "id": id }))?;
    std::thread::sleep(after);
    Ok(())
}

fn a_reset_in_a_removal_comes_back(vm: &mut Vm) -> Result<()> {
    for (n, millis) in [0, 50, 200].into_iter().enumerate() {
        begin_a_removal(vm, &format!("d{n}"), Duration::from_millis(millis))?;
        vm.qmp("system_reset", json!({}))?;
        vm.event("RESET", |event| (event.name == "RESET").then_some(()))?;
        // The prompt that was there is not taken for the next one.
        vm.expect("lists the commands")?;
        vm.console.expect_prompt(soon())?;
        // Those that are still there are as from the start.
        let modules = vm.modules()?.len() as u64;
        same("offline", vm.usage()?.offline, modules * mib(256).0)?;
        vm.memcheck()?;
    }
    Ok(())
}

fn the_power_button_in_a_removal_switches_off(vm: &mut Vm) -> Result<()> {
    begin_a_removal(vm, "d0", Duration::from_millis(50))?;
    press_power_button(vm);
    same("exit", vm.end()?, Exit::Success)
}

fn the_power_button_leaves_with_success(vm: &mut Vm) -> Result<()> {
    press_power_button(vm);
    same("exit", vm.end()?, Exit::Success)
}

fn the_power_button_switches_off_what_has_no_debug_exit(vm: &mut Vm) -> Result<()> {
    press_power_button(vm);
    same("exit", vm.end()?, Exit::PoweredOff)
}

fn the_power_button_works_while_a_job_runs(vm: &mut Vm) -> Result<()> {
    vm.cmd("fill 1500M &")?;
    the_power_button_leaves_with_success(vm)
}

fn poweroff_leaves_with_success(vm: &mut Vm) -> Result<()> {
    vm.type_raw(b"poweroff\r")?;
    same("exit", vm.end()?, Exit::Success)
}

fn a_panic_says_who_called_whom_and_leaves_with_failure(vm: &mut Vm) -> Result<()> {
    vm.type_raw(b"panic\r")?;
    same("exit", vm.end()?, Exit::Failure)?;
    let log = vm.console.log();
    let from = log.rfind("altmap> panic").unwrap_or(0);
    let words: Vec<_> = log[from..].lines().collect();
    same("the last line", words.last().copied(), Some("panic: stopped"))?;
    let named = words.iter().filter(|line| line.contains("::") && line.contains("0x")).count();
    ensure!(named >= 3, "only {named} functions are named:\n{}", words.join("\n"));
    ensure!(words.iter().any(|line| line.contains("shell")), "nobody names the shell:\n{}", words.join("\n"));
    Ok(())
}

fn reboot_comes_back_to_the_prompt(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    vm.cmd("online_movable dimm0")?;
    vm.type_raw(b"reboot\r")?;
    vm.event("RESET", |event| (event.name == "RESET").then_some(()))?;
    vm.console.expect_prompt(soon())?;
    // The module is a cold one now.
    vm.expect_blocks(&[(0..=15, "Normal"), (32..=33, "offline")])?;
    vm.cmd("online_movable dimm0")?;
    vm.unplug("d0")
}

fn selftest_adds_and_removes_what_is_hidden_above_4_gib(vm: &mut Vm) -> Result<()> {
    selftest_passes_and_leaves_with_success(vm)?;
    contains("the log", &vm.console.log(), "test memory::hidden_memory_comes_and_goes_without_a_trace ... ok")
}

fn selftest_passes_and_leaves_with_success(vm: &mut Vm) -> Result<()> {
    same("exit", vm.end()?, Exit::Success)?;
    let log = vm.console.log();
    let tests: Vec<_> = log.lines().filter(|line| line.starts_with("test ")).collect();
    let passed = tests.iter().filter(|line| line.ends_with("... ok")).count();
    let skipped = tests.iter().filter(|line| line.contains(" ... skipped (")).count();
    let failed: Vec<_> = tests.iter().filter(|line| line.contains("FAILED")).collect();
    ensure!(passed > 0 && failed.is_empty(), "{passed} passed, failed: {failed:?}");
    let summary = format!("{passed} passed; 0 failed; {skipped} skipped");
    ensure!(log.lines().any(|line| line.starts_with("test result: ok") && line.contains(&summary)), "no `{summary}`");
    Ok(())
}
