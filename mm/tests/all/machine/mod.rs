//! A machine made of tables: memory that nobody has, struct pages that fault when they are not mapped.

pub(crate) mod dimms;
pub(crate) mod holders;
pub(crate) mod holding;
pub(crate) mod host;
pub(crate) mod listening;
pub(crate) mod pausing;
pub(crate) mod poisoning;
pub(crate) mod taking;
pub(crate) mod watched;

use holders::Holders;
use host::Host;
use mm::addr::{NodeId, PAGES_PER_SECTION, Pfn, PfnRange, SectionId, SectionRange};
use mm::frame::memmap::Memmap;
use mm::frame::page::{MEMMAP_PAGES, Owner, PageInfo};
use mm::hotplug::{BootSection, BootUse, EmptyBootSections};
use mm::machine::Machine;
use mm::machine::mapper::{DirectMap, MapError, MapRangeError, Mapper};
use mm::machine::mover::{Move, Mover, Stay};
use mm::machine::tasks::Clock;
use mm::machine::trial::{BadMemory, Distrust, Trial};
use mm::node::Distances;
use mm::observe::report::ZoneReport;
use mm::section::group::{GroupKind, GroupName};
use mm::section::kind::{MemmapPlace, ZoneKind};
use mm::section::state::Openness;
use mm::section::word::Section;
use mm::zone::ZoneCell;
use mm::zone::cache::CacheCell;
use mm::{Memory, Storage};
use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, Weak};
use std::time::Duration;
use watched::{Watched, WatchedSleep};

/// How many sections the fake machine can have.
pub(crate) const SECTIONS: u64 = 128;
/// How many nodes it can have.
pub(crate) const NODES: usize = 3;
/// How many CPUs it has.
pub(crate) const CPUS: usize = 4;

thread_local! {
    /// Every thread counts as a task that stays on one CPU.
    pub(crate) static CPU: Cell<usize> = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % CPUS)
    };
}

pub(crate) struct Fake {
    memmaps: Vec<OnceLock<Box<[PageInfo]>>>,
    mapped: Vec<[AtomicBool; MEMMAP_PAGES as usize]>,
    backing: Mutex<HashMap<(SectionId, u64), Pfn>>,
    /// Sections whose struct pages were unmapped and may still be reached.
    stale: Mutex<HashSet<SectionId>>,
    ranges: Mutex<HashMap<SectionRange, PfnRange>>,
    /// Those that the direct map does not show.
    hidden: Mutex<HashSet<SectionRange>>,
    pub(crate) ticks: AtomicU64,
    waiters: (Mutex<()>, Condvar),
    readers: parking_lot::RwLock<()>,
    /// How often somebody waited, or waits, for those who look at struct pages.
    pub(crate) waits_for_readers: AtomicU64,
    /// How often somebody waited for something to be over.
    pub(crate) waits: AtomicU64,
    pub(crate) keeper_calls: AtomicU64,
    /// How many more ranges can be mapped before there are no tables any more.
    pub(crate) mappings_left: AtomicU64,
    /// Frames that do not keep what is written to them.
    pub(crate) bad: Mutex<BTreeSet<Pfn>>,
    /// Frames that were tried.
    pub(crate) tried: Mutex<BTreeSet<Pfn>>,
    /// What was said to be withheld, and why.
    pub(crate) withheld: Mutex<Vec<(SectionId, Distrust)>>,
    /// Those who hold what can move.
    pub(crate) holders: Holders,
    /// Who backs standby memory, if there is any.
    pub(crate) host: OnceLock<&'static Host>,
    /// The memory that this is the machine of, as far as it must be called back.
    pub(crate) memory: OnceLock<Weak<Memory<Fake>>>,
}

impl Fake {
    fn new() -> Self {
        Self {
            memmaps: (0..SECTIONS).map(|_| OnceLock::new()).collect(),
            mapped: (0..SECTIONS).map(|_| [const { AtomicBool::new(false) }; MEMMAP_PAGES as usize]).collect(),
            backing: Mutex::default(),
            stale: Mutex::default(),
            ranges: Mutex::default(),
            hidden: Mutex::default(),
            ticks: AtomicU64::new(0),
            waiters: Default::default(),
            readers: parking_lot::RwLock::new(()),
            waits_for_readers: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            keeper_calls: AtomicU64::new(0),
            mappings_left: AtomicU64::new(u64::MAX),
            bad: Mutex::default(),
            tried: Mutex::default(),
            withheld: Mutex::default(),
            holders: Holders::default(),
            host: OnceLock::new(),
            memory: OnceLock::new(),
        }
    }

