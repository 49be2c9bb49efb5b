//! The word of a section: all that lock-free readers need, in 64 bits.

use crate::addr::{NodeId, Order, PAGES_PER_SECTION, PfnRange, SectionId};
use crate::frame::page::MEMMAP_PAGES;
use crate::limits::GROUP_LIMIT;
use crate::section::group::GroupId;
use crate::section::kind::{MemmapPlace, Origin, ZoneKind};
use crate::section::state::{BlockState, Openness};
use crate::section::zone_border::ZoneBorder;
use bitfield_struct::bitfield;
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
    /// Whether it was there at boot.
    pub origin: Origin,
    /// Where its struct pages lie.
    pub memmap: MemmapPlace,
    /// Whether its memory can be accessed, and is mapped.
    pub ready: bool,
    /// Frames of memory in it; all that it can have, unless it held something at boot.
    pub present: u16,
    /// Frames at its head that hold struct pages and tables; none of one that held something at boot, whose layout is its own.
    pub head: u16,
    /// Frames that the allocator gets: all but memmap, page tables and what is reserved or poisoned. Of a withheld one, those
    /// that it would get.
    pub managed: u16,
    /// Whether frames of it are poisoned. Its struct pages tell which, and so they stay, whatever becomes of the block.
    pub poisoned: bool,
    /// Whether frames of it that are in use have an error, as their struct pages say.
    pub faulty: bool,
}

impl Section {
    /// Whether the reserve of hotplug may lie in it: boot memory that the kernel uses.
    #[must_use]
    pub fn may_hold_reserve(self) -> bool {
        matches!(self.origin, Origin::Boot) && self.state.zone() == Some(ZoneKind::Normal)
    }

    /// Whether its group counts how much of it is in which zone.
    pub(crate) const fn is_tallied(self) -> bool {
        matches!(self.origin, Origin::Added) && !matches!(self.state, BlockState::Device)
    }

    /// Whether it is opened when it goes online: its struct pages are there already.
    pub(crate) const fn opens_at_once(self) -> bool {
        matches!(self.memmap, MemmapPlace::Boot)
    }

    /// Whether its struct pages stay, and tell which frames are whose, while it is offline.
    #[must_use]
    pub const fn keeps_struct_pages(self) -> bool {
        matches!(self.memmap, MemmapPlace::Boot)
    }

    /// Whether frames that the allocator does not manage may be in use, and not only struct pages, tables, poisoned or withheld.
    pub(crate) const fn has_reserved_frames(self) -> bool {
        matches!(self.memmap, MemmapPlace::Boot)
    }

    /// Whether it is in a zone and the allocator knows its frames; its struct pages can be read then.
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

    /// Whether nothing of it is handed out.
    #[must_use]
    pub const fn is_withheld(self) -> bool {
        matches!(self.openness, Openness::Withheld)
    }

    /// Frames that a zone manages of it.
    #[must_use]
    pub const fn usable(self) -> u64 {
        if self.is_withheld() { 0 } else { self.managed as u64 }
    }

    /// Whether its struct pages can be read and tell what its frames are, in a zone or not.
    #[must_use]
    pub const fn has_struct_pages(self) -> bool {
        self.is_open() || self.keeps_struct_pages() || self.poisoned || matches!(self.state, BlockState::Device)
    }

    /// Frames at its head that hold struct pages and tables; none for one that held something at boot, whose layout is its own.
    #[must_use]
    pub const fn head_frames(self) -> u64 {
        self.head as u64
    }

    /// Frames behind the head of a section that the allocator does not get: they are poisoned or withheld.
    pub(crate) const fn unmanaged_frames(self) -> u64 {
        (self.present - self.head - self.managed) as u64
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
        let border = if let BlockState::Mixed(ZoneBorder(pairs)) = self.state { pairs } else { 0 };
        let frames = if self.has_reserved_frames() { self.present } else { self.head };
        Bits::new()
            .with_code(Code::of(self.state, self.openness))
            .with_memmap(self.memmap as u8)
            .with_is_ready(self.ready)
            .with_zone(self.state.zone().unwrap_or(self.last_zone))
            .with_node(self.node.number())
            .with_origin(self.origin)
            .with_group(self.group.number())
            .with_is_poisoned(self.poisoned)
            .with_is_faulty(self.faulty)
            .with_border(border)
            .with_frames(frames)
            .with_managed(self.managed)
            .into_bits()
    }

