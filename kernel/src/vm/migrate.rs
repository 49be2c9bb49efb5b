//! Moving pages, and the tables that map them, to other frames, unseen by those who use them, and making small pages of a
//! large one.
//!
//! A page is taken away from those who use it (its entry says that it is moving, and no CPU remembers what it said before),
//! copied, and mapped again, there or, if something went wrong, where it was. Whoever touches it meanwhile waits. Many are
//! taken away at once, so that CPUs forget only once; no lock is held while they do, and none while pages are copied. A page
//! table is taken away with all its pages. Nothing points to the topmost but CPUs and tasks, so all CPUs stand still while it
//! moves.
#![expect(unsafe_code, reason = "while they move, pages and tables go by the numbers of their frames")]

use super::AddressSpace;
use super::rmap::{self, Whose};
use super::space::Locked;
use crate::arch;
use crate::memory::host::mover::PageMover;
use crate::memory::{self, EntryPlace, Leaf, Slot, mm};
use crate::task;
use alloc::sync::Arc;
use heapless::Vec;
use mm::addr::{Order, Pfn};
use mm::alloc::request::AllocError;
use mm::evacuate::evacuation::MOVED_TOGETHER;
use mm::frame::memmap::Memmap;
use mm::frame::page::{Owner, PageInfo};
use mm::inject::Point;
use mm::machine::Machine;
use mm::machine::mover::{Move, Stay};

/// Moves the pages of spaces and the tables that map them.
pub(super) struct SpaceMover;

impl SpaceMover {
    pub(super) const OWNERS: [Owner; 2] = [Owner::Anonymous, Owner::UserTable];
}

impl PageMover for SpaceMover {
    fn migrate(&self, moves: &mut [Move]) {
        moves.chunks_mut(MOVED_TOGETHER).for_each(migrate_together);
    }

    fn split(&self, head: Pfn) -> Result<(), Stay> {
        split(head)
    }
}

/// A page that was taken away from those who use it.
struct Taken {
    /// Which of the moves it is.
    number: usize,
    space: Arc<AddressSpace>,
    place: EntryPlace,
    /// What the owner's word of its frame says.
    word: u64,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Page,
    Table,
}

fn migrate_together(moves: &mut [Move]) {
    let taken = take_away(moves);
    if taken.is_empty() {
        return;
    }
    arch::flush_tlb_everywhere();
    for page in &taken {
        let wanted = &mut moves[page.number];
        wanted.outcome = mm().check_injected(Point::MigrateCopy).map_err(Stay::Injected);
        if wanted.outcome.is_ok() {
            // SAFETY: The first was taken away from all that use it, the second is a new place, by the contract of `Mover`.
            unsafe { memory::copy(wanted.from, wanted.to, wanted.order) };
        }
    }
    put_back(moves, &taken);
}

/// Takes away what is what the moves take it for; the others get their outcome.
fn take_away(moves: &mut [Move]) -> Vec<Taken, MOVED_TOGETHER> {
    let mut taken = Vec::new();
    let mut next = 0;
    while let Some(first) = moves.get_mut(next) {
        let Some((space, id)) = space_of(first.from) else {
            first.outcome = Err(Stay::InFlight);
            next += 1;
            continue;
        };
        let mut tables = space.lock();
        for (number, wanted) in moves.iter_mut().enumerate().skip(next) {
            let Some(whose) = whose(wanted.from).filter(|whose| whose.space == id) else { break };
            next = number + 1;
            let owner = info(wanted.from).head().owner;
            if owner != info(wanted.to).head().owner {
                wanted.outcome = Err(Stay::InFlight);
                continue;
            }
            let leaf = Leaf { frame: wanted.from, order: wanted.order };
            if wanted.from == tables.root_frame() {
                drop(tables);
                wanted.outcome = move_topmost(&space, wanted.from, wanted.to);
                break;
            }
            let what = if owner == Owner::UserTable { What::Table } else { What::Page };
            match take_one(&mut tables, whose.page, leaf, what) {
                Ok(place) => {
                    let page = Taken { number, space: Arc::clone(&space), place, word: whose.word(), what };
                    assert!(taken.push(page).is_ok(), "no more than {MOVED_TOGETHER} are moved together");
                }
                Err(stay) => wanted.outcome = Err(stay),
            }
            // All of a table was looked at.
            if what == What::Table {
                break;
            }
        }
    }
    taken
}

