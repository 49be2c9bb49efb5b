//! The seams: what the memory subsystem asks of the machine it runs on.
//!
//! The kernel implements them with page tables and a clock; tests implement them with tables and a counter.

use crate::addr::{Order, Pfn, PfnRange, SectionId, SectionRange};
use crate::errno::Errno;
use crate::inject::Injected;
use crate::page::{Owner, PageInfo};

/// Pages that the struct pages of one section take: 1 MiB.
pub const MEMMAP_PAGES: u64 = crate::addr::PAGES_PER_SECTION * crate::page::PAGE_INFO_SIZE / crate::addr::PAGE_SIZE;

/// Access to the struct pages.
pub trait Memmap {
    /// The struct page of `pfn`, whose section's memmap must be mapped.
    fn page(&self, pfn: Pfn) -> &PageInfo;

    /// Zeroes the struct pages of `range`, whose memmap must be mapped and in use by nobody else until this returns. They
    /// may hold anything before.
    fn clear(&self, range: PfnRange) {
        for pfn in range.iter() {
            self.page(pfn).clear();
        }
    }
}

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
    /// Somebody asked for this failure.
    #[error("{0}")]
    Injected(Injected),
}

/// Added memory before anything is kept in it: a module may be a file that nobody can write to, or have cells that are dead.
pub trait Trial {
    /// Tries whether each of `frames`, which the direct map shows and nobody uses, keeps what is written to it. Those that
    /// do hold what they held before when this returns.
    ///
    /// # Errors
    /// The lowest that does not.
    fn try_frames(&self, frames: PfnRange) -> Result<(), BadMemory>;

    /// Hears once of a section that it is withheld. Called with no spin lock of the memory's held.
    fn note_withheld(&self, section: SectionId, why: Distrust);
}

/// No table could be had for a mapping; nothing was mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no memory for page tables")]
pub struct MapError;

/// Why a range is not mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MapRangeError {
    /// A system frame for a table could not be had.
    #[error(transparent)]
    NoTable(#[from] MapError),
    /// A table would lie in such memory.
    #[error(transparent)]
    BadMemory(#[from] BadMemory),
}

/// The kernel's page tables: direct map and vmemmap window.
pub trait Mapper {
    /// No page table reaches across a multiple of this many sections, so that a large range can be mapped in parts cut
    /// there, each with its own tables at its head.
    const PART: u64;

    /// How many page-table frames mapping `range` takes that map nothing outside `range`: those lie at its head.
    fn own_tables(&self, range: SectionRange) -> u64;

    /// Maps `range` in the direct map and prepares the tables of its part of the vmemmap window, so that
    /// [`map_memmap`](Self::map_memmap) needs no system frame later.
    ///
    /// Tables wholly inside `range` are taken from `own`, whose length is [`own_tables`](Self::own_tables) or zero;
    /// all others, and all of them when `own` is empty, are system frames that neighbours share. The page tables of the
    /// vmemmap window that lie in `own` are neither read nor written before the first memmap that needs them is mapped.
    /// Whatever lies in `own` is [tried](Trial) before it becomes a table.
    ///
    /// # Errors
    /// See [`MapRangeError`]. Then nothing is mapped and every frame is given back.
    fn map_range(&self, range: SectionRange, own: PfnRange) -> Result<(), MapRangeError>;

    /// Undoes [`map_range`](Self::map_range) for a range mapped by one call of it. Nothing stale can be reached when
    /// this returns; system frames whose last user this was are freed.
    fn unmap_range(&self, range: SectionRange);

    /// Backs the whole memmap of `section` with the [`MEMMAP_PAGES`] frames of `backing`.
    ///
    /// # Errors
    /// The page table for it, which nobody has needed before, would lie in bad memory. Nothing is mapped then.
    fn map_memmap(&self, section: SectionId, backing: PfnRange) -> Result<(), BadMemory>;

    /// Undoes [`map_memmap`](Self::map_memmap). Until [`settle_memmaps`](Self::settle_memmaps) returns, the struct pages may
    /// still be reached.
    fn unmap_memmap(&self, section: SectionId);

    /// Backs page `index` (below [`MEMMAP_PAGES`]) of the memmap of `section` with `frame`, for a memmap that is gathered
    /// page by page.
    fn map_memmap_page(&self, section: SectionId, index: u64, frame: Pfn);

    /// Takes the backing of page `index` of the memmap of `section` away and returns it. Until
    /// [`settle_memmaps`](Self::settle_memmaps) returns, it may still be reached.
    fn unmap_memmap_page(&self, section: SectionId, index: u64) -> Pfn;

    /// Returns when no memmap can be reached that was unmapped before the call. Called with no spin lock held.
    fn settle_memmaps(&self);

    /// Page-table frames in use or set aside, wherever they lie.
    fn table_frames(&self) -> u64;
}

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

/// A clock that never goes back.
pub trait Clock {
    /// Nanoseconds since some moment before the first call.
    fn now_ns(&self) -> u64;
}

/// Everything together, with the two kinds of lock.
pub trait Machine: Memmap + Trial + Mapper + Mover + Clock + Sync + 'static {
    /// Held for bounded work, also where an interrupt may come.
    type Spin: lock_api::RawMutex + Sync + Send;
    /// Held while listeners are called or zones chosen; waiting for it blocks the task.
    type Sleep: lock_api::RawMutex + Sync + Send;

    /// What keeps struct pages mapped while somebody looks at them.
    type Reading<'a>;

    /// Lets struct pages be looked at: those of a section that was open at any moment since then stay mapped until the
    /// answer is dropped. Writes nothing that other CPUs read. Nothing may block or spin on a lock meanwhile.
    fn reading(&self) -> Self::Reading<'_>;

    /// Returns when nobody can be looking at struct pages of sections that were closed before the call. Called with no spin
    /// lock held.
    fn wait_for_readers(&self);

    /// Number of the CPU that asks, below the number of CPUs that it was booted with. The caller may be on another one
    /// when it reads the answer, unless something keeps it where it is.
    fn cpu(&self) -> usize;

    /// Asks that [`Memory::keep`](crate::Memory::keep) be called soon. May be called with any lock held.
    fn wake_keeper(&self);

    /// Blocks the task until `is_over` holds, which takes a spin lock and nothing more. It is to be asked again after each
    /// [`wake_waiters`](Self::wake_waiters). May return early, and does so several times a second, so that whoever waits can
    /// be told to stop.
    fn wait(&self, is_over: &mut dyn FnMut() -> bool);

    /// What somebody waits for may be over. Called with no lock held.
    fn wake_waiters(&self);
}

/// Called between the bounded steps of a long operation, with no spin lock held.
pub trait Pace {
    /// May let others run; says whether to go on.
    ///
    /// # Errors
    /// The operation shall stop, for the reason given.
    fn pause(&mut self) -> Result<(), Stop>;
}

/// Why a long operation is told to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Stop {
    /// Somebody cancelled it.
    #[error("cancelled")]
    Cancelled,
    /// It ran out of time.
    #[error("out of time")]
    Deadline,
}

impl Stop {
    /// The errno name.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::Cancelled => Errno::Canceled,
            Self::Deadline => Errno::TimedOut,
        }
    }
}

/// Never pauses and never stops.
pub struct Unhurried;

impl Pace for Unhurried {
    fn pause(&mut self) -> Result<(), Stop> {
        Ok(())
    }
}
