//! What RAM there is when the kernel starts, and who has it.
//!
//! The firmware's map mixes RAM and devices: its reserved ranges are ACPI tables and the like, which lie in RAM, but also
//! configuration windows and ranges that only keep operating systems away. A reserved range counts as RAM if it is small and
//! follows RAM without a gap; one that RAM follows does not, as the last range below 4 GiB is the firmware's own flash.

use crate::entry::{MemoryRegion, RegionKind};
use mm::addr::{PAGE_SIZE, PAGES_PER_SECTION, Pfn, PfnRange, SectionId};

/// Who has a piece of RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holder {
    Nobody,
    BootLoader,
    Firmware,
}

/// Neighbouring frames with one holder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) pages: PfnRange,
    pub(super) holder: Holder,
}

/// As many pieces as are remembered.
pub(crate) const PIECES_MAX: usize = 256;

/// The RAM of the machine, lowest first.
pub(crate) struct Ram {
    pieces: heapless::Vec<Piece, PIECES_MAX>,
}

/// Frames below 1 MiB are left alone: firmware keeps data there, and starting CPUs begin there.
const LOW_END: Pfn = Pfn::containing(1 << 20);
/// No firmware claims more RAM than this in one piece.
const FIRMWARE_PAGES_MAX: u64 = (64 << 20) / PAGE_SIZE;

impl Ram {
    pub(super) const fn empty() -> Self {
        Self { pieces: heapless::Vec::new() }
    }

    /// Sorts RAM from the rest; `regions` are sorted and do not overlap.
    pub(crate) fn new(regions: &[MemoryRegion]) -> Self {
        let mut pieces = heapless::Vec::<(Piece, bool), { 2 * PIECES_MAX }>::new();
        let mut last = Pfn::new(0);
        for region in regions {
            let (pages, holder) = match region.kind {
                RegionKind::Usable => (PfnRange::inside(region.start, region.end), Holder::Nobody),
                RegionKind::Bootloader => (outside(region), Holder::BootLoader),
                RegionKind::Firmware => (outside(region), Holder::Firmware),
            };
            let pages = between(pages.start().max(last), pages.end());
            let low = between(pages.start(), pages.end().min(LOW_END));
            let high = between(pages.start().max(LOW_END), pages.end());
            last = last.max(pages.end());
            for (pages, holder) in [(low, Holder::Firmware), (high, holder)] {
                let is_ram = region.kind != RegionKind::Firmware;
                if !pages.is_empty() && pieces.push((Piece { pages, holder }, is_ram)).is_err() {
                    log::warn!(target: "memory", "the memory map is too long: {pages:?} is left out");
                }
            }
        }
        spread_ram(&mut pieces);
        let mut ram = Self::empty();
        pieces.iter().filter(|(_, is_ram)| *is_ram).for_each(|(piece, _)| ram.push(*piece));
        ram
    }

    /// As much of it as addresses of so many bits reach.
    pub(crate) fn reached(mut self, bits: u32) -> Self {
        let reach = PfnRange::inside(0, 1 << bits);
        let pages = |ram: &Self| ram.pieces.iter().map(|piece| piece.pages.len()).sum::<u64>();
        let all = pages(&self);
        self.pieces.iter_mut().for_each(|piece| piece.pages = piece.pages.intersection(reach));
        self.pieces.retain(|piece| !piece.pages.is_empty());
        let lost = (all - pages(&self)) * PAGE_SIZE;
        if lost > 0 {
            log::warn!(target: "memory", "{} MiB of RAM beyond {bits} address bits are left out", lost >> 20);
        }
        self
    }

