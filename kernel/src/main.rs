//! The altmap kernel: boot, page tables, firmware, drivers, tasks and the shell.
//!
//! This file is the boot order. Every line below starts one part of the machine; what each part does is told at the
//! top of its own module.
#![cfg_attr(not(test), no_std, no_main)]

extern crate alloc;

mod arch;
mod boot_info;
mod drivers;
mod fill;
mod firmware;
mod hotplug;
mod logging;
mod memory;
mod pace;
mod panic;
mod params;
mod power;
mod selftest;
mod shell;
mod stress;
mod symbols;
mod sync;
mod task;
mod time;
mod vm;
mod watchdog;

// Tasks and locks take these from here: `kernel/model` compiles the same files with those of a model checker.
use core::{hint, sync::atomic};
use drivers::{console, pci};

/// Brings the machine up, in order; becomes the idle task of the boot CPU.
fn kernel_main(boot: &'static mut bootloader_api::BootInfo) -> ! {
    time::start();
    arch::early();
    console::early();
    logging::init();
    let facts = boot_info::collect(boot);
    symbols::init(facts);
    memory::early(facts);
    let firmware = firmware::tables(facts.rsdp);
    arch::interrupts::init(&firmware.madt);
    time::init(firmware.clocks());
    power::init(firmware.power_controls());
    pci::start();
    let cpus = arch::interrupts::choose_cpus(&firmware.madt, params::get().max_cpus);
    let params = params::get();
    memory::start(firmware, cpus.count(), params.mem_limit, params.cores);
    params::get().obey();
    task::init();
    // What follows may wait, which an idle task cannot.
    task::spawn("shell", move || {
        arch::smp::start_others(&cpus);
        memory::start_keeper();
        console::start();
        firmware::events::start(firmware);
        hotplug::start();
        match &params::get().selftest {
            Some(filter) => selftest::run(filter),
            None => shell::run(params::get().run()),
        }
    });
    task::start()
}

/// On the host the entry point is absent; this keeps the boot order compiled and linked there.
#[cfg(test)]
const _: fn(&'static mut bootloader_api::BootInfo) -> ! = kernel_main;
