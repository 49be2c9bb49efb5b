//! The four verbs that users know: add, online, offline, remove; and [`boot`], which is the same for what is there already.
//!
//! Each does first everything that can fail, then everything that cannot. What must be undone on the way is a guard that is
//! dropped.

mod add;
mod boot;
mod offline;
mod online;
mod remove;

pub use add::{AddError, AddRequest};
pub use boot::{BootSection, BootUse};
pub use offline::OfflineError;
pub use online::OnlineError;
pub use remove::{RemoveError, UnplugError};

use crate::addr::{SectionId, SectionRange};
use crate::errno::Errno;
use crate::journal::{Op, Stopwatch};
use crate::machine::{MEMMAP_PAGES, Machine, Pace, Stop};
use crate::memory::Memory;
use crate::notifier::{Change, Direction, Refusal, Veto};
use crate::section::{BlockState, MemmapPlace, Section};
use lock_api::MutexGuard;

/// How far the listeners had been asked when a change was given up.
#[derive(Clone, Copy)]
enum Asked {
    /// All of them, about every run, had accepted.
    Everybody,
    /// All had accepted the first `runs` runs, and the first `accepted` of them the next.
    Until { runs: usize, accepted: usize },
}

/// Undoes something when dropped, unless it is disarmed.
#[must_use = "what is not kept is undone at once"]
struct Undo<F: FnMut()> {
    undo: Option<F>,
}

impl<F: FnMut()> Undo<F> {
    fn new(undo: F) -> Self {
        Self { undo: Some(undo) }
    }

    /// Keeps what was done.
    fn keep(mut self) {
        self.undo = None;
    }
}

impl<F: FnMut()> Drop for Undo<F> {
    fn drop(&mut self) {
        if let Some(mut undo) = self.undo.take() {
            undo();
        }
    }
}

impl<M: Machine> Memory<M> {
    /// Maps the struct pages that lie at the head of an added section.
    fn map_own_memmap(&self, id: SectionId, section: Section) {
        if section.memmap == MemmapPlace::Head {
            let first = id.pages().start().add(section.head_frames() - MEMMAP_PAGES);
            for index in 0..MEMMAP_PAGES {
                self.machine.map_memmap(id, index, first.add(index));
            }
        }
    }

    fn unmap_own_memmap(&self, id: SectionId, section: Section) {
        if section.memmap == MemmapPlace::Head {
            for index in 0..MEMMAP_PAGES {
                self.machine.unmap_memmap(id, index);
            }
        }
    }

    /// Asks the listeners about every run of blocks, lowest first.
    fn prepare_all(&self, ranges: &[SectionRange], direction: Direction) -> Result<(), (Veto, Asked)> {
        let mut chain = self.chain.lock();
        for (runs, change) in self.runs(ranges, direction).enumerate() {
            if let Err(Refusal { veto, accepted }) = chain.prepare(&change) {
                return Err((veto, Asked::Until { runs, accepted }));
            }
        }
        Ok(())
    }

    fn committed_all(&self, ranges: &[SectionRange], direction: Direction) {
        let mut chain = self.chain.lock();
        for change in self.runs(ranges, direction) {
            chain.committed(&change);
        }
    }

    /// Tells those that had accepted, last first. The caller has put everything back: what listeners look at is as it was.
    fn cancelled_all(&self, ranges: &[SectionRange], direction: Direction, asked: Asked) {
        let mut chain = self.chain.lock();
        let everybody = chain.len();
        let total = self.runs(ranges, direction).count();
        let (whole_runs, accepted) = match asked {
            Asked::Everybody => (total, 0),
            Asked::Until { runs, accepted } => (runs, accepted),
        };
        if let Some(refused) = self.runs(ranges, direction).nth(whole_runs) {
            chain.cancelled(accepted, &refused);
        }
        for earlier in self.runs(ranges, direction).rev().skip(total - whole_runs) {
            chain.cancelled(everybody, &earlier);
        }
    }

