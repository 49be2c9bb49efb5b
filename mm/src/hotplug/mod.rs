//! The four verbs that users know: add, online, offline, remove; and [`boot`], which is the same for what is there already.
//!
//! Each does first everything that can fail, then everything that cannot. What must be undone on the way is a guard that is
//! dropped.

mod add;
mod boot;
mod listeners;
mod offline;
mod online;
mod relabel;
mod remove;
mod system_memmap;

pub use add::{AddError, AddRequest};
pub use boot::{BootSection, BootUse};
pub use offline::OfflineError;
pub use online::OnlineError;
pub use relabel::RelabelError;
pub use remove::{RemoveError, UnplugError};

use crate::addr::SectionRange;
use crate::errno::Errno;
use crate::journal::{Event, Op, Stopwatch};
use crate::machine::{Clock, Machine};
use crate::memory::Memory;
use crate::section::Section;

/// Undoes something when dropped, unless it is disarmed; that is a phase of the operation.
#[must_use = "what is not kept is undone at once"]
struct Undo<'a, C: Clock, F: FnMut()> {
    stopwatch: &'a Stopwatch<'a, C>,
    undo: Option<F>,
}

impl<'a, C: Clock, F: FnMut()> Undo<'a, C, F> {
    fn new(stopwatch: &'a Stopwatch<'a, C>, undo: F) -> Self {
        Self { stopwatch, undo: Some(undo) }
    }

    /// Keeps what was done.
    fn keep(mut self) {
        self.undo = None;
    }
}

impl<C: Clock, F: FnMut()> Drop for Undo<'_, C, F> {
    fn drop(&mut self) {
        if let Some(mut undo) = self.undo.take() {
            self.stopwatch.enter("undo");
            undo();
        }
    }
}

/// Blocks that enter or leave a zone under one hold of its lock.
const BATCH: u64 = 64;

impl<M: Machine> Memory<M> {
    /// The blocks of `ranges` that are present, in runs of which the same is known.
    pub(crate) fn present_runs<'a>(
        &'a self,
        ranges: &'a [SectionRange],
    ) -> impl Iterator<Item = (SectionRange, Section)> + 'a {
        let runs = ranges.iter().flat_map(|range| self.sections.runs(*range));
        runs.filter_map(|(run, section)| Some((run, section?)))
    }

    /// Unmaps the first `count` parts of a range.
    fn unmap_parts(&self, range: SectionRange, count: usize) {
        for part in range.cut(M::PART).take(count) {
            self.machine.unmap_range(part);
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
        for (number, range) in told.iter().enumerate() {
            let event = stopwatch.event(op, *range, outcome);
            self.record(if number == 0 { event } else { Event { moved: 0, ..event } });
        }
    }
}

/// Whether `ranges` are what every verb takes: in order, without overlap.
fn is_sorted(ranges: &[SectionRange]) -> bool {
    ranges.is_sorted_by(|a, b| a.last() < b.first())
}

/// The smallest range around all of `ranges`: what is locked, and what the journal tells of a failure.
fn hull(ranges: &[SectionRange]) -> Option<SectionRange> {
    ranges.iter().copied().reduce(SectionRange::hull)
}
