//! The altmap kernel: boot, page tables, firmware, drivers, tasks and the shell.
//!
//! This file is the boot order. Every line below starts one part of the machine; what each part does is told at the
//! top of its own module.
#![cfg_attr(not(test), no_std, no_main)]
#![expect(dead_code, unused_imports, reason = "the parts of the machine arrive one after another")]

extern crate alloc;

mod arch;
mod boot_info;
mod drivers;
mod firmware {
    #[cfg(test)]
    mod fixtures;
    pub(crate) mod slit;
    pub(crate) mod srat;
    mod table;
}
mod logging;
mod memory;
mod panic;
mod power;
mod selftest;
mod symbols;
mod sync;
mod task;
mod time;

use drivers::console;

/// Brings the machine up, in order; becomes the idle task of the boot CPU.
fn kernel_main(boot: &'static mut bootloader_api::BootInfo) -> ! {
    time::start();
    arch::early();
    console::early();
    logging::init();
    let facts = boot_info::collect(boot);
    symbols::init(facts);
    memory::early(facts);
    let madt = arch::MadtInfo {
        local_apic_address: 0xfee0_0000,
        io_apics: alloc::vec![arch::IoApicInfo { id: 0, address: 0xfec0_0000, gsi_base: 0 }],
        ..arch::MadtInfo::default()
    };
    arch::interrupts::init(&madt);
    time::init([time::ClockSource::Hpet(0xfed0_0000)]);
    memory::start(&firmware::srat::Srat::absent(), None, None);
    task::init();
    console::start();
    log::info!(target: "boot", "altmap {}", env!("CARGO_PKG_VERSION"));
    task::spawn("selftest", || selftest::run(""));
    task::start()
}

/// On the host the entry point is absent; this keeps the boot order compiled and linked there.
#[cfg(test)]
const _: fn(&'static mut bootloader_api::BootInfo) -> ! = kernel_main;
