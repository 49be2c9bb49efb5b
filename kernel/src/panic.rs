//! The end: a message, who called whom, and the line `panic: stopped`.
//!
//! Whatever is broken, this must still speak: it takes no lock, allocates nothing, and writes to the port directly.
#![deny(unsafe_code)]

use crate::drivers::console;
use crate::println;
use crate::{arch, symbols};
use core::fmt::Display;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What `isa-debug-exit` is told after a panic.
const EXIT_FAILED: u8 = 0x20;

static IN_PROGRESS: AtomicBool = AtomicBool::new(false);

/// Whether output must not wait for anybody.
pub(crate) fn in_progress() -> bool {
    IN_PROGRESS.load(Relaxed)
}

/// Says why the kernel cannot go on, where it was if the callers do not tell, and stops it.
pub(crate) fn stop(reason: &dyn Display, place: Option<usize>, callers: arch::Frames) -> ! {
    arch::push_off();
    if IN_PROGRESS.swap(true, Relaxed) {
        // The panic itself went wrong; say so and no more.
        println!("panic while panicking: {reason}");
    } else {
        console::flush_for_panic();
        println!("{reason}");
        println!("backtrace:");
        if let Some(place) = place {
            print_frame(place, 0);
        }
        print_callers(callers);
    }
    println!("panic: stopped");
    arch::debug_exit(EXIT_FAILED);
    arch::halt_forever()
}

/// Prints return addresses, each run of equal ones once: an endless recursion stays readable.
fn print_callers(mut callers: arch::Frames) {
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
