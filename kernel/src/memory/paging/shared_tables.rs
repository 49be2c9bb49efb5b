//! Page tables of the vmemmap window that two sections share, whichever of the two is there.
//!
//! None is counted: the entry that points to a page table says which of its two sections need it ([`CLAIMS`]), and the table goes
//! with the last of them.

use super::editor::{Tables, drop_table};
use super::entry::{CLAIMS, Entry, Level};
use super::plan::{PER_MEMMAP_TABLE, chunks};
use super::tree::{TableMemory, Tree};
use crate::memory::layout;
use mm::addr::{Pfn, SectionId, SectionRange};
use mm::machine::mapper::MapError;
use x86_64::structures::paging::PageTableFlags as Flags;

/// Where the struct pages of `section` begin.
pub(crate) const fn address_of(section: SectionId) -> u64 {
    layout::page_info(section.pages().start())
}

/// The marks, in the entry that points to a page table of the vmemmap window, that `sections` need that table.
fn claims(sections: SectionRange) -> Flags {
    sections.iter().map(|section| CLAIMS[section.number() as usize % CLAIMS.len()]).collect()
}

/// Makes the page table for the struct pages of at most two sections, from system frames.
pub(super) fn claim_pair<M: TableMemory>(tree: &mut Tree<M>, sections: SectionRange) -> Result<(), MapError> {
    let address = address_of(sections.first());
    let pointers = tree.table(address, Level::POINTERS).ok_or(MapError)?;
    let directory = tree.make_child(pointers, Level::POINTERS, address)?;
    tree.make_child(directory, Level::DIRECTORY, address)?;
    let index = Level::DIRECTORY.index(address);
    let entry = tree.memory.read(directory, index);
    tree.memory.write(directory, index, entry.with(entry.flags() | claims(sections)));
    Ok(())
}

/// Makes the page table for the struct pages of one section, from system frames.
pub(crate) fn claim_one<M: TableMemory>(tree: &mut Tree<M>, section: SectionId) -> Result<(), MapError> {
    claim_pair(tree, SectionRange::single(section))
}

/// The sections, behind one directory, need their page tables no more.
pub(super) fn unclaim_pairs<M: TableMemory>(tree: &mut Tree<M>, sections: SectionRange, range: SectionRange) -> Tables {
    let Some(directory) = tree.table(address_of(sections.first()), Level::DIRECTORY) else { return Tables::System };
    let pairs = chunks(sections, PER_MEMMAP_TABLE);
    pairs.fold(Tables::System, |found, pair| found.max(unclaim_pair(tree, directory, pair.sections, range)))
}

fn unclaim_pair<M: TableMemory>(
    tree: &mut Tree<M>,
    directory: Pfn,
    sections: SectionRange,
    range: SectionRange,
) -> Tables {
    let index = Level::DIRECTORY.index(address_of(sections.first()));
    let entry = tree.memory.read(directory, index);
    let Some(table) = entry.promised().or_else(|| entry.table(Level::DIRECTORY)) else { return Tables::System };
    let rest = entry.flags() - claims(sections);
    if rest.intersects(CLAIMS[0] | CLAIMS[1]) {
        tree.memory.write(directory, index, entry.with(rest));
        return Tables::System;
    }
    tree.memory.write(directory, index, Entry::EMPTY);
    drop_table(tree, table, range)
}
