//! The altmap kernel: boot, page tables, firmware, drivers, tasks and the shell.
//!
//! This file is the boot order. Every line below starts one part of the machine; what each part does is told at the
//! top of its own module.
#![cfg_attr(not(test), no_std, no_main)]

extern crate alloc;

mod arch;
mod drivers;
mod entry;
mod fill;
mod firmware;
mod logging;
mod memory;
mod pace;
mod panic;
mod params;
mod power;
mod recount;
mod selftest;
mod shell;
mod shim;
mod sources;
mod stress;
mod symbols;
mod sync;
mod task;
mod time;
mod vm;
mod watchdog;

use drivers::{console, pci};
use entry::BootFacts;

/// Brings the machine up, in order; becomes the idle task of the boot CPU.
fn kernel_main(collect: &dyn Fn() -> BootFacts) -> ! {
    time::start();
    arch::early();
    console::early();
    logging::init();
    let facts = entry::keep(collect());
    symbols::init();
    memory::early(facts);
    let firmware = firmware::tables(facts.rsdp);
    arch::interrupts::init(&firmware.madt);
    time::init(firmware.clocks());
    power::init(firmware.power_controls());
    pci::start(firmware.config_spaces(), &firmware.host_bridges);
    let cpus = arch::interrupts::choose_cpus(&firmware.madt, params::get().max_cpus);
    let params = params::get();
    memory::host::start(firmware, cpus.count(), params.mem_limit, params.kernelcore);
    vm::init();
    params::get().obey();
    task::init();
    // What follows may wait, which an idle task cannot.
    task::spawn("shell", move || {
        arch::smp::start_others(&cpus);
        memory::host::start_keeper();
        console::start();
        firmware::events::start(firmware);
        sources::start(&params::get().virtio_slots, params::get().virtio_mem_mode);
        match &params::get().selftest {
            Some(filter) => selftest::run(filter),
            None => shell::run(params::get().run()),
        }
    });
    task::start()
}
