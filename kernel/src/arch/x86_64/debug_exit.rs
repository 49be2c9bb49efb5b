//! QEMU's `isa-debug-exit` device: writing N ends QEMU with status `2 * N + 1`.

use super::ports;

/// What an unassigned port reads as; the device itself reads as zero.
const ABSENT: u8 = 0xff;

/// Ends QEMU when the device is there; returns when it is not.
pub(crate) fn debug_exit(code: u8) {
    let port = ports::debug_exit();
    if port.read_u8(0) != ABSENT {
        port.write_u8(0, code);
    }
}
