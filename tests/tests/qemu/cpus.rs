//! Several CPUs: which run, who is told when one does not, and that none keeps the others waiting.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use boot::accelerator::Accelerator;
use boot::qemu::{Board, Exit, Machine, Way};
use boot::size::{gib, mib};
use serde::Deserialize;
use system_tests::check::{contains, same};
use system_tests::dimms::dimm;
use system_tests::scenario;
use system_tests::scenario::{Scenario, two_nodes};
use system_tests::vm::Vm;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let with = |cpus, board| Machine { cpus, board, ..two_nodes() };
    let topology = |cpus, words: &str| Machine { cpus, extra: vec!["-smp".into(), words.into()], ..Machine::default() };
    let work = || scenario!(all_cpus_work_on_memory_at_once);
    vec![
        work().with("on_one").on(with(1, Board::Q35)),
        work().with("on_one_and_pc").on(with(1, Board::Pc)),
        work().with("on_two").on(with(2, Board::Q35)),
        work().with("on_two_and_pc").on(with(2, Board::Pc)),
        work().with("on_four").on(with(4, Board::Q35)),
        work().with("on_four_and_pc").on(with(4, Board::Pc)),
        work().with("on_four_with_ovmf").on(Machine { way: Way::Ovmf, ..with(4, Board::Q35) }),
        work().with("on_eight").on(with(8, Board::Q35)),
        work().with("on_eight_and_pc").on(with(8, Board::Pc)),
        scenario!(numbers_on_the_bus_may_have_holes).on(topology(6, "6,sockets=2,cores=3,threads=1")),
        scenario!(places_for_cpus_stay_empty).on(topology(2, "2,maxcpus=4")),
        scenario!(more_cpus_than_are_wanted_stay_off)
            .on(Machine { cpus: 4, ..Machine::default() })
            .params(&["maxcpus=3"]),
        scenario!(more_cpus_than_are_supported_stay_off).on(Machine { cpus: 66, ..Machine::default() }),
        scenario!(a_panic_shows_every_cpu).on(Machine { cpus: 4, ..Machine::default() }).ends(),
        scenario!(an_nmi_to_all_is_one_panic).on(Machine { cpus: 4, ..Machine::default() }).ends(),
        scenario!(a_cpu_without_interrupts_is_reported).on(Machine { cpus: 2, ..Machine::default() }),
        scenario!(nobody_keeps_interrupts_off_for_long)
            .on(Machine { cpus: 1, ..two_nodes() })
            .accelerated_by(Accelerator::Counting),
    ]
}

/// `cpus -J`.
#[derive(Debug, Deserialize)]
struct Cpus {
    cpus: Vec<Cpu>,
}

#[derive(Debug, Deserialize)]
struct Cpu {
    id: usize,
    apic_id: u32,
    online: bool,
    worst_irqs_off_ns: u64,
    worst_irqs_off_in: Vec<String>,
}

fn cpus(vm: &mut Vm) -> Result<Vec<Cpu>> {
    let Cpus { cpus } = vm.ask("cpus")?;
    let numbers: Vec<_> = cpus.iter().map(|cpu| cpu.id).collect();
    same("numbers", numbers, (0..cpus.len()).collect::<Vec<_>>())?;
    let on_the_bus: BTreeSet<_> = cpus.iter().map(|cpu| cpu.apic_id).collect();
    same("different APIC ids", on_the_bus.len(), cpus.len())?;
    Ok(cpus)
}

fn running(vm: &mut Vm) -> Result<usize> {
    Ok(cpus(vm)?.iter().filter(|cpu| cpu.online).count())
}

/// As many jobs as there are CPUs fill, check and free, while blocks come and go.
fn all_cpus_work_on_memory_at_once(vm: &mut Vm) -> Result<()> {
    let machine_has = vm.json("cpus")?["cpus"].as_array().map_or(0, Vec::len);
    same("running", running(vm)?, machine_has)?;
    let before = vm.trace()?;
    vm.plug(&dimm("d0", mib(512)))?;
    vm.cmd("online_movable 32-33")?;
    vm.cmd("online 34-35")?;
    let fills: Vec<_> = (0..machine_has).map(|_| vm.job("fill 48M")).collect::<Result<_>>()?;
    let recount = vm.job("memcheck")?;
    for job in fills.into_iter().chain([recount]) {
        vm.cmd(&format!("wait {job}"))?;
    }
    vm.cmd("verify")?;
    let checks: Vec<_> = (0..machine_has).map(|_| vm.job("verify")).collect::<Result<_>>()?;
    vm.memcheck()?;
    for job in checks {
        vm.cmd(&format!("wait {job}"))?;
    }
    vm.free_everything()?;
    vm.unplug("d0")?;
    vm.unchanged_since("a module came and went", &before)
}

fn numbers_on_the_bus_may_have_holes(vm: &mut Vm) -> Result<()> {
    let found = cpus(vm)?;
    let on_the_bus: Vec<_> = found.iter().map(|cpu| cpu.apic_id).collect();
    same("APIC ids", on_the_bus, vec![0, 1, 2, 4, 5, 6])?;
    ensure!(found.iter().all(|cpu| cpu.online), "{found:?}");
    Ok(())
}

