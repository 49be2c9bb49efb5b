//! The section table: one word for every section that can ever exist here, and all that lock-free readers need.
//!
//! A section is also a memory block, so its word carries the block's state machine too:
//!
//! ```text
//! Absent -> Offline -> GoingOnline -> Online -> GoingOffline -> Offline -> Absent
//!    (add)     (online begins / commits)   (offline begins / commits)   (remove)
//! ```
//!
//! The `Going` states are left to the goal or back to where they came from; a block that changes its zone is `GoingOffline` in the
//! old one for a moment, and then `Online` in the new one. While a section is in a zone it is *untouched*
//! or *open*, which [`Openness`] tells; the struct pages of an untouched one are neither mapped nor written. One whose struct
//! pages have no memory that could be trusted is *withheld*, in whatever state it is, until it is removed.
//!
//! Words are read anywhere. They change under the lock of a range that the section lies in, and from the moment it enters its
//! zone to the moment it leaves it, under the lock of the zone too.

use crate::addr::{NodeId, Order, PAGES_PER_SECTION, Pfn, PfnRange, SectionId, SectionRange};
use crate::group::{GROUP_LIMIT, GroupId};
use crate::machine::MEMMAP_PAGES;
use crate::zone::Origin;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

/// Where the allocator puts memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum ZoneKind {
    /// Memory for everything.
    Normal = 0,
    /// Memory for what can be moved elsewhere only.
    Movable = 1,
}

impl ZoneKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Normal, Self::Movable];

    /// Its name, as Linux writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Movable => "Movable",
        }
    }

    /// The one that it is not.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Normal => Self::Movable,
            Self::Movable => Self::Normal,
        }
    }
}

impl fmt::Display for ZoneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The state of a memory block; the zone is where it is, or is going to be, or was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockState {
    /// Known, its memory unused.
    Offline,
    /// On its way into a zone.
    GoingOnline(ZoneKind),
    /// In use.
    Online(ZoneKind),
    /// On its way out of a zone.
    GoingOffline(ZoneKind),
    /// Boot memory in use in both zones, for ever: `kernelcore=` and `movablecore=` draw their line through it.
    Mixed(Line),
}

/// Where in a block Movable begins: behind so many pairs of pageblocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line(u8);

impl Line {
    /// A line through the block of `frame`, before this frame; `None` if it does not lie between two pairs of pageblocks of the
    /// block.
    pub(crate) fn before(frame: Pfn) -> Option<Self> {
        let pairs = frame.index_in_section() / Order::MAX.pages();
        (pairs > 0 && frame.align_down(Order::MAX) == frame).then_some(Self(pairs as u8))
    }

    /// The zone of a frame of the block.
    #[must_use]
    pub const fn zone_of(self, frame: Pfn) -> ZoneKind {
        if frame.index_in_section() / Order::MAX.pages() < self.0 as u64 { ZoneKind::Normal } else { ZoneKind::Movable }
    }

    /// The frames of block `id` that are in `zone`.
    #[must_use]
    pub const fn part(self, id: SectionId, zone: ZoneKind) -> PfnRange {
        let start = id.pages().start();
        let below = self.0 as u64 * Order::MAX.pages();
        match zone {
            ZoneKind::Normal => PfnRange::new(start, below),
            ZoneKind::Movable => PfnRange::new(start.add(below), PAGES_PER_SECTION - below),
        }
    }
}

impl BlockState {
    /// The zone, unless offline or in both.
    #[must_use]
    pub const fn zone(self) -> Option<ZoneKind> {
        match self {
            Self::Offline | Self::Mixed(_) => None,
            Self::GoingOnline(zone) | Self::Online(zone) | Self::GoingOffline(zone) => Some(zone),
        }
    }

    /// Whether it is in a zone: online, or not yet gone.
    #[must_use]
    pub const fn is_in_zone(self) -> bool {
        matches!(self, Self::Online(_) | Self::GoingOffline(_) | Self::Mixed(_))
    }

    /// The zone that a frame of such a block is in, is on its way into, or out of.
    #[must_use]
    pub const fn zone_of(self, frame: Pfn) -> Option<ZoneKind> {
        match self {
            Self::Mixed(line) => Some(line.zone_of(frame)),
            _ => self.zone(),
        }
    }

    /// Whether such a block, or a part of it, is in `zone`, or on its way.
    #[must_use]
    pub fn reaches_into(self, zone: ZoneKind) -> bool {
        matches!(self, Self::Mixed(_)) || self.zone() == Some(zone)
    }

