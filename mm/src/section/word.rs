//! The word of a section: all that lock-free readers need, in 64 bits.

use crate::addr::{NodeId, Order, PAGES_PER_SECTION, PfnRange, SectionId};
use crate::frame::page::MEMMAP_PAGES;
use crate::limits::GROUP_LIMIT;
use crate::section::border::Line;
use crate::section::group::GroupId;
use crate::section::kind::{MemmapPlace, Origin, ZoneKind};
use crate::section::state::{BlockState, Openness};
use core::sync::atomic::{AtomicU64, Ordering};

/// What is known of a section that is present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section {
    /// The state of the block.
    pub state: BlockState,
    /// How much is known of its frames; untouched or withheld unless it is in a zone.
    pub openness: Openness,
    /// The zone that it is in, is on its way into, or was in last.
    pub last_zone: ZoneKind,
    /// The node it belongs to.
    pub node: NodeId,
    /// The group that it came with.
    pub group: GroupId,
    /// Where its struct pages lie.
    pub memmap: MemmapPlace,
    /// Frames of memory in it; of an added section all that it can have.
    pub present: u16,
    /// Frames at its head that hold struct pages and tables; none of a boot section, whose layout is its own.
    pub head: u16,
    /// Frames that the allocator gets: all but memmap, page tables and what is reserved or poisoned. Of a withheld one, those
    /// that it would get.
    pub managed: u16,
    /// Whether frames of it are poisoned. Its struct pages tell which, and so they stay, whatever becomes of the block.
    pub poisoned: bool,
    /// Whether somebody holds frames of it that have an error, as their struct pages tell.
    pub faulty: bool,
}

impl Section {
    /// Whether it was there at boot.
    #[must_use]
    pub const fn is_boot(self) -> bool {
        matches!(self.memmap, MemmapPlace::Boot)
    }

    /// Whether it was there at boot or added.
    pub(crate) const fn origin(self) -> Origin {
        if self.is_boot() { Origin::Boot } else { Origin::Added }
    }

    /// Whether the reserve of hotplug may lie in it: boot memory that the kernel uses.
    #[must_use]
    pub fn may_hold_reserve(self) -> bool {
        self.is_boot() && self.state.zone() == Some(ZoneKind::Normal)
    }

    /// Whether its struct pages can be looked at and the allocator knows its frames.
    #[must_use]
    pub const fn is_open(self) -> bool {
        self.state.is_in_zone() && matches!(self.openness, Openness::Open)
    }

    /// Whether it is free as a whole without anything being known of its frames.
    #[must_use]
    pub const fn is_untouched(self) -> bool {
        self.state.is_in_zone() && matches!(self.openness, Openness::Untouched)
    }

    /// Whether it has struct pages, which may be on their way in or out.
    #[must_use]
    pub const fn is_touched(self) -> bool {
        self.state.is_in_zone() && matches!(self.openness, Openness::Changing | Openness::Open)
    }

    /// Whether nobody gets anything of it.
    #[must_use]
    pub const fn is_withheld(self) -> bool {
        matches!(self.openness, Openness::Withheld)
    }

    /// Frames that a zone manages of it.
    #[must_use]
    pub const fn usable(self) -> u64 {
        if self.is_withheld() { 0 } else { self.managed as u64 }
    }

    /// Whether its struct pages are mapped and tell what its frames are, though it may not be in use.
    #[must_use]
    pub const fn has_struct_pages(self) -> bool {
        self.is_open() || self.is_boot() || self.poisoned
    }

    /// Frames at its head that hold struct pages and tables; none for a boot section, whose layout is its own.
    #[must_use]
    pub const fn head_frames(self) -> u64 {
        self.head as u64
    }

    /// Frames of an added section that are poisoned.
    pub(crate) const fn lost_frames(self) -> u64 {
        (self.present - self.head - self.managed) as u64
    }

    /// What it is when one of its frames is poisoned.
    pub(crate) const fn less_one_frame(self) -> Self {
        Self { managed: self.managed - 1, poisoned: true, ..self }
    }

    /// How many of those hold page tables; they come first.
    #[must_use]
    pub const fn table_frames(self) -> u64 {
        match self.memmap {
            MemmapPlace::Head => self.head_frames() - MEMMAP_PAGES,
            MemmapPlace::System | MemmapPlace::Boot => 0,
        }
    }

