//! The clock: nanoseconds since the kernel was entered, from the time-stamp counter.
//!
//! Until it is calibrated the counter is taken to be faster than any real one, so that the clock runs slow and never
//! jumps back.
#![deny(unsafe_code)]

use crate::arch::ports::PortRange;
use crate::arch::timer::{self, Rates};
use crate::arch::{self, Hpet, PIT_HZ, PIT_MASK, Pit};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;

/// Taken before calibration.
const FASTEST_TICKS_PER_SECOND: u64 = 8_000_000_000;

/// ACPI 6.5 §4.8.3.3.
const PM_TIMER_HZ: u64 = 3_579_545;

/// How often it is measured with the PIT.
const PIT_ROUNDS: u32 = 3;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Counter value at the kernel's entry.
static ENTRY_TICKS: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds per tick as a fraction of 2^32.
static NS_PER_TICK: AtomicU64 = AtomicU64::new(scale(FASTEST_TICKS_PER_SECOND));

/// Starts the clock at zero; the first thing the kernel does.
pub(crate) fn start() {
    ENTRY_TICKS.store(arch::ticks(), Relaxed);
}

/// Nanoseconds since the kernel was entered.
pub(crate) fn now_ns() -> u64 {
    ticks_to_ns(arch::ticks().saturating_sub(ENTRY_TICKS.load(Relaxed)))
}

/// A clock whose rate is known, to measure ours with.
#[derive(Debug)]
pub(crate) enum ClockSource {
    /// Physical address of the HPET's registers.
    Hpet(u64),
    /// The ACPI PM timer's port.
    PmTimer(PortRange, PmTimerWidth),
    /// What the CPU says of the time-stamp counter itself.
    Cpuid,
    /// Channel 2 of the interval timer that every PC has had.
    Pit,
    /// What the CPU is sold as: near its counter's rate.
    BaseFrequency,
}

/// How far the PM timer counts (the FADT's TMR_VAL_EXT flag).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PmTimerWidth {
    Bits24,
    Bits32,
}

/// Measures the counter and starts the tick; interrupts are set up. The first source that works is taken: those that the
/// firmware names, then those that need no firmware.
pub(crate) fn init(named: impl Iterator<Item = ClockSource>) {
    let mut sources = named.chain([ClockSource::Cpuid, ClockSource::Pit, ClockSource::BaseFrequency]);
    let measured = sources.find_map(|source| Some((source.measure()?, source)));
    let (rates, source) = measured.expect("there is an HPET, a PM timer or a PIT, or the CPU tells its rate");
    NS_PER_TICK.store(scale(rates.tsc_per_second), Relaxed);
    timer::start_ticking(rates.timer_per_second);
    log::info!(
        target: "time",
        "time-stamp counter at {}.{:03} MHz, by the {source}; {} ticks a second",
        rates.tsc_per_second / 1_000_000,
        rates.tsc_per_second / 1000 % 1000,
        timer::TICK_HZ,
    );
}

impl ClockSource {
    fn measure(&self) -> Option<Rates> {
        match self {
            Self::Hpet(address) => {
                let hpet = Hpet::start(*address)?;
                Some(timer::calibrate(|| hpet.counter(), hpet.per_second(), u32::MAX.into()))
            }
            Self::PmTimer(port, width) => {
                let mask = match width {
                    PmTimerWidth::Bits24 => (1 << 24) - 1,
                    PmTimerWidth::Bits32 => u32::MAX.into(),
                };
                Some(timer::calibrate(|| port.read_u32(0).into(), PM_TIMER_HZ, mask))
            }
            Self::Cpuid => Some(timer::calibrate(arch::ticks, arch::rate_by_cpuid()?, u64::MAX)),
            Self::Pit => {
                let pit = Pit::start()?;
                // It wraps within the time that a host may let a CPU stand still, after which both rates seem higher than they are.
                let rates = (0..PIT_ROUNDS).map(|_| timer::calibrate(|| pit.counter(), PIT_HZ, PIT_MASK));
                rates.min_by_key(|rates| rates.tsc_per_second)
            }
            Self::BaseFrequency => Some(timer::calibrate(arch::ticks, arch::base_rate_by_cpuid()?, u64::MAX)),
        }
    }
}

impl fmt::Display for ClockSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hpet(_) => "HPET",
            Self::PmTimer(..) => "PM timer",
            Self::Cpuid => "CPU's own word",
            Self::Pit => "PIT",
            Self::BaseFrequency => "CPU's base frequency",
        })
    }
}

/// The length of a span of counter ticks.
pub(crate) fn ticks_to_ns(ticks: u64) -> u64 {
    ((u128::from(ticks) * u128::from(NS_PER_TICK.load(Relaxed))) >> 32) as u64
}

/// The clock's value after `duration` from now.
pub(crate) fn deadline_after(duration: Duration) -> u64 {
    now_ns().saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

const fn scale(ticks_per_second: u64) -> u64 {
    (((NS_PER_SECOND as u128) << 32) / ticks_per_second as u128) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_ticks_is_a_second() {
        for rate in [1_000_000_000, 2_494_000_000, 5_100_000_000] {
            let ns = ((u128::from(scale(rate)) * u128::from(rate)) >> 32) as u64;
            assert!(NS_PER_SECOND - ns < 10, "{rate}: {ns}");
        }
    }

    #[test]
    fn a_deadline_beyond_the_clock_is_its_end() {
        assert_eq!(deadline_after(Duration::MAX), u64::MAX);
    }
}
