//! Struct pages in frames of the system, for ranges that are added without an altmap.

use super::undo::Undo;
use crate::addr::{NodeId, Order, Pfn, SectionId, SectionRange};
use crate::alloc::request::{AllocError, Place, Request};
use crate::evacuate::budget;
use crate::frame::page::{MEMMAP_PAGES, Owner};
use crate::inject::{Injected, Point};
use crate::machine::Machine;
use crate::machine::tasks::{Pace, Stop};
use crate::memory::Memory;
use crate::record::journal::Stopwatch;
use crate::record::promise::Promise;
use core::cell::Cell;

/// Why there are no struct pages.
pub(super) enum MemmapError {
    NoMemory,
    Injected(Injected),
    Stopped(Stop),
}

/// Promises the frames for the struct pages of `ranges`, and for their page tables: an add that cannot fit, alone or beside others,
/// does not empty the machine before it notices. None are needed where there are no ranges.
pub(super) fn promise_memmaps<M: Machine>(
    memory: &Memory<M>,
    ranges: impl Iterator<Item = SectionRange>,
) -> Result<Option<Promise<'_>>, MemmapError> {
    let wanted = ranges.map(|range| range.count() * MEMMAP_PAGES + memory.machine.own_tables(range)).sum();
    if wanted == 0 {
        return Ok(None);
    }
    let budget = budget::room(memory).bulk();
    Promise::within(&memory.promised, wanted, budget).map(Some).ok_or(MemmapError::NoMemory)
}

/// Takes the frames for the struct pages of `sections`, each on its node, from the system, all or none. Each call of `sections` names
/// the same.
pub(super) fn reserve_memmaps<M: Machine, I: Iterator<Item = (SectionId, NodeId)>>(
    memory: &Memory<M>,
    sections: impl Fn() -> I,
    frames: &Promise<'_>,
    point: Point,
    pace: &mut dyn Pace,
    stopwatch: &Stopwatch<'_, M>,
) -> Result<(), MemmapError> {
    let reserved = Cell::new(0);
    let undo = Undo::new(stopwatch, || {
        for (id, _) in sections() {
            release_memmap(memory, id, MEMMAP_PAGES.min(reserved.get()));
            reserved.set(reserved.get().saturating_sub(MEMMAP_PAGES));
        }
    });
    for (id, node) in sections() {
        pace.pause().map_err(MemmapError::Stopped)?;
        memory.check_injected(point).map_err(MemmapError::Injected)?;
        for index in 0..MEMMAP_PAGES {
            let frame = memmap_frame(memory, node)?;
            frames.use_up(1);
            memory.machine.map_memmap_page(id, index, frame);
            reserved.set(reserved.get() + 1);
        }
    }
    undo.disarm();
    Ok(())
}

/// Gives the first `pages` frames that hold the struct pages of a section back to the system.
pub(super) fn release_memmap<M: Machine>(memory: &Memory<M>, id: SectionId, pages: u64) {
    let frames = (0..pages).map(|index| memory.machine.unmap_memmap_page(id, index));
    let frames: heapless::Vec<Pfn, { MEMMAP_PAGES as usize }> = frames.collect();
    if !frames.is_empty() {
        memory.machine.settle_memmaps();
    }
    frames.into_iter().for_each(|frame| memory.free(frame, Order::PAGE));
}

fn memmap_frame<M: Machine>(memory: &Memory<M>, node: NodeId) -> Result<Pfn, MemmapError> {
    let request = Request { place: Place::Near(node), ..Request::kernel(Owner::Memmap) };
    memory.allocate(&request).map_err(|error| match error {
        AllocError::OutOfMemory => MemmapError::NoMemory,
        AllocError::Injected(injected) => MemmapError::Injected(injected),
    })
}