    pub(crate) fn encode(self) -> u64 {
        let zone = self.state.zone().unwrap_or(self.last_zone);
        let state: u64 = match (self.state, self.openness) {
            (BlockState::Offline, Openness::Withheld) => 11,
            (BlockState::GoingOnline(_), Openness::Withheld) => 12,
            (BlockState::Online(_), Openness::Withheld) => 13,
            (BlockState::GoingOffline(_), Openness::Withheld) => 14,
            (BlockState::Offline, _) => 1,
            (BlockState::GoingOnline(_), _) => 2,
            (BlockState::Online(_), Openness::Open) => ONLINE_OPEN,
            (BlockState::GoingOffline(_), Openness::Open) => 4,
            (BlockState::Online(_), Openness::Untouched) => 5,
            (BlockState::GoingOffline(_), Openness::Untouched) => 6,
            (BlockState::Online(_), Openness::Changing) => 7,
            (BlockState::GoingOffline(_), Openness::Changing) => 8,
            (BlockState::Mixed(Line(pairs)), _) => MIXED + u64::from(pairs & 1),
        };
        let place = match self.state {
            BlockState::Mixed(Line(pairs)) => u64::from(pairs >> 1) << LINE_SHIFT,
            _ => (self.memmap as u64) << MEMMAP_SHIFT | (zone as u64) << ZONE_SHIFT,
        };
        let frames = if self.is_boot() { self.present } else { self.head };
        state
            | place
            | u64::from(self.node.number()) << NODE_SHIFT
            | u64::from(self.group.number()) << GROUP_SHIFT
            | u64::from(self.poisoned) << POISONED_SHIFT
            | u64::from(self.faulty) << FAULTY_SHIFT
            | u64::from(frames) << FRAMES_SHIFT
            | u64::from(self.managed) << MANAGED_SHIFT
    }

    // Inlined, it costs only what its caller looks at.
    #[inline(always)]
    pub(super) fn decode(word: u64) -> Option<Self> {
        let zone = if word >> ZONE_SHIFT & 1 == 0 { ZoneKind::Normal } else { ZoneKind::Movable };
        let (state, openness) = match word & 0xf {
            0 => return None,
            1 => (BlockState::Offline, Openness::Untouched),
            2 => (BlockState::GoingOnline(zone), Openness::Untouched),
            ONLINE_OPEN => (BlockState::Online(zone), Openness::Open),
            4 => (BlockState::GoingOffline(zone), Openness::Open),
            5 => (BlockState::Online(zone), Openness::Untouched),
            6 => (BlockState::GoingOffline(zone), Openness::Untouched),
            7 => (BlockState::Online(zone), Openness::Changing),
            MIXED | MIXED_ODD => {
                let pairs = (word >> LINE_SHIFT & 0xf) << 1 | ((word & 0xf) - MIXED);
                (BlockState::Mixed(Line(pairs as u8)), Openness::Open)
            }
            11 => (BlockState::Offline, Openness::Withheld),
            12 => (BlockState::GoingOnline(zone), Openness::Withheld),
            13 => (BlockState::Online(zone), Openness::Withheld),
            14 => (BlockState::GoingOffline(zone), Openness::Withheld),
            _ => (BlockState::GoingOffline(zone), Openness::Changing),
        };
        let memmap = match word >> MEMMAP_SHIFT & 3 {
            _ if matches!(state, BlockState::Mixed(_)) => MemmapPlace::Boot,
            0 => MemmapPlace::Head,
            1 => MemmapPlace::System,
            _ => MemmapPlace::Boot,
        };
        let frames = (word >> FRAMES_SHIFT) as u16;
        let (present, head) = match memmap {
            MemmapPlace::Boot => (frames, 0),
            MemmapPlace::Head | MemmapPlace::System => (PAGES_PER_SECTION as u16, frames),
        };
        Some(Self {
            state,
            openness,
            last_zone: zone,
            node: NodeId::new((word >> NODE_SHIFT & 0xff) as u32).expect("only valid nodes are stored"),
            group: GroupId::new((word >> GROUP_SHIFT) as u16 & GROUPS),
            memmap,
            present,
            head,
            managed: (word >> MANAGED_SHIFT) as u16,
            poisoned: word >> POISONED_SHIFT & 1 != 0,
            faulty: word >> FAULTY_SHIFT & 1 != 0,
        })
    }
}

const GROUP_SHIFT: u32 = 16;

const POISONED_SHIFT: u32 = 25;

const GROUPS: u16 = (1 << (POISONED_SHIFT - GROUP_SHIFT)) - 1;

const FAULTY_SHIFT: u32 = 26;

/// Of a boot section the present frames: an added one is whole, and those at its head stand here instead.
const FRAMES_SHIFT: u32 = 32;

const MANAGED_SHIFT: u32 = 48;

const _: () = assert!(GROUP_LIMIT <= GROUPS as usize + 1, "a group fits its field");

const _: () = assert!(PAGES_PER_SECTION <= u16::MAX as u64, "frame counts of a section fit their fields");

/// The state bits of a section that is online and open: the one that every allocation and free meets.
const ONLINE_OPEN: u64 = 3;

/// The state bits of a section in both zones, which is always open: its frames are given back on a path of their own.
const MIXED: u64 = 9;

/// The same with a line behind an odd number of pairs.
const MIXED_ODD: u64 = MIXED + 1;

/// Half the pairs below the line through a section in both zones: such a one is boot memory, and of no zone, so that what tells
/// of struct pages and zone in others is free for it.
const LINE_SHIFT: u32 = 4;

const _: () = assert!(PAGES_PER_SECTION / Order::MAX.pages() <= 1 << 5, "a line fits its fields");

