//! Channel 2 of the programmable interval timer, as a reference clock where there is no better one (Intel 8254).

use super::ports::{self, PortRange};
use super::tsc;

/// Ticks per second.
pub(crate) const HZ: u64 = 1_193_182;
/// Where the count wraps.
pub(crate) const MASK: u64 = 0xffff;

// Offsets of ports from the channel's own.
const DATA: u16 = 0;
const COMMAND: u16 = 1;

const GATE: u8 = 1 << 0;
const SPEAKER: u8 = 1 << 1;
/// Channel 2, both bytes, a rate generator: it counts down and begins anew.
const COUNT_DOWN: u8 = 2 << 6 | 3 << 4 | 2 << 1;
/// The count of channel 2 stands still for the next two reads.
const LATCH: u8 = 2 << 6;

/// In cycles of the time-stamp counter: more than many ticks of the timer on the fastest CPU, and less than a wrap on the slowest.
const TRIAL_CYCLES: u64 = 1_000_000;

/// The running channel.
pub(crate) struct Pit {
    ports: PortRange,
}

impl Pit {
    /// Starts the channel; `None` when nothing counts there.
    pub(crate) fn start() -> Option<Self> {
        let gate = ports::pit_gate();
        gate.write_u8(0, gate.read_u8(0) & !SPEAKER | GATE);
        let pit = Self { ports: ports::pit_channel_2() };
        pit.ports.write_u8(COMMAND, COUNT_DOWN);
        // The largest count.
        pit.ports.write_u8(DATA, 0);
        pit.ports.write_u8(DATA, 0);
        let (first, begun) = (pit.counter(), tsc::ticks());
        while tsc::ticks() - begun < TRIAL_CYCLES {
            if pit.counter() != first {
                return Some(pit);
            }
        }
        None
    }

    /// How far it has counted, upwards, up to [`MASK`].
    pub(crate) fn counter(&self) -> u64 {
        self.ports.write_u8(COMMAND, LATCH);
        let low = self.ports.read_u8(DATA);
        let high = self.ports.read_u8(DATA);
        MASK - u64::from(u16::from_le_bytes([low, high]))
    }
}
