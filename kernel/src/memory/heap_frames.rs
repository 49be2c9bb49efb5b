//! Moving the frames of the heap: its window stays where it is, and the kernel's page tables are all that points at them.
//!
//! The heap may be used at any moment, also where waiting is impossible, so the machine is stopped while frames are copied.

use super::frames::{contents, mm};
use super::layout;
use super::paging::entry::{DATA, Entry, Level};
use super::paging::tables;
use super::paging::tree::TableMemory;
use crate::arch;
use mm::addr::{Order, Pfn};
use mm::frame::memmap::Memmap;
use mm::inject::Point;
use mm::machine::mover::{Move, Stay};

/// Frames that are moved while the others stand: interrupts are off all this time.
const TOGETHER: usize = 32;

/// Remembers where the heap shows a frame of `mm`'s.
pub(super) fn note_place(frame: Pfn, address: u64) {
    mm().machine().page(frame).set_private(address);
}

/// Moves frames of the heap, and sets the outcome of each.
pub(super) fn migrate(moves: &mut [Move]) {
    for part in moves.chunks_mut(TOGETHER) {
        arch::stop_machine(|| part.iter_mut().for_each(|wanted| wanted.outcome = migrate_one(*wanted)));
    }
}

fn migrate_one(wanted: Move) -> Result<(), Stay> {
    let page = |frame| mm().machine().page(frame);
    let address = page(wanted.from).private();
    let is_of_heap = (layout::HEAP..layout::HEAP + layout::SLOT_SIZE).contains(&address);
    let shows_it = || tables::leaf(address).is_some_and(|(leaf, _)| leaf.frame() == wanted.from);
    if wanted.order != Order::PAGE || !is_of_heap || !shows_it() {
        return Err(Stay::InFlight);
    }
    for point in [Point::MigrateUnmap, Point::MigrateCopy] {
        mm().check_injected(point).map_err(Stay::Injected)?;
    }
    // SAFETY: The heap has the first, and all other CPUs stand still, so nothing writes to it; the second is a new place, by
    // the contract of `Mover`.
    unsafe { contents::copy(wanted.from, wanted.to, wanted.order) };
    tables::edit(|tree| {
        let table = tree.table(address, Level::PAGE_TABLE).expect("a page of the heap has a page table");
        tree.memory.write(table, Level::PAGE_TABLE.index(address), Entry::new(wanted.to, DATA));
    });
    // The others forget it before they go on; whatever this one does until then may use the heap, too.
    arch::flush_page(address);
    note_place(wanted.to, address);
    Ok(())
}
