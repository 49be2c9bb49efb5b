//! The regular tick, from the local APIC's timer, and the calibration of that timer and of the time-stamp counter.

use super::interrupts::{TIMER_VECTOR, local_apic};
use super::{cpu, irq, tsc};
use crate::{task, time, watchdog};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Ticks per second.
pub(crate) const TICK_HZ: u64 = 100;

static TICKS: AtomicU64 = AtomicU64::new(0);
/// What the timer of every CPU counts down from.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// What a reference clock measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) tsc_per_second: u64,
    pub(crate) timer_per_second: u64,
}

/// Measures both counters against a reference: `read` gives its value, `per_second` its rate, `mask` where it wraps.
pub(crate) fn calibrate(read: impl Fn() -> u64, per_second: u64, mask: u64) -> Rates {
    /// A fiftieth of a second: the reading error of a reference is a few microseconds under emulation.
    const FRACTION: u64 = 50;
    let timer = local_apic();
    let span = per_second / FRACTION;
    irq::without_interrupts(|| {
        timer.start_silent_timer();
        let reference_start = read();
        let tsc_start = tsc::ticks();
        let timer_start = timer.timer_count();
        loop {
            let reference = read().wrapping_sub(reference_start) & mask;
            let tsc = tsc::ticks() - tsc_start;
            let timer = u64::from(timer_start - timer.timer_count());
            if reference >= span {
                let rate = |count: u64| (u128::from(count) * u128::from(per_second) / u128::from(reference)) as u64;
                return Rates { tsc_per_second: rate(tsc), timer_per_second: rate(timer) };
            }
        }
    })
}

/// Starts the tick on this CPU, and on every one that comes later.
pub(crate) fn start_ticking(timer_per_second: u64) {
    let count = u32::try_from(timer_per_second / TICK_HZ).unwrap_or(u32::MAX).max(1);
    COUNT.store(count, Relaxed);
    let _off = irq::irq_off();
    start_on_this_cpu();
}

/// Starts the tick on this CPU, interrupts off.
pub(super) fn start_on_this_cpu() {
    cpu::forget_irqs_off();
    cpu::this().ticked_ns.store(time::now_ns(), Relaxed);
    local_apic().start_timer(TIMER_VECTOR, COUNT.load(Relaxed));
}

/// Ticks of the boot CPU since its timer was started.
pub(crate) fn tick_count() -> u64 {
    TICKS.load(Relaxed)
}

pub(super) fn on_tick() {
    if cpu::cpu_id() == 0 {
        TICKS.fetch_add(1, Relaxed);
    }
    let now_ns = time::now_ns();
    cpu::this().ticked_ns.store(now_ns, Relaxed);
    // First, as it waits for no lock.
    watchdog::on_tick(now_ns);
    task::tick(now_ns);
}
