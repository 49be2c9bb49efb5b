//! Emptying blocks that are isolated: what lies in them moves elsewhere, what is faulty goes out of use.

use crate::addr::SectionRange;
use crate::alloc::caches;
use crate::evacuate::evacuation::{EvacuateError, Evacuation};
use crate::frame::pageblock_set::PageblockSet;
use crate::limits::PATIENCE;
use crate::machine::Machine;
use crate::machine::tasks::Pace;
use crate::memory::Memory;
use crate::poison;
use crate::record::journal::Stopwatch;

/// Moves everything out of those pageblocks of the open blocks of `ranges`, or returns what is in the way.
pub(super) fn empty<M: Machine>(
    memory: &Memory<M>,
    ranges: &[SectionRange],
    pieces: PageblockSet,
    pace: &mut dyn Pace,
    stopwatch: &Stopwatch<'_, M>,
) -> Result<(), EvacuateError> {
    if ranges.is_empty() {
        // Nobody has touched any of it, and none is memory that the reserve may be in.
        return Ok(());
    }
    let mut evacuation = Evacuation::begin(memory, ranges, pieces, pace)?;
    stopwatch.enter("move");
    for _ in 0..PATIENCE {
        // What was given back meanwhile, or let go of.
        ranges.iter().for_each(|range| poison::poison_faulty_in(memory, *range));
        let Some(straggler) = evacuation.move_some(memory, pace, stopwatch)? else { return Ok(()) };
        caches::drain_zones_of(memory, ranges);
        memory.machine.rest();
        pace.pause().map_err(|stop| EvacuateError::Unfinished(stop, straggler))?;
    }
    let straggler = evacuation.move_some(memory, pace, stopwatch)?;
    straggler.map_or(Ok(()), |straggler| Err(EvacuateError::InFlight(straggler)))
}
