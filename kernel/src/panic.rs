//! The end: a message, who called whom, and the line `panic: stopped`.
//!
//! Whatever is broken, this must still speak: it takes no lock, allocates nothing, and writes to the port directly.
#![deny(unsafe_code)]

use crate::drivers::console;
use crate::println;
use crate::{arch, symbols};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What `isa-debug-exit` is told after a panic.
#[cfg(not(test))]
const EXIT_FAILED: u8 = 0x20;

static IN_PROGRESS: AtomicBool = AtomicBool::new(false);

/// Whether output must not wait for anybody.
pub(crate) fn in_progress() -> bool {
    IN_PROGRESS.load(Relaxed)
}

/// Switches to output without locks; says whether a panic was already under way.
fn begin() -> bool {
    if IN_PROGRESS.swap(true, Relaxed) {
        return true;
    }
    console::flush_for_panic();
    false
}

/// Prints return addresses with the names of their functions.
fn print_backtrace(frames: arch::Frames) {
    println!("backtrace:");
    for address in frames {
        // A return address may lie just behind its function, when that never returns.
        match symbols::lookup(address as u64 - 1) {
            Some(symbol) => println!(
                "  {address:#018x} {} +{:#x}",
                symbol.name,
                symbol.offset + 1
            ),
            None => println!("  {address:#018x}"),
        }
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    arch::push_off();
    let again = begin();
    println!("{info}");
    if !again {
        print_backtrace(arch::current_frames());
    }
    println!("panic: stopped");
    arch::debug_exit(EXIT_FAILED);
    arch::halt_forever()
}
