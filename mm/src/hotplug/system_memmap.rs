//! Struct pages in frames of the system, for ranges that are added without an altmap.

use super::add::AddError;
use super::undo::Undo;
use crate::addr::{NodeId, Order, Pfn, SectionId, SectionRange};
use crate::alloc::request::{AllocError, Place, Request};
use crate::frame::page::{MEMMAP_PAGES, Owner};
use crate::inject::Point;
use crate::machine::Machine;
use crate::machine::tasks::Pace;
use crate::memory::Memory;
use crate::record::journal::Stopwatch;
use crate::record::promise::Promise;
use core::cell::Cell;

impl<M: Machine> Memory<M> {
    /// An add that cannot fit, alone or beside others, shall not empty the machine before it notices.
    pub(super) fn promise_memmaps(&self, range: SectionRange) -> Result<Promise<'_>, AddError> {
        let wanted = range.count() * MEMMAP_PAGES + self.machine.own_tables(range);
        let budget = self.room().bulk();
        Promise::within(&self.promised, wanted, budget).ok_or(AddError::NoMemory)
    }

    /// Takes the frames for the struct pages of every section from the system, all or none.
    pub(super) fn reserve_memmaps(
        &self,
        range: SectionRange,
        node: NodeId,
        frames: &Promise<'_>,
        pace: &mut dyn Pace,
        stopwatch: &Stopwatch<'_, M>,
    ) -> Result<(), AddError> {
        let reserved = Cell::new(0);
        let undo = Undo::new(stopwatch, || {
            for id in range.iter() {
                self.release_memmap(id, MEMMAP_PAGES.min(reserved.get()));
                reserved.set(reserved.get().saturating_sub(MEMMAP_PAGES));
            }
        });
        for id in range.iter() {
            pace.pause().map_err(AddError::Stopped)?;
            self.pass(Point::AddMemmap).map_err(AddError::Injected)?;
            for index in 0..MEMMAP_PAGES {
                let frame = self.memmap_frame(node)?;
                frames.use_up(1);
                self.machine.map_memmap_page(id, index, frame);
                reserved.set(reserved.get() + 1);
            }
        }
        undo.keep();
        Ok(())
    }

    /// Gives the first `pages` frames that hold the struct pages of a section back to the system.
    pub(super) fn release_memmap(&self, id: SectionId, pages: u64) {
        let frames = (0..pages).map(|index| self.machine.unmap_memmap_page(id, index));
        let frames: heapless::Vec<Pfn, { MEMMAP_PAGES as usize }> = frames.collect();
        if !frames.is_empty() {
            self.machine.settle_memmaps();
        }
        frames.into_iter().for_each(|frame| self.free(frame, Order::PAGE));
    }

    fn memmap_frame(&self, node: NodeId) -> Result<Pfn, AddError> {
        let request = Request { place: Place::Near(node), ..Request::kernel(Owner::Memmap) };
        self.allocate(&request).map_err(|error| match error {
            AllocError::OutOfMemory => AddError::NoMemory,
            AllocError::Injected(injected) => AddError::Injected(injected),
        })
    }
}
