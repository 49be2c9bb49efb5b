//! The end: a message, who called whom, and the line `panic: stopped`.
//!
//! Whatever is broken, this must still speak: it takes no lock, allocates nothing, and writes to the port directly. The
//! other CPUs are stopped first.
#![deny(unsafe_code)]

use crate::arch::CpuTrace;
use crate::drivers::console;
use crate::println;
use crate::{arch, symbols};
use core::fmt::Display;

/// What `isa-debug-exit` is told after a panic.
const EXIT_FAILED: u8 = 0x20;

/// Says why the kernel cannot go on, where it was if the callers do not tell, and stops it.
pub(crate) fn stop(reason: &dyn Display, place: Option<usize>, callers: arch::Frames) -> ! {
    arch::push_off();
    let own = arch::cpu_id();
    match arch::begin_panic() {
        Ok(()) => {
            arch::stop_others();
            console::flush_for_panic();
            println!("{reason}");
            println!("backtrace:");
            if let Some(place) = place {
                print_frame(place, 0);
            }
            print_callers(callers);
            for cpu in arch::online_cpus().filter(|cpu| *cpu != own) {
                match arch::trace_of(cpu) {
                    Some(trace) => print_trace(cpu, &trace),
                    None => println!("cpu {cpu} does not answer"),
                }
            }
        }
        // The panic itself went wrong; say so and no more.
        Err(before) if before == own => println!("panic while panicking: {reason}"),
        // Another CPU was faster and will tell where this one is.
        Err(_) => arch::stop_here(place.unwrap_or_default(), callers),
    }
    println!("panic: stopped");
    arch::debug_exit(EXIT_FAILED);
    arch::halt_forever()
}

/// Prints where another CPU was.
fn print_trace(cpu: usize, trace: &CpuTrace) {
    println!("cpu {cpu}:");
    if trace.place != 0 {
        print_frame(trace.place, 0);
    }
    print_callers(trace.callers.iter().copied());
}

/// Prints return addresses, each run of equal ones once: an endless recursion stays readable.
fn print_callers(mut callers: impl Iterator<Item = usize>) {
    let mut next = callers.next();
    while let Some(address) = next {
        // A return address may lie just behind its function, when the call never returns.
        print_frame(address, 1);
        let mut repeated = 0;
        next = callers.find(|&other| {
            repeated += usize::from(other == address);
            other != address
        });
        if repeated > 0 {
            println!("  ... {repeated} more of the same");
        }
    }
}

/// Prints an address and the function that holds the byte `back` before it.
fn print_frame(address: usize, back: usize) {
    match symbols::lookup((address - back) as u64) {
        Some(symbol) => {
            println!("  {address:#018x} {}+{:#x}", symbol.name, symbol.offset + back as u64);
        }
        None => println!("  {address:#018x}"),
    }
}

#[cfg(not(test))]
#[panic_handler]
fn on_panic(info: &core::panic::PanicInfo<'_>) -> ! {
    stop(info, None, arch::current_frames())
}
