//! Asking the notifier chain before blocks change, and telling it afterwards: about runs of blocks that change alike.
//!
//! Listeners are called under the range of the operation and no other lock. A listener that joins or leaves waits until no operation
//! is under way: all calls of an operation go to the same listeners.

use crate::addr::{SectionId, SectionRange};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::range_guard;
use crate::record::notifier::{ChainError, Change, Direction, MemoryListener, Name, Refusal, Veto};
use crate::section::word::Section;

/// How far the listeners had been asked when a change was given up.
#[derive(Clone, Copy)]
enum Asked {
    /// All of them, about every run, had accepted.
    Everybody,
    /// All had accepted the first `runs` runs, and the first `accepted` of them the next.
    Until { runs: usize, accepted: usize },
}

/// Asks the listeners about blocks that are on their way, and does `work`. If one refuses, or the work fails, `begun` is undone
/// before anybody hears that the change is off: what listeners look at is as it was, as Linux documents.
pub(super) fn with_consent<M: Machine, U, E: From<Veto>>(
    memory: &Memory<M>,
    ranges: &[SectionRange],
    direction: Direction,
    begun: U,
    work: impl FnOnce() -> Result<(), E>,
) -> Result<U, E> {
    let outcome = match prepare_all(memory, ranges, direction) {
        Ok(()) => work().map_err(|error| (error, Asked::Everybody)),
        Err((veto, asked)) => Err((veto.into(), asked)),
    };
    match outcome {
        Ok(()) => Ok(begun),
        Err((error, asked)) => {
            drop(begun);
            cancelled_all(memory, ranges, direction, asked);
            Err(error)
        }
    }
}

/// Asks the listeners about every run of blocks, lowest first.
fn prepare_all<M: Machine>(
    memory: &Memory<M>,
    ranges: &[SectionRange],
    direction: Direction,
) -> Result<(), (Veto, Asked)> {
    // Where nobody listens, nobody needs to know what the runs are.
    if memory.chain.len() == 0 {
        return Ok(());
    }
    for (runs, change) in changes(memory, ranges, direction).enumerate() {
        if let Err(Refusal { veto, accepted }) = memory.chain.prepare(&change) {
            return Err((veto, Asked::Until { runs, accepted }));
        }
    }
    Ok(())
}

pub(super) fn committed_all<M: Machine>(memory: &Memory<M>, ranges: &[SectionRange], direction: Direction) {
    if memory.chain.len() == 0 {
        return;
    }
    for change in changes(memory, ranges, direction) {
        memory.chain.committed(&change);
    }
}

/// Tells those that had accepted, last first. The caller has put everything back: what listeners look at is as it was.
fn cancelled_all<M: Machine>(memory: &Memory<M>, ranges: &[SectionRange], direction: Direction, asked: Asked) {
    let everybody = memory.chain.len();
    if everybody == 0 {
        return;
    }
    let total = changes(memory, ranges, direction).count();
    let (whole_runs, accepted) = match asked {
        Asked::Everybody => (total, 0),
        Asked::Until { runs, accepted } => (runs, accepted),
    };
    if let Some(refused) = changes(memory, ranges, direction).nth(whole_runs) {
        memory.chain.cancelled(accepted, &refused);
    }
    for earlier in changes(memory, ranges, direction).rev().skip(total - whole_runs) {
        memory.chain.cancelled(everybody, &earlier);
    }
}

/// The longest runs of consecutive blocks in `ranges` that share group, node and zone, lowest first.
fn changes<'a, M: Machine>(
    memory: &'a Memory<M>,
    ranges: &'a [SectionRange],
    direction: Direction,
) -> impl DoubleEndedIterator<Item = Change> + 'a {
    ranges.iter().flat_map(move |range| Changes { memory, rest: Some(*range), direction })
}

/// Cuts a range wherever zone, node or group change.
struct Changes<'a, M: Machine> {
    memory: &'a Memory<M>,
    rest: Option<SectionRange>,
    direction: Direction,
}

impl<M: Machine> Changes<'_, M> {
    fn section(&self, id: SectionId) -> Section {
        self.memory.sections.get(id).expect("a block that changes state is present")
    }

    fn change(&self, range: SectionRange, section: Section) -> Change {
        let Section { last_zone: zone, node, group, .. } = section;
        Change { direction: self.direction, range, zone, node, group }
    }
}

/// Whether two blocks are told of together.
fn is_alike(a: Section, b: Section) -> bool {
    a.group == b.group && a.last_zone == b.last_zone && a.node == b.node
}

fn split(range: SectionRange, count: u64) -> (Option<SectionRange>, Option<SectionRange>) {
    let first = u64::from(range.first().number());
    (SectionRange::new(first, count), SectionRange::new(first + count, range.count() - count))
}

impl<M: Machine> Iterator for Changes<'_, M> {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        let range = self.rest?;
        let first = self.section(range.first());
        let alike = self.memory.sections.runs(range).map_while(|(run, section)| section.map(|section| (run, section)));
        let count = alike.take_while(|(_, section)| is_alike(*section, first)).map(|(run, _)| run.count()).sum();
        let (run, rest) = split(range, count);
        self.rest = rest;
        Some(self.change(run?, first))
    }
}

impl<M: Machine> DoubleEndedIterator for Changes<'_, M> {
    fn next_back(&mut self) -> Option<Change> {
        let range = self.rest?;
        let last = self.section(range.last());
        let count = range.iter().rev().take_while(|id| is_alike(self.section(*id), last)).count() as u64;
        let (rest, run) = split(range, range.count() - count);
        self.rest = rest;
        Some(self.change(run?, last))
    }
}

impl<M: Machine> Memory<M> {
    /// Puts a listener on the notifier chain, by its priority: a higher one is asked first. Waits until no operation is under
    /// way.
    ///
    /// # Errors
    /// The name is taken, or there are too many listeners.
    pub fn register_listener(
        &self,
        name: Name,
        priority: i32,
        listener: &'static dyn MemoryListener,
    ) -> Result<(), ChainError> {
        // Whoever is asked of a change also hears the outcome.
        let _alone = range_guard::lock_everything(self);
        self.chain.register(name, priority, listener)
    }

    /// Takes the listener of that name off the notifier chain: it is not called any more. Waits until no operation is under way.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn unregister_listener(&self, name: Name) -> Result<(), ChainError> {
        // Whoever is asked of a change also hears the outcome.
        let _alone = range_guard::lock_everything(self);
        self.chain.unregister(name)
    }
}
