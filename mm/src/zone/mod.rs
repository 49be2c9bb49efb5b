//! A zone: the memory of one node that serves one kind of request.
//!
//! A zone keeps memory that was there at boot apart from memory that was added, so that what came last can go first. Of
//! both most sections are *untouched*: they are counted here as free, but nothing is known of their frames before one is
//! needed and the section is opened.

pub mod cache;
pub(crate) mod free_area;
pub(crate) mod reserve;
pub(crate) mod zones;

use crate::addr::{Order, Pfn, SectionId, SectionRange};
use crate::frame::memmap::Memmap;
use crate::frame::mobility::Mobility;
use crate::frame::pageblock::{FRAMES, Pageblock};
use crate::limits::{AHEAD_PAGES, CACHE_LINE_PAIR, SPARE_HIGH};
use crate::section::kind::Origin;
use crate::section::word::Section;
use crate::zone::free_area::{FreeArea, Mixing};
use core::sync::atomic::{AtomicU64, Ordering};
use lock_api::{Mutex, MutexGuard, RawMutex};

/// Sections of one origin whose frames nobody knows yet.
#[derive(Debug)]
pub(crate) struct Untouched {
    /// How many there are.
    pub(crate) sections: u64,
    /// Their frames that can be handed out, and those of the changing ones.
    unopened: u64,
    /// None of them lies lower.
    pub(crate) lowest: Option<SectionId>,
    /// How often some were added.
    pub(crate) puts: u64,
    /// Sections on their way in or out of being untouched.
    pub(crate) changing: u64,
    /// Their frames that can be handed out.
    pub(crate) changing_pages: u64,
}

impl Untouched {
    const fn new() -> Self {
        Self { sections: 0, unopened: 0, lowest: None, puts: 0, changing: 0, changing_pages: 0 }
    }

    /// Frames of untouched sections that can be handed out.
    pub(crate) const fn pages(&self) -> u64 {
        self.unopened - self.changing_pages
    }

    /// So many of them more.
    pub(crate) const fn grant(&mut self, pages: u64) {
        self.unopened += pages;
    }

    /// So many less.
    pub(crate) const fn withhold(&mut self, pages: u64) {
        self.unopened -= pages;
    }
}

/// What a zone consists of; the caller holds its lock.
#[derive(Debug)]
pub struct Zone {
    free: [FreeArea; Origin::ALL.len()],
    untouched: [Untouched; Origin::ALL.len()],
    /// Frames of untouched sections that an offline under way has claimed.
    claimed: u64,
    present: u64,
    boot_present: u64,
    /// Present frames of sections on their way in.
    expected: u64,
    /// By origin.
    managed: [u64; Origin::ALL.len()],
    span: Option<(SectionId, SectionId)>,
    /// How often sections came or went.
    changes: u64,
}

impl Zone {
    const fn new() -> Self {
        Self {
            free: [const { FreeArea::new() }; Origin::ALL.len()],
            untouched: [const { Untouched::new() }; Origin::ALL.len()],
            claimed: 0,
            present: 0,
            boot_present: 0,
            expected: 0,
            managed: [0; Origin::ALL.len()],
            span: None,
            changes: 0,
        }
    }

    /// Free frames, those of an offline under way and those in caches not among them.
    pub(crate) fn free_pages(&self) -> u64 {
        Origin::ALL.into_iter().map(|origin| self.free_pages_of(origin)).sum()
    }

    /// Those of one origin.
    pub(crate) fn free_pages_of(&self, origin: Origin) -> u64 {
        self.area(origin).pages() + self.untouched(origin).unopened
    }

    /// Pageblocks that are free as a whole, those in caches not among them; of untouched sections, those that there are at least.
    pub(crate) fn whole_blocks(&self) -> u64 {
        let untouched = |untouched: &Untouched| {
            let of_no_whole = untouched.sections * (FRAMES - 1);
            untouched.pages().saturating_sub(of_no_whole) / FRAMES
        };
        self.free.iter().map(FreeArea::whole_blocks).chain(self.untouched.iter().map(untouched)).sum()
    }

    /// A section begins to be opened or closed; its frames stay free.
    pub(crate) fn begin_changing(&mut self, section: Section) {
        let untouched = self.untouched_mut(section.origin);
        untouched.changing += 1;
        untouched.changing_pages += section.usable();
        untouched.unopened += section.usable();
    }

