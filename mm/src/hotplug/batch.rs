//! What the verbs share: ranges in order, in runs of equal words, in batches, and in the journal.

use crate::addr::{NodeId, SectionId, SectionRange};
use crate::errno::Errno;
use crate::machine::Machine;
use crate::machine::tasks::Pace;
use crate::memory::Memory;
use crate::record::journal::{Event, Op, Stopwatch};
use crate::section::kind::ZoneKind;
use crate::section::word::Section;

/// Most blocks that enter or leave a zone under one hold of its lock.
pub(super) const BATCH: u64 = 64;

/// Works on all of `ranges` in bounded steps with a pause between. `step` works on the first sections of a range and returns those
/// behind them. There is no way back any more, so a wish to stop comes too late.
pub(super) fn in_batches(
    ranges: &[SectionRange],
    pace: &mut dyn Pace,
    mut step: impl FnMut(SectionRange) -> Option<SectionRange>,
) {
    for range in ranges {
        let mut rest = Some(*range);
        while let Some(range) = rest {
            rest = step(range);
            if rest.is_some() {
                let _ = pace.pause();
            }
        }
    }
}

/// The first sections of `range`, which are present, that change under one hold of the lock of their zone: with equal words, at most
/// [`BATCH`], and one alone whose pageblocks are work enough, as `is_work` says.
pub(super) fn first_batch<M: Machine>(
    memory: &Memory<M>,
    range: SectionRange,
    is_work: impl FnOnce(Section) -> bool,
) -> (SectionRange, Section) {
    let (run, section) = memory.sections.first_run(range.first_part(BATCH));
    let section = section.expect("a block that changes state is present");
    (if is_work(section) { run.first_part(1) } else { run }, section)
}

/// Tells the journal how an operation ended: on each of `ranges` if it succeeded, on all between them if not.
pub(super) fn record_ranges<M: Machine>(
    memory: &Memory<M>,
    stopwatch: &Stopwatch<'_, M>,
    op: Op,
    ranges: &[SectionRange],
    hull: SectionRange,
    outcome: Result<(), Errno>,
) {
    let told = if outcome.is_ok() { ranges } else { &[hull] };
    for (number, range) in told.iter().enumerate() {
        let event = stopwatch.event(op, *range, outcome);
        memory.journal.lock().record(if number == 0 { event } else { Event { moved: 0, ..event } });
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

/// The span of a zone when `run` has left it, right until the zone [`changes`](crate::zone::Zone::changes), of which it tells the
/// count. Looked for without the lock of the zone: there may be a long way of sections that are elsewhere.
pub(crate) fn span_without<M: Machine>(
    memory: &Memory<M>,
    node: NodeId,
    kind: ZoneKind,
    run: SectionRange,
) -> (Option<(SectionId, SectionId)>, u64) {
    let (span, changes) = {
        let zone = memory.zones.lock(node, kind);
        (zone.span(), zone.changes())
    };
    let is_member = |id: SectionId| {
        let section = memory.sections.get(id).filter(|section| section.state.is_in_zone());
        section.is_some_and(|section| section.node == node && section.state.reaches_into(kind))
    };
    // Those that go come first, and are most.
    let stays = |id: &SectionId| !run.contains(*id) && is_member(*id);
    let without = span.and_then(|(first, last)| {
        // An end that is not among those that go stays the end.
        let low = if run.contains(first) { SectionId::through(first, last).find(stays)? } else { first };
        let high = if run.contains(last) { SectionId::through(low, last).rev().find(stays)? } else { last };
        Some((low, high))
    });
    (without, changes)
}