/// Marks a page as moving, if it is that leaf and nobody else refers to it; the same for a table of the page.
fn take_one(tables: &mut Locked<'_>, page: u64, leaf: Leaf, what: What) -> Result<EntryPlace, Stay> {
    let found = match what {
        What::Page => {
            let (place, slot) = tables.look(page);
            (slot == Slot::Mapped(leaf)).then_some(place)
        }
        What::Table => tables.find_table(page, leaf.frame),
    };
    let place = found.ok_or(Stay::InFlight)?;
    mm().check_injected(Point::MigrateUnmap).map_err(Stay::Injected)?;
    if !info(leaf.frame).freeze() {
        return Err(Stay::Pinned);
    }
    // SAFETY: The tables have just told of the place, and nothing is mapped there then.
    unsafe { tables.set(place, Slot::Moving(leaf)) };
    Ok(place)
}

/// Moves the topmost table of a space.
fn move_topmost(space: &AddressSpace, from: Pfn, to: Pfn) -> Result<(), Stay> {
    for point in [Point::MigrateUnmap, Point::MigrateCopy] {
        mm().check_injected(point).map_err(Stay::Injected)?;
    }
    arch::stop_machine(|| {
        let mut tables = space.lock();
        if tables.root_frame() != from || !tables.is_settled(from) {
            return Err(Stay::InFlight);
        }
        // SAFETY: All who could write to the table stand still or wait for the lock; the second is a new place, by the contract
        // of `Mover`.
        unsafe { memory::copy(from, to, Order::PAGE) };
        info(to).set_private(info(from).private());
        // SAFETY: Whoever has it gets the new one below.
        let old = unsafe { tables.root() };
        // SAFETY: The outcome tells the caller to take the old frame for the new one.
        unsafe { tables.set_root_frame(to) };
        // SAFETY: As where tasks enter the space.
        task::replace_root(old, unsafe { tables.root() });
        Ok(())
    })
}

/// Maps what was taken away: where it is now, or where it was.
fn put_back(moves: &[Move], mut taken: &[Taken]) {
    while let Some(Taken { space, .. }) = taken.first() {
        let run = taken.iter().take_while(|page| Arc::ptr_eq(&page.space, space)).count();
        let (of_space, rest) = taken.split_at(run);
        let mut tables = space.lock();
        for page in of_space {
            let Move { from, to, order, outcome } = moves[page.number];
            let frame = if outcome.is_ok() {
                info(to).set_private(page.word);
                to
            } else {
                info(from).thaw();
                from
            };
            match page.what {
                // SAFETY: The place stays while it says that it is moving. The space has the frame that it had, or the one that
                // the outcome tells the caller to take the old one for.
                What::Page => unsafe { tables.set(page.place, Slot::Mapped(Leaf { frame, order })) },
                // SAFETY: The same.
                What::Table => unsafe { tables.link(page.place, frame) },
            }
        }
        drop(tables);
        space.settled.wake_all();
        taken = rest;
    }
}

/// Makes single pages of one of 2 MiB, each of which can go elsewhere.
///
/// # Errors
/// It stays what it is; there may be no frame for a page table.
fn split(head: Pfn) -> Result<(), Stay> {
    mm().check_injected(Point::MigrateSplit).map_err(Stay::Injected)?;
    let Some((space, _)) = space_of(head) else { return Err(Stay::InFlight) };
    let Some(Whose { page, .. }) = whose(head) else { return Err(Stay::InFlight) };
    let table = space.placement.take_table().map_err(|error| match error {
        AllocError::Injected(injected) => Stay::Injected(injected),
        AllocError::OutOfMemory => Stay::NoTable,
    })?;
    let leaf = Leaf { frame: head, order: Order::PAGEBLOCK };
    let place = take_one(&mut space.lock(), page, leaf, What::Page)?;
    // No CPU may know two sizes for the same address at once.
    arch::flush_tlb_everywhere();
    mm().split_block(head);
    for index in 0..leaf.order.pages() {
        let single = info(head.add(index));
        single.set_private(space.word_of(page + index));
        single.thaw();
    }
    {
        let mut tables = space.lock();
        tables.make_tables_for(space.word_of(page));
        // SAFETY: The place stays while it says that the leaf is moving, and `split_block` made single blocks of its frames.
        unsafe { tables.split(place, leaf, table) };
    }
    space.settled.wake_all();
    Ok(())
}

/// What the owner's word of a frame says, which is right only if the space says the same. If it says something, the struct page
/// stays as long as the caller is in the critical section in which it asked.
pub(super) fn whose(frame: Pfn) -> Option<Whose> {
    // What lay there may have gone elsewhere, and its block with its struct pages after it.
    let _reading = mm().machine().reading();
    mm().section(frame.section()).filter(|section| section.is_open())?;
    Whose::from_word(info(frame).private())
}

/// The space that the owner's word of a frame names.
fn space_of(frame: Pfn) -> Option<(Arc<AddressSpace>, rmap::SpaceId)> {
    let id = whose(frame)?.space;
    Some((rmap::find(id)?, id))
}

fn info(frame: Pfn) -> &'static PageInfo {
    mm().machine().page(frame)
}