fn places_for_cpus_stay_empty(vm: &mut Vm) -> Result<()> {
    let found = cpus(vm)?;
    same("CPUs", found.len(), 2)?;
    ensure!(found.iter().all(|cpu| cpu.online), "{found:?}");
    Ok(())
}

fn more_cpus_than_are_wanted_stay_off(vm: &mut Vm) -> Result<()> {
    same("CPUs", cpus(vm)?.len(), 4)?;
    same("running", running(vm)?, 3)?;
    let log = vm.kernel_log()?.join("\n");
    contains("the log", &log, "1 CPU is left alone")
}

fn more_cpus_than_are_supported_stay_off(vm: &mut Vm) -> Result<()> {
    same("CPUs", cpus(vm)?.len(), 66)?;
    same("running", running(vm)?, 64)?;
    let log = vm.kernel_log()?.join("\n");
    contains("the log", &log, "2 CPUs are left alone")
}

fn a_panic_shows_every_cpu(vm: &mut Vm) -> Result<()> {
    vm.type_raw(b"panic\r")?;
    same("exit", vm.end()?, Exit::Failure)?;
    let log = vm.console.log();
    let from = log.rfind("altmap> panic").unwrap_or(0);
    let others = (0..4).filter(|cpu| log[from..].contains(&format!("\ncpu {cpu}:"))).count();
    same("other CPUs that are told of", others, 3)?;
    ensure!(log[from..].contains("idle"), "nobody was idle:\n{}", &log[from..]);
    same("the last line", log.lines().last(), Some("panic: stopped"))
}

/// Every CPU panics, each on its small emergency stack; the first one speaks, for all.
fn an_nmi_to_all_is_one_panic(vm: &mut Vm) -> Result<()> {
    vm.monitor("nmi")?;
    same("exit", vm.end()?, Exit::Failure)?;
    let log = vm.console.log();
    same("reasons", log.matches("non-maskable interrupt").count(), 1)?;
    same("ends", log.matches("panic: stopped").count(), 1)?;
    let others = (0..4).filter(|cpu| log.contains(&format!("\ncpu {cpu}:\n"))).count();
    ensure!(others == 3, "{others} other CPUs are told of:\n{log}");
    same("the last line", log.lines().last(), Some("panic: stopped"))
}

fn a_cpu_without_interrupts_is_reported(vm: &mut Vm) -> Result<()> {
    let job = vm.job("panic --irqs-off 13")?;
    // The console may be deaf meanwhile.
    vm.expect(&format!("job {job}: ok"))?;
    let log = vm.kernel_log()?;
    let first = log.iter().position(|line| line.contains("watchdog: cpu ") && line.contains("interrupts off for 1"));
    let told = &log[first.with_context(|| format!("nobody was reported:\n{}", log.join("\n")))?..];
    contains("who it was", &told[1], "in task job")?;
    ensure!(told.iter().any(|line| line.contains("busy_wait") || line.contains("commands::system::panic")), "{told:?}");
    Ok(())
}

/// Counted, not timed: one nanosecond of this machine is one instruction.
fn nobody_keeps_interrupts_off_for_long(vm: &mut Vm) -> Result<()> {
    const LIMIT: u64 = 50_000;
    vm.plug(&dimm("d0", gib(1)))?;
    vm.plug(&dimm("d1", gib(1)))?;
    let shown = |vm: &mut Vm, after: &str| -> Result<()> {
        for Cpu { worst_irqs_off_ns, worst_irqs_off_in, .. } in cpus(vm)? {
            ensure!(
                worst_irqs_off_ns <= LIMIT,
                "{worst_irqs_off_ns} instructions after {after}, in {worst_irqs_off_in:?}"
            );
        }
        Ok(())
    };
    shown(vm, "the boot")?;
    for line in [
        "online_movable dimm0",
        "online dimm1",
        "fill 1G",
        "memcheck",
        "verify",
        "lsmem -a",
        "buddyinfo",
        "zoneinfo",
        "iomem",
        "free 1",
        "memcheck",
        "offline dimm0",
        "online_kernel dimm0",
        "kfill 64M --in dimm0",
        "free 2",
        "offline dimm0",
        "offline dimm1",
        // What is in use moves, to another block and to another zone.
        "online_movable dimm0",
        "online_kernel dimm1",
        "fill 100M --in dimm0",
        "fill 32M --huge --in dimm0",
        "pin 3 7",
        "why 0-15,dimm0",
        "offline dimm0",
        "verify",
        "online_movable dimm1",
        "poison 0x1_4400_0000",
        "online_kernel dimm1",
        "unpin 3 7",
        "free 3",
        "free 4",
        "memcheck",
        "offline dimm1",
        "tasks",
        "events",
        "dmesg",
        "help",
        "stress 2 --seed 4",
        "memcheck",
    ] {
        vm.cmd(line)?;
        shown(vm, line)?;
    }
    Ok(())
}
