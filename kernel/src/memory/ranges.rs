//! Mapping whole ranges of sections: their leaves in the direct map, and the tables for their struct pages.
//!
//! Tables that map nothing but the range come from the range itself, all others from the system. No table is counted: a
//! directory is in use while one of its entries is, and for a page table of the vmemmap window, which stays empty until a
//! section comes online, the entry that points to it says which of its two sections need it ([`claim`]).
//!
//! The work is cut into edits of one table each, so that nobody waits long for the lock around them.

use super::entry::{DATA, Entry, Level, TABLE};
use super::layout;
use super::plan::{Chunk, HugeLeaves, PER_DIRECT_DIRECTORY, PER_MEMMAP_DIRECTORY, PER_MEMMAP_TABLE, chunks};
use super::tree::{TableMemory, Tree};
use mm::addr::{Order, Pfn, PfnRange, SectionId, SectionRange};
use mm::machine::{MEMMAP_PAGES, MapError};
use x86_64::structures::paging::PageTableFlags as Flags;

/// Gives access to the tables, one edit after the other.
pub(super) trait Editor {
    type Memory: TableMemory;

    fn edit<R>(&self, change: impl FnOnce(&mut Tree<Self::Memory>) -> R) -> R;

    /// Returns when no CPU can use what was unmapped, and frees the tables that were given back.
    fn settle(&self);
}

/// Whether a range had tables of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tables {
    Own,
    System,
}

/// Maps `range` in the direct map and makes the tables for its struct pages, with frames from `own` for the tables that
/// map nothing else; if `own` is empty, all are system frames.
pub(super) fn map<E: Editor>(
    editor: &E,
    range: SectionRange,
    own: PfnRange,
    leaves: HugeLeaves,
) -> Result<(), MapError> {
    let mut frames = own.iter();
    let result = map_all(editor, range, &mut frames, leaves);
    match result {
        Ok(()) => assert!(frames.next().is_none(), "a range takes all the table frames that it asked for"),
        // Undoing takes away whatever is there.
        Err(_) => drop(unmap(editor, range)),
    }
    result
}

fn map_all<E: Editor>(
    editor: &E,
    range: SectionRange,
    own: &mut dyn Iterator<Item = Pfn>,
    leaves: HugeLeaves,
) -> Result<(), MapError> {
    // The direct map comes first: the tables in the range are then reached through it.
    for gibibyte in chunks(range, PER_DIRECT_DIRECTORY) {
        editor.edit(|tree| map_gibibyte(tree, gibibyte, own, leaves))?;
    }
    for block in chunks(range, PER_MEMMAP_DIRECTORY) {
        for pair in chunks(block.sections, PER_MEMMAP_TABLE) {
            editor.edit(|tree| claim_pair(tree, pair, block.is_whole, own))?;
        }
    }
    Ok(())
}

fn map_gibibyte<M: TableMemory>(
    tree: &mut Tree<M>,
    chunk: Chunk,
    own: &mut dyn Iterator<Item = Pfn>,
    leaves: HugeLeaves,
) -> Result<(), MapError> {
    let pages = chunk.sections.pages();
    let address = layout::direct(pages.start());
    let pointers = tree.table(address, Level::POINTERS).ok_or(MapError)?;
    if !chunk.is_whole {
        let directory = tree.make_child(pointers, Level::POINTERS, address, || None)?;
        for index in 0..pages.len() / Order::PAGEBLOCK.pages() {
            let frame = pages.start().add(index * Order::PAGEBLOCK.pages());
            let leaf = Entry::leaf(frame, DATA, Level::DIRECTORY);
            tree.memory.write(directory, Level::DIRECTORY.index(layout::direct(frame)), leaf);
        }
        return Ok(());
    }
    let entry = if leaves == HugeLeaves::Have {
        Entry::leaf(pages.start(), DATA, Level::POINTERS)
    } else {
        let directory = own.next().or_else(|| tree.memory.take()).ok_or(MapError)?;
        tree.memory.fill(directory, &mut |index| {
            let frame = pages.start().add(index as u64 * Order::PAGEBLOCK.pages());
            Entry::leaf(frame, DATA, Level::DIRECTORY)
        });
        Entry::new(directory, TABLE)
    };
    tree.memory.write(pointers, Level::POINTERS.index(address), entry);
    Ok(())
}

/// The mark, in the entry that points to a page table of the vmemmap window, that `section` needs that table.
fn claim(section: SectionId) -> Flags {
    if section.number().is_multiple_of(2) { Flags::BIT_9 } else { Flags::BIT_10 }
}

fn claims(sections: SectionRange) -> Flags {
    sections.iter().map(claim).collect()
}

fn memmap_address(section: SectionId) -> u64 {
    layout::page_info(section.pages().start())
}

/// Makes the page table for the struct pages of at most two sections.
fn claim_pair<M: TableMemory>(
    tree: &mut Tree<M>,
    pair: Chunk,
    owns_directory: bool,
    own: &mut dyn Iterator<Item = Pfn>,
) -> Result<(), MapError> {
    let address = memmap_address(pair.first());
    let pointers = tree.table(address, Level::POINTERS).ok_or(MapError)?;
    let mut own_if = |is_own: bool| if is_own { own.next() } else { None };
    let directory = tree.make_child(pointers, Level::POINTERS, address, || own_if(owns_directory))?;
    tree.make_child(directory, Level::DIRECTORY, address, || own_if(pair.is_whole))?;
    let index = Level::DIRECTORY.index(address);
    let entry = tree.memory.read(directory, index);
    tree.memory.write(directory, index, entry.with(entry.flags() | claims(pair.sections)));
    Ok(())
}

