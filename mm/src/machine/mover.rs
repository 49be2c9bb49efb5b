//! The seam to those who hold memory and can find it elsewhere again: migration.

use crate::addr::{Order, Pfn};
use crate::frame::page::Owner;
use crate::inject::Injected;

/// Why a block stays where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Stay {
    /// Somebody else holds a reference to it.
    #[error("pinned")]
    Pinned,
    /// It is just being taken, given back or moved: to be asked again.
    #[error("in flight")]
    InFlight,
    /// There is no frame for the page table that its parts need.
    #[error("no frame for a page table")]
    NoTable,
    /// Somebody asked for this failure.
    #[error("{0}")]
    Injected(Injected),
}

/// One allocated block and where it shall go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Move {
    /// The first frame of the block.
    pub from: Pfn,
    /// The first frame of an allocated block of the same size and for the same owner, which nobody uses yet.
    pub to: Pfn,
    /// The size of both.
    pub order: Order,
    /// What has come of it. Of a block that was moved nobody uses the old place any more, and nobody the new one of a block that
    /// was not.
    pub outcome: Result<(), Stay>,
}

/// Moving what allocated blocks hold elsewhere, unseen by those who use it. Where nothing can move, what is here is enough.
pub trait Mover {
    /// Whether blocks of this owner can be moved, as long as nobody pins them.
    fn can_move(&self, _owner: Owner) -> bool {
        false
    }

    /// Moves blocks of one such owner, and sets the outcome of each. A block that is not, or no more, what the caller takes
    /// it for is in flight. Called with no lock held but that of a range; may block the task.
    fn migrate(&self, moves: &mut [Move]) {
        moves.iter_mut().for_each(|wanted| wanted.outcome = Err(Stay::InFlight));
    }

    /// Makes single frames of a pageblock that was allocated as a whole, by
    /// [`Memory::split_block`](crate::Memory::split_block), so that each can go elsewhere.
    ///
    /// # Errors
    /// It stays what it is.
    fn split(&self, _head: Pfn) -> Result<(), Stay> {
        Err(Stay::InFlight)
    }
}
