//! Addresses for what came while the machine runs: no firmware looks at it any more.

use super::{
    Address, COMMAND, COMMAND_BITS, ConfigSpace, DECODES_MEMORY, FIRST_BAR, Function, Range, decoded_len, joined,
    memory_bars, size_mask,
};
use alloc::vec::Vec;

/// Registers that can be written by any BAR lie below this.
const REACH: u64 = 1 << 32;

/// Addresses that a bus is reached by, and what of them is taken.
pub(super) struct Room {
    pub(super) windows: Vec<Range>,
    pub(super) taken: Vec<Range>,
}

impl Room {
    /// Takes the lowest addresses for so many bytes, a power of two, of which they are a multiple.
    fn take(&mut self, len: u64) -> Option<u64> {
        let within = |window: &Range| {
            let end = window.end().min(REACH);
            let mut start = window.start.checked_next_multiple_of(len)?;
            loop {
                let last = start.checked_add(len - 1).filter(|last| *last < end)?;
                let Some(other) = self.taken.iter().find(|it| it.start <= last && start < it.end()) else {
                    return Some(start);
                };
                start = other.end().checked_next_multiple_of(len)?;
            }
        };
        let start = self.windows.iter().find_map(within)?;
        self.taken.push(Range { start, len });
        Some(start)
    }
}

/// Gives the memory of a function, which does not decode any, its addresses and has it decode them; says whether there was
/// room for all of it.
pub(super) fn place(config: &mut impl ConfigSpace, function: &Function, room: &mut Room) -> bool {
    let address = function.address;
    let mut is_complete = true;
    for bar in memory_bars(config, address, function.bar_count) {
        let register = FIRST_BAR + 4 * bar.number;
        let low = size_mask(config, address, register, bar.low);
        let high = if bar.is_wide { size_mask(config, address, register + 4, bar.high) } else { 0 };
        let Some(len) = decoded_len(joined(low, high)) else { continue };
        match room.take(len) {
            Some(start) => {
                config.write(address, register, start as u32);
                if bar.is_wide {
                    config.write(address, register + 4, 0);
                }
            }
            None => is_complete = false,
        }
    }
    if is_complete {
        switch_on(config, address, DECODES_MEMORY);
    }
    is_complete
}

/// Sets bits of a function's command register.
pub(super) fn switch_on(config: &mut impl ConfigSpace, function: Address, bits: u32) {
    let command = config.read(function, COMMAND) & COMMAND_BITS;
    config.write(function, COMMAND, command | bits);
}

/// Clears bits of a function's command register.
pub(super) fn switch_off(config: &mut impl ConfigSpace, function: Address, bits: u32) {
    let command = config.read(function, COMMAND) & COMMAND_BITS;
    config.write(function, COMMAND, command & !bits);
}