    // Inlined, it costs only what its caller looks at.
    #[inline(always)]
    pub(super) fn decode(word: u64) -> Option<Self> {
        let bits = Bits::from_bits(word);
        let zone = bits.zone();
        let (state, openness) = match bits.code() {
            Code::Absent => return None,
            Code::Offline => (BlockState::Offline, Openness::Untouched),
            Code::GoingOnline => (BlockState::GoingOnline(zone), Openness::Untouched),
            Code::OnlineOpen => (BlockState::Online(zone), Openness::Open),
            Code::GoingOfflineOpen => (BlockState::GoingOffline(zone), Openness::Open),
            Code::OnlineUntouched => (BlockState::Online(zone), Openness::Untouched),
            Code::GoingOfflineUntouched => (BlockState::GoingOffline(zone), Openness::Untouched),
            Code::OnlineChanging => (BlockState::Online(zone), Openness::Changing),
            Code::GoingOfflineChanging => (BlockState::GoingOffline(zone), Openness::Changing),
            Code::Mixed => (BlockState::Mixed(ZoneBorder(bits.border())), Openness::Open),
            Code::Device => (BlockState::Device, Openness::Open),
            Code::OfflineWithheld => (BlockState::Offline, Openness::Withheld),
            Code::GoingOnlineWithheld => (BlockState::GoingOnline(zone), Openness::Withheld),
            Code::OnlineWithheld => (BlockState::Online(zone), Openness::Withheld),
            Code::GoingOfflineWithheld => (BlockState::GoingOffline(zone), Openness::Withheld),
            Code::Shrinking => (BlockState::Shrinking(zone), Openness::Open),
        };
        let memmap = MemmapPlace::from_bits(bits.memmap());
        let (present, head) = match memmap {
            MemmapPlace::Boot => (bits.frames(), 0),
            MemmapPlace::Head | MemmapPlace::System => (PAGES_PER_SECTION as u16, bits.frames()),
        };
        Some(Self {
            state,
            openness,
            last_zone: zone,
            node: NodeId::new(u32::from(bits.node())).expect("only valid nodes are stored"),
            group: GroupId::new(bits.group()),
            origin: bits.origin(),
            memmap,
            ready: bits.is_ready(),
            present,
            head,
            managed: bits.managed(),
            poisoned: bits.is_poisoned(),
            faulty: bits.is_faulty(),
        })
    }
}

/// The state of a section and its openness, as they stand in its word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Code {
    Absent = 0,
    Offline = 1,
    GoingOnline = 2,
    /// The one that every allocation and free meets.
    OnlineOpen = 3,
    GoingOfflineOpen = 4,
    OnlineUntouched = 5,
    GoingOfflineUntouched = 6,
    OnlineChanging = 7,
    GoingOfflineChanging = 8,
    /// Always open: its frames are given back on a path of their own.
    Mixed = 9,
    Device = 10,
    OfflineWithheld = 11,
    GoingOnlineWithheld = 12,
    OnlineWithheld = 13,
    GoingOfflineWithheld = 14,
    /// Always open. What is freed in it goes to no cache.
    Shrinking = 15,
}

impl Code {
    const fn of(state: BlockState, openness: Openness) -> Self {
        match (state, openness) {
            (BlockState::Offline, Openness::Withheld) => Self::OfflineWithheld,
            (BlockState::GoingOnline(_), Openness::Withheld) => Self::GoingOnlineWithheld,
            (BlockState::Online(_), Openness::Withheld) => Self::OnlineWithheld,
            (BlockState::GoingOffline(_), Openness::Withheld) => Self::GoingOfflineWithheld,
            (BlockState::Offline, _) => Self::Offline,
            (BlockState::GoingOnline(_), _) => Self::GoingOnline,
            (BlockState::Online(_), Openness::Open) => Self::OnlineOpen,
            (BlockState::GoingOffline(_), Openness::Open) => Self::GoingOfflineOpen,
            (BlockState::Online(_), Openness::Untouched) => Self::OnlineUntouched,
            (BlockState::GoingOffline(_), Openness::Untouched) => Self::GoingOfflineUntouched,
            (BlockState::Online(_), Openness::Changing) => Self::OnlineChanging,
            (BlockState::GoingOffline(_), Openness::Changing) => Self::GoingOfflineChanging,
            (BlockState::Shrinking(_), _) => Self::Shrinking,
            (BlockState::Mixed(_), _) => Self::Mixed,
            (BlockState::Device, _) => Self::Device,
        }
    }

    const fn into_bits(self) -> u64 {
        self as u64
    }

    #[inline(always)]
    const fn from_bits(bits: u64) -> Self {
        match bits {
            0 => Self::Absent,
            1 => Self::Offline,
            2 => Self::GoingOnline,
            3 => Self::OnlineOpen,
            4 => Self::GoingOfflineOpen,
            5 => Self::OnlineUntouched,
            6 => Self::GoingOfflineUntouched,
            7 => Self::OnlineChanging,
            8 => Self::GoingOfflineChanging,
            9 => Self::Mixed,
            10 => Self::Device,
            11 => Self::OfflineWithheld,
            12 => Self::GoingOnlineWithheld,
            13 => Self::OnlineWithheld,
            14 => Self::GoingOfflineWithheld,
            15 => Self::Shrinking,
            _ => unreachable!(),
        }
    }
}