const MEMMAP_SHIFT: u32 = 4;

/// Set for boot memory and no other.
const BOOT: u64 = (MemmapPlace::Boot as u64) << MEMMAP_SHIFT;

/// Zone and node lie side by side: together they are the number of the zone.
const ZONE_SHIFT: u32 = 7;

const NODE_SHIFT: u32 = 8;

/// The word of a section, for those who want to know one thing quickly.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    #[inline]
    pub(crate) fn read(place: &AtomicU64) -> Self {
        Self(place.load(Ordering::Acquire))
    }

    /// Whether its frames may be in caches.
    #[inline]
    pub(crate) const fn is_online_and_open(self) -> bool {
        self.0 & 0xf == ONLINE_OPEN
    }

    /// The same of an added section, in one look.
    #[inline]
    pub(crate) const fn is_added_online_and_open(self) -> bool {
        self.0 & (0xf | BOOT) == ONLINE_OPEN
    }

    /// Whether it is in one zone and its struct pages are in use.
    #[inline]
    pub(crate) const fn is_open(self) -> bool {
        matches!(self.0 & 0xf, ONLINE_OPEN | 4)
    }

    /// The number of its zone: two to a node.
    #[inline]
    pub(crate) const fn zone_number(self) -> usize {
        (self.0 >> ZONE_SHIFT & 0x1ff) as usize
    }

    #[inline]
    pub(crate) const fn origin(self) -> Origin {
        if self.0 & BOOT == 0 { Origin::Added } else { Origin::Boot }
    }
}

/// The frames of `id` that hold its struct pages and tables, at its head.
pub(crate) fn head_range(id: SectionId, section: Section) -> PfnRange {
    PfnRange::new(id.pages().start(), section.head_frames())
}

/// Those of them that hold page tables.
pub(crate) fn table_range(id: SectionId, section: Section) -> PfnRange {
    PfnRange::new(id.pages().start(), section.table_frames())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Pfn;

    #[test]
    fn every_section_survives_encoding() {
        let mut seen = 0;
        for zone in ZoneKind::ALL {
            for (state, openness) in [
                (BlockState::Offline, Openness::Untouched),
                (BlockState::GoingOnline(zone), Openness::Untouched),
                (BlockState::Online(zone), Openness::Untouched),
                (BlockState::Online(zone), Openness::Changing),
                (BlockState::Online(zone), Openness::Open),
                (BlockState::GoingOffline(zone), Openness::Untouched),
                (BlockState::GoingOffline(zone), Openness::Changing),
                (BlockState::GoingOffline(zone), Openness::Open),
                (BlockState::Offline, Openness::Withheld),
                (BlockState::GoingOnline(zone), Openness::Withheld),
                (BlockState::Online(zone), Openness::Withheld),
                (BlockState::GoingOffline(zone), Openness::Withheld),
            ] {
                let all = PAGES_PER_SECTION as u16;
                let heads =
                    [(MemmapPlace::Head, all, 300), (MemmapPlace::System, all, 0), (MemmapPlace::Boot, 20_000, 0)];
                for ((memmap, present, head), (poisoned, faulty)) in
                    heads.into_iter().flat_map(|head| [(true, false), (false, true)].map(|errors| (head, errors)))
                {
                    let section = Section {
                        state,
                        openness,
                        last_zone: zone,
                        node: NodeId::new(127).expect("in reach"),
                        group: GroupId::new(511),
                        memmap,
                        present,
                        head,
                        managed: 19_000,
                        poisoned,
                        faulty,
                    };
                    assert_eq!(Section::decode(section.encode()), Some(section));
                    let word = Word(section.encode());
                    assert_eq!(word.is_open(), section.is_open());
                    assert_eq!(word.is_online_and_open(), section.is_open() && state == BlockState::Online(zone));
                    assert_eq!(word.zone_number(), 127 * 2 + zone as usize);
                    assert_eq!(word.origin(), section.origin());
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 144);
        for pairs in 1..32 {
            let frame = SectionId::new(5).expect("in reach").pages().start().add(pairs * Order::MAX.pages());
            let line = Line::before(frame).expect("between two pairs");
            assert_eq!(line.zone_of(frame), ZoneKind::Movable);
            assert_eq!(line.zone_of(Pfn::new(frame.number() - 1)), ZoneKind::Normal);
            let section = Section {
                state: BlockState::Mixed(line),
                openness: Openness::Open,
                last_zone: Section::decode(MIXED | (pairs >> 1) << LINE_SHIFT).expect("present").last_zone,
                node: NodeId::new(127).expect("in reach"),
                group: GroupId::new(511),
                memmap: MemmapPlace::Boot,
                present: 32768,
                head: 0,
                managed: 0,
                poisoned: true,
                faulty: true,
            };
            assert_eq!(Section::decode(section.encode()), Some(section));
            assert!(!Word(section.encode()).is_open() && !Word(section.encode()).is_online_and_open());
        }
        assert_eq!(Section::decode(0), None);
    }
}
