//! The seam to memory that may not keep what is written to it.

use crate::addr::{Pfn, PfnRange, SectionId};
use crate::inject::Injected;

/// A frame that does not keep what is written to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the memory at {0} does not keep what is written to it")]
pub struct BadMemory(pub Pfn);

/// Why nothing of a section is handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Distrust {
    /// Its struct pages, or a page table for them, would lie in such memory.
    #[error("{0}")]
    BadMemory(BadMemory),
    /// A failure was injected.
    #[error("{0}")]
    Injected(Injected),
}

/// Added memory before anything is kept in it: a module may be a read-only file, or have dead cells.
///
/// # Invariants
/// No spin lock of the subsystem is held at any call. A request that opens a section makes both, and its caller may hold spin
/// locks of its own: neither may block or allocate.
pub trait Trial {
    /// Tries whether each of `frames` keeps what is written to it. Those that do hold what they held before when this returns.
    ///
    /// # Invariants
    /// The direct map shows the frames, and nothing uses them until this returns.
    ///
    /// # Errors
    /// The lowest that does not.
    fn try_frames(&self, frames: PfnRange) -> Result<(), BadMemory>;

    /// Notes that a section is withheld. Called once for each time that it is.
    fn note_withheld(&self, section: SectionId, why: Distrust);
}
