//! Who moves the memory of which owner: those whose memory can move register here, and `mm` asks them through this machine.
#![deny(unsafe_code)]

use crate::memory::frames::{Kernel, mm};
use crate::memory::heap_frames;
use mm::addr::Pfn;
use mm::frame::memmap::Memmap;
use mm::frame::page::Owner;
use mm::machine::Machine;
use mm::machine::mover::{Move, Mover, Stay};

/// Moves what belongs to one owner, or to a few.
pub(crate) trait PageMover: Sync {
    /// Moves blocks of these owners, and sets the outcome of each.
    fn migrate(&self, moves: &mut [Move]);

    /// Makes single pages of a block of 2 MiB, each of which can go elsewhere.
    ///
    /// # Errors
    /// It stays what it is; some memory never splits.
    fn split(&self, head: Pfn) -> Result<(), Stay>;
}

/// More kinds of owners than there are.
const OWNER_LIMIT: usize = 32;

/// The mover of every owner, by its number; none where nothing moves.
static MOVERS: [spin::Once<&'static dyn PageMover>; OWNER_LIMIT] = [const { spin::Once::new() }; OWNER_LIMIT];

/// From now on memory of these owners is moved by `mover`.
///
/// # Panics
/// One of them has a mover already, a mistake of the boot order.
pub(crate) fn register(owners: &[Owner], mover: &'static dyn PageMover) {
    for owner in owners {
        let slot = &MOVERS[*owner as usize];
        assert!(!slot.is_completed(), "{owner:?} has a mover already");
        slot.call_once(|| mover);
    }
}

fn mover_of(owner: Owner) -> Option<&'static dyn PageMover> {
    MOVERS[owner as usize].get().copied()
}

/// Who owns the block at `head`, if there is a struct page that says so.
fn owner_of(head: Pfn) -> Option<Owner> {
    // What lay there may have gone elsewhere, and its section with its struct pages after it.
    let _reading = mm().machine().reading();
    mm().section(head.section()).filter(|section| section.is_open())?;
    Some(mm().machine().page(head).head().owner)
}

impl Mover for Kernel {
    fn can_move(&self, owner: Owner) -> bool {
        mover_of(owner).is_some()
    }

    fn migrate(&self, moves: &mut [Move]) {
        // The old places may be another's by now, or gone with their struct pages; the new ones are the caller's.
        let Some(first) = moves.first() else { return };
        match mover_of(self.page(first.to).head().owner) {
            Some(mover) => mover.migrate(moves),
            None => moves.iter_mut().for_each(|wanted| wanted.outcome = Err(Stay::InFlight)),
        }
    }

    fn split(&self, head: Pfn) -> Result<(), Stay> {
        owner_of(head).and_then(mover_of).map_or(Err(Stay::InFlight), |mover| mover.split(head))
    }
}

/// Moves what the heap lies in.
pub(super) struct HeapMover;

impl PageMover for HeapMover {
    fn migrate(&self, moves: &mut [Move]) {
        heap_frames::migrate(moves);
    }

    fn split(&self, _head: Pfn) -> Result<(), Stay> {
        Err(Stay::InFlight)
    }
}
