//! The seam to the kernel's page tables: direct map and vmemmap window.
//!
//! Mapping is cheap, unmapping is not: a CPU may remember a translation in its TLB. What is unmapped page by page is out of
//! reach after one TLB shootdown for all of it, [`settle_memmaps`](Mapper::settle_memmaps).

use crate::addr::{Pfn, PfnRange, SectionId, SectionRange};
use crate::machine::trial::BadMemory;

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

/// Whether memory is in the direct map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DirectMap {
    /// CPUs reach it there.
    Present,
    /// No CPU may touch it: it has struct pages and nothing else.
    Absent,
}

/// The kernel's page tables: direct map and vmemmap window.
///
/// # Invariants
/// 1. *Locks.* No spin lock of the subsystem is held at any call. [`map_memmap`](Self::map_memmap) is called by requests that
///    open a section, whose caller may hold spin locks of its own: it must not block and must not allocate. The others are
///    called by the task that holds the range of the sections, and may take frames with
///    [`Urgency::Hotplug`](crate::alloc::request::Urgency::Hotplug), which opens nothing.
/// 2. *Overlap.* Calls about one section never overlap, calls about different sections do. What neighbours share, such as an
///    upper table, the implementor guards.
/// 3. *Order.* [`map_range`](Self::map_range) comes before every memmap of the range, and every memmap is unmapped and
///    settled before [`unmap_range`](Self::unmap_range). What is mapped is not mapped again, and only what is mapped is
///    unmapped.
/// 4. *Obligation.* A section's memmap is unmapped only when no reader can be looking at it, after
///    [`wait_for_readers`](crate::machine::Machine::wait_for_readers). Each unmapping is followed by
///    [`settle_memmaps`](Self::settle_memmaps) before the frames that backed it are used for anything else.
/// 5. *Visibility.* What is mapped when a call returns, every CPU can reach: an absent translation is never remembered.
pub trait Mapper {
    /// No page table reaches across a multiple of this many sections, so that a large range can be mapped in parts cut
    /// there, each with its own tables at its head.
    const PART: u64;

    /// Returns how many page-table frames mapping `range` takes that map nothing outside `range`: those lie at its head.
    ///
    /// # Invariants
    /// The answer for a range never changes: altmaps are laid out by it when memory is added, and found again by it.
    fn own_tables(&self, range: SectionRange) -> u64;

    /// Maps `range` in the direct map, unless it is to be [absent](DirectMap::Absent) there, and prepares the tables of its part of the vmemmap window, so that
    /// [`map_memmap`](Self::map_memmap) needs no system frame later.
    ///
    /// Tables wholly inside `range` are taken from `own`, whose length is [`own_tables`](Self::own_tables) or zero;
    /// all others, and all of them when `own` is empty, are system frames that neighbours share. The page tables of the
    /// vmemmap window that lie in `own` are neither read nor written before the first memmap that needs them is mapped.
    /// Whatever lies in `own` is [tried](crate::machine::trial::Trial) before it becomes a table.
    ///
    /// # Errors
    /// See [`MapRangeError`]. Then nothing is mapped and every frame is given back.
    fn map_range(&self, range: SectionRange, own: PfnRange, direct_map: DirectMap) -> Result<(), MapRangeError>;

    /// Undoes [`map_range`](Self::map_range) for a range mapped by one call of it. No stale translation is left when this
    /// returns; system frames whose last user this was are freed.
    ///
    /// # Invariants
    /// No frame of `range` is in use, except for its own tables; those are gone afterwards. Cannot fail.
    fn unmap_range(&self, range: SectionRange);

    /// Backs the whole memmap of `section` with the [`MEMMAP_PAGES`](crate::frame::page::MEMMAP_PAGES) frames of `backing`.
    ///
    /// # Invariants
    /// `backing` lies in the section itself, has been tried, and is used for nothing else until the memmap is unmapped.
    ///
    /// # Errors
    /// The page table for it, which no memmap has needed before, would lie in bad memory. Nothing is mapped then.
    fn map_memmap(&self, section: SectionId, backing: PfnRange) -> Result<(), BadMemory>;

    /// Undoes [`map_memmap`](Self::map_memmap). Until [`settle_memmaps`](Self::settle_memmaps) returns, the struct pages may
    /// still be reached. Cannot fail.
    fn unmap_memmap(&self, section: SectionId);

    /// Backs page `index` (below [`MEMMAP_PAGES`](crate::frame::page::MEMMAP_PAGES)) of the memmap of `section` with `frame`,
    /// for a memmap that is gathered page by page. Cannot fail: [`map_range`](Self::map_range) without tables of its own has
    /// made the page table.
    fn map_memmap_page(&self, section: SectionId, index: u64, frame: Pfn);

    /// Takes the backing of page `index` of the memmap of `section` away and returns it. Until
    /// [`settle_memmaps`](Self::settle_memmaps) returns, it may still be reached.
    fn unmap_memmap_page(&self, section: SectionId, index: u64) -> Pfn;

    /// Returns when no memmap can be reached that was unmapped before the call: a TLB shootdown on every CPU.
    ///
    /// # Invariants
    /// May wait for other CPUs, which answer with interrupts on: the caller holds no spin lock at all, its own included.
    fn settle_memmaps(&self);

    /// Returns how many page-table frames are in use or set aside, wherever they lie.
    fn table_frames(&self) -> u64;
}