    /// It is open, or closed.
    pub(crate) fn end_changing(&mut self, section: Section) {
        let untouched = self.untouched_mut(section.origin);
        untouched.changing -= 1;
        untouched.changing_pages -= section.usable();
        untouched.unopened -= section.usable();
    }

    /// What is free of one origin in sections that are open.
    pub(crate) const fn area(&self, origin: Origin) -> &FreeArea {
        &self.free[origin as usize]
    }

    pub(crate) const fn area_mut(&mut self, origin: Origin) -> &mut FreeArea {
        &mut self.free[origin as usize]
    }

    /// What is free of one origin in sections that are not.
    pub(crate) const fn untouched(&self, origin: Origin) -> &Untouched {
        &self.untouched[origin as usize]
    }

    pub(crate) const fn untouched_mut(&mut self, origin: Origin) -> &mut Untouched {
        &mut self.untouched[origin as usize]
    }

    /// How many open sections hold nothing.
    pub(crate) fn empty_sections(&self) -> u64 {
        self.free.iter().map(FreeArea::empty_sections).sum()
    }

    /// The origin of more of them than the other.
    pub(crate) fn emptier_origin(&self) -> Origin {
        let [boot, added] = Origin::ALL.map(|origin| self.area(origin).empty_sections());
        if boot > added { Origin::Boot } else { Origin::Added }
    }

    /// Free frames that an offline under way has put out of reach.
    pub(crate) fn isolated_pages(&self) -> u64 {
        self.free.iter().map(FreeArea::isolated).sum::<u64>() + self.claimed
    }

    pub(crate) const fn present_pages(&self) -> u64 {
        self.present
    }

    /// Present frames of sections that are on their way in.
    pub(crate) const fn expected_pages(&self) -> u64 {
        self.expected
    }

    /// Sections are on their way in.
    pub(crate) fn expect(&mut self, run: SectionRange, section: Section) {
        self.expected += run.count() * u64::from(section.present);
    }

    /// They have come, or will not.
    pub(crate) fn give_up(&mut self, run: SectionRange, section: Section) {
        self.expected -= run.count() * u64::from(section.present);
    }

    /// Present frames that were there at boot.
    pub(crate) const fn boot_present_pages(&self) -> u64 {
        self.boot_present
    }

    pub(crate) fn managed_pages(&self) -> u64 {
        self.managed.iter().sum()
    }

    pub(crate) const fn managed_pages_of(&self, origin: Origin) -> u64 {
        self.managed[origin as usize]
    }

    /// The lowest and highest section, if there is any.
    pub(crate) const fn span(&self) -> Option<(SectionId, SectionId)> {
        self.span
    }

    /// How often sections came or went: one who looks at them without the lock sees by it whether they stayed the same.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    /// Step 4: grows to span sections with equal words.
    pub(crate) fn grow(&mut self, run: SectionRange, section: Section) {
        self.changes += 1;
        let present = run.count() * u64::from(section.present);
        self.present += present;
        if section.origin == Origin::Boot {
            self.boot_present += present;
        }
        self.managed[section.origin as usize] += run.count() * section.usable();
        self.span = Some(match self.span {
            None => (run.first(), run.last()),
            Some((first, last)) => (first.min(run.first()), last.max(run.last())),
        });
    }

    /// Undoes [`grow`](Self::grow); `span` is that of the sections that stay.
    pub(crate) fn shrink(&mut self, run: SectionRange, section: Section, span: Option<(SectionId, SectionId)>) {
        self.changes += 1;
        let present = run.count() * u64::from(section.present);
        self.present -= present;
        if section.origin == Origin::Boot {
            self.boot_present -= present;
        }
        self.managed[section.origin as usize] -= run.count() * section.usable();
        self.span = span;
    }

    /// So many frames of its sections can not be had from now on.
    pub(crate) fn lose_frames(&mut self, origin: Origin, pages: u64) {
        self.managed[origin as usize] -= pages;
    }

    /// So many frames more can.
    pub(crate) fn gain_frames(&mut self, origin: Origin, pages: u64) {
        self.managed[origin as usize] += pages;
    }

    /// Nothing of one of its sections, which was changing, can be had from now on.
    pub(crate) fn withhold(&mut self, section: Section) {
        self.end_changing(section);
        self.managed[section.origin as usize] -= section.usable();
    }