/// Makes the page table for the struct pages of one section, from system frames.
pub(super) fn claim_memmap<M: TableMemory>(tree: &mut Tree<M>, section: SectionId) -> Result<(), MapError> {
    let pair = Chunk { sections: SectionRange::single(section), is_whole: false };
    claim_pair(tree, pair, false, &mut core::iter::empty())
}

/// Writes the entries for all struct pages of `section`: they stand side by side in one page table.
pub(super) fn write_memmap<M: TableMemory>(tree: &mut Tree<M>, section: SectionId, entry: impl Fn(u64) -> Entry) {
    let address = memmap_address(section);
    let table = tree.table(address, Level::PAGE_TABLE).expect("the range of the section is mapped");
    let first = Level::PAGE_TABLE.index(address);
    for index in 0..MEMMAP_PAGES {
        tree.memory.write(table, first + index as usize, entry(index));
    }
}

/// Takes away all that [`map`] made for `range`, or as much of it as is there. Its own tables are not touched.
pub(super) fn unmap<E: Editor>(editor: &E, range: SectionRange) -> Tables {
    let mut found = Tables::System;
    let mut note = |tables| {
        if tables == Tables::Own {
            found = Tables::Own;
        }
    };
    for block in chunks(range, PER_MEMMAP_DIRECTORY) {
        if editor.edit(|tree| unlink_own_directory(tree, block, range)) {
            note(Tables::Own);
            continue;
        }
        for pair in chunks(block.sections, PER_MEMMAP_TABLE) {
            note(editor.edit(|tree| unclaim_pair(tree, pair, range)));
        }
        editor.edit(|tree| drop_empty_directory(tree, memmap_address(block.first())));
    }
    for gibibyte in chunks(range, PER_DIRECT_DIRECTORY) {
        note(editor.edit(|tree| unmap_gibibyte(tree, gibibyte, range)));
    }
    editor.settle();
    found
}

/// Unlinks the directory for the struct pages of `block` if it lies in `range`, with all that is below it.
fn unlink_own_directory<M: TableMemory>(tree: &mut Tree<M>, block: Chunk, range: SectionRange) -> bool {
    let address = memmap_address(block.first());
    let Some(directory) = tree.table(address, Level::DIRECTORY) else { return false };
    let is_own = range.pages().contains(directory);
    if is_own {
        clear(tree, address, Level::POINTERS);
    }
    is_own
}

fn unclaim_pair<M: TableMemory>(tree: &mut Tree<M>, pair: Chunk, range: SectionRange) -> Tables {
    let address = memmap_address(pair.first());
    let Some(directory) = tree.table(address, Level::DIRECTORY) else { return Tables::System };
    let index = Level::DIRECTORY.index(address);
    let entry = tree.memory.read(directory, index);
    let Some(table) = entry.table(Level::DIRECTORY) else { return Tables::System };
    let rest = entry.flags() - claims(pair.sections);
    if rest.intersects(Flags::BIT_9 | Flags::BIT_10) {
        tree.memory.write(directory, index, entry.with(rest));
        return Tables::System;
    }
    tree.memory.write(directory, index, Entry::EMPTY);
    drop_table(tree, table, range)
}

fn unmap_gibibyte<M: TableMemory>(tree: &mut Tree<M>, chunk: Chunk, range: SectionRange) -> Tables {
    let pages = chunk.sections.pages();
    let address = layout::direct(pages.start());
    let directory = tree.table(address, Level::DIRECTORY);
    if chunk.is_whole {
        clear(tree, address, Level::POINTERS);
        return directory.map_or(Tables::System, |directory| drop_table(tree, directory, range));
    }
    let Some(directory) = directory else { return Tables::System };
    for index in 0..pages.len() / Order::PAGEBLOCK.pages() {
        let frame = pages.start().add(index * Order::PAGEBLOCK.pages());
        tree.memory.write(directory, Level::DIRECTORY.index(layout::direct(frame)), Entry::EMPTY);
    }
    drop_empty_directory(tree, address);
    Tables::System
}

fn drop_empty_directory<M: TableMemory>(tree: &mut Tree<M>, address: u64) {
    if let Some(directory) = tree.table(address, Level::DIRECTORY)
        && tree.is_empty(directory)
    {
        clear(tree, address, Level::POINTERS);
        tree.memory.give_back(directory);
    }
}

/// Clears the entry of `level` for `address`, if there is a table that holds it.
fn clear<M: TableMemory>(tree: &mut Tree<M>, address: u64, level: Level) {
    if let Some(table) = tree.table(address, level) {
        tree.memory.write(table, level.index(address), Entry::EMPTY);
    }
}

/// A table of the range goes with the range, another goes back to the system.
fn drop_table<M: TableMemory>(tree: &mut Tree<M>, table: Pfn, range: SectionRange) -> Tables {
    if range.pages().contains(table) {
        return Tables::Own;
    }
    tree.memory.give_back(table);
    Tables::System
}

#[cfg(test)]
#[path = "ranges_tests.rs"]
mod tests;
