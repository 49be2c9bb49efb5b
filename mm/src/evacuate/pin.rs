//! Pins: references that keep an allocated block where it is, and those of them that come while its section is being emptied.
//!
//! An offline has looked at everything before it moves the first page, and would meet a later pin only where the page lies, when all
//! below has moved for nothing. So a pin of a block of a section on its way out leaves a note, once for the machine and once in
//! a struct page of the section; between its batches the offline reads the one, and where that has changed, the others. A pin that
//! comes just as the section sets out may leave none: it is seen by the first look, or met where it is.

use crate::addr::{Pfn, SectionRange};
use crate::evacuate::content;
use crate::evacuate::content::{Blocker, Content};
use crate::frame::pageblock::Pageblock;
use crate::frame::pageblock_set::PageblockSet;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::section::state::BlockState;
use crate::section::word::Section;
use core::sync::atomic::Ordering;

/// The sections that are being emptied, and which notes have been read.
pub(crate) struct PinWatch<'a> {
    ranges: &'a [SectionRange],
    pieces: PageblockSet,
    seen: u64,
}

impl<M: Machine> Memory<M> {
    /// Takes a reference beside the owner's to the allocated block that begins at `head`, as [`PageInfo::pin`] does. The caller keeps
    /// the block from being given back meanwhile.
    ///
    /// [`PageInfo::pin`]: crate::frame::page::PageInfo::pin
    #[must_use = "without a reference the block may move"]
    pub fn pin(&self, head: Pfn) -> bool {
        let is_pinned = self.machine.page(head).pin();
        if is_pinned && self.sections.open(head).is_some_and(is_leaving) {
            Pageblock::of(head).section_first().note_pin(&self.machine);
            // Release pairs with the Acquire in `check_pins`: who reads the count sees the note.
            self.late_pins.fetch_add(1, Ordering::Release);
        }
        is_pinned
    }
}

/// Begins before everything in `ranges` is looked at.
pub(crate) fn watch_pins<'a, M: Machine>(
    memory: &Memory<M>,
    ranges: &'a [SectionRange],
    pieces: PageblockSet,
) -> PinWatch<'a> {
    // Acquire pairs with the Release in `pin`.
    PinWatch { ranges, pieces, seen: memory.late_pins.load(Ordering::Acquire) }
}

/// Whether something in the sections can no longer move since the last time that this was asked.
pub(crate) fn check_pins<M: Machine>(memory: &Memory<M>, watch: &mut PinWatch<'_>) -> Result<(), Blocker> {
    // Acquire pairs with the Release in `pin`.
    let count = memory.late_pins.load(Ordering::Acquire);
    if count == core::mem::replace(&mut watch.seen, count) {
        return Ok(());
    }
    for (id, section) in memory.sections.open_sections(watch.ranges) {
        if Pageblock::of(id.pages().start()).take_pin_note(&memory.machine) {
            check_movable_out(memory, Pageblock::of_set(id, watch.pieces), section)?;
        }
    }
    Ok(())
}

fn check_movable_out<M: Machine>(
    memory: &Memory<M>,
    blocks: impl Iterator<Item = Pageblock>,
    section: Section,
) -> Result<(), Blocker> {
    let mut found = Ok(());
    for block in blocks {
        content::look_into(memory, block, section, |content| {
            if let Content::Fixed(blocker) = content {
                found = found.and(Err(blocker));
            }
        });
        found?;
    }
    Ok(())
}

fn is_leaving(section: Section) -> bool {
    matches!(section.state, BlockState::GoingOffline(_) | BlockState::Shrinking(_))
}
