//! The scenarios, each on a machine of its own under QEMU: `cargo test -p system-tests --release -- FILTER`.
//!
//! Two machines run at a time. A failure prints what the machine was and everything it said.

mod address_map;
mod agreement;
mod bench;
mod console;
mod contract;
mod counted;
mod cpus;
mod cut_short;
mod damage;
mod discovery;
mod faults;
mod fills;
mod iomem;
mod jobs;
mod kernelcore;
mod large;
mod listeners;
mod lossy;
mod machines;
mod many;
mod memmap;
mod moving;
mod nodes;
mod online;
mod parallel;
mod parameters;
mod poison;
mod power;
mod pressure;
mod pvh;
mod races;
mod readme;
mod removal;
mod scarce;
mod slots;
mod soak;
mod srat;
mod standby;
mod stress;
mod tables;
mod untouched;
mod vast;
mod virtio_mem;
mod zones;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use system_tests::scenario::Scenario;

/// More machines at once only make each slower, and the memory of a host finite.
const MACHINES_AT_ONCE: usize = 2;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let wanted = arguments.test_threads.unwrap_or(MACHINES_AT_ONCE);
    arguments.test_threads = Some(wanted.min(MACHINES_AT_ONCE));
    let topics = [
        machines::scenarios(),
        pvh::scenarios(),
        cpus::scenarios(),
        tables::scenarios(),
        srat::scenarios(),
        discovery::scenarios(),
        online::scenarios(),
        zones::scenarios(),
        moving::scenarios(),
        contract::scenarios(),
        cut_short::scenarios(),
        removal::scenarios(),
        memmap::scenarios(),
        many::scenarios(),
        untouched::scenarios(),
        large::scenarios(),
        vast::scenarios(),
        scarce::scenarios(),
        slots::scenarios(),
        standby::scenarios(),
        virtio_mem::scenarios(),
        races::scenarios(),
        parallel::scenarios(),
        pressure::scenarios(),
        nodes::scenarios(),
        address_map::scenarios(),
        agreement::scenarios(),
        faults::scenarios(),
        fills::scenarios(),
        damage::scenarios(),
        listeners::scenarios(),
        lossy::scenarios(),
        console::scenarios(),
        jobs::scenarios(),
        parameters::scenarios(),
        poison::scenarios(),
        kernelcore::scenarios(),
        power::scenarios(),
        bench::scenarios(),
        soak::scenarios(),
        stress::scenarios(),
        readme::scenarios(),
    ];
    let mut trials: Vec<_> = topics.into_iter().flatten().map(trial).collect();
    trials.push(Trial::test("counted::a_quick_bench_measures_every_step", || {
        counted::a_quick_bench_measures_every_step().map_err(|error| Failed::from(format!("{error:#}")))
    }));
    trials.push(Trial::test("stress::the_host_tool_plugs_and_unplugs_beside_it", || {
        stress::the_host_tool_plugs_and_unplugs_beside_it().map_err(|error| Failed::from(format!("{error:#}")))
    }));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(scenario: Scenario) -> Trial {
    let name = scenario.name.clone();
    Trial::test(name, move || scenario.run().map_err(|error| Failed::from(format!("{error:#}"))))
}
