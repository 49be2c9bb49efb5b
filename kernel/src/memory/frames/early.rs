//! Frames before there is an allocator: taken from the lowest free RAM upwards, and remembered with their owner.

use super::ram::{Holder, PIECES_MAX, Piece, Ram};
use mm::addr::{Pfn, PfnRange, SectionId};
use mm::frame::page::{MEMMAP_PAGES, Owner};
use mm::hotplug::BootUse;

/// Runs of frames with one owner; those of page tables and of everything else follow each other closely.
const RUNS_MAX: usize = 256;

/// Hands out free RAM until the allocator takes over.
pub(crate) struct EarlyFrames {
    ram: Ram,
    /// How much of each piece of RAM is taken, from its start.
    used: [u64; PIECES_MAX],
    taken: heapless::Vec<(PfnRange, Owner), RUNS_MAX>,
    is_closed: bool,
}

impl EarlyFrames {
    pub(super) const fn empty() -> Self {
        Self { ram: Ram::empty(), used: [0; PIECES_MAX], taken: heapless::Vec::new(), is_closed: false }
    }

    pub(crate) fn new(ram: Ram) -> Self {
        Self { ram, ..Self::empty() }
    }

    pub(crate) fn ram(&self) -> &Ram {
        &self.ram
    }

    /// Whether all of `section` is RAM that has no holder and is not taken.
    pub(crate) fn is_untouched(&self, section: SectionId) -> bool {
        self.ram.is_unused(section) && self.taken.iter().all(|(run, _)| run.intersection(section.pages()).is_empty())
    }

    /// Whether some frames of `section` have a holder, or are taken.
    pub(crate) fn is_kept(&self, section: SectionId) -> bool {
        self.ram.in_section(section).any(|piece| piece.holder != Holder::Nobody)
            || self.taken.iter().any(|(run, _)| !run.intersection(section.pages()).is_empty())
    }

    /// How many frames of `visible` in `section` are free behind its struct pages, for which the lowest free frames in a row are
    /// taken that hold them; none without such.
    pub(crate) fn room_in(&self, section: SectionId, visible: PfnRange) -> u64 {
        let within = section.pages().intersection(visible);
        let pieces = self.ram.pieces().iter().zip(&self.used).filter(|(piece, _)| piece.holder == Holder::Nobody);
        let free = pieces.map(|(Piece { pages, .. }, used)| {
            PfnRange::new(pages.start().add(*used), pages.len() - used).intersection(within).len()
        });
        if free.clone().all(|pages| pages < MEMMAP_PAGES) { 0 } else { free.sum::<u64>() - MEMMAP_PAGES }
    }

    /// Takes `count` frames in a row.
    pub(crate) fn take(&mut self, count: u64, owner: Owner) -> Option<PfnRange> {
        if self.is_closed {
            return None;
        }
        let (piece, used) = self
            .ram
            .pieces()
            .iter()
            .zip(&mut self.used)
            .find(|(piece, used)| piece.holder == Holder::Nobody && piece.pages.len() - **used >= count)?;
        let frames = PfnRange::new(piece.pages.start().add(*used), count);
        match self.taken.last_mut() {
            Some((last, of)) if *of == owner && last.end() == frames.start() => {
                *last = PfnRange::new(last.start(), last.len() + count);
            }
            _ => self.taken.push((frames, owner)).ok()?,
        }
        *used += count;
        Some(frames)
    }

    /// `frame` has no owner any more; it goes to the allocator with the rest.
    pub(super) fn give_back(&mut self, frame: Pfn) {
        let found = self.taken.iter().position(|(run, _)| run.contains(frame)).expect("only taken frames come back");
        let (run, owner) = self.taken.swap_remove(found);
        let low = PfnRange::new(run.start(), frame.number() - run.start().number());
        let high = PfnRange::new(frame.add(1), run.end().number() - frame.number() - 1);
        for part in [low, high] {
            let kept = part.is_empty() || self.taken.push((part, owner)).is_ok();
            assert!(kept, "few frames come back before the allocator exists");
        }
    }

