//! Several CPUs at work on the same blocks: one of two that want opposite things has its way, and never both.

use anyhow::{Context, Result, ensure};
use boot::qemu::Machine;
use boot::size::mib;
use system_tests::check::same;
use system_tests::dimms::dimm;
use system_tests::memory::BLOCK_FRAMES;
use system_tests::scenario;
use system_tests::scenario::{Scenario, two_nodes};
use system_tests::vm::{Vm, errno_of};

/// Who comes first is another one each time.
const ROUNDS: u64 = 12;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let on = |cpus| Machine { cpus, ..two_nodes() };
    let each = [
        scenario!(an_offline_meets_allocations_in_its_block),
        scenario!(of_two_that_change_a_block_one_has_its_way),
        scenario!(an_online_that_meets_an_offline_comes_before_or_after_it),
        scenario!(operations_on_different_blocks_all_succeed),
    ];
    let variants = [(2, "on_two_cpus"), (4, "on_four_cpus")];
    let with = |scenario: &Scenario, (cpus, name)| scenario.clone().on(on(cpus)).with(name);
    each.iter().flat_map(|scenario| variants.map(|variant| with(scenario, variant))).collect()
}

/// Runs commands beside each other, and says how each ended: `ok` or an errno.
fn at_once(vm: &mut Vm, commands: &[&str]) -> Result<Vec<String>> {
    let line: String = commands.iter().map(|command| format!("{command} & ")).collect();
    let output = vm.cmd(line.trim_end())?;
    let jobs: Vec<u64> = output.lines().filter_map(|line| line.strip_prefix("job ")?.trim().parse().ok()).collect();
    ensure!(jobs.len() == commands.len(), "`{line}` printed {output}");
    let mut ends = Vec::new();
    for job in jobs {
        ends.push(match vm.cmd(&format!("wait {job}")) {
            Ok(_) => "ok".to_owned(),
            Err(error) => errno_of(&error).with_context(|| format!("{error:#}"))?.to_owned(),
        });
    }
    Ok(ends)
}

fn place(vm: &mut Vm, block: u64) -> Result<String> {
    Ok(vm.block(block)?.place().to_owned())
}

fn an_offline_meets_allocations_in_its_block(vm: &mut Vm) -> Result<()> {
    let empty = vm.usage()?;
    vm.plug(&dimm("d0", mib(256)))?;
    for round in 0..ROUNDS {
        vm.cmd("online_kernel 32-33")?;
        let fill = format!("kfill {}K --in 33", 4 << round);
        let page = "kfill 4K --in 33";
        // The offline is in the middle of them.
        let ends = at_once(vm, &[&fill, page, "offline 33 --within 5000", page, &fill])?;
        let taken = [0, 1, 3, 4].iter().any(|fill| ends[*fill] == "ok");
        match ends[2].as_str() {
            "ok" => {
                ensure!(!taken, "round {round}: memory was taken from a block that went offline: {ends:?}");
                for frame in [0, 1, 300, 512, BLOCK_FRAMES / 2, BLOCK_FRAMES - 1] {
                    let state = vm.frame_state(33 * BLOCK_FRAMES + frame)?;
                    ensure!(["offline", "memmap"].contains(&state.as_str()), "frame {frame} of block 33 is {state}");
                }
            }
            "EBUSY" => ensure!(taken, "round {round}: nobody was in the way: {ends:?}"),
            _ => anyhow::bail!("round {round}: {ends:?}"),
        }
        vm.memcheck()?;
        vm.cmd("verify")?;
        vm.free_everything()?;
        vm.cmd(if taken { "offline 32-33" } else { "offline 32" })?;
    }
    vm.unplug("d0")?;
    vm.expect_usage(&empty)
}

fn of_two_that_change_a_block_one_has_its_way(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    vm.fails("offline 32", "EINVAL")?;
    for _ in 0..ROUNDS {
        // Whoever comes second changes the zone of what is online by then.
        let ends = at_once(vm, &["online_movable 32-33", "online_kernel 32-33"])?;
        same("two that bring it online", ends, ["ok", "ok"])?;
        let zone = place(vm, 32)?;
        ensure!(["Normal", "Movable"].contains(&zone.as_str()), "block 32 is {zone}");
        vm.expect_blocks(&[(32..=33, zone.as_str())])?;
        let mut ends = at_once(vm, &["offline 32-33", "offline 33", "offline 32-33"])?;
        let alone = ends.remove(1);
        if alone == "ok" {
            // The others are refused as a whole.
            same("both that want more", ends, ["EINVAL", "EINVAL"])?;
            vm.cmd("offline 32")?;
        } else {
            ends.sort();
            same("two that take it offline", ends, ["EINVAL", "ok"])?;
        }
        vm.expect_blocks(&[(32..=33, "offline")])?;
    }
    vm.unplug("d0")
}

fn an_online_that_meets_an_offline_comes_before_or_after_it(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(512)))?;
    for round in 0..ROUNDS {
        vm.cmd("online_kernel dimm0")?;
        // Blocks that were used take longer to go.
        let id = vm.fill("kfill 400M --in dimm0")?;
        vm.cmd(&format!("free {id}"))?;
        let commands = ["offline dimm0", "online_movable dimm0"];
        let ends = if round % 2 == 0 {
            at_once(vm, &commands)?
        } else {
            let mut ends = at_once(vm, &[commands[1], commands[0]])?;
            ends.reverse();
            ends
        };
        // It changes the zone of what is online still, or brings online what is offline by then.
        same("the offline and the online", ends, ["ok", "ok"])?;
        let place = place(vm, 35)?;
        ensure!(["Movable", "offline"].contains(&place.as_str()), "block 35 is {place}");
        vm.expect_blocks(&[(32..=35, place.as_str())])?;
        vm.memcheck()?;
        if place == "Movable" {
            vm.cmd("offline dimm0")?;
        }
    }
    vm.unplug("d0")
}

fn operations_on_different_blocks_all_succeed(vm: &mut Vm) -> Result<()> {
    let empty = vm.usage()?;
    vm.plug(&dimm("d0", mib(1024)))?;
    for _ in 0..ROUNDS {
        let onlines = ["online_movable 32", "online_kernel 33", "online_movable 34-37", "online 38-39"];
        same("online", at_once(vm, &onlines)?, ["ok"; 4])?;
        vm.expect_blocks(&[(32..=32, "Movable"), (33..=33, "Normal"), (34..=37, "Movable")])?;
        let kernel = vm.fill("kfill 20M --in 33")?;
        let fills = ["fill 20M --in 32", "fill 20M --in 33", "fill 20M --in 34-37", "offline 38-39"];
        same("in use", at_once(vm, &fills)?, ["ok"; 4])?;
        same("verify", at_once(vm, &["verify", "verify", "memcheck", "online_movable 39"])?, ["ok"; 4])?;
        vm.cmd(&format!("free {kernel}"))?;
        // What moves out of one must not get in the way of another.
        let offlines = ["offline 32", "offline 33", "offline 34-37", "offline 39"];
        same("offline", at_once(vm, &offlines)?, ["ok"; 4])?;
        vm.cmd("verify")?;
        vm.memcheck()?;
        vm.free_everything()?;
    }
    vm.unplug("d0")?;
    vm.expect_usage(&empty)
}
