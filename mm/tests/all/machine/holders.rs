//! Those who hold movable memory: each block has a holder, who is found by the owner's word and told where his block is.

use super::Fake;
use mm::Memory;
use mm::addr::{Order, Pfn};
use mm::alloc::request::{AllocError, Request, Urgency};
use mm::frame::memmap::Memmap;
use mm::frame::mobility::Mobility;
use mm::frame::page::{Owner, PageInfo};
use mm::machine::mover::{Move, Stay};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names a holder; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Holder(u64);

impl Holder {
    /// What the owner's word of his block says.
    pub(crate) fn word(self) -> u64 {
        self.0
    }
}

#[derive(Default)]
pub(crate) struct Holders {
    pub(crate) places: Mutex<HashMap<Holder, (Pfn, Order)>>,
    next: AtomicU64,
    /// Every so many moves find their block in flight; never if zero.
    pub(crate) in_flight_every: AtomicU64,
    asked: AtomicU64,
    /// Page tables, first of all of large blocks that were split.
    pub(crate) tables: Mutex<Vec<Pfn>>,
    /// How many frames have moved.
    pub(crate) moved: AtomicU64,
}

impl Holders {
    pub(super) fn migrate(&self, memmap: &impl Memmap, moves: &mut [Move]) {
        for wanted in moves {
            wanted.outcome = self.migrate_one(memmap, *wanted);
        }
    }

    fn migrate_one(&self, memmap: &impl Memmap, wanted: Move) -> Result<(), Stay> {
        let every = self.in_flight_every.load(Ordering::Relaxed);
        if every > 0 && (self.asked.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(every) {
            return Err(Stay::InFlight);
        }
        let page = memmap.page(wanted.from);
        if page.head().owner == Owner::UserTable {
            return self.migrate_table(page, wanted);
        }
        let mut places = self.places.lock().unwrap();
        let holder = Holder(page.private());
        if places.get(&holder) != Some(&(wanted.from, wanted.order)) {
            return Err(Stay::InFlight);
        }
        if !page.freeze() {
            return Err(Stay::Pinned);
        }
        memmap.page(wanted.to).set_private(holder.word());
        places.insert(holder, (wanted.to, wanted.order));
        self.moved.fetch_add(wanted.order.pages(), Ordering::Relaxed);
        Ok(())
    }

    fn migrate_table(&self, page: &PageInfo, wanted: Move) -> Result<(), Stay> {
        let mut tables = self.tables.lock().unwrap();
        let table = tables.iter_mut().find(|table| **table == wanted.from).ok_or(Stay::InFlight)?;
        if !page.freeze() {
            return Err(Stay::Pinned);
        }
        *table = wanted.to;
        Ok(())
    }
}

impl Fake {
    pub(crate) fn settle_down(&self, head: Pfn, order: Order) -> Holder {
        let holder = Holder(self.holders.next.fetch_add(1, Ordering::Relaxed) + 1);
        self.page(head).set_private(holder.word());
        self.holders.places.lock().unwrap().insert(holder, (head, order));
        holder
    }

    /// A large block has no holder any more, if nobody else refers to it.
    fn give_up(&self, head: Pfn) -> Result<(), Stay> {
        let mut places = self.holders.places.lock().unwrap();
        let holder = Holder(self.page(head).private());
        if places.get(&holder) != Some(&(head, Order::PAGEBLOCK)) {
            return Err(Stay::InFlight);
        }
        if !self.page(head).freeze() {
            return Err(Stay::Pinned);
        }
        self.page(head).thaw();
        places.remove(&holder);
        Ok(())
    }
}

/// For a page table of an address space.
pub(crate) const TABLE: Request =
    Request { mobility: Mobility::Movable, urgency: Urgency::Bulk, ..Request::kernel(Owner::UserTable) };

/// Makes single frames of a large block; the holder is gone, each frame has one of its own. All of them share a table.
pub(crate) fn split(memory: &Memory<Fake>, head: Pfn) -> Result<(), Stay> {
    let machine = memory.machine();
    let table = memory.allocate(&TABLE).map_err(|error| match error {
        AllocError::OutOfMemory => Stay::NoTable,
        AllocError::Injected(injected) => Stay::Injected(injected),
    })?;
    if let Err(stay) = machine.give_up(head) {
        memory.free(table, Order::PAGE);
        return Err(stay);
    }
    machine.holders.tables.lock().unwrap().push(table);
    memory.split_block(head);
    for n in 0..Order::PAGEBLOCK.pages() {
        machine.settle_down(head.add(n), Order::PAGE);
    }
    Ok(())
}
