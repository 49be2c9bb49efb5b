//! What the verbs share: ranges in order, in runs of equal words, in batches, and in the journal.

use crate::addr::SectionRange;
use crate::errno::Errno;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::record::journal::{Event, Op, Stopwatch};
use crate::section::word::Section;

/// Blocks that enter or leave a zone under one hold of its lock.
pub(super) const BATCH: u64 = 64;

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
    pub(super) fn unmap_parts(&self, range: SectionRange, count: usize) {
        for part in range.cut(M::PART).take(count) {
            self.machine.unmap_range(part);
        }
    }

    /// Tells the journal how an operation ended: on each of `ranges` if it succeeded, on all between them if not.
    pub(super) fn record_ranges(
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
pub(super) fn is_sorted(ranges: &[SectionRange]) -> bool {
    ranges.is_sorted_by(|a, b| a.last() < b.first())
}

/// The smallest range around all of `ranges`: what is locked, and what the journal tells of a failure.
pub(super) fn hull(ranges: &[SectionRange]) -> Option<SectionRange> {
    ranges.iter().copied().reduce(SectionRange::hull)
}