    /// How many memmap pages are mapped.
    pub(crate) fn mapped_memmap_pages(&self) -> usize {
        self.backing.lock().unwrap().len()
    }

    /// The frames that struct pages lie in, each with the section that it is for.
    pub(crate) fn memmap_frames(&self) -> Vec<(SectionId, Pfn)> {
        self.backing.lock().unwrap().iter().map(|((section, _), frame)| (*section, *frame)).collect()
    }

    /// Somebody reads or writes a byte of `section`.
    pub(crate) fn touch(&self, section: SectionId) {
        if let Some(host) = self.host.get() {
            host.touch(section);
        }
    }

    /// Whether the direct map shows a section of `range`.
    pub(crate) fn is_mapped(&self, range: SectionRange) -> bool {
        self.ranges.lock().unwrap().keys().any(|mapped| mapped.overlaps(range))
    }

    fn try_frame(&self, frame: Pfn) -> Result<(), BadMemory> {
        self.touch(frame.section());
        let is_hidden = self.hidden.lock().unwrap().iter().any(|range| range.contains(frame.section()));
        assert!(!is_hidden, "{frame} is touched, and no CPU may");
        self.tried.lock().unwrap().insert(frame);
        if self.bad.lock().unwrap().contains(&frame) { Err(BadMemory(frame)) } else { Ok(()) }
    }

    /// The page table for struct pages of `section`, if it lies in the range that the section came with: as in the kernel,
    /// one serves two sections.
    fn own_table(&self, section: SectionId) -> Option<Pfn> {
        let ranges = self.ranges.lock().unwrap();
        let (range, own) = ranges.iter().find(|(range, _)| range.contains(section))?;
        let index = u64::from(section.number() - range.first().number()) / 2;
        (index < own.len()).then(|| own.start().add(index))
    }

    /// How many ranges are in the direct map.
    pub(crate) fn mapped_ranges(&self) -> usize {
        self.ranges.lock().unwrap().len()
    }
}

impl Memmap for Fake {
    fn page(&self, pfn: Pfn) -> &PageInfo {
        watched::note_look();
        let (section, index) = (pfn.section().index(), pfn.index_in_section() as usize);
        let memmap_page = index / (PAGES_PER_SECTION / MEMMAP_PAGES) as usize;
        assert!(self.mapped[section][memmap_page].load(Ordering::Relaxed), "{pfn} has no memmap");
        if self.host.get().is_some() {
            let frame = self.backing.lock().unwrap().get(&(pfn.section(), memmap_page as u64)).copied();
            self.touch(frame.expect("it is mapped").section());
        }
        let fresh = || (0..PAGES_PER_SECTION).map(|_| PageInfo::default()).collect();
        &self.memmaps[section].get_or_init(fresh)[index]
    }
}

impl Trial for Fake {
    fn try_frames(&self, frames: PfnRange) -> Result<(), BadMemory> {
        watched::assert_none_held();
        let is_shown = |frame: Pfn| self.ranges.lock().unwrap().keys().any(|range| range.contains(frame.section()));
        assert!(frames.iter().all(is_shown), "the direct map shows what is tried");
        assert!(!self.backing.lock().unwrap().values().any(|used| frames.contains(*used)), "nobody uses what is tried");
        let is_table = |frame: Pfn| self.ranges.lock().unwrap().values().any(|own| own.contains(frame));
        assert!(!frames.iter().any(is_table), "no table is tried that may be in use");
        frames.iter().try_for_each(|frame| self.try_frame(frame))
    }

    fn note_withheld(&self, section: SectionId, why: Distrust) {
        watched::assert_none_held();
        self.withheld.lock().unwrap().push((section, why));
    }
}

impl Mapper for Fake {
    const PART: u64 = 16;

    fn own_tables(&self, range: SectionRange) -> u64 {
        range.count() / 2
    }

    /// Of the tables that lie in the range, the last one is written at once.
    fn map_range(&self, range: SectionRange, own: PfnRange, direct_map: DirectMap) -> Result<(), MapRangeError> {
        let take_one = |left: u64| left.checked_sub(1);
        self.mappings_left.try_update(Ordering::Relaxed, Ordering::Relaxed, take_one).map_err(|_| MapError)?;
        assert!(own.is_empty() || own.len() == self.own_tables(range));
        if !own.is_empty() {
            self.try_frame(own.start().add(own.len() - 1))?;
        }
        assert!(!self.is_mapped(range), "mapped twice");
        self.ranges.lock().unwrap().insert(range, own);
        if direct_map == DirectMap::Absent {
            self.hidden.lock().unwrap().insert(range);
        }
        Ok(())
    }

