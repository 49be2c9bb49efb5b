//! The two 8259 interrupt controllers of old PCs: silenced for good, in favour of the IOAPIC.

use super::ports;

/// Their vectors would collide with exceptions; a spurious interrupt comes even from a masked one, so they are moved
/// first, to vectors where nothing happens.
pub(super) const SPURIOUS_BASE: u8 = 0xe0;

/// Moves both and masks every line.
pub(super) fn mask() {
    for (controller, vector_base, wiring) in
        [(ports::pic_primary(), SPURIOUS_BASE, 1 << 2), (ports::pic_secondary(), SPURIOUS_BASE + 8, 2)]
    {
        const INITIALISE_WITH_ICW4: u8 = 0x11;
        const MODE_8086: u8 = 0x01;
        controller.write_u8(0, INITIALISE_WITH_ICW4);
        controller.write_u8(1, vector_base);
        controller.write_u8(1, wiring);
        controller.write_u8(1, MODE_8086);
        controller.write_u8(1, 0xff);
    }
}
