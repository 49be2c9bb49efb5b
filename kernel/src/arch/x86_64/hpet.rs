//! The high-precision event timer, as a reference clock (IA-PC HPET specification 1.0a).

use crate::memory;

const CAPABILITIES: usize = 0x000;
const CONFIGURATION: usize = 0x010;
const ENABLE: u64 = 1;
const COUNTER: usize = 0x0f0;

const FEMTOSECONDS_PER_SECOND: u64 = 1_000_000_000_000_000;

/// Slower than this is against the specification.
const LONGEST_PERIOD_FEMTOSECONDS: u64 = 100_000_000;

/// A running HPET.
pub(crate) struct Hpet {
    base: *mut u8,
    per_second: u64,
}

impl Hpet {
    /// Starts the counter of the HPET at a physical address; `None` when what is there is none.
    pub(crate) fn start(physical: u64) -> Option<Self> {
        let base = memory::map_mmio(physical, 0x400);
        let mut hpet = Self { base, per_second: 0 };
        let period = hpet.read(CAPABILITIES) >> 32;
        if period == 0 || period > LONGEST_PERIOD_FEMTOSECONDS {
            return None;
        }
        hpet.per_second = FEMTOSECONDS_PER_SECOND / period;
        hpet.write(CONFIGURATION, hpet.read(CONFIGURATION) | ENABLE);
        Some(hpet)
    }

    /// Counts per second.
    pub(crate) fn per_second(&self) -> u64 {
        self.per_second
    }

    /// The counter; some have only its low half.
    pub(crate) fn counter(&self) -> u64 {
        self.read(COUNTER)
    }

    fn read(&self, offset: usize) -> u64 {
        let register: *const u64 = self.base.wrapping_add(offset).cast_const().cast();
        // SAFETY: The offsets above lie inside the mapped registers, which stay mapped.
        unsafe { register.read_volatile() }
    }

    fn write(&self, offset: usize, value: u64) {
        let register: *mut u64 = self.base.wrapping_add(offset).cast();
        // SAFETY: As for `read`; the device only counts.
        unsafe { register.write_volatile(value) };
    }
}