    fn unmap_range(&self, range: SectionRange) {
        self.ranges.lock().unwrap().remove(&range).expect("only a mapped range is unmapped");
        self.hidden.lock().unwrap().remove(&range);
        let still_backed = self.backing.lock().unwrap().keys().any(|(section, _)| range.contains(*section));
        assert!(!still_backed, "the memmap goes before its tables");
        let is_stale = self.stale.lock().unwrap().iter().any(|section| range.contains(*section));
        assert!(!is_stale, "nobody reaches the memmap when its tables go");
    }

    fn map_memmap(&self, section: SectionId, backing: PfnRange) -> Result<(), BadMemory> {
        assert_eq!(backing.len(), MEMMAP_PAGES, "a memmap is mapped as a whole");
        self.own_table(section).map_or(Ok(()), |table| self.try_frame(table))?;
        for (index, frame) in backing.iter().enumerate() {
            self.map_memmap_page(section, index as u64, frame);
        }
        Ok(())
    }

    fn unmap_memmap(&self, section: SectionId) {
        for index in 0..MEMMAP_PAGES {
            self.unmap_memmap_page(section, index);
        }
    }

    fn map_memmap_page(&self, section: SectionId, index: u64, frame: Pfn) {
        let prepared = self.ranges.lock().unwrap().keys().any(|range| range.contains(section));
        assert!(prepared, "the tables of the memmap are in place");
        assert!(!self.stale.lock().unwrap().contains(&section), "nobody reaches what was unmapped before");
        assert_eq!(self.backing.lock().unwrap().insert((section, index), frame), None, "backed twice");
        self.mapped[section.index()][index as usize].store(true, Ordering::Relaxed);
    }

    fn settle_memmaps(&self) {
        self.stale.lock().unwrap().clear();
    }

    fn unmap_memmap_page(&self, section: SectionId, index: u64) -> Pfn {
        self.stale.lock().unwrap().insert(section);
        self.mapped[section.index()][index as usize].store(false, Ordering::Relaxed);
        self.backing.lock().unwrap().remove(&(section, index)).expect("only a backed page is unmapped")
    }

    fn table_frames(&self) -> u64 {
        self.ranges.lock().unwrap().values().map(|own| own.len()).sum()
    }
}

impl Mover for Fake {
    fn can_move(&self, owner: Owner) -> bool {
        matches!(owner, Owner::Anonymous | Owner::UserTable)
    }

    fn migrate(&self, moves: &mut [Move]) {
        watched::assert_none_held();
        self.holders.migrate(self, moves);
    }

    fn split(&self, head: Pfn) -> Result<(), Stay> {
        watched::assert_none_held();
        let memory = self.memory.get().and_then(Weak::upgrade);
        memory.map_or(Err(Stay::InFlight), |memory| holders::split(&memory, head))
    }
}

impl Clock for Fake {
    fn now_ns(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed)
    }
}

impl Machine for Fake {
    type Spin = Watched;
    type Sleep = WatchedSleep;
    type Reading<'a> = parking_lot::RwLockReadGuard<'a, ()>;

    fn reading(&self) -> Self::Reading<'_> {
        self.readers.read_recursive()
    }

    fn wait_for_readers(&self) {
        watched::assert_none_held();
        self.waits_for_readers.fetch_add(1, Ordering::Relaxed);
        drop(self.readers.write());
    }

    fn cpu(&self) -> usize {
        CPU.get()
    }

    fn wake_keeper(&self) {
        self.keeper_calls.fetch_add(1, Ordering::Relaxed);
    }

    fn wait(&self, is_over: &mut dyn FnMut() -> bool) {
        watched::assert_none_held();
        self.waits.fetch_add(1, Ordering::Relaxed);
        let mut guard = self.waiters.0.lock().unwrap();
        if !is_over() {
            guard = self.waiters.1.wait_timeout(guard, Duration::from_millis(10)).unwrap().0;
        }
        drop(guard);
    }

    fn wake_waiters(&self) {
        watched::assert_none_held();
        drop(self.waiters.0.lock().unwrap());
        self.waiters.1.notify_all();
    }
}

pub(crate) fn section(n: u64) -> SectionId {
    SectionId::new(n).expect("in reach")
}

pub(crate) fn blocks(first: u64, last: u64) -> SectionRange {
    SectionRange::new(first, last - first + 1).expect("in reach")
}

