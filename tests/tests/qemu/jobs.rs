//! Commands in the background, and commands that are cut short.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use boot::size::mib;
use system_tests::check::{contains, same};
use system_tests::dimms::dimm;
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::{Vm, soon};

/// Takes the guest long enough to be interrupted, and still fits.
const LONG: &str = "fill 1500M";

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(a_job_runs_beside_the_prompt_and_can_be_waited_for),
        scenario!(a_killed_job_gives_everything_back),
        scenario!(ctrl_c_gives_everything_back),
        scenario!(followed_events_end_with_ctrl_c),
        scenario!(jobs_overlap_without_losing_anything),
    ]
}

fn log_says(vm: &mut Vm, text: &str) -> Result<()> {
    vm.wait_for(text, |vm| {
        let log = vm.console.log();
        Ok(log.lines().any(|line| line.starts_with('[') && line.contains(text)).then_some(()))
    })
}

fn a_job_runs_beside_the_prompt_and_can_be_waited_for(vm: &mut Vm) -> Result<()> {
    let good = vm.job("fill 16M")?;
    vm.cmd(&format!("wait {good}"))?;
    log_says(vm, &format!("job {good}: ok"))?;
    let console = vm.console.log();
    ensure!(console.lines().any(|line| line == format!("job {good}: fill 1")), "whose line is it? {console}");
    let bad = vm.job("online 99")?;
    ensure!(bad != good, "both are job {bad}");
    vm.fails(&format!("wait {bad}"), "ENOENT")?;
    log_says(vm, &format!("job {bad}: ENOENT: "))?;

    let long = vm.job(LONG)?;
    contains("jobs while it runs", &vm.cmd("jobs")?, &long.to_string())?;
    vm.cmd("version")?;
    vm.cmd(&format!("wait {long}"))?;
    log_says(vm, &format!("job {long}: ok"))
}

fn a_killed_job_gives_everything_back(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    for _ in 0..3 {
        let job = vm.job(LONG)?;
        std::thread::sleep(Duration::from_millis(100));
        vm.cmd(&format!("kill {job}"))?;
        vm.fails(&format!("wait {job}"), "ECANCELED")?;
        log_says(vm, &format!("job {job}: ECANCELED: "))?;
        vm.expect_usage(&before)?;
    }
    Ok(())
}

fn ctrl_c_gives_everything_back(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    for delay_ms in [50, 200, 400] {
        vm.console.submit(LONG)?;
        std::thread::sleep(Duration::from_millis(delay_ms));
        vm.type_raw(b"\x03")?;
        vm.expect("error: ECANCELED: ")?;
        vm.console.expect_prompt(soon())?;
        vm.expect_usage(&before)?;
    }
    Ok(())
}

fn followed_events_end_with_ctrl_c(vm: &mut Vm) -> Result<()> {
    vm.console.submit("events -f -J")?;
    vm.plug(&dimm("d0", mib(128)))?;
    let line = loop {
        let line = vm.console.whole_line(soon())?.context("the machine ended")?;
        if line.contains("\"add\"") {
            break line;
        }
    };
    let event: serde_json::Value = serde_json::from_str(&line).with_context(|| format!("no JSON: {line}"))?;
    same("result", &event["result"], "ok")?;
    vm.type_raw(b"\x03")?;
    vm.console.expect_prompt(soon())?;
    vm.expect_blocks(&[(32..=32, "offline")])
}

fn jobs_overlap_without_losing_anything(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    vm.plug(&dimm("d0", mib(512)))?;
    let jobs = [
        vm.job("online_movable 32-33")?,
        vm.job("online_kernel 34")?,
        vm.job("fill 64M")?,
        vm.job("kfill 32M")?,
        vm.job("online 35")?,
    ];
    vm.memcheck()?;
    for job in jobs {
        vm.cmd(&format!("wait {job}"))?;
    }
    vm.memcheck()?;
    vm.expect_blocks(&[(32..=33, "Movable"), (34..=34, "Normal"), (35..=35, "Normal")])?;
    for id in 1..=2 {
        vm.cmd(&format!("verify {id}"))?;
        vm.cmd(&format!("free {id}"))?;
    }
    vm.unplug("d0")?;
    vm.expect_usage(&before)
}
