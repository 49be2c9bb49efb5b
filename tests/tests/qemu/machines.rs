//! The same kernel on every machine it is meant for.

use anyhow::{Context, Result, ensure};
use boot::qemu::{Board, Machine, Way};
use boot::size::{gib, mib};
use serde_json::json;
use system_tests::check::same;
use system_tests::dimms::dimm;
use system_tests::memory::BLOCK_BYTES;
use system_tests::scenario;
use system_tests::scenario::{Scenario, two_nodes};
use system_tests::vm::Vm;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let on = |board, way| Machine { board, way, ..Machine::default() };
    let extra = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let comes_and_goes = || scenario!(memory_comes_and_goes);
    vec![
        comes_and_goes().with("on_q35_with_seabios").on(on(Board::Q35, Way::SeaBios)).by_bios(),
        comes_and_goes().with("on_q35_with_ovmf").on(on(Board::Q35, Way::Ovmf)),
        comes_and_goes().with("on_pc_with_seabios").on(on(Board::Pc, Way::SeaBios)).by_bios(),
        comes_and_goes().with("on_pc_with_ovmf").on(on(Board::Pc, Way::Ovmf)),
        comes_and_goes().with("on_q35_by_pvh").on(on(Board::Q35, Way::Pvh)),
        comes_and_goes().with("on_pc_by_pvh").on(on(Board::Pc, Way::Pvh)),
        comes_and_goes()
            .with("on_q35_by_pvh_with_qboot")
            .on(Machine { extra: extra(&["-bios", "qboot.rom"]), ..on(Board::Q35, Way::Pvh) }),
        comes_and_goes().with("by_pvh_with_two_nodes").on(Machine { way: Way::Pvh, ..two_nodes() }),
        comes_and_goes().with("in_128_mib_by_pvh").on(Machine {
            way: Way::Pvh,
            memory: mib(128),
            ..Machine::default()
        }),
        comes_and_goes().with("on_pc_with_ovmf_and_two_nodes").on(Machine {
            board: Board::Pc,
            way: Way::Ovmf,
            ..two_nodes()
        }),
        comes_and_goes().with("in_128_mib").on(Machine { memory: mib(128), ..Machine::default() }).by_bios(),
        comes_and_goes().with("in_192_mib_with_ovmf").on(Machine {
            memory: mib(192),
            way: Way::Ovmf,
            ..Machine::default()
        }),
        comes_and_goes()
            .with("on_the_plainest_cpu")
            .on(Machine { extra: extra(&["-cpu", "qemu64"]), ..Machine::default() }),
        comes_and_goes().with("on_one_cpu").on(Machine { cpus: 1, ..Machine::default() }),
        comes_and_goes().with("with_boot_memory_above_4_gib").on(Machine { memory: gib(6), ..Machine::default() }),
        comes_and_goes().with("with_odd_boot_memory").on(Machine { memory: mib(1001), ..Machine::default() }),
        scenario!(one_of_anything_is_told_in_the_singular)
            .on(Machine { memory: mib(128), ..Machine::default() })
            .params(&["maxcpus=1"]),
        scenario!(a_machine_without_slots_boots).on(Machine { slots: 0, ..Machine::default() }),
    ]
}

fn memory_comes_and_goes(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    let srat = vm.json("srat")?;
    ensure!(srat["window"]["size"].as_u64().is_some_and(|size| size > 0), "no hotplug window: {srat}");

    vm.plug(&dimm("d0", mib(256)))?;
    let modules = vm.modules()?;
    let first = modules["d0"].address / BLOCK_BYTES;
    vm.expect_blocks(&[(first..=first + 1, "offline")])?;
    vm.cmd("online_movable dimm0")?;
    let usage = vm.usage()?;
    let gained = vm.managed(first)? + vm.managed(first + 1)?;
    same("total", usage.total, before.usage().total + gained)?;

    let id = vm.fill(&format!("fill 32M --in {first}"))?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}"))?;
    vm.cmd("offline dimm0")?;
    vm.unplug("d0")?;
    vm.unchanged_since("a DIMM that came and went", &before)
}

fn one_of_anything_is_told_in_the_singular(vm: &mut Vm) -> Result<()> {
    let id = vm.fill("fill 4K")?;
    vm.cmd(&format!("pin {id}"))?;
    vm.cmd("why 0")?;
    vm.cmd(&format!("unpin {id}"))?;
    let log = vm.console.log();
    for said in ["in 1 block;", "1 node,", "1 CPU is left alone:", "pinned 1 page from", "unpinned 1 page"] {
        ensure!(log.contains(said), "not told: {said:?}");
    }
    let things = ["block", "CPU", "frame", "node", "page", "processor"];
    let wrong: Vec<_> = things.into_iter().filter(|thing| log.contains(&format!(" 1 {thing}s"))).collect();
    ensure!(wrong.is_empty(), "1 of many: {wrong:?}");
    vm.cmd(&format!("free {id}")).map(drop)
}

fn a_machine_without_slots_boots(vm: &mut Vm) -> Result<()> {
    let list = vm.json("lsmem")?;
    same("online", &list["online"], &json!(gib(1).0))?;
    let before = vm.trace()?;
    vm.fails("probe 0x1_0000_0000", "ENODEV")?;
    let id = vm.fill("fill 16M")?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}"))?;
    vm.unchanged_since("fill and free", &before)?;
    let srat = vm.json("srat")?;
    srat.get("window").context("no word about the window").map(drop)
}