pub(crate) fn node(n: u32) -> NodeId {
    NodeId::new(n).expect("in reach")
}

pub(crate) fn dimm(number: u16) -> GroupName {
    GroupName { kind: GroupKind::Dimm, number }
}

/// A machine with two boot sections on node 0.
pub(crate) fn booted() -> Memory<Fake> {
    booted_on([0, 0])
}

/// A machine with two boot sections, each on its node: in the first, the kernel and firmware take some and a hole is left.
pub(crate) fn booted_on(nodes: [u32; 2]) -> Memory<Fake> {
    booted_with(nodes, None)
}

/// The same with a part that is Movable.
pub(crate) fn booted_with(nodes: [u32; 2], movable_from: Option<Pfn>) -> Memory<Fake> {
    let words = || -> Vec<AtomicU64> { (0..SECTIONS).map(|_| AtomicU64::new(0)).collect() };
    let zones: Vec<_> = (0..NODES * 2).map(|_| ZoneCell::new()).collect();
    let storage = Storage {
        sections: Vec::leak(words()),
        withheld: Vec::leak(words()),
        caches: Vec::leak((0..CPUS * zones.len()).map(|_| CacheCell::new()).collect()),
        zones: Vec::leak(zones),
        distances: Distances::new(3, &[10, 40, 20, 40, 10, 30, 20, 30, 10]).expect("square"),
    };
    let memory = Memory::new(Fake::new(), storage);
    for (id, on) in [section(0), section(1)].into_iter().zip(nodes) {
        let range = SectionRange::single(id);
        memory.machine().map_range(range, PfnRange::EMPTY, DirectMap::Present).expect("tables suffice");
        let at = |from: u64, len: u64| PfnRange::new(id.pages().start().add(from), len);
        let memmap = at(4096, MEMMAP_PAGES);
        memory.machine().map_memmap(id, memmap).expect("it is good memory");
        let first = if id == section(0) { BootUse::Reserved(Owner::KernelImage) } else { BootUse::Free };
        let uses = [
            (at(0, 160), BootUse::Free),
            (at(256, 1000), first),
            (at(1256, 2840), BootUse::Free),
            (memmap, BootUse::Memmap),
            (at(4096 + MEMMAP_PAGES, 20000), BootUse::Free),
        ];
        memory.add_boot_section(&BootSection { id, node: node(on), movable_from, uses: &uses });
    }
    memory
}

/// Boot sections in which nothing is in use, beside those of [`booted`].
pub(crate) fn boot_empty(memory: &Memory<Fake>, range: SectionRange, on: u32, zone: ZoneKind) {
    let tables = memory.machine().own_tables(range);
    let own = PfnRange::new(range.first().pages().start(), tables);
    memory.machine().map_range(range, own, DirectMap::Present).expect("tables suffice");
    memory.add_empty_boot_sections(&EmptyBootSections { range, node: node(on), zone, tables });
}

/// Everything that a failed operation must leave as it was: all but which free frames lie in caches, which sections are open,
/// and which have frames with an error that are held.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Snapshot {
    sections: Vec<(SectionId, Section)>,
    zones: Vec<ZoneReport>,
    tables: u64,
    ranges: usize,
    closed_memmap_pages: usize,
}

impl Snapshot {
    pub(crate) fn of(memory: &Memory<Fake>) -> Self {
        memory.drain_caches();
        let mut zones = Vec::new();
        memory.for_each_zone(|zone| zones.push(ZoneReport { untouched: 0, untouched_sections: 0, ..*zone }));
        let has_own = |section: &Section| section.has_struct_pages() && section.memmap == MemmapPlace::Head;
        let with_struct_pages = memory.blocks().filter(|(_, section)| has_own(section)).count();
        let forget_history = |(id, section): (SectionId, Section)| {
            let last_zone = section.state.zone().unwrap_or(ZoneKind::Normal);
            (id, Section { last_zone, openness: Openness::Untouched, faulty: false, ..section })
        };
        Self {
            sections: memory.blocks().map(forget_history).collect(),
            zones,
            tables: memory.machine().table_frames(),
            ranges: memory.machine().mapped_ranges(),
            closed_memmap_pages: memory.machine().mapped_memmap_pages() - with_struct_pages * MEMMAP_PAGES as usize,
        }
    }
}

#[track_caller]
pub(crate) fn assert_valid(memory: &Memory<Fake>) {
    let mut problems = Vec::new();
    let totals = memory.validate(|problem| problems.push(problem.to_string()));
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(totals.problems, 0);
    assert!(totals.frames_checked > 0);
}