    /// Its name, as in Linux's `state` file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::GoingOnline(_) => "going-online",
            Self::Online(_) | Self::Mixed(_) => "online",
            Self::GoingOffline(_) => "going-offline",
        }
    }
}

/// How much is known of the frames of a section that is in a zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Openness {
    /// That all that can be handed out is free. Its struct pages are not in use.
    Untouched,
    /// Its struct pages are being made, or taken away; nobody but who does that may look at them.
    Changing,
    /// Every frame has its struct page.
    Open,
    /// That it cannot have struct pages, so that nobody gets anything of it.
    Withheld,
}

/// Where the struct pages of a section lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum MemmapPlace {
    /// In the first frames of the section (altmap).
    Head = 0,
    /// In frames of the system, taken when the section was added.
    System = 1,
    /// Somewhere inside the section, chosen at boot, and there for ever.
    Boot = 2,
}

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
    fn decode(word: u64) -> Option<Self> {
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

/// The words of all sections, from section 0 to the end of what the machine can ever have.
#[derive(Clone, Copy)]
pub struct SectionTable {
    words: &'static [AtomicU64],
}

impl SectionTable {
    /// A table over `words`, all of them zero: every section absent.
    #[must_use]
    pub const fn new(words: &'static [AtomicU64]) -> Self {
        Self { words }
    }

    /// How many sections the table has words for.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.words.len() as u64
    }

    /// What is known of section `id`; `None` if it is absent.
    #[must_use]
    #[inline(always)]
    pub fn get(&self, id: SectionId) -> Option<Section> {
        Section::decode(self.words.get(id.index())?.load(Ordering::Acquire))
    }

    /// The section of `pfn`, if it is present and its struct pages are in use.
    #[must_use]
    pub fn open(&self, pfn: Pfn) -> Option<Section> {
        SectionId::new(pfn.number() / PAGES_PER_SECTION).and_then(|id| self.get(id)).filter(|section| section.is_open())
    }

    /// Where the word of `pfn`'s section stands.
    #[inline]
    pub(crate) fn place(&self, pfn: Pfn) -> Option<&AtomicU64> {
        self.words.get(pfn.section().index())
    }

    /// Every present section, lowest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (SectionId, Section)> + '_ {
        self.words.iter().enumerate().filter_map(|(n, word)| {
            let section = Section::decode(word.load(Ordering::Acquire))?;
            Some((SectionId::new(n as u64)?, section))
        })
    }

    /// The present sections of `range`, lowest first.
    pub fn iter_range(&self, range: SectionRange) -> impl Iterator<Item = (SectionId, Section)> + '_ {
        range.iter().filter_map(|id| Some((id, self.get(id)?)))
    }

    /// Cuts `range` into runs of neighbours of which the same is known, or which are all absent, lowest first.
    pub(crate) fn runs(&self, range: SectionRange) -> impl Iterator<Item = (SectionRange, Option<Section>)> + '_ {
        let mut rest = Some(range);
        core::iter::from_fn(move || {
            let range = rest?;
            let (run, word) = self.run_of_words(range);
            rest = range.behind(run);
            Some((run, Section::decode(word)))
        })
    }

    /// The first blocks of `range` of which the same is known.
    pub(crate) fn first_run(&self, range: SectionRange) -> SectionRange {
        self.run_of_words(range).0
    }

    fn run_of_words(&self, range: SectionRange) -> (SectionRange, u64) {
        let end = self.words.len().min(range.last().index() + 1);
        match self.words.get(range.first().index()..end) {
            Some([first, others @ ..]) => {
                let first = first.load(Ordering::Acquire);
                let same = others.iter().take_while(|word| word.load(Ordering::Acquire) == first).count();
                (range.first_part(same as u64 + 1), first)
            }
            // All beyond the table is absent.
            _ => (range, 0),
        }
    }

    /// Writes the same for every section of `range`.
    pub(crate) fn set_all(&self, range: SectionRange, section: Section) {
        let word = section.encode();
        for place in &self.words[range.first().index()..=range.last().index()] {
            place.store(word, Ordering::Release);
        }
    }

    pub(crate) fn set(&self, id: SectionId, section: Section) {
        self.words[id.index()].store(section.encode(), Ordering::Release);
    }

    pub(crate) fn clear(&self, id: SectionId) {
        self.words[id.index()].store(0, Ordering::Release);
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
                    assert_eq!(word.origin(), Origin::of(section));
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
