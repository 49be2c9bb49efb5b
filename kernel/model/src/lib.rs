//! The kernel's tasks, locks and requests between CPUs, on a model of a machine.
//!
//! The modules below are the kernel's own files. Around them is what they need of a machine: every flow of control is a
//! thread of `shuttle`, which lets one of them go on at a time, and chooses which by a seed; a CPU is handed from flow to
//! flow. A wake-up that is lost ends in a deadlock, which `shuttle` reports.
//!
//! Statics of the kernel live as long as the process, so every order that is tried has a process of its own, see [`run`].
#![expect(dead_code, unused_imports, reason = "the model does not use everything that tasks can do")]

extern crate alloc;

mod arch;
mod memory;
pub mod scenarios;
#[path = "../../src/sync.rs"]
mod sync;
#[path = "../../src/task/mod.rs"]
mod task;
mod time;

use shuttle::rand::{self, Rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::thread;
use std::process::Command;

/// What the kernel's files take from the language, as the model has it.
mod shim {
    pub(crate) use shuttle::sync::atomic;

    /// Where a loop that waits for others lets them run.
    pub(crate) mod hint {
        pub(crate) fn spin_loop() {
            crate::arch::take_interrupts();
            shuttle::hint::spin_loop();
        }
    }
}

/// How often the devices of the machine interrupt it.
const INTERRUPTS: usize = 30;

/// How many turns a CPU may be late.
const LATE: usize = 100;

/// The status of a process whose scenario came to its end.
const DONE: i32 = 42;
const SEED: &str = "MODEL_SEED";

/// Runs a scenario as a task on a machine of so many CPUs, in as many orders as there are `seeds`. `name` is that of the
/// test that calls this, which runs again in every process; with the variable `MODEL_SEED` it runs once, in this one.
pub fn run(name: &str, cpus: usize, seeds: u64, scenario: fn()) {
    if let Some(seed) = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()) {
        try_order(cpus, seed, scenario);
        return;
    }
    let program = std::env::current_exe().expect("a test has a file");
    for seed in 0..seeds {
        let output = Command::new(&program)
            .args(["--exact", name, "--nocapture"])
            .env(SEED, seed.to_string())
            .output()
            .expect("a test can be run again");
        assert!(
            output.status.code() == Some(DONE),
            "{SEED}={seed}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
    }
}

fn try_order(cpus: usize, seed: u64, scenario: fn()) {
    let mut config = shuttle::Config::new();
    config.stack_size = 0x4_0000;
    config.silence_warnings = true;
    let scheduler: Box<dyn Scheduler + Send> = if seed.is_multiple_of(2) {
        Box::new(RandomScheduler::new_from_seed(seed, 1))
    } else {
        Box::new(PctScheduler::new_from_seed(seed, 4, 1))
    };
    shuttle::Runner::new(scheduler, config).run(move || boot(cpus, scenario));
}

/// Brings the machine up; the main thread is its devices, which end when the scenario does, with the process.
fn boot(cpus: usize, scenario: fn()) {
    let boot_cpu = thread::spawn(move || {
        arch::adopt(0);
        arch::arrive();
        arch::enable_interrupts();
        task::init();
        for cpu in 1..cpus {
            let idle = task::prepare_idle().expect("there are slots");
            thread::spawn(move || {
                (0..rand::thread_rng().gen_range(0..LATE)).for_each(|_| thread::yield_now());
                arch::adopt(cpu);
                arch::arrive();
                idle.run()
            });
        }
        task::spawn("scenario", move || {
            scenario();
            std::process::exit(DONE);
        });
        task::start()
    });
    for _ in 0..INTERRUPTS {
        arch::interrupt(rand::thread_rng().gen_range(0..cpus));
    }
    boot_cpu.join().expect("a CPU never ends");
}