/// The layout of the word. All of it is zero in an absent section.
#[bitfield(u64)]
struct Bits {
    #[bits(4)]
    code: Code,
    /// A [`MemmapPlace`].
    #[bits(2)]
    memmap: u8,
    #[bits(1)]
    origin: Origin,
    /// Zone and node lie side by side: together they are the number of the zone.
    #[bits(1)]
    zone: ZoneKind,
    #[bits(7)]
    node: u8,
    is_ready: bool,
    #[bits(9)]
    group: u16,
    is_poisoned: bool,
    is_faulty: bool,
    /// Pairs of pageblocks below the border through a section in both zones.
    #[bits(5)]
    border: u8,
    /// Frames present of a section that was laid out at boot. Any other is whole, and those at its head stand here instead.
    #[bits(16)]
    frames: u16,
    #[bits(16)]
    managed: u16,
}

const _: () = assert!(GROUP_LIMIT <= 1 << Bits::GROUP_BITS, "a group fits its field");

const _: () = assert!(NodeId::LIMIT <= 1 << Bits::NODE_BITS, "a node fits its field");

const _: () = assert!(PAGES_PER_SECTION <= u16::MAX as u64, "frame counts of a section fit their fields");

const _: () = assert!(PAGES_PER_SECTION / Order::MAX.pages() <= 1 << Bits::BORDER_BITS, "a border fits its field");

const _: () = assert!(Bits::NODE_OFFSET == Bits::ZONE_OFFSET + Bits::ZONE_BITS, "zone and node lie side by side");

/// The word of a section, for those who want to know one thing quickly.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    const CODE: u64 = (1 << Bits::CODE_BITS) - 1;

    /// Set for boot memory and no other.
    const BOOT: u64 = Origin::Boot.into_bits() << Bits::ORIGIN_OFFSET;

    const ONLINE_OPEN: u64 = Code::OnlineOpen as u64;

    const GOING_OFFLINE_OPEN: u64 = Code::GoingOfflineOpen as u64;

    const SHRINKING: u64 = Code::Shrinking as u64;

    #[inline]
    pub(crate) fn read(place: &AtomicU64) -> Self {
        // Acquire pairs with the Release in the table's `set` and its like: the struct pages that it tells of are seen.
        Self(place.load(Ordering::Acquire))
    }

    /// Whether its frames may be in caches.
    #[inline]
    pub(crate) const fn is_online_and_open(self) -> bool {
        self.0 & Self::CODE == Self::ONLINE_OPEN
    }

    /// The same of an added section, in one look.
    #[inline]
    pub(crate) const fn is_added_online_and_open(self) -> bool {
        self.0 & (Self::CODE | Self::BOOT) == Self::ONLINE_OPEN
    }

    /// Whether it is in one zone and its struct pages are in use.
    #[inline]
    pub(crate) const fn is_open(self) -> bool {
        matches!(self.0 & Self::CODE, Self::ONLINE_OPEN | Self::GOING_OFFLINE_OPEN | Self::SHRINKING)
    }

    /// The number of its zone: two to a node.
    #[inline]
    pub(crate) const fn zone_number(self) -> usize {
        (self.0 >> Bits::ZONE_OFFSET & ((1 << (Bits::ZONE_BITS + Bits::NODE_BITS)) - 1)) as usize
    }

    #[inline]
    pub(crate) const fn origin(self) -> Origin {
        if self.0 & Self::BOOT == 0 { Origin::Added } else { Origin::Boot }
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
                (BlockState::Device, Openness::Open),
                (BlockState::Shrinking(zone), Openness::Open),
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
                        origin: if memmap == MemmapPlace::Boot { Origin::Boot } else { Origin::Added },
                        memmap,
                        ready: head != 300,
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
                    assert_eq!(word.origin(), section.origin);
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 168);
        for pairs in 1..32 {
            let frame = SectionId::new(5).expect("in reach").pages().start().add(pairs * Order::MAX.pages());
            let line = ZoneBorder::before(frame).expect("between two pairs");
            assert_eq!(line.zone_of(frame), ZoneKind::Movable);
            assert_eq!(line.zone_of(Pfn::new(frame.number() - 1)), ZoneKind::Normal);
            let section = Section {
                state: BlockState::Mixed(line),
                openness: Openness::Open,
                last_zone: ZoneKind::Normal,
                node: NodeId::new(127).expect("in reach"),
                group: GroupId::new(511),
                origin: Origin::Boot,
                memmap: MemmapPlace::Boot,
                ready: true,
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

    #[test]
    #[should_panic(expected = "a place that nobody wrote")]
    fn a_place_that_nobody_wrote_is_no_guess() {
        let _ = Section::decode(Bits::new().with_code(Code::Offline).into_bits() | 3 << Bits::MEMMAP_OFFSET);
    }
}
