//! Recounts the world the slow way and compares it with what the counters say.

use crate::addr::{NodeId, PAGES_PER_SECTION, Pfn, PfnRange, SectionId, SectionRange};
use crate::alloc::caches;
use crate::frame::page::{Head, MEMMAP_PAGES, Owner, PageState};
use crate::frame::pageblock::{FRAMES, KEPT_COUNT, Listing, PER_SECTION, Pageblock};
use crate::frame::pageblock_set::PageblockSet;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::section::group::{Group, Ready, Tally};
use crate::section::kind::{MemmapPlace, Origin, ZoneKind};
use crate::section::state::{BlockState, Openness};
use crate::section::word::Section;
use crate::zone::cache::SizeClass;
use crate::zone::free_area::{Listed, Walk};
use crate::zone::zones::zone_number;
use crate::{poison, range_guard};
use core::fmt;
use core::sync::atomic::Ordering;

/// Something that does not add up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// A counter and the recount disagree.
    Count {
        /// Whose counter.
        of: &'static str,
        /// Of which zone, if it is a zone's.
        zone: Option<(NodeId, ZoneKind)>,
        /// Of which block, if it is a block's.
        block: Option<SectionId>,
        /// What the counter says.
        kept: u64,
        /// What the recount says.
        counted: u64,
    },
    /// A struct page says what it cannot.
    Page {
        /// The frame.
        pfn: Pfn,
        /// What is wrong.
        what: &'static str,
    },
    /// A block is in a state that no operation leaves behind.
    Block {
        /// The block.
        block: SectionId,
        /// What is wrong.
        what: &'static str,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { of, zone, block, kept, counted } => {
                write!(f, "{of}")?;
                if let Some((node, kind)) = zone {
                    write!(f, " of node {node} {kind}")?;
                }
                if let Some(block) = block {
                    write!(f, " of block {block}")?;
                }
                write!(f, " is {kept}, but {counted} by recount")
            }
            Self::Page { pfn, what } => write!(f, "{pfn}: {what}"),
            Self::Block { block, what } => write!(f, "block {block}: {what}"),
        }
    }
}

/// The totals of a recount.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Problems found.
    pub problems: u64,
    /// Struct pages looked at.
    pub frames_checked: u64,
    /// Free frames.
    pub free: u64,
    /// Page-table frames.
    pub page_tables: u64,
}

/// Pageblocks that are looked at under one hold of a lock.
const WALKED_AT_ONCE: usize = 64;

