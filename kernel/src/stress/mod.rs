//! Random work of all kinds at once, on every CPU, with what it leaves checked all the time.
//!
//! | file | what |
//! |---|---|
//! | [`operation`] | the kinds of work, how often each is chosen, which refusals are answers |
//! | [`worker`] | one worker, which does one thing after the other |
//! | [`memory`] | the memory that it holds |
//! | [`blocks`], [`settings`] | what there is to work on |
//! | [`before`] | what was there before, put back and compared afterwards |
//! | [`trouble`] | refusals, and what must not be |
//! | [`dice`] | everything follows from one seed |
//!
//! Workers stand still at the start and at the end, so that what there is is looked at while they exist and do nothing.
#![deny(unsafe_code)]

mod before;
mod blocks;
pub(crate) mod dice;
mod memory;
mod operation;
mod settings;
mod trouble;
mod worker;

pub(crate) use operation::{Count, Operation};
pub(crate) use trouble::StressError;

use crate::memory::mm;
use crate::recount::recount;
use crate::sync::Mutex;
use crate::task::{self, Cancelled, WaitQueue};
use crate::time;
use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use before::Before;
use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use mm::addr::{Order, PAGE_SIZE};
use mm::limits::KERNEL_PAGES;
use operation::Tally;
use spin::Once;
use trouble::Trouble;
use worker::Worker;

/// So that one is interrupted in the middle of its work while another one works.
const WORKERS_PER_CPU: usize = 2;

/// All workers together hold this part of what is free.
const SHARE: u64 = 4;

/// What one worker holds at most, so that looking at all of it takes a fraction of a second.
const LARGEST_SHARE: u64 = 32 << 20;

/// What one worker must be able to hold.
const SMALLEST_SHARE: u64 = Order::MAX.pages() * PAGE_SIZE;

/// From one recount to the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// What shall be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) duration: Duration,
    pub(crate) seed: u64,
    pub(crate) cpus: usize,
}

/// How it went when nothing was wrong.
pub(crate) struct Report {
    pub(crate) workers: usize,
    pub(crate) counts: [Count; Operation::ALL.len()],
    pub(crate) memchecks: u64,
    /// Bytes of content that were looked at by the sweeps.
    pub(crate) checked: u64,
    /// Whether totals could be compared: others changed nothing meanwhile.
    pub(crate) compared: bool,
}

/// What workers share.
struct Run {
    seed: u64,
    /// Bytes that each may hold.
    share: u64,
    phase: AtomicU8,
    /// Workers that stand still: before the work, or after it.
    standing: AtomicUsize,
    /// How many sweeps of all content were asked for.
    sweeps: AtomicU64,
    checked: AtomicU64,
    tally: Tally,
    /// The first that went wrong.
    trouble: Once<Trouble>,
    /// Whoever takes boot memory offline.
    boot_memory: Mutex<()>,
    /// Somebody stands, or the phase has changed, or there is trouble.
    changed: WaitQueue,
}

/// Where a run is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Ready,
    UnderWay,
    /// Workers give back what they hold, and stand.
    Over,
    /// Workers end.
    Gone,
}

/// Does random work for a while; `begun` is called when nothing stands in the way.
pub(crate) fn run(plan: &Plan, begun: impl FnOnce()) -> Result<Report, StressError> {
    let workers = plan.cpus * WORKERS_PER_CPU;
    let share = share(workers)?;
    let run = Arc::new(Run::new(plan.seed, share));
    let crew = Crew::start(&run, workers)?;
    begun();
    let before = Before::now();
    let (mut memchecks, outcome) = run.supervise(plan.duration);
    crew.stop();

    let undisturbed = before.is_undisturbed();
    let put_back = before.put_back().or_else(|trouble| if undisturbed { Err(trouble) } else { Ok(()) });
    memchecks += 1;
    let last = check().and(put_back);
    let last = last.and_then(|()| if undisturbed { before.compare() } else { Ok(false) });
    let compared = match (run.trouble.get().cloned(), last) {
        (None, Ok(compared)) => compared,
        (Some(trouble), _) | (None, Err(trouble)) => return Err(StressError::Trouble { trouble, seed: plan.seed }),
    };
    outcome.map_err(|Cancelled| StressError::Cancelled)?;
    let checked = run.checked.load(Ordering::Relaxed);
    Ok(Report { workers, counts: run.tally.counts(), memchecks, checked, compared })
}

/// How many bytes each worker may hold.
fn share(workers: usize) -> Result<u64, StressError> {
    let workers = workers as u64;
    let usable = mm().memory_report().available.saturating_sub(KERNEL_PAGES * PAGE_SIZE);
    let share = (usable / SHARE / workers).min(LARGEST_SHARE);
    if share < SMALLEST_SHARE {
        return Err(StressError::NoMemory { usable, needed: SMALLEST_SHARE * SHARE * workers });
    }
    Ok(share)
}

