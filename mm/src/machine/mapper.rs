//! The seam to the kernel's page tables: direct map and vmemmap window.

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
pub trait Mapper {
    /// No page table reaches across a multiple of this many sections, so that a large range can be mapped in parts cut
    /// there, each with its own tables at its head.
    const PART: u64;

    /// How many page-table frames mapping `range` takes that map nothing outside `range`: those lie at its head.
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

    /// Undoes [`map_range`](Self::map_range) for a range mapped by one call of it. Nothing stale can be reached when
    /// this returns; system frames whose last user this was are freed.
    fn unmap_range(&self, range: SectionRange);

    /// Backs the whole memmap of `section` with the [`MEMMAP_PAGES`](crate::frame::page::MEMMAP_PAGES) frames of `backing`.
    ///
    /// # Errors
    /// The page table for it, which nobody has needed before, would lie in bad memory. Nothing is mapped then.
    fn map_memmap(&self, section: SectionId, backing: PfnRange) -> Result<(), BadMemory>;

    /// Undoes [`map_memmap`](Self::map_memmap). Until [`settle_memmaps`](Self::settle_memmaps) returns, the struct pages may
    /// still be reached.
    fn unmap_memmap(&self, section: SectionId);

    /// Backs page `index` (below [`MEMMAP_PAGES`](crate::frame::page::MEMMAP_PAGES)) of the memmap of `section` with `frame`, for a memmap that is gathered
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