    /// Step 6 for untouched sections: free, without looking at their frames.
    pub(crate) fn put_untouched(&mut self, run: SectionRange, section: Section) {
        let untouched = self.untouched_mut(section.origin);
        untouched.puts += 1;
        untouched.sections += run.count();
        untouched.unopened += run.count() * section.usable();
        let first = run.first();
        untouched.lowest = Some(untouched.lowest.map_or(first, |lowest| lowest.min(first)));
    }

    /// Untouched sections are not free as such any more.
    pub(crate) fn take_untouched(&mut self, run: SectionRange, section: Section) {
        let untouched = self.untouched_mut(section.origin);
        untouched.sections -= run.count();
        untouched.unopened -= run.count() * section.usable();
        if untouched.sections == 0 {
            untouched.lowest = None;
        }
    }

    /// An offline claims untouched sections.
    pub(crate) fn claim_untouched(&mut self, run: SectionRange, section: Section) {
        self.take_untouched(run, section);
        self.claimed += run.count() * section.usable();
    }

    /// What an offline has claimed leaves the zone, or is untouched again.
    pub(crate) fn release_claim(&mut self, run: SectionRange, section: Section) {
        self.claimed -= run.count() * section.usable();
    }

    /// Takes the lowest group of 2^`order` frames that serves inside an open section of `origin`.
    pub(crate) fn take_within(
        &mut self,
        memmap: &impl Memmap,
        origin: Origin,
        order: Order,
        mobility: Mobility,
        id: SectionId,
    ) -> Option<Pfn> {
        let area = &mut self.free[origin as usize];
        [Mixing::Never, Mixing::Allowed].into_iter().find_map(|mixing| {
            Pageblock::of_section(id).find_map(|block| area.take_at(memmap, block, order, mobility, mixing))
        })
    }
}

/// A zone behind the lock that guards it and what its struct pages say of free frames, on cache lines of its own.
#[repr(align(128))]
pub struct ZoneCell<S> {
    zone: Mutex<S, Zone>,
    /// What can be had of each origin without opening a section, to be read without the lock.
    open_free: [AtomicU64; Origin::ALL.len()],
    /// By origin, frames of sections that are untouched or just being opened.
    unopened: [AtomicU64; Origin::ALL.len()],
}

const _: () = assert!(align_of::<ZoneCell<()>>() == CACHE_LINE_PAIR, "what guards two zones is on lines of its own");

/// What others want to know after a change.
pub(crate) struct Changed {
    /// By how much the free boot memory has grown, in two's complement.
    pub(crate) boot_pages: u64,
    /// Whether more open sections hold nothing than may stay open.
    pub(crate) has_many_empty: bool,
}

impl<S: RawMutex> Default for ZoneCell<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: RawMutex> ZoneCell<S> {
    /// An empty zone.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            zone: Mutex::new(Zone::new()),
            open_free: [const { AtomicU64::new(0) }; Origin::ALL.len()],
            unopened: [const { AtomicU64::new(0) }; Origin::ALL.len()],
        }
    }

    /// To read it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, S, Zone> {
        self.zone.lock()
    }

    /// To change it. `note` hears what has changed before anybody else can see it.
    pub(crate) fn change<R>(&self, work: impl FnOnce(&mut Zone) -> R, note: impl FnOnce(&Changed)) -> (R, Changed) {
        let mut zone = self.zone.lock();
        let before = zone.area(Origin::Boot).pages();
        let result = work(&mut zone);
        for origin in Origin::ALL {
            self.open_free[origin as usize].store(zone.area(origin).pages(), Ordering::Relaxed);
            self.unopened[origin as usize].store(zone.untouched(origin).unopened, Ordering::Relaxed);
        }
        let changed = Changed {
            boot_pages: zone.area(Origin::Boot).pages().wrapping_sub(before),
            has_many_empty: zone.empty_sections() > SPARE_HIGH,
        };
        note(&changed);
        (result, changed)
    }

    /// Frames of one origin that can be had without opening a section, a moment ago.
    pub(crate) fn open_free(&self, origin: Origin) -> u64 {
        self.open_free[origin as usize].load(Ordering::Relaxed)
    }

    /// Frames of one origin in sections to be opened, a moment ago.
    pub(crate) fn unopened(&self, origin: Origin) -> u64 {
        self.unopened[origin as usize].load(Ordering::Relaxed)
    }

    /// An origin of which there are sections to be opened, and little is open, boot memory before added memory.
    pub(crate) fn closed_up(&self) -> Option<Origin> {
        Origin::ALL.into_iter().find(|origin| self.unopened(*origin) > 0 && self.open_free(*origin) < AHEAD_PAGES)
    }
}