fn check() -> Result<(), Trouble> {
    let recount = recount();
    if recount.is_ok() { Ok(()) } else { Err(Trouble::Recount(recount.to_string())) }
}

impl Run {
    const fn new(seed: u64, share: u64) -> Self {
        Self {
            seed,
            share,
            phase: AtomicU8::new(Phase::Ready as u8),
            standing: AtomicUsize::new(0),
            sweeps: AtomicU64::new(0),
            checked: AtomicU64::new(0),
            tally: Tally::new(),
            trouble: Once::new(),
            boot_memory: Mutex::new(()),
            changed: WaitQueue::new(),
        }
    }

    /// Lets the workers work, recounts every second, and says how often, and whether it was told to stop.
    fn supervise(&self, duration: Duration) -> (u64, Result<(), Cancelled>) {
        let end = time::deadline_after(duration);
        self.enter(Phase::UnderWay);
        let mut memchecks = 0;
        while time::now_ns() < end {
            let next = end.min(time::deadline_after(INTERVAL));
            match self.changed.wait_until_deadline_cancellable(|| self.trouble.is_completed(), next) {
                Ok(false) => {}
                Ok(true) => break,
                Err(cancelled) => return (memchecks, Err(cancelled)),
            }
            self.sweeps.fetch_add(1, Ordering::Relaxed);
            memchecks += 1;
            if let Err(trouble) = check() {
                self.note(trouble);
            }
        }
        (memchecks, Ok(()))
    }

    fn enter(&self, phase: Phase) {
        // Release pairs with the Acquire in `has_reached` and `is_under_way`.
        self.phase.store(phase as u8, Ordering::Release);
        self.changed.wake_all();
    }

    fn has_reached(&self, phase: Phase) -> bool {
        // Acquire pairs with the Release in `enter`.
        self.phase.load(Ordering::Acquire) >= phase as u8
    }

    fn is_under_way(&self) -> bool {
        // Acquire pairs with the Release in `enter`.
        self.phase.load(Ordering::Acquire) == Phase::UnderWay as u8
    }

    fn sweep(&self) -> u64 {
        self.sweeps.load(Ordering::Relaxed)
    }

    fn note_checked(&self, bytes: u64) {
        self.checked.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Keeps the first trouble.
    fn note(&self, trouble: Trouble) {
        self.trouble.call_once(|| trouble);
        self.changed.wake_all();
    }

    /// What a worker says when it waits for the next phase.
    fn stand_until(&self, phase: Phase) {
        // Release pairs with the Acquire in `wait_for_standing`.
        self.standing.fetch_add(1, Ordering::Release);
        self.changed.wake_all();
        self.changed.wait_until(|| self.has_reached(phase));
    }

    fn wait_for_standing(&self, workers: usize) {
        // Acquire pairs with the Release in `stand_until`.
        self.changed.wait_until(|| self.standing.load(Ordering::Acquire) == workers);
        self.standing.store(0, Ordering::Relaxed);
    }
}

/// The workers' tasks; they end with this value.
struct Crew<'a> {
    run: &'a Arc<Run>,
    tasks: Vec<task::TaskId>,
}

impl<'a> Crew<'a> {
    /// Starts workers, which stand ready.
    fn start(run: &'a Arc<Run>, workers: usize) -> Result<Self, StressError> {
        let mut crew = Self { run, tasks: Vec::with_capacity(workers) };
        for number in 0..workers {
            let run = Arc::clone(run);
            let task = task::try_spawn(&format!("stress {number}"), move || live(run, number as u64));
            crew.tasks.push(task.map_err(StressError::NoTask)?);
        }
        run.wait_for_standing(workers);
        Ok(crew)
    }

    /// Has them give back what they hold.
    fn stop(&self) {
        self.run.enter(Phase::Over);
        self.run.wait_for_standing(self.tasks.len());
    }
}

impl Drop for Crew<'_> {
    fn drop(&mut self) {
        self.run.enter(Phase::Gone);
        for task in &self.tasks {
            // A wish to stop has been heard; the end is near now.
            task::wait_for_end(*task);
        }
    }
}

/// What the task of a worker does.
fn live(run: Arc<Run>, number: u64) {
    let worker = Worker::new(Arc::clone(&run), number);
    run.stand_until(Phase::UnderWay);
    if let Err(trouble) = worker.work() {
        run.note(trouble);
    }
    run.stand_until(Phase::Gone);
}
