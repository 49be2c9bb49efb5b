//! Mapping whole ranges of sections: their leaves in the direct map, and the tables for their struct pages.
//!
//! Tables that map nothing but the range come from the range itself, all others from the system. A leaf of 1 GiB is made
//! only where one range fills it, and a range goes as a whole, so none is ever cut. A frame of the range is tried before it
//! becomes a table: whatever is lost there, the CPU would walk.
//!
//! The work is cut into edits of one table each, so that the lock around them is never held for long.

use super::editor::{Editor, OwnMemory, Tables, drop_table};
use super::entry::{DATA, Entry, Level, TABLE};
use super::plan::{Chunk, HugeLeaves, OwnFrames, OwnTables, PER_DIRECT_DIRECTORY, PER_DIRECT_POINTERS, chunks, runs};
use super::tree::{TableMemory, Tree};
use super::vmemmap;
use crate::memory::layout;
use mm::addr::{Order, PfnRange, SectionRange};
use mm::machine::mapper::{DirectMap, MapError, MapRangeError};

/// Maps `range` in the direct map, unless it is to be absent there, and makes the tables for its struct pages, with frames from `own` for the tables that
/// map nothing else; if `own` is empty, all are system frames.
pub(crate) fn map<E: Editor>(
    editor: &E,
    range: SectionRange,
    own: PfnRange,
    leaves: HugeLeaves,
    direct_map: DirectMap,
) -> Result<(), MapRangeError> {
    let mut own = OwnFrames::new(own, OwnTables::of(range, leaves));
    // The direct map comes first: the tables in the range are then reached through it.
    let direct = match direct_map {
        DirectMap::Present => map_direct(editor, range, &mut own, leaves),
        DirectMap::Absent => Ok(()),
    };
    let result = direct.and_then(|()| vmemmap::claim(editor, range, &mut own));
    match result {
        Ok(()) => assert!(own.is_used_up(), "a range takes all the table frames that it asked for"),
        // Undoing takes away whatever is there.
        Err(_) => drop(unmap(editor, range)),
    }
    result
}

/// Makes the tables for the struct pages of boot memory that nobody uses, and that the direct map shows already: those that map nothing
/// else are the frames at its head. How many these are.
pub(crate) fn prepare_boot<E: Editor>(editor: &E, range: SectionRange) -> Result<u64, MapRangeError> {
    let tables = OwnTables::for_struct_pages(range);
    let mut own = OwnFrames::new(PfnRange::new(range.first().pages().start(), tables.count()), tables);
    vmemmap::claim(editor, range, &mut own)?;
    assert!(own.is_used_up(), "a range takes all the table frames that it asked for");
    Ok(tables.count())
}

fn map_direct<E: Editor>(
    editor: &E,
    range: SectionRange,
    own: &mut OwnFrames,
    leaves: HugeLeaves,
) -> Result<(), MapRangeError> {
    for run in runs(range, PER_DIRECT_DIRECTORY, PER_DIRECT_POINTERS) {
        if run.is_whole && leaves == HugeLeaves::Have {
            editor.edit(|tree| map_gibibytes(tree, run.sections))?;
            continue;
        }
        for gibibyte in chunks(run.sections, PER_DIRECT_DIRECTORY) {
            editor.edit(|tree| map_gibibyte(tree, gibibyte, own))?;
        }
    }
    Ok(())
}

/// Maps whole gibibytes behind one table by one leaf each.
fn map_gibibytes<M: TableMemory>(tree: &mut Tree<M>, sections: SectionRange) -> Result<(), MapError> {
    let start = sections.pages().start();
    let pointers = tree.table(layout::direct(start), Level::POINTERS).ok_or(MapError)?;
    let first = Level::POINTERS.index(layout::direct(start));
    for index in 0..sections.count() / PER_DIRECT_DIRECTORY {
        let frame = start.add(index * Level::POINTERS.entry_pages());
        tree.memory.write(pointers, first + index as usize, Entry::leaf(frame, DATA, Level::POINTERS));
    }
    Ok(())
}

/// Maps a gibibyte, or a part of it, by leaves of 2 MiB.
fn map_gibibyte<M: OwnMemory>(tree: &mut Tree<M>, chunk: Chunk, own: &mut OwnFrames) -> Result<(), MapRangeError> {
    let pages = chunk.sections.pages();
    let address = layout::direct(pages.start());
    let pointers = tree.table(address, Level::POINTERS).ok_or(MapError)?;
    let leaf = |index: usize| {
        let frame = pages.start().add(index as u64 * Order::PAGEBLOCK.pages());
        Entry::leaf(frame, DATA, Level::DIRECTORY)
    };
    if chunk.is_whole {
        let directory = match own.direct() {
            Some(directory) => {
                tree.memory.try_frame(directory)?;
                directory
            }
            None => tree.memory.take().ok_or(MapError)?,
        };
        tree.memory.fill(directory, &mut |index| leaf(index));
        tree.memory.write(pointers, Level::POINTERS.index(address), Entry::new(directory, TABLE));
    } else {
        let directory = tree.make_child(pointers, Level::POINTERS, address)?;
        let first = Level::DIRECTORY.index(address);
        for index in 0..(pages.len() / Order::PAGEBLOCK.pages()) as usize {
            tree.memory.write(directory, first + index, leaf(index));
        }
    }
    Ok(())
}

/// Takes away all that [`map`] made for `range`, or as much of it as is there. Its own tables are not touched.
pub(crate) fn unmap<E: Editor>(editor: &E, range: SectionRange) -> Tables {
    let mut found = vmemmap::unclaim(editor, range);
    for run in runs(range, PER_DIRECT_DIRECTORY, PER_DIRECT_POINTERS) {
        found = found.max(editor.edit(|tree| unmap_run(tree, run, range)));
    }
    editor.settle();
    found
}

/// Takes whole gibibytes behind one table out of the direct map, or a part of one.
fn unmap_run<M: TableMemory>(tree: &mut Tree<M>, run: Chunk, range: SectionRange) -> Tables {
    let pages = run.sections.pages();
    let address = layout::direct(pages.start());
    if run.is_whole {
        let Some(pointers) = tree.table(address, Level::POINTERS) else { return Tables::System };
        let first = Level::POINTERS.index(address);
        let mut found = Tables::System;
        for index in first..first + (run.sections.count() / PER_DIRECT_DIRECTORY) as usize {
            let entry = tree.memory.read(pointers, index);
            tree.memory.write(pointers, index, Entry::EMPTY);
            if let Some(directory) = entry.table(Level::POINTERS) {
                found = found.max(drop_table(tree, directory, range));
            }
        }
        return found;
    }
    let Some(directory) = tree.table(address, Level::DIRECTORY) else { return Tables::System };
    let first = Level::DIRECTORY.index(address);
    for index in first..first + (pages.len() / Order::PAGEBLOCK.pages()) as usize {
        tree.memory.write(directory, index, Entry::EMPTY);
    }
    tree.drop_empty_directory(address);
    Tables::System
}

#[cfg(test)]
#[path = "ranges_tests.rs"]
mod tests;