/// What is counted, what the counter says, and what the recount says.
type Count = (&'static str, u64, u64);

/// The sums of one zone.
#[derive(Clone, Copy, Default)]
struct Sums {
    present: u64,
    managed: u64,
    free: [u64; Origin::ALL.len()],
    isolated: u64,
    cached: u64,
    untouched: [SumsOfUntouched; Origin::ALL.len()],
    empty: [u64; Origin::ALL.len()],
    first: Option<SectionId>,
    last: Option<SectionId>,
}

/// Of the sections of one origin that are not open.
#[derive(Clone, Copy, Default)]
struct SumsOfUntouched {
    sections: u64,
    pages: u64,
    first: Option<SectionId>,
    changing: u64,
    changing_pages: u64,
}

/// Frames that must be found again elsewhere.
#[derive(Clone, Copy, Default)]
struct Elsewhere {
    tables: u64,
    memmap_frames: u64,
    faulty: u64,
}

/// Frames of a section that are not free.
#[derive(Default)]
struct Taken {
    /// In pageblocks that are withheld.
    withheld: u64,
    allocated: u64,
    set_aside: u64,
    poisoned: u64,
}

/// Frames of a section, or of a part of one.
struct Found {
    present: u64,
    managed: u64,
}

impl Taken {
    fn note_owner(owner: Owner, pages: u64, elsewhere: &mut Elsewhere) {
        match owner {
            Owner::PageTable => elsewhere.tables += pages,
            Owner::Memmap => elsewhere.memmap_frames += pages,
            _ => {}
        }
    }
}

impl<M: Machine> Memory<M> {
    /// Recounts everything; `found` is called with every problem. No other operation runs meanwhile; allocations that do are
    /// reported as differences.
    pub fn validate(&self, found: impl FnMut(Problem)) -> Totals {
        self.validate_with(|| (), found)
    }

    /// The same, after `stop_others` has stopped everything that might allocate or free: a stop-machine. No operation is under
    /// way when it is called, and they may go on when what it returns is dropped.
    pub fn validate_with<G>(&self, stop_others: impl FnOnce() -> G, mut found: impl FnMut(Problem)) -> Totals {
        let _alone = range_guard::lock_everything(self);
        let _stopped = stop_others();
        let mut totals = Totals::default();
        let mut elsewhere = Elsewhere::default();
        let mut problem_count = 0;
        let mut report = |problem| {
            problem_count += 1;
            found(problem);
        };
        let mut boot_free = 0;
        for node in self.nodes() {
            for kind in ZoneKind::ALL {
                let sums = recount_zone(self, node, kind, &mut totals, &mut elsewhere, &mut report);
                if kind == ZoneKind::Normal {
                    boot_free += sums.free[Origin::Boot as usize];
                }
                let unopened = sums.untouched.iter().map(|untouched| untouched.pages + untouched.changing_pages);
                totals.free += sums.free.iter().copied().chain(unopened).sum::<u64>() + sums.cached;
            }
        }
        elsewhere.tables +=
            self.blocks().filter(|(_, section)| section.ready).map(|(_, section)| section.table_frames()).sum::<u64>();
        totals.page_tables = self.machine.table_frames();
        let mut compare = |of, kept, counted| {
            if kept != counted {
                report(Problem::Count { of, zone: None, block: None, kept, counted });
            }
        };
        compare("page-table frames", totals.page_tables, elsewhere.tables);
        compare("free boot frames", self.boot_free.pages().cast_unsigned(), boot_free);
        compare("memmap frames of the system", system_memmap_frames(self), elsewhere.memmap_frames);
        compare("faulty frames", self.faulty_count.load(Ordering::Relaxed), elsewhere.faulty);
        let poisoned = self.blocks().map(|(id, section)| count_poisoned(self, id, section)).sum();
        let withheld = self.blocks().map(|(id, _)| self.sections.withheld(id).frames()).sum();
        compare("withheld frames", self.withheld_count.load(Ordering::Relaxed), withheld);
        compare("poisoned frames", self.poisoned_count.load(Ordering::Relaxed), poisoned);
        check_blocks(self, &mut report);
        check_devices(self, &mut report);
        totals.problems = problem_count;
        totals
    }
}

/// Poisoned frames of a block that says that it has some, in use or not.
fn count_poisoned<M: Machine>(memory: &Memory<M>, id: SectionId, section: Section) -> u64 {
    let is_poisoned = |pfn: &Pfn| poison::is_poisoned(memory, section, *pfn);
    if section.poisoned { id.pages().iter().filter(is_poisoned).count() as u64 } else { 0 }
}

fn system_memmap_frames<M: Machine>(memory: &Memory<M>) -> u64 {
    memory.blocks().filter(|(_, section)| section.memmap == MemmapPlace::System && section.ready).count() as u64
        * MEMMAP_PAGES
}

fn recount_zone<M: Machine>(
    memory: &Memory<M>,
    node: NodeId,
    kind: ZoneKind,
    totals: &mut Totals,
    elsewhere: &mut Elsewhere,
    report: &mut dyn FnMut(Problem),
) -> Sums {
    let mut sums = Sums::default();
    for (id, section) in memory.blocks() {
        let here = section.node == node && section.state.reaches_into(kind);
        if !here || !section.state.is_in_zone() {
            continue;
        }
        sums.first.get_or_insert(id);
        sums.last = Some(id);
        if let BlockState::Mixed(line) = section.state {
            let part = line.part(id, kind);
            recount_part(memory, part, section, &mut sums, elsewhere, report);
            totals.frames_checked += part.len();
            continue;
        }
        sums.present += u64::from(section.present);
        sums.managed += section.usable();
        if section.is_withheld() {
            continue;
        }
        let untouched = &mut sums.untouched[section.origin as usize];
        if section.is_untouched() {
            untouched.sections += 1;
            untouched.first.get_or_insert(id);
            untouched.pages += u64::from(section.managed);
            continue;
        }
        // Somebody stood still while opening or closing it: all of it is free, but not to be had yet.
        if section.openness == Openness::Changing {
            untouched.changing += 1;
            untouched.changing_pages += u64::from(section.managed);
            continue;
        }
        recount_section(memory, id, section, &mut sums, elsewhere, report);
        totals.frames_checked += PAGES_PER_SECTION;
    }
    compare_zone(memory, node, kind, &sums, report);
    sums
}

fn compare_zone<M: Machine>(
    memory: &Memory<M>,
    node: NodeId,
    kind: ZoneKind,
    sums: &Sums,
    report: &mut dyn FnMut(Problem),
) {
    let mut compare = |of, kept, counted| {
        if kept != counted {
            report(Problem::Count { of, zone: Some((node, kind)), block: None, kept, counted });
        }
    };
    // Whoever hears of a problem may need memory, so nothing is told while a lock is held.
    let (counts, of_origins) = zone_counts(memory, node, kind, sums);
    counts.into_iter().chain(of_origins.into_iter().flatten()).for_each(|(of, kept, is)| compare(of, kept, is));
    for cpu in 0..memory.caches.cpu_limit() {
        let (kept, counted) = count_cache(memory, cpu, node, kind);
        compare("in a cache", kept, counted);
    }
}

/// What a zone says of itself, and what it should say.
fn zone_counts<M: Machine>(
    memory: &Memory<M>,
    node: NodeId,
    kind: ZoneKind,
    sums: &Sums,
) -> ([Count; 7], [[Count; 8]; 2]) {
    let number = |id: Option<SectionId>| id.map_or(u64::MAX, |id| u64::from(id.number()));
    let cached = caches::cached_pages(memory, zone_number(node, kind));
    let listed = Origin::ALL.map(|origin| count_listed(memory, node, kind, origin));
    let zone = memory.zones.lock(node, kind);
    let (first, last) = zone.span().unzip();
    let counts = [
        ("present", zone.present_pages(), sums.present),
        ("managed", zone.managed_pages(), sums.managed),
        // No offline is under way, so nothing is isolated, by the counter and by the struct pages.
        ("isolated", zone.isolated_pages(), 0),
        ("isolated, by recount", sums.isolated, 0),
        ("cached", cached, sums.cached),
        ("first block", number(first), number(sums.first)),
        ("last block", number(last), number(sums.last)),
    ];
    let of_origins = Origin::ALL.map(|origin| {
        let (area, untouched, counted) = (zone.area(origin), zone.untouched(origin), sums.untouched[origin as usize]);
        let search = number(untouched.lowest);
        [
            ("free", area.pages(), sums.free[origin as usize]),
            ("listed free", listed[origin as usize], sums.free[origin as usize]),
            ("empty sections", area.empty_sections(), sums.empty[origin as usize]),
            ("untouched", untouched.sections, counted.sections),
            ("untouched frames", untouched.pages(), counted.pages),
            ("where the search for untouched blocks begins", search, search.min(number(counted.first))),
            ("opening or closing", untouched.changing, counted.changing),
            ("frames opening or closing", untouched.changing_pages, counted.changing_pages),
        ]
    });
    (counts, of_origins)
}

/// Free frames of all pageblocks on lists. A list that leads astray is not followed any further, so they fall short then.
fn count_listed<M: Machine>(memory: &Memory<M>, node: NodeId, kind: ZoneKind, origin: Origin) -> u64 {
    let mut walk = Walk::default();
    let mut pages = 0;
    loop {
        // Nobody changes anything meanwhile, so the lock need not be held all the time.
        let zone = memory.zones.lock(node, kind);
        for _ in 0..WALKED_AT_ONCE {
            let next = zone.area(origin).walk_on(&memory.machine, &mut walk);
            let Some(listed) = next.filter(|listed| is_listed_rightly(memory, listed, node, kind, origin)) else {
                return pages;
            };
            let (block, listing, _) = listed;
            let pairs = if listing == Listing::PairFirst { 2 } else { 1 };
            pages += block.descriptor(&memory.machine).free() * pairs;
        }
    }
}

/// The frames that a cache says that it has, and those that it has.
fn count_cache<M: Machine>(memory: &Memory<M>, cpu: usize, node: NodeId, kind: ZoneKind) -> (u64, u64) {
    let cache = memory.caches.of(cpu, zone_number(node, kind));
    let stacks = Origin::ALL.into_iter().flat_map(|origin| SizeClass::ALL.map(|class| (origin, class)));
    let counts = stacks.map(|(origin, class)| {
        let mut cache = cache.lock();
        let stack = cache.stack(origin, class);
        let cached = Head { state: PageState::Cached, order: class.order(), owner: Owner::None };
        let is_right =
            |head: &Pfn| is_here(memory, *head, node, kind, origin) && memory.machine.page(*head).head() == cached;
        let counted = stack.iter(&memory.machine).take_while(is_right).count() as u64;
        (stack.len() * class.order().pages(), counted * class.order().pages())
    });
    counts.fold((0, 0), |sums, (kept, counted)| (sums.0 + kept, sums.1 + counted))
}

fn is_here<M: Machine>(memory: &Memory<M>, frame: Pfn, node: NodeId, kind: ZoneKind, origin: Origin) -> bool {
    memory.sections.open(frame).is_some_and(|section| {
        let is_in_zone = section.node == node && section.state.zone_of(frame) == Some(kind);
        is_in_zone && section.origin == origin
    })
}

fn is_listed_rightly<M: Machine>(
    memory: &Memory<M>,
    listed: &Listed,
    node: NodeId,
    kind: ZoneKind,
    origin: Origin,
) -> bool {
    let (block, listing, part) = listed;
    if !is_here(memory, block.first(), node, kind, origin) {
        return false;
    }
    let descriptor = block.descriptor(&memory.machine);
    let is_right = match listing {
        Listing::Partial => *part == Some((descriptor.mobility(), descriptor.largest())) && descriptor.free() > 0,
        Listing::PairFirst => {
            let second = block.buddy().descriptor(&memory.machine);
            descriptor.is_whole() && second.listing() == Listing::PairSecond && second.is_whole()
        }
        _ => descriptor.is_whole(),
    };
    descriptor.listing() == *listing && is_right
}

fn recount_section<M: Machine>(
    memory: &Memory<M>,
    id: SectionId,
    section: Section,
    sums: &mut Sums,
    elsewhere: &mut Elsewhere,
    report: &mut dyn FnMut(Problem),
) {
    let found = recount_range(memory, id.pages(), section, sums, elsewhere, report);
    let empty = compare_block(memory, id, section, found, report);
    sums.empty[section.origin as usize] += u64::from(empty == PER_SECTION);
    check_pageblocks(memory, id.pages(), report);
}

/// The part of a section in two zones that is in this one.
fn recount_part<M: Machine>(
    memory: &Memory<M>,
    part: PfnRange,
    section: Section,
    sums: &mut Sums,
    elsewhere: &mut Elsewhere,
    report: &mut dyn FnMut(Problem),
) {
    let found = recount_range(memory, part, section, sums, elsewhere, report);
    sums.present += found.present;
    sums.managed += found.managed;
    check_pageblocks(memory, part, report);
    let id = part.start().section();
    // With the lower part, the block as a whole is looked at; what is wrong with a frame is told with its own part.
    if part.start() == id.pages().start() {
        let (mut whole, mut nowhere) = (Sums::default(), Elsewhere::default());
        let found = recount_range(memory, id.pages(), section, &mut whole, &mut nowhere, &mut |_| ());
        compare_block(memory, id, section, found, report);
    }
}

/// Looks at every frame of a range in an open section; how many there are of which kind.
fn recount_range<M: Machine>(
    memory: &Memory<M>,
    range: PfnRange,
    section: Section,
    sums: &mut Sums,
    elsewhere: &mut Elsewhere,
    report: &mut dyn FnMut(Problem),
) -> Found {
    let before = *sums;
    let taken = recount_frames(memory, range, section, sums, elsewhere, report);
    let origin = section.origin as usize;
    let free = sums.free[origin] + sums.isolated + sums.cached - before.free[origin] - before.isolated - before.cached;
    let managed = free + taken.allocated;
    Found { present: managed + taken.set_aside + taken.poisoned + taken.withheld, managed }
}

/// Compares what is kept of a block with what was counted; the count of its pageblocks that hold nothing.
fn compare_block<M: Machine>(
    memory: &Memory<M>,
    id: SectionId,
    section: Section,
    found: Found,
    report: &mut dyn FnMut(Problem),
) -> u64 {
    let mut compare = |of, kept, counted| {
        if kept != counted {
            report(Problem::Count { of, zone: None, block: Some(id), kept, counted });
        }
    };
    compare("present", u64::from(section.present), found.present);
    compare("managed", u64::from(section.managed), found.managed);
    let kept = if section.keeps_struct_pages() { KEPT_COUNT } else { 0 };
    let is_empty = |block: &Pageblock| block.descriptor(&memory.machine).is_empty();
    let empty = kept + Pageblock::of_section(id).filter(is_empty).count() as u64;
    let first = Pageblock::of(id.pages().start());
    compare("pageblocks that hold nothing", first.empty_count(&memory.machine), empty);
    empty
}

fn check_pageblocks<M: Machine>(memory: &Memory<M>, range: PfnRange, report: &mut dyn FnMut(Problem)) {
    let of_section = Pageblock::of_section(range.start().section());
    for block in of_section.filter(|block| range.contains(block.first())) {
        let descriptor = block.descriptor(&memory.machine);
        let counted = if descriptor.free() == 0 { 0 } else { block.count_free(&memory.machine) };
        let mut wrong = |what| report(Problem::Page { pfn: block.first(), what });
        if descriptor.free() != counted {
            wrong("does not have the free frames that its bits say");
        }
        if descriptor.listing() == Listing::Partial {
            let mut is_bound = true;
            block.free_groups(&memory.machine, |_, order| is_bound &= order <= descriptor.largest());
            if !is_bound {
                wrong("has a larger free group than its list is for");
            }
        }
    }
}

/// Looks at every frame of a range in an open section.
fn recount_frames<M: Machine>(
    memory: &Memory<M>,
    range: PfnRange,
    section: Section,
    sums: &mut Sums,
    elsewhere: &mut Elsewhere,
    report: &mut dyn FnMut(Problem),
) -> Taken {
    let mut taken = Taken::default();
    let id = range.start().section();
    let (head_frames, withheld) = (crate::section::word::head_range(id, section), memory.sections.withheld(id));
    let mut at = range.start();
    while at < range.end() {
        let (pfn, block) = (at, Pageblock::of(at));
        if withheld.contains(block.index()) {
            let descriptor = block.descriptor(&memory.machine);
            if (descriptor.managed(), descriptor.free(), descriptor.listing()) != (0, 0, Listing::Nowhere) {
                report(Problem::Page { pfn, what: "is withheld, but its zone has it" });
            }
            taken.withheld += FRAMES;
            at = at.add(FRAMES);
            continue;
        }
        let mut wrong = |what| report(Problem::Page { pfn, what });
        let head = memory.machine.page(pfn).head();
        let is_free = block.is_free(&memory.machine, pfn);
        let mut pages = 1;
        match head.state {
            PageState::Tail if is_free && block.descriptor(&memory.machine).listing() == Listing::Isolated => {
                sums.isolated += 1;
            }
            PageState::Tail if is_free => sums.free[section.origin as usize] += 1,
            _ if is_free => wrong("is free, but its struct page says otherwise"),
            PageState::Tail => wrong("belongs to no block"),
            PageState::Cached | PageState::Allocated => {
                pages = head.order.pages();
                if head.state == PageState::Cached {
                    sums.cached += pages;
                } else {
                    taken.allocated += pages;
                    let errors = poison::with_errors(memory, PfnRange::new(pfn, pages)).count() as u64;
                    if memory.machine.page(pfn).is_faulty() != (errors > 0) {
                        wrong("is the head of a block whose mark and frames do not agree whether it is faulty");
                    }
                    if errors > 0 && !section.faulty {
                        wrong("is the head of a faulty block, and the word of its section does not say so");
                    }
                    elsewhere.faulty += errors;
                    Taken::note_owner(head.owner, pages, elsewhere);
                }
                if pfn.align_down(head.order) != pfn {
                    wrong("is the head of a block that is not aligned");
                }
                let is_tail = |tail: Pfn| memory.machine.page(tail).head().state == PageState::Tail;
                if !PfnRange::new(pfn.add(1), pages - 1).iter().all(is_tail) {
                    wrong("is the head of a block that has another head in it");
                }
            }
            PageState::Reserved => {
                taken.set_aside += 1;
                Taken::note_owner(head.owner, 1, elsewhere);
            }
            PageState::Memmap => taken.set_aside += 1,
            PageState::Poisoned => {
                taken.poisoned += 1;
                if !section.poisoned {
                    wrong("is poisoned, and the word of its section does not say so");
                }
            }
            PageState::Absent => {}
        }
        if !section.has_reserved_frames() && head_frames.contains(pfn) != (head.state == PageState::Memmap) {
            wrong("is not what the head of its block says");
        }
        at = at.add(pages);
    }
    taken
}

fn check_devices<M: Machine>(memory: &Memory<M>, report: &mut dyn FnMut(Problem)) {
    let mut last = None;
    loop {
        // The lock is not held while the blocks are counted.
        let next = memory.groups.lock().devices().find(|(id, ..)| last < Some(*id));
        let Some((id, group, kept)) = next else { return };
        last = Some(id);
        let mut counted = Tally::default();
        for (run, section) in memory.sections.present_runs(&[group.window]) {
            if !section.is_tallied() {
                continue;
            }
            let pages = run.count() * u64::from(section.present);
            counted.add(pages);
            counted.shift(pages, None, section.state.zone());
        }
        for (of, kept, counted) in [
            ("offline memory of the device", kept.offline, counted.offline),
            ("Normal memory of the device", kept.normal, counted.normal),
            ("Movable memory of the device", kept.movable, counted.movable),
        ] {
            if kept != counted {
                report(Problem::Count { of, zone: None, block: Some(group.window.first()), kept, counted });
            }
        }
    }
}

fn check_blocks<M: Machine>(memory: &Memory<M>, report: &mut dyn FnMut(Problem)) {
    let mut last_unit = None;
    for (id, section) in memory.blocks() {
        let mut wrong = |what| report(Problem::Block { block: id, what });
        if matches!(section.state, BlockState::GoingOnline(_) | BlockState::Shrinking(_) | BlockState::GoingOffline(_))
        {
            wrong("is on its way, but no operation is under way");
        }
        let is_whole = !section.has_reserved_frames() && section.state != BlockState::Device;
        if is_whole && memory.sections.poisoned_frames(id, section) != count_poisoned(memory, id, section) {
            wrong("does not have as many poisoned frames as it lacks");
        }
        if section.state == BlockState::Device && !is_device_laid_out(memory, id, section) {
            wrong("is a device's, and its struct pages say otherwise");
        }
        if section.faulty && !(section.is_open() && poison::with_errors(memory, id.pages()).next().is_some()) {
            wrong("says that it has faulty frames, and has none");
        }
        if memory.sections.withheld(id).intersection(PageblockSet::touching_head(section.head_frames()))
            != PageblockSet::EMPTY
        {
            wrong("has struct pages in what is withheld");
        }
        match memory.group(section.group) {
            None => wrong("belongs to a group that does not exist"),
            Some(group) if section.ready != is_unit_ready(memory, id, group, &mut last_unit) => {
                wrong("is ready where its unit is not in use, or the reverse");
            }
            Some(group) if !group.window.contains(id) || group.node != section.node => {
                wrong("belongs to a group that does not hold it");
            }
            Some(_) => {}
        }
    }
}

/// Whether the unit of a section is accessible and mapped, as the states of its sections and the terms of its group say. `last` is what was
/// found of the unit before.
fn is_unit_ready<M: Machine>(
    memory: &Memory<M>,
    id: SectionId,
    group: Group,
    last: &mut Option<(SectionRange, bool)>,
) -> bool {
    if group.terms.ready == Ready::AtAdd {
        return true;
    }
    let unit = SectionRange::single(id).widened(group.terms.unit);
    let known = last.filter(|(range, _)| *range == unit).map(|(_, ready)| ready);
    let is_in_use = || memory.sections.iter_range(unit).any(|(_, section)| section.state != BlockState::Offline);
    let ready = known.unwrap_or_else(is_in_use);
    *last = Some((unit, ready));
    ready
}

/// Whether the struct pages of a section of device memory tell of its head, and of frames that its device has, or has given away.
fn is_device_laid_out<M: Machine>(memory: &Memory<M>, id: SectionId, section: Section) -> bool {
    let own = crate::section::word::head_range(id, section);
    id.pages().iter().all(|pfn| {
        let head = memory.machine.page(pfn).head();
        match head.state {
            PageState::Memmap => own.contains(pfn),
            PageState::Tail => !own.contains(pfn),
            PageState::Allocated => !own.contains(pfn) && head.owner == Owner::Device,
            _ => false,
        }
    })
}