    fn push(&mut self, piece: Piece) {
        match self.pieces.last_mut() {
            Some(last) if last.holder == piece.holder && last.pages.end() == piece.pages.start() => {
                last.pages = between(last.pages.start(), piece.pages.end());
            }
            _ => {
                if self.pieces.push(piece).is_err() {
                    log::warn!(target: "memory", "the memory map is too long: {:?} is left out", piece.pages);
                }
            }
        }
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// RAM without regard to holders, lowest first.
    pub(crate) fn spans(&self) -> impl Iterator<Item = PfnRange> {
        let mut rest = self.pieces.iter().map(|piece| piece.pages).peekable();
        core::iter::from_fn(move || {
            let mut span = rest.next()?;
            while let Some(next) = rest.next_if(|next| next.start() == span.end()) {
                span = between(span.start(), next.end());
            }
            Some(span)
        })
    }

    /// The frame behind the highest.
    pub(crate) fn end(&self) -> Pfn {
        self.pieces.last().map_or(Pfn::new(0), |piece| piece.pages.end())
    }

    /// The pieces in `section`, cut at its bounds.
    pub(super) fn in_section(&self, section: SectionId) -> impl Iterator<Item = Piece> {
        self.pieces
            .iter()
            .map(move |piece| Piece { pages: piece.pages.intersection(section.pages()), ..*piece })
            .filter(|piece| !piece.pages.is_empty())
    }

    /// Every section with RAM in it, lowest first.
    pub(crate) fn sections(&self) -> impl Iterator<Item = SectionId> {
        let mut next = 0;
        let numbers = self.pieces.iter().flat_map(|piece| {
            piece.pages.start().number() / PAGES_PER_SECTION..=(piece.pages.end().number() - 1) / PAGES_PER_SECTION
        });
        numbers
            .filter(move |number| {
                let is_new = *number >= next;
                next = next.max(number + 1);
                is_new
            })
            .filter_map(SectionId::new)
    }

    /// Whether `section` is all RAM without a holder.
    pub(super) fn is_unused(&self, section: SectionId) -> bool {
        self.in_section(section).all(|piece| piece.holder == Holder::Nobody)
            && self.in_section(section).map(|piece| piece.pages.len()).sum::<u64>() == PAGES_PER_SECTION
    }
}

fn between(start: Pfn, end: Pfn) -> PfnRange {
    PfnRange::new(start, end.number().saturating_sub(start.number()))
}

/// All frames that a region touches.
fn outside(region: &MemoryRegion) -> PfnRange {
    between(Pfn::containing(region.start), Pfn::new(region.end.div_ceil(PAGE_SIZE)))
}

/// Marks reserved pieces as RAM that follow RAM without a gap.
fn spread_ram(pieces: &mut [(Piece, bool)]) {
    let mut ram_end = Pfn::new(0);
    for (piece, is_ram) in pieces {
        *is_ram |= piece.pages.start() == ram_end && piece.pages.len() <= FIRMWARE_PAGES_MAX;
        if *is_ram {
            ram_end = piece.pages.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn region(start: u64, end: u64, kind: RegionKind) -> MemoryRegion {
        MemoryRegion { start, end, kind }
    }

    fn seabios_q35() -> Ram {
        use RegionKind::{Bootloader, Firmware, Usable};
        Ram::new(&[
            region(0, 0x9_fc00, Usable),
            region(0x9_fc00, 0xa_0000, Firmware),
            region(0xf_0000, 0x10_0000, Firmware),
            region(0x10_0000, 0x40_0000, Bootloader),
            region(0x40_0000, 0x3ffd_f000, Usable),
            region(0x3ffd_f000, 0x4000_0000, Firmware),
            region(0xb000_0000, 0xc000_0000, Firmware),
            region(0xfffc_0000, 0x1_0000_0000, Firmware),
            region(0x1_0000_0000, 0x1_4000_0000, Usable),
            region(0xfd_0000_0000, 0x100_0000_0000, Firmware),
        ])
    }

    #[test]
    fn reserved_ranges_that_touch_ram_are_ram_and_others_are_not() {
        let ram = seabios_q35();
        let spans: Vec<_> = ram.spans().collect();
        let bounds = [(0, 0xa_0000), (0x10_0000, 0x4000_0000), (0x1_0000_0000, 0x1_4000_0000)];
        assert_eq!(spans, bounds.map(|(start, end)| PfnRange::inside(start, end)));
        assert_eq!(ram.end(), Pfn::containing(0x1_4000_0000));
    }

    #[test]
    fn nobody_gets_memory_below_one_mebibyte() {
        let ram = seabios_q35();
        let free: Vec<_> = ram.pieces().iter().filter(|piece| piece.holder == Holder::Nobody).collect();
        assert_eq!(free.len(), 2);
        assert_eq!(free[0].pages, PfnRange::inside(0x40_0000, 0x3ffd_f000));
    }

    #[test]
    fn sections_with_ram_are_named_once() {
        let numbers: Vec<_> = seabios_q35().sections().map(SectionId::number).collect();
        assert_eq!(numbers, (0..8).chain(32..40).collect::<Vec<_>>());
        let ram = seabios_q35();
        let unused: Vec<_> = ram.sections().filter(|id| ram.is_unused(*id)).map(SectionId::number).collect();
        assert_eq!(unused, (1..7).chain(32..40).collect::<Vec<_>>());
    }

    #[test]
    fn ram_that_no_address_reaches_is_left_out() {
        let reached = |bits| {
            let ram = seabios_q35().reached(bits);
            (ram.end().address(), ram.spans().map(PfnRange::len).sum::<u64>() * PAGE_SIZE)
        };
        let all = 0xa_0000 + 0x3ff0_0000 + 0x4000_0000;
        assert_eq!([reached(33), reached(46)], [(0x1_4000_0000, all); 2]);
        assert_eq!(reached(32), (0x4000_0000, all - 0x4000_0000));
        assert_eq!(reached(29), (0x2000_0000, 0xa_0000 + 0x1ff0_0000));
    }

    #[test]
    fn a_frame_that_is_half_reserved_is_not_free() {
        let ram = Ram::new(&[
            region(0x10_0000, 0x20_0800, RegionKind::Usable),
            region(0x20_0800, 0x20_1000, RegionKind::Firmware),
        ]);
        assert_eq!(ram.pieces()[0].pages, PfnRange::inside(0x10_0000, 0x20_0000));
        assert_eq!(ram.pieces()[1], Piece { pages: PfnRange::new(Pfn::new(0x200), 1), holder: Holder::Firmware });
    }
}
