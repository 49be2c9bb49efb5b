//! Two things at once: whoever comes first, nothing is lost and both sides agree in the end.

use std::time::Instant;

use anyhow::{Result, ensure};
use boot::ost;
use boot::plug;
use boot::qemu::backend;
use boot::size::mib;
use serde_json::json;
use system_tests::check::same;
use system_tests::dimms::{BUSY, SUCCESS, dimm};
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::{BOOT_LIMIT, Vm, errno_of};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(a_dimm_that_comes_while_the_machine_boots_is_found).unbooted(),
        scenario!(a_dimm_that_came_and_is_asked_back_during_boot_goes).unbooted(),
        scenario!(device_del_meets_a_fill),
        scenario!(device_del_meets_an_online),
        scenario!(eight_dimms_come_and_go_in_one_breath),
    ]
}

fn a_dimm_that_comes_while_the_machine_boots_is_found(vm: &mut Vm) -> Result<()> {
    plug::insert(&mut vm.qmp, &dimm("d0", mib(256)))?;
    same("answer", vm.answers(&["d0"], ost::Event::Insertion)?["d0"], SUCCESS)?;
    vm.console.expect_prompt(Instant::now() + BOOT_LIMIT)?;
    vm.expect_blocks(&[(0..=15, "Normal"), (32..=33, "offline"), (34..=34, "absent")])?;
    vm.cmd("online_movable dimm0")?;
    vm.unplug("d0")
}

fn a_dimm_that_came_and_is_asked_back_during_boot_goes(vm: &mut Vm) -> Result<()> {
    plug::insert(&mut vm.qmp, &dimm("d0", mib(256)))?;
    vm.qmp("device_del", json!({"id": "d0"}))?;
    same("answer", vm.answers(&["d0"], ost::Event::Ejection)?["d0"], SUCCESS)?;
    vm.qmp("object-del", json!({"id": backend("d0")}))?;
    vm.console.expect_prompt(Instant::now() + BOOT_LIMIT)?;
    vm.expect_blocks(&[(0..=15, "Normal"), (32..=33, "absent")])?;
    vm.plug(&dimm("d0", mib(256)))
}

fn device_del_meets_a_fill(vm: &mut Vm) -> Result<()> {
    let empty = vm.usage()?;
    for _ in 0..4 {
        vm.plug(&dimm("d0", mib(256)))?;
        vm.cmd("online_kernel dimm0")?;
        let job = vm.job("kfill 200M --in dimm0")?;
        let status = vm.unplug_status("d0")?;
        let filled = vm.cmd(&format!("wait {job}"));
        vm.memcheck()?;
        match (status, filled) {
            // The fill was first, and what it took is good.
            (BUSY, Ok(_)) => {
                vm.cmd("verify")?;
                vm.free_everything()?;
                vm.unplug("d0")?;
            }
            (SUCCESS, Err(error)) => {
                let errno = errno_of(&error);
                ensure!(matches!(errno, Some("ENOMEM" | "ENOENT")), "the fill failed with {error:#}");
            }
            // Each took what the other needed: the fill memory, and the offline the rest while it looked. Both gave it back.
            (BUSY, Err(error)) => {
                same("the fill failed with", errno_of(&error), Some("ENOMEM"))?;
                vm.unplug("d0")?;
            }
            (status, filled) => anyhow::bail!("device_del: {status:#x}, and the fill: {filled:?}"),
        }
        vm.expect_blocks(&[(32..=33, "absent")])?;
        vm.expect_usage(&empty)?;
    }
    Ok(())
}

fn device_del_meets_an_online(vm: &mut Vm) -> Result<()> {
    let empty = vm.usage()?;
    for _ in 0..4 {
        vm.plug(&dimm("d0", mib(1024)))?;
        let job = vm.job("online_movable dimm0")?;
        vm.unplug("d0")?;
        // It came online and was taken offline again, or there was nothing left to bring online.
        if let Err(error) = vm.cmd(&format!("wait {job}")) {
            ensure!(matches!(errno_of(&error), Some("ENOENT" | "EBUSY")), "online failed with {error:#}");
        }
        vm.expect_blocks(&[(32..=39, "absent")])?;
        vm.expect_usage(&empty)?;
    }
    Ok(())
}

fn eight_dimms_come_and_go_in_one_breath(vm: &mut Vm) -> Result<()> {
    let empty = vm.trace()?;
    let ids: Vec<_> = (0..8).map(|number| format!("d{number}")).collect();
    let names: Vec<_> = ids.iter().map(String::as_str).collect();
    vm.cmd("auto_online online_movable")?;
    for _ in 0..3 {
        for id in &ids {
            plug::insert(&mut vm.qmp, &dimm(id, mib(128)))?;
        }
        vm.memcheck()?;
        let answers = vm.answers(&names, ost::Event::Insertion)?;
        ensure!(answers.values().all(|status| *status == SUCCESS), "{answers:?}");
        vm.expect_blocks(&[(32..=39, "Movable")])?;
        for id in ids.iter().rev() {
            vm.qmp("device_del", json!({ "id": id }))?;
        }
        vm.memcheck()?;
        let answers = vm.answers(&names, ost::Event::Ejection)?;
        ensure!(answers.values().all(|status| *status == SUCCESS), "{answers:?}");
        for id in &ids {
            vm.qmp("object-del", json!({"id": backend(id)}))?;
        }
        vm.unchanged_since("eight DIMMs that came and went", &empty)?;
    }
    Ok(())
}
