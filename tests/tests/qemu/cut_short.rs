//! Offlines that end while memory moves: cancelled, out of time, or because a step fails. Nothing is lost, and no memory.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use boot::accelerator::Accelerator;
use boot::dice::Dice;
use boot::qemu::Machine;
use boot::size::{gib, mib};
use system_tests::check::{contains, same};
use system_tests::dimms::dimm;
use system_tests::memory::{Operation, Usage};
use system_tests::scenario;
use system_tests::scenario::{Scenario, two_nodes};
use system_tests::vm::{Vm, errno_of};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(an_offline_that_is_cancelled_at_any_moment_loses_nothing),
        scenario!(an_offline_out_of_time_loses_nothing),
        scenario!(an_offline_out_of_time_ends_at_its_deadline)
            .on(Machine { cpus: 1, ..two_nodes() })
            .accelerated_by(Accelerator::Counting),
        scenario!(a_failure_at_any_step_of_a_migration_loses_nothing),
    ]
}

/// Begins a command and cancels it after a while; how it ended.
type Cancel = fn(&mut Vm, &str, Duration) -> Result<String>;

fn an_offline_that_is_cancelled_at_any_moment_loses_nothing(vm: &mut Vm) -> Result<()> {
    const COMMAND: &str = "offline 32-33";
    /// As somebody at the keyboard does it, and by the number of a job.
    const WAYS: [Cancel; 2] = [Vm::interrupt, kill];
    /// In each way.
    const WANTED: usize = 5;
    /// It may have become faster than it was when its time was taken.
    const TRIES: usize = 5 * WANTED;
    vm.plug(&dimm("d0", gib(1)))?;
    vm.cmd("online_movable 32-39")?;
    vm.fill("fill 160M --writers 2 --in 32-33")?;
    let before = vm.usage()?;
    vm.cmd(COMMAND)?;
    let mut whole = vm.last_offline()?.took();
    come_back(vm, &before)?;
    let mut dice = Dice::new(26);
    let mut cancelled: Vec<Operation> = Vec::new();
    for cancel in WAYS {
        let wanted = cancelled.len() + WANTED;
        for _ in 0..TRIES {
            if cancelled.len() == wanted {
                break;
            }
            let end = cancel(vm, COMMAND, whole * dice.below(100) as u32 / 100);
            match end.as_ref().map_err(errno_of) {
                Ok(_) => {
                    vm.expect_blocks(&[(32..=33, "offline")])?;
                    whole = vm.last_offline()?.took();
                }
                Err(Some("ECANCELED")) => {
                    vm.expect_blocks(&[(32..=39, "Movable")])?;
                    vm.expect_usage(&before)?;
                    cancelled.push(vm.last_offline()?);
                }
                Err(_) => bail!("{end:?}"),
            }
            vm.cmd("verify")?;
            vm.memcheck()?;
            come_back(vm, &before)?;
        }
        ensure!(cancelled.len() == wanted, "over before it could be cancelled, but for {cancelled:?}");
    }
    let while_it_moved = cancelled.iter().filter(|offline| offline.result == "ECANCELED" && offline.moved > 0).count();
    ensure!(while_it_moved > 0, "never cancelled while memory moved: {cancelled:?}");
    vm.free_everything()
}

fn kill(vm: &mut Vm, command: &str, after: Duration) -> Result<String> {
    let job = vm.job(command)?;
    std::thread::sleep(after);
    // It may be over.
    vm.cmd(&format!("kill {job}")).ok();
    vm.cmd(&format!("wait {job}"))
}

/// What has gone out of blocks 32 and 33 is there again.
fn come_back(vm: &mut Vm, before: &Usage) -> Result<()> {
    if vm.block(32)?.place() == "offline" {
        vm.cmd("online_movable 32-33")?;
    }
    vm.cmd("offline 34-39")?;
    vm.cmd("online_movable 34-39")?;
    vm.expect_usage(before)
}

fn an_offline_out_of_time_loses_nothing(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", gib(1)))?;
    vm.cmd("online_movable 32-39")?;
    ends_out_of_time(vm, "fill 250M --writers 2 --in 32-34", Duration::from_millis(20)).map(drop)
}

/// On a machine that counts, whose clock no other machine holds up.
fn an_offline_out_of_time_ends_at_its_deadline(vm: &mut Vm) -> Result<()> {
    /// Between two looks at the clock.
    const LOOK: Duration = Duration::from_millis(20);
    vm.plug(&dimm("d0", gib(1)))?;
    vm.cmd("online_movable 32-39")?;
    for (fill, within) in [("fill 250M --in 32-34", 40), ("fill 250M --writers 2 --in 32-34", 100)] {
        let within = Duration::from_millis(within);
        let offline = ends_out_of_time(vm, fill, within)?;
        ensure!(offline.moved > 0, "nothing had moved: {offline:?}");
        let took = offline.took();
        ensure!(took >= within * 95 / 100, "it ended long before: {offline:?}");
        ensure!(took <= within * 105 / 100 + LOOK, "it ended too late: {offline:?}");
        vm.cmd("online_movable 32-34")?;
    }
    Ok(())
}

/// An offline that has more to move than time for it, and then enough.
fn ends_out_of_time(vm: &mut Vm, fill: &str, within: Duration) -> Result<Operation> {
    let id = vm.fill(fill)?;
    let before = vm.usage()?;
    let sentence = vm.fails(&format!("offline 32-34 --within {}", within.as_millis()), "ETIMEDOUT")?;
    let offline = vm.last_offline()?;
    same("the journal", offline.result.as_str(), "ETIMEDOUT")?;
    if offline.moved > 0 {
        contains("what had not moved", &sentence, "pfn:")?;
    }
    vm.expect_blocks(&[(32..=39, "Movable")])?;
    vm.expect_usage(&before)?;
    vm.cmd(&format!("verify {id}"))?;
    vm.memcheck()?;
    vm.cmd("offline 32-34")?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}"))?;
    Ok(offline)
}

fn a_failure_at_any_step_of_a_migration_loses_nothing(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(384)))?;
    vm.cmd("online_movable 32-34")?;
    vm.cmd("notify add watcher 0")?;
    let small = vm.fill("fill 12M --writers 2 --in 33")?;
    let large = vm.fill("fill 8M --huge --writers 2 --in 33")?;
    let before = vm.usage()?;
    for point in ["migrate.destination", "migrate.unmap", "migrate.copy", "alloc.frames"] {
        for errno in ["EIO", "ENOMEM"] {
            vm.cmd(&format!("inject {point} {errno}"))?;
            vm.fails("offline 33", errno).with_context(|| format!("{errno} at {point}"))?;
            vm.expect_blocks(&[(32..=34, "Movable")])?;
            vm.expect_usage(&before)?;
            vm.cmd("verify").with_context(|| format!("{errno} at {point}"))?;
            vm.memcheck()?;
        }
    }
    vm.cmd("offline 33")?;
    vm.cmd("verify")?;
    vm.cmd(&format!("free {small}; free {large}")).map(drop)
}
