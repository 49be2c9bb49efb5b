//! The watchdog: says who keeps a CPU, or the CPUs, from everybody else.
//!
//! Every CPU looks at the others from its tick: one whose own tick has not come for long has had its interrupts off for so
//! long. It is asked by NMI where it is, which works whatever it does. One CPU alone cannot watch itself.
#![deny(unsafe_code)]

use crate::arch::{self, CPUS_MAX, CpuTrace};
use crate::{logging, symbols, task};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use log::Level;

/// Longer than this no CPU keeps its interrupts off, and no ready task waits for its turn.
const PATIENCE_NS: u64 = 10 * NS_PER_SECOND;
/// How often somebody looks.
const PERIOD_NS: u64 = NS_PER_SECOND;
const NS_PER_SECOND: u64 = 1_000_000_000;

static NEXT_LOOK_NS: AtomicU64 = AtomicU64::new(PERIOD_NS);
/// Since when each CPU, and the task, had been waiting that was reported last.
static REPORTED_CPUS: [AtomicU64; CPUS_MAX] = [const { AtomicU64::new(0) }; CPUS_MAX];
static REPORTED_TASK: AtomicU64 = AtomicU64::new(0);
/// CPUs that were asked where they are, one bit each.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// Looks, if it is time; every tick of every CPU calls this.
pub(crate) fn on_tick(now_ns: u64) {
    let due_ns = NEXT_LOOK_NS.load(Relaxed);
    let is_ours =
        now_ns >= due_ns && NEXT_LOOK_NS.compare_exchange(due_ns, now_ns + PERIOD_NS, Relaxed, Relaxed).is_ok();
    if is_ours {
        look(now_ns);
    }
}

fn look(now_ns: u64) {
    for (cpu, since_ns) in arch::ticks_of_others() {
        // What was asked at one look is told at the next: nobody waits for the answer.
        if ASKED.fetch_and(!(1 << cpu), Relaxed) & 1 << cpu != 0 {
            let seconds = now_ns.saturating_sub(REPORTED_CPUS[cpu].load(Relaxed)) / NS_PER_SECOND;
            report_cpu(cpu, seconds);
        } else if is_news(&REPORTED_CPUS[cpu], since_ns, now_ns) {
            arch::ask_where(cpu);
            ASKED.fetch_or(1 << cpu, Relaxed);
        }
    }
    if let Some((id, since_ns)) = task::longest_wait()
        && is_news(&REPORTED_TASK, since_ns, now_ns)
    {
        let seconds = (now_ns - since_ns) / NS_PER_SECOND;
        logging::urgent(
            Level::Error,
            "watchdog",
            format_args!("task {id} has been ready for {seconds} s and did not run"),
        );
    }
}

/// Whether something has lasted for too long, and nobody was told yet.
fn is_news(reported: &AtomicU64, since_ns: u64, now_ns: u64) -> bool {
    now_ns.saturating_sub(since_ns) >= PATIENCE_NS && reported.swap(since_ns, Relaxed) != since_ns
}

fn report_cpu(cpu: usize, seconds: u64) {
    // Whatever that CPU holds, this must be said, so no lock is waited for.
    logging::urgent(Level::Error, "watchdog", format_args!("cpu {cpu} has had its interrupts off for {seconds} s"));
    match arch::trace_of(cpu) {
        Some(CpuTrace { task, place, callers }) => {
            let name = task::try_name(task).unwrap_or_default();
            logging::urgent(Level::Error, "watchdog", format_args!("  in task {name}, at {}", CodeAddress(place, 0)));
            for caller in callers {
                logging::urgent(Level::Error, "watchdog", format_args!("  called from {}", CodeAddress(caller, 1)));
            }
        }
        None => logging::urgent(Level::Error, "watchdog", format_args!("  and it does not answer")),
    }
}

/// An address, and how many bytes before it the function lies that it is in.
struct CodeAddress(usize, usize);

impl fmt::Display for CodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match symbols::lookup((self.0 - self.1) as u64) {
            Some(symbol) => write!(f, "{}+{:#x}", symbol.name, symbol.offset + self.1 as u64),
            None => write!(f, "{:#018x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_too_long_is_told_once() {
        let reported = AtomicU64::new(0);
        assert!(!is_news(&reported, 5, 5 + PATIENCE_NS - 1));
        assert!(is_news(&reported, 5, 5 + PATIENCE_NS));
        assert!(!is_news(&reported, 5, 5 + 2 * PATIENCE_NS), "it is known");
        assert!(is_news(&reported, 6 + PATIENCE_NS, 6 + 2 * PATIENCE_NS), "another time");
        assert!(!is_news(&reported, 10, 9), "a clock that is a little behind is no silence");
    }
}