    /// Nothing is taken any more.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        self.taken.sort_unstable_by_key(|(run, _)| run.start());
    }

    /// Calls `visit` for every run of frames of `section` with one use, lowest first.
    pub(crate) fn uses(&self, section: SectionId, mut visit: impl FnMut(PfnRange, BootUse)) {
        assert!(self.is_closed, "uses are final");
        for Piece { pages, holder } in self.ram.in_section(section) {
            match holder {
                Holder::BootLoader => visit(pages, BootUse::Reserved(Owner::KernelImage)),
                Holder::Firmware => visit(pages, BootUse::Reserved(Owner::Firmware)),
                Holder::Nobody => {
                    let mut at = pages.start();
                    for (run, owner) in &self.taken {
                        let run = run.intersection(pages);
                        if !run.is_empty() {
                            visit_free(at, run.start(), &mut visit);
                            visit(run, BootUse::Reserved(*owner));
                            at = run.end();
                        }
                    }
                    visit_free(at, pages.end(), &mut visit);
                }
            }
        }
    }
}

fn visit_free(start: Pfn, end: Pfn, visit: &mut impl FnMut(PfnRange, BootUse)) {
    if start < end {
        visit(PfnRange::new(start, end.number() - start.number()), BootUse::Free);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{MemoryRegion, RegionKind};
    use std::vec::Vec;

    fn frames() -> EarlyFrames {
        let region = |start, end, kind| MemoryRegion { start, end, kind };
        EarlyFrames::new(Ram::new(&[
            region(0x10_0000, 0x10_4000, RegionKind::Usable),
            region(0x10_4000, 0x20_0000, RegionKind::Bootloader),
            region(0x20_0000, 0x30_0000, RegionKind::Usable),
        ]))
    }

    fn uses(early: &mut EarlyFrames) -> Vec<(u64, u64, BootUse)> {
        early.close();
        let mut uses = Vec::new();
        early.uses(SectionId::new(0).expect("in reach"), |pages, usage| {
            uses.push((pages.start().number(), pages.len(), usage));
        });
        uses
    }

    #[test]
    fn what_is_taken_is_reported_with_its_owner_and_the_rest_is_free() {
        let mut early = frames();
        let [first, run, second] = [(1, Owner::PageTable), (8, Owner::Heap), (1, Owner::PageTable)]
            .map(|(count, owner)| early.take(count, owner).expect("there is room").start());
        assert_eq!([first, run, second], [Pfn::new(0x100), Pfn::new(0x200), Pfn::new(0x101)]);
        assert_eq!(
            uses(&mut early),
            [
                (0x100, 1, BootUse::Reserved(Owner::PageTable)),
                (0x101, 1, BootUse::Reserved(Owner::PageTable)),
                (0x102, 2, BootUse::Free),
                (0x104, 0xfc, BootUse::Reserved(Owner::KernelImage)),
                (0x200, 8, BootUse::Reserved(Owner::Heap)),
                (0x208, 0xf8, BootUse::Free),
            ]
        );
        assert_eq!(early.take(1, Owner::Heap), None);
    }

    #[test]
    fn there_is_room_in_a_section_where_its_struct_pages_find_their_place() {
        let section = SectionId::new(0).expect("in reach");
        let room = |early: &EarlyFrames, end| early.room_in(section, PfnRange::inside(0, end));
        let mut early = frames();
        assert_eq!(room(&early, u64::MAX), 4, "as many frames in a row as they take, and four before");
        early.take(1, Owner::PageTable).expect("there is room");
        assert_eq!(room(&early, u64::MAX), 3);
        assert_eq!(room(&early, 0x2f_f000), 0);
        early.take(8, Owner::Heap).expect("there is room");
        assert_eq!(room(&early, u64::MAX), 0);
    }

    #[test]
    fn a_frame_given_back_is_free_for_the_allocator() {
        let mut early = frames();
        let run = early.take(3, Owner::PageTable).expect("there is room");
        early.give_back(run.start().add(1));
        assert_eq!(
            uses(&mut early)[..4],
            [
                (0x100, 1, BootUse::Reserved(Owner::PageTable)),
                (0x101, 1, BootUse::Free),
                (0x102, 1, BootUse::Reserved(Owner::PageTable)),
                (0x103, 1, BootUse::Free),
            ]
        );
    }
}
