//! The seam to owners of memory that find it again when it lies elsewhere: page migration.

use crate::addr::{Order, Pfn};
use crate::frame::page::Owner;
use crate::inject::Injected;

/// Why a block stays where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Stay {
    /// There is a reference to it beside the owner's.
    #[error("pinned")]
    Pinned,
    /// It is being allocated, freed or moved at this moment: a later attempt may succeed.
    #[error("in flight")]
    InFlight,
    /// No frame could be had for the page table that its parts need.
    #[error("no frame for a page table")]
    NoTable,
    /// A failure was injected.
    #[error("{0}")]
    Injected(Injected),
}

/// One allocated block and its destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Move {
    /// The first frame of the block.
    pub from: Pfn,
    /// The first frame of an allocated block of the same size and for the same owner, which is not in use yet.
    pub to: Pfn,
    /// The size of both.
    pub order: Order,
    /// What has become of it: `Ok` if it was moved.
    pub outcome: Result<(), Stay>,
}

/// Page migration: moves the contents of allocated blocks elsewhere, unnoticed by their users. The default methods are those
/// of a machine where nothing can move.
///
/// # Invariants
/// 1. *Before.* The caller holds no lock but the range of a section. It may be wrong about the old place of a block: that may
///    have been freed, or be another owner's by now, or be gone with its struct pages. The new place is the caller's own.
/// 2. *During.* May block the task, take the owner's locks and allocate. Frees neither place of a block. A block that is
///    pinned stays; no other block can be written to while it is copied, through a translation in the TLB of any CPU least of
///    all.
/// 3. *After.* Each outcome is set. Of a block that was moved nothing refers to the old place any more, which the caller
///    frees; of one that was not, nothing refers to the new place, and the old one is as it was.
pub trait Mover {
    /// Returns whether blocks of this owner can be moved, as long as they are not pinned.
    ///
    /// # Invariants
    /// May be called with any lock held.
    fn can_move(&self, _owner: Owner) -> bool {
        false
    }

    /// Moves blocks of one such owner, and sets the outcome of each. A block that is not, or no more, what the caller takes
    /// it for is in flight.
    fn migrate(&self, moves: &mut [Move]) {
        moves.iter_mut().for_each(|wanted| wanted.outcome = Err(Stay::InFlight));
    }

    /// Splits a pageblock that was allocated as a whole into single frames, by
    /// [`Memory::split_block`](crate::Memory::split_block), so that each can go elsewhere.
    ///
    /// # Errors
    /// It stays what it is.
    fn split(&self, _head: Pfn) -> Result<(), Stay> {
        Err(Stay::InFlight)
    }
}
