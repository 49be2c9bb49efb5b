//! Page tables for struct pages: the vmemmap window.
//!
//! A page table serves two sections, see [`shared_tables`]; a directory is in use while one of its entries is. A range's own page tables
//! are promises until [`page_table`] is asked for one of them.

use super::editor::{Editor, OwnMemory, Tables};
use super::entry::{CLAIMS, Entry, Level, TABLE};
use super::plan::{OwnFrames, PER_MEMMAP_DIRECTORY, PER_MEMMAP_TABLE, chunks, runs};
use super::shared_tables::{self, address_of, claim_pair};
use super::tree::{TableMemory, Tree};
use mm::addr::{Pfn, PfnRange, SectionId, SectionRange};
use mm::frame::page::MEMMAP_PAGES;
use mm::machine::mapper::{MapError, MapRangeError};
use mm::machine::trial::BadMemory;

/// Sections whose page tables are given up in one edit.
const PER_UNCLAIM: u64 = 128;

/// Makes the tables for the struct pages of `range`, or promises them.
pub(super) fn claim<E: Editor>(editor: &E, range: SectionRange, own: &mut OwnFrames) -> Result<(), MapRangeError> {
    for run in runs(range, PER_MEMMAP_TABLE, PER_MEMMAP_DIRECTORY) {
        if run.is_whole
            && let Some(tables) = own.page_tables(run.sections)
        {
            let fills_directory = run.sections.count() == PER_MEMMAP_DIRECTORY;
            let directory = if fills_directory { own.directory() } else { None };
            editor.edit(|tree| promise_tables(tree, run.sections, directory, tables))?;
            continue;
        }
        for pair in chunks(run.sections, PER_MEMMAP_TABLE) {
            editor.edit(|tree| claim_pair(tree, pair.sections))?;
        }
    }
    Ok(())
}

/// Promises the page tables for the struct pages of whole pairs of sections behind one directory: `tables` are not touched.
/// A directory of their own is made here, too.
fn promise_tables<M: OwnMemory>(
    tree: &mut Tree<M>,
    sections: SectionRange,
    directory: Option<Pfn>,
    tables: PfnRange,
) -> Result<(), MapRangeError> {
    let address = address_of(sections.first());
    let pointers = tree.table(address, Level::POINTERS).ok_or(MapError)?;
    let promise = |index: usize| Entry::promise(tables.start().add(index as u64), CLAIMS[0] | CLAIMS[1]);
    if let Some(directory) = directory {
        tree.memory.try_frame(directory)?;
        tree.memory.fill(directory, &mut |index| promise(index));
        tree.memory.write(pointers, Level::POINTERS.index(address), Entry::new(directory, TABLE));
    } else {
        let directory = tree.make_child(pointers, Level::POINTERS, address)?;
        let first = Level::DIRECTORY.index(address);
        for index in 0..tables.len() as usize {
            tree.memory.write(directory, first + index, promise(index));
        }
    }
    Ok(())
}

/// The page table for the struct pages of `section`, whose range is mapped. A promised one is made now, if it can be trusted.
pub(crate) fn page_table<M: OwnMemory>(tree: &mut Tree<M>, section: SectionId) -> Result<Pfn, BadMemory> {
    let address = address_of(section);
    let directory = tree.table(address, Level::DIRECTORY).expect("the range of the section is mapped");
    let index = Level::DIRECTORY.index(address);
    let entry = tree.memory.read(directory, index);
    if let Some(table) = entry.promised() {
        tree.memory.try_frame(table)?;
        tree.memory.fill(table, &mut |_| Entry::EMPTY);
        // The CPU remembers nothing of entries that are not present, so there is nothing that it must forget.
        tree.memory.write(directory, index, entry.with(entry.flags() | TABLE));
        return Ok(table);
    }
    Ok(entry.table(Level::DIRECTORY).expect("the range of the section is mapped"))
}

/// Writes the entries for all struct pages of `section`: they stand side by side in one page table.
pub(crate) fn write_all<M: OwnMemory>(
    tree: &mut Tree<M>,
    section: SectionId,
    entry: impl Fn(u64) -> Entry,
) -> Result<(), BadMemory> {
    let address = address_of(section);
    let table = page_table(tree, section)?;
    let first = Level::PAGE_TABLE.index(address);
    for index in 0..MEMMAP_PAGES {
        tree.memory.write(table, first + index as usize, entry(index));
    }
    Ok(())
}

/// Takes away the tables for the struct pages of `range`; only unlinks those that lie in it.
pub(super) fn unclaim<E: Editor>(editor: &E, range: SectionRange) -> Tables {
    let mut found = Tables::System;
    for block in chunks(range, PER_MEMMAP_DIRECTORY) {
        let address = address_of(block.sections.first());
        if editor.edit(|tree| unlink_own_directory(tree, address, range)) {
            found = Tables::Own;
            continue;
        }
        for part in chunks(block.sections, PER_UNCLAIM) {
            found = found.max(editor.edit(|tree| shared_tables::unclaim_pairs(tree, part.sections, range)));
        }
        editor.edit(|tree| tree.drop_empty_directory(address));
    }
    found
}

/// Unlinks the directory for `address` if it lies in `range`, with all that is below it.
fn unlink_own_directory<M: TableMemory>(tree: &mut Tree<M>, address: u64, range: SectionRange) -> bool {
    let is_own = tree.table(address, Level::DIRECTORY).is_some_and(|directory| range.pages().contains(directory));
    if is_own {
        tree.clear(address, Level::POINTERS);
    }
    is_own
}
