//! Holding ranges of sections: every operation on a section happens under one of these.

use crate::addr::{SECTION_LIMIT, SectionId, SectionRange};
use crate::machine::Machine;
use crate::machine::tasks::{Pace, Stop, Unhurried};
use crate::memory::Memory;
use crate::record::range_lock::Ticket;
use crate::section::group::Ready;
use core::sync::atomic::Ordering;

/// A ticket, given up when dropped. Once it has had its turn, it holds the range until then.
#[must_use = "a range that nobody holds is not locked"]
pub(crate) struct RangeGuard<'a, M: Machine> {
    memory: &'a Memory<M>,
    ticket: Ticket,
    is_keepers: bool,
}

impl<M: Machine> Drop for RangeGuard<'_, M> {
    fn drop(&mut self) {
        let mut queue = self.memory.ranges.0.lock();
        let is_awaited = queue.leave(self.ticket);
        // The keeper was turned away by others.
        let is_keeper_turned_away = !self.is_keepers && core::mem::take(&mut queue.is_keeper_turned_away);
        drop(queue);
        if is_awaited {
            self.memory.machine.wake_waiters();
        }
        if is_keeper_turned_away {
            self.memory.machine.wake_keeper();
        }
    }
}

/// Waits until nobody else changes sections of `range`, or gives up when `pace` says so. The caller holds no other range.
pub(crate) fn lock_range<'a, M: Machine>(
    memory: &'a Memory<M>,
    range: SectionRange,
    pace: &mut dyn Pace,
) -> Result<RangeGuard<'a, M>, Stop> {
    let (guard, is_free) = loop {
        let joined = memory.ranges.0.lock().join(range);
        if let Some((ticket, is_free)) = joined {
            break (RangeGuard { memory, ticket, is_keepers: false }, is_free);
        }
        memory.machine.wait(&mut || !memory.ranges.0.lock().is_full());
        pace.pause()?;
    };
    if is_free {
        return Ok(guard);
    }
    while !memory.ranges.0.lock().has_turn(guard.ticket) {
        memory.machine.wait(&mut || memory.ranges.0.lock().has_turn(guard.ticket));
        pace.pause()?;
    }
    Ok(guard)
}

/// The same for whole units: others must not make ready, or unready, what shares its tables and backing with sections of `range`.
pub(crate) fn lock_units<'a, M: Machine>(
    memory: &'a Memory<M>,
    range: SectionRange,
    pace: &mut dyn Pace,
) -> Result<RangeGuard<'a, M>, Stop> {
    let mut wanted = range;
    loop {
        let guard = lock_range(memory, wanted, pace)?;
        // Those who had their turn before may have removed a group, and added another there.
        let widened = widened(memory, range);
        if widened == wanted {
            return Ok(guard);
        }
        wanted = widened;
    }
}

/// With the rest of the units of standby memory that it begins and ends in.
fn widened<M: Machine>(memory: &Memory<M>, range: SectionRange) -> SectionRange {
    if memory.standby_groups.load(Ordering::Relaxed) == 0 {
        return range;
    }
    let with_unit_of = |id: SectionId| {
        let section = memory.sections.get(id).filter(|section| section.is_tallied())?;
        let group = memory.groups.lock().get(section.group)?;
        (group.terms.ready == Ready::AtOnline).then(|| SectionRange::single(id).widened(group.terms.unit))
    };
    [range.first(), range.last()].into_iter().filter_map(with_unit_of).fold(range, SectionRange::hull)
}

/// Waits until nobody else changes any section.
pub(crate) fn lock_everything<M: Machine>(memory: &Memory<M>) -> RangeGuard<'_, M> {
    let all = SectionRange::new(0, SECTION_LIMIT).expect("there are sections");
    lock_range(memory, all, &mut Unhurried).expect("nobody tells to stop")
}

/// The same for `range` without waiting, for the keeper: if somebody holds it, the keeper is called when one leaves.
pub(crate) fn try_lock_range<M: Machine>(memory: &Memory<M>, range: SectionRange) -> Option<RangeGuard<'_, M>> {
    let mut queue = memory.ranges.0.lock();
    match queue.join(range) {
        Some((ticket, true)) => return Some(RangeGuard { memory, ticket, is_keepers: true }),
        Some((ticket, false)) => _ = queue.leave(ticket),
        None => {}
    }
    queue.is_keeper_turned_away = true;
    None
}
