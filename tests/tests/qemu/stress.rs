//! `stress`: random work of all kinds leaves everything as it was, however it ends.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use boot::qemu::Machine;
use boot::size::{gib, mib};
use boot::stress::Options;
use serde::Deserialize;
use system_tests::check::{contains, same};
use system_tests::dimms::{dimm, dimm_on};
use system_tests::memory::{Block, Usage};
use system_tests::scenario;
use system_tests::scenario::{Scenario, two_nodes};
use system_tests::vm::{Vm, errno_of, soon};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let one_cpu = Machine { cpus: 1, ..two_nodes() };
    let four_cpus = Machine { cpus: 4, ..two_nodes() };
    vec![
        scenario!(everything_is_done_and_nothing_remains).on(one_cpu),
        scenario!(everything_is_done_and_nothing_remains).on(four_cpus).with("on_four_cpus"),
        scenario!(ctrl_c_gives_everything_back),
        scenario!(the_shell_stays_usable_beside_it),
        scenario!(modules_come_and_go_beside_it),
        scenario!(what_makes_no_sense_is_refused).on(Machine { memory: gib(1), ..Machine::default() }),
    ]
}

/// `./x stress`: modules come and go, and a device changes its size, beside the guest's own stress, and all that is promised of the end holds.
pub(crate) fn the_host_tool_plugs_and_unplugs_beside_it() -> Result<()> {
    let output = tempfile::tempdir().context("cannot make a directory")?;
    let options = Options { seed: 20, output: output.path().to_owned(), ..Options::new(15, 4) };
    boot::stress::run(&options)?;
    let read = |name: &str| std::fs::read_to_string(output.path().join(name)).with_context(|| format!("no {name}"));
    let report: serde_json::Value = serde_json::from_str(&read("report.json")?)?;
    same("seed", &report["seed"], 20)?;
    ensure!(report["modules"]["plugged"].as_u64() > Some(0), "no module was plugged: {report}");
    ensure!(report["resizes"].as_u64() > Some(0), "no size was changed: {report}");
    contains("console.log", &read("console.log")?, "stress 15 --seed 20")
}

/// `stress -J`.
#[derive(Debug, Deserialize)]
struct Report {
    seed: u64,
    seconds: u64,
    operations: BTreeMap<String, u64>,
    refused: BTreeMap<String, u64>,
    memchecks: u64,
    compared: bool,
}

/// What must be the same before and after.
#[derive(Debug, PartialEq)]
struct State {
    blocks: BTreeMap<u64, Block>,
    settings: serde_json::Value,
    total: u64,
    free: u64,
    offline: u64,
    page_tables: u64,
}

fn state(vm: &mut Vm) -> Result<State> {
    let Usage { total, free, page_tables, offline, .. } = vm.usage()?;
    Ok(State { blocks: vm.blocks()?, settings: vm.json("policy")?, total, free, offline, page_tables })
}

/// Stacks of tasks that have ended are given back a moment later.
fn is_as_before(vm: &mut Vm, before: &State) -> Result<()> {
    let settled = vm.wait_for("what was there", |vm| Ok((state(vm)? == *before).then_some(())));
    settled.or_else(|_| same("the machine", &state(vm)?, before))
}

/// Blocks of every kind: online in both zones, and offline.
fn blocks_of_every_kind(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm_on("d0", mib(512), 0))?;
    vm.plug(&dimm_on("d1", mib(256), 1))?;
    vm.plug(&dimm_on("d2", mib(128), 1))?;
    vm.cmd("online_movable 32-33")?;
    vm.cmd("online_kernel 34")?;
    vm.cmd("policy auto-movable --ratio 200").map(drop)
}

fn everything_is_done_and_nothing_remains(vm: &mut Vm) -> Result<()> {
    blocks_of_every_kind(vm)?;
    let before = state(vm)?;
    let report: Report = vm.ask("stress 20 --seed 7")?;
    ensure!(report.seed == 7 && report.seconds == 20 && report.memchecks >= 5 && report.compared, "{report:?}");
    let idle: Vec<_> = report.operations.iter().filter(|(_, times)| **times == 0).collect();
    ensure!(idle.is_empty(), "never done: {idle:?}; {report:?}");
    ensure!(report.refused["offline"] > 0, "no kernel memory was in the way of any offline: {report:?}");
    is_as_before(vm, &before)?;
    for id in ["d0", "d1", "d2"] {
        vm.unplug(id)?;
    }
    Ok(())
}

fn ctrl_c_gives_everything_back(vm: &mut Vm) -> Result<()> {
    blocks_of_every_kind(vm)?;
    let before = state(vm)?;
    for delay_ms in [100, 2500] {
        vm.console.submit("stress 600 --seed 3")?;
        vm.expect("seed 3")?;
        std::thread::sleep(Duration::from_millis(delay_ms));
        vm.type_raw(b"\x03")?;
        vm.expect("error: ECANCELED: ")?;
        vm.console.expect_prompt(soon())?;
        is_as_before(vm, &before)?;
    }
    let job = vm.job("stress 600")?;
    std::thread::sleep(Duration::from_millis(500));
    vm.cmd(&format!("kill {job}"))?;
    vm.fails(&format!("wait {job}"), "ECANCELED")?;
    is_as_before(vm, &before)
}

fn the_shell_stays_usable_beside_it(vm: &mut Vm) -> Result<()> {
    blocks_of_every_kind(vm)?;
    let before = state(vm)?;
    let job = vm.job("stress 12 --seed 11")?;
    for _ in 0..5 {
        contains("version", &vm.cmd("version")?, "altmap")?;
        let id = vm.fill("fill 8M")?;
        vm.cmd("lsmem -a")?;
        vm.memcheck()?;
        vm.cmd(&format!("verify {id}"))?;
        vm.cmd(&format!("free {id}"))?;
    }
    vm.cmd(&format!("wait {job}"))?;
    is_as_before(vm, &before)
}

fn modules_come_and_go_beside_it(vm: &mut Vm) -> Result<()> {
    let before = state(vm)?;
    let job = vm.job("stress 15 --seed 5")?;
    for round in 0..4 {
        let id = format!("d{round}");
        // With such settings as it made, there may be no room for struct pages.
        vm.plug_status(&dimm(&id, mib(256)))?;
        if round > 0 {
            // What is in use stays, and goes later.
            vm.unplug_status(&format!("d{}", round - 1))?;
        }
    }
    vm.cmd(&format!("wait {job}"))?;
    let left: Vec<_> = vm.modules()?.into_keys().collect();
    for id in left {
        vm.unplug(&id).with_context(|| format!("{id} after the stress"))?;
    }
    is_as_before(vm, &before)
}

fn what_makes_no_sense_is_refused(vm: &mut Vm) -> Result<()> {
    for line in [
        "stress",
        "stress 0",
        "stress soon",
        "stress 5 6",
        "stress 5 --cpus 0",
        "stress 5 --cpus 1000",
        "stress 5 --cpus many",
        "stress 5 --seed sesame",
        "stress 99999999999999999999",
    ] {
        vm.fails(line, "EINVAL")?;
    }
    let before = vm.usage()?;
    let mut size = 1 << 30;
    while size >= 1 << 20 {
        match vm.cmd(&format!("kfill {size}")) {
            Ok(_) => {}
            Err(error) if errno_of(&error) == Some("ENOMEM") => size /= 2,
            Err(error) => return Err(error),
        }
    }
    contains("sentence", &vm.fails("stress 5", "ENOMEM")?, "MiB")?;
    vm.free_everything()?;
    vm.expect_usage(&before)
}