    /// Takes the lock that orders changes, or gives up waiting when `pace` says so.
    fn order(&self, pace: &mut dyn Pace) -> Result<MutexGuard<'_, M::Sleep, ()>, Stop> {
        loop {
            if let Some(guard) = self.hotplug.try_lock() {
                return Ok(guard);
            }
            pace.pause()?;
        }
    }

    /// Tells the journal how an operation ended: on each of `ranges` if it succeeded, on all between them if not.
    fn record_ranges(
        &self,
        stopwatch: &Stopwatch<'_, M>,
        op: Op,
        ranges: &[SectionRange],
        hull: SectionRange,
        outcome: Result<(), Errno>,
    ) {
        let told = if outcome.is_ok() { ranges } else { &[hull] };
        for range in told {
            self.record(stopwatch.event(op, *range, outcome));
        }
    }

    /// The longest runs of consecutive blocks in `ranges` that share group, node and zone, lowest first.
    fn runs<'a>(
        &'a self,
        ranges: &'a [SectionRange],
        direction: Direction,
    ) -> impl DoubleEndedIterator<Item = Change> + 'a {
        ranges.iter().flat_map(move |range| Runs { memory: self, rest: Some(*range), direction })
    }
}

/// Cuts a range wherever zone, node or group change.
struct Runs<'a, M: Machine> {
    memory: &'a Memory<M>,
    rest: Option<SectionRange>,
    direction: Direction,
}

impl<M: Machine> Runs<'_, M> {
    fn key(&self, id: SectionId) -> (Section, Change) {
        let section = self.memory.sections.get(id).expect("a block that changes state is present");
        let change = Change {
            direction: self.direction,
            range: SectionRange::single(id),
            zone: section.last_zone,
            node: section.node,
        };
        (section, change)
    }

    fn same(a: (Section, Change), b: (Section, Change)) -> bool {
        a.0.group == b.0.group && a.1.zone == b.1.zone && a.1.node == b.1.node
    }

    fn split(range: SectionRange, count: u64) -> (Option<SectionRange>, Option<SectionRange>) {
        let first = u64::from(range.first().number());
        (SectionRange::new(first, count), SectionRange::new(first + count, range.count() - count))
    }
}

impl<M: Machine> Iterator for Runs<'_, M> {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        let range = self.rest?;
        let first = self.key(range.first());
        let count = range.iter().take_while(|id| Self::same(self.key(*id), first)).count() as u64;
        let (run, rest) = Self::split(range, count);
        self.rest = rest;
        Some(Change { range: run?, ..first.1 })
    }
}

impl<M: Machine> DoubleEndedIterator for Runs<'_, M> {
    fn next_back(&mut self) -> Option<Change> {
        let range = self.rest?;
        let last = self.key(range.last());
        let count = range.iter().rev().take_while(|id| Self::same(self.key(*id), last)).count() as u64;
        let (rest, run) = Self::split(range, range.count() - count);
        self.rest = rest;
        Some(Change { range: run?, ..last.1 })
    }
}

/// Whether `ranges` are what every verb takes: in order, without overlap.
fn is_sorted(ranges: &[SectionRange]) -> bool {
    ranges.is_sorted_by(|a, b| a.last() < b.first())
}

/// The smallest range around all of `ranges`, for the journal.
fn hull(ranges: &[SectionRange]) -> Option<SectionRange> {
    let first = u64::from(ranges.first()?.first().number());
    let last = u64::from(ranges.last()?.last().number());
    SectionRange::new(first, last - first + 1)
}

/// Moves every block of `range` to the state that follows from its own.
fn change_states<M: Machine>(memory: &Memory<M>, range: SectionRange, next: impl Fn(BlockState) -> BlockState) {
    for (id, section) in memory.sections.iter_range(range) {
        memory.sections.set_state(id, next(section.state));
    }
}
