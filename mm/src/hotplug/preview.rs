//! A preview of an offline: what it would meet, without changing anything.

use super::offline::OfflineError;
use crate::addr::{Pfn, SectionId, SectionRange};
use crate::evacuate::budget::{Demand, Room};
use crate::evacuate::content::{Blocker, Content};
use crate::evacuate::{budget, content};
use crate::frame::pageblock::{FRAMES, Pageblock};
use crate::hotplug::offline;
use crate::machine::Machine;
use crate::machine::tasks::Pace;
use crate::memory::Memory;
use crate::section::state::BlockState;
use crate::section::word::Section;
use heapless::Vec;

/// What an offline would do, found out before it is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OfflinePreview {
    /// Frames that would move.
    pub movable: u64,
    /// Frames that are missing elsewhere to take them.
    pub short_by: u64,
    /// Frames of the reserve of hotplug that would have no place elsewhere. It lies in the boot blocks in Normal.
    pub reserve_short_by: u64,
}

/// One item of the preview of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PreviewItem {
    /// Memory that stays.
    Blocker(Blocker),
    /// That was all of the block: so many of its frames would move, the first of which is this one.
    Done {
        /// Frames that would move.
        movable: u64,
        /// The first of them.
        first: Option<Pfn>,
    },
}

/// Blockers that are told of at once.
const TOLD_AT_ONCE: usize = 32;

/// Frames that are looked at while nobody may take their struct pages away.
const LOOKED_AT_ONCE: u64 = 128;

/// What has been seen of one block.
#[derive(Default)]
struct Seen {
    demand: Demand,
    /// Frames that are not in use.
    free: u64,
    /// Pageblocks among them that are free as a whole.
    whole: u64,
    first_movable: Option<Pfn>,
}

impl<M: Machine> Memory<M> {
    /// Finds what would keep the blocks of `ranges`, lowest first and without overlap, from going offline together at this moment:
    /// of each block its blockers, lowest first, neighbours of one owner together, and then what would move. Frames in flight are
    /// left out, as an offline waits for them; listeners are not asked.
    ///
    /// # Errors
    /// Those of an offline that is refused at once: there is no such block, it is not online; or `pace` says to stop.
    pub fn preview_offline(
        &self,
        ranges: &[SectionRange],
        pace: &mut dyn Pace,
        mut each: impl FnMut(SectionId, PreviewItem),
    ) -> Result<OfflinePreview, OfflineError> {
        offline::check_online(self, ranges)?;
        let mut demand = Demand::default();
        let mut excluded = Room::default();
        for (run, section) in self.sections.present_runs(ranges) {
            let (BlockState::Online(kind) | BlockState::Shrinking(kind)) = section.state else { continue };
            for id in run.iter() {
                let seen = preview_block(self, id, section, &mut |blocker| each(id, PreviewItem::Blocker(blocker)));
                demand += seen.demand;
                excluded.include(kind, section.origin, seen.free);
                excluded.include_whole(kind, seen.whole);
                each(id, PreviewItem::Done { movable: seen.demand.pages(), first: seen.first_movable });
                pace.pause().map_err(OfflineError::Stopped)?;
            }
        }
        let room = budget::room(self).without(excluded);
        let reserve_short_by = room.reserve_shortfall(excluded);
        Ok(OfflinePreview { movable: demand.pages(), short_by: room.shortfall(demand), reserve_short_by })
    }
}

fn preview_block<M: Machine>(
    memory: &Memory<M>,
    id: SectionId,
    section: Section,
    each: &mut dyn FnMut(Blocker),
) -> Seen {
    let mut seen = Seen { free: section.usable(), ..Seen::default() };
    if !section.is_open() {
        seen.whole = seen.free / FRAMES;
        return seen;
    }
    let mut last: Option<Blocker> = None;
    for block in Pageblock::of_section(id) {
        let mut at = block.first();
        while at < block.pages().end() {
            for blocker in preview_some(memory, block, section, &mut at, &mut seen) {
                match &mut last {
                    Some(last) if last.is_followed_by(&blocker) => last.pages += blocker.pages,
                    _ => last.replace(blocker).into_iter().for_each(&mut *each),
                }
            }
        }
    }
    last.into_iter().for_each(each);
    seen
}

/// Blockers of a pageblock from `at` on, no more than are told of at once; `at` is behind what was looked at then.
fn preview_some<M: Machine>(
    memory: &Memory<M>,
    pageblock: Pageblock,
    section: Section,
    at: &mut Pfn,
    seen: &mut Seen,
) -> Vec<Blocker, TOLD_AT_ONCE> {
    let mut found = Vec::new();
    let _reading = memory.machine.reading();
    // It may have been closed or taken away since.
    let now = memory.sections.get(pageblock.first().section());
    let is_same = now.is_some_and(|now| now.is_open() && now.state == section.state);
    if is_same && *at == pageblock.first() {
        seen.whole += u64::from(pageblock.descriptor(&memory.machine).is_whole());
    }
    if !is_same || *at == pageblock.first() && content::is_known_empty(memory, pageblock, section) {
        *at = pageblock.pages().end();
        return found;
    }
    let end = at.add(LOOKED_AT_ONCE);
    while !found.is_full() && *at < end {
        let Some((content, allocated)) = content::next_content(memory, pageblock, at) else { break };
        seen.free = seen.free.saturating_sub(allocated);
        match content {
            Content::Movable(block) => {
                seen.demand.add(block);
                seen.first_movable.get_or_insert(block.head);
            }
            Content::Fixed(blocker) => found.push(blocker).expect("it is not full"),
            Content::InFlight(_) => {}
        }
    }
    found
}
