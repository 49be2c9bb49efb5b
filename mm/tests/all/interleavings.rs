//! The verbs under a scheduler that tries many orders in which threads can run: nobody waits for ever, and nobody changes
//! what another one changes.

use lock_api::RawMutex;
use mm::addr::{NodeId, Pfn, PfnRange, SectionId, SectionRange};
use mm::frame::memmap::Memmap;
use mm::frame::page::PageInfo;
use mm::hotplug::AddRequest;
use mm::machine::Machine;
use mm::machine::mapper::{DirectMap, MapRangeError, Mapper};
use mm::machine::mover::Mover;
use mm::machine::tasks::{Clock, Pace, Stop};
use mm::machine::trial::{BadMemory, Distrust, Trial};
use mm::node::Distances;
use mm::record::policy::OnlineAs;
use mm::section::group::{GroupKind, GroupName};
use mm::section::kind::ZoneKind;
use mm::zone::ZoneCell;
use mm::zone::cache::CacheCell;
use mm::{Memory, Storage};
use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::sync::{Arc, Condvar, Mutex};
use shuttle::thread;
use std::sync::atomic::AtomicU64;

/// A lock that lets others run while somebody waits for it.
struct RawSpin(AtomicBool);

// SAFETY: Only one caller at a time turns the flag from false to true, and only the holder turns it back.
unsafe impl RawMutex for RawSpin {
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        while !self.try_lock() {
            thread::yield_now();
        }
    }

    fn try_lock(&self) -> bool {
        self.0.compare_exchange(false, true, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// A machine whose memory nobody takes, so there are no struct pages.
struct Ranges {
    turns: Mutex<()>,
    changed: Condvar,
    /// What is being changed at the moment.
    busy: Mutex<Vec<SectionRange>>,
}

impl Ranges {
    fn new() -> Self {
        Self { turns: Mutex::new(()), changed: Condvar::new(), busy: Mutex::new(Vec::new()) }
    }

    /// Lets others run in the midst of a change of `range`.
    fn change(&self, range: SectionRange) {
        let mut busy = self.busy.lock().unwrap();
        assert!(!busy.iter().any(|other| other.overlaps(range)), "two change the same");
        busy.push(range);
        drop(busy);
        thread::yield_now();
        self.busy.lock().unwrap().retain(|other| *other != range);
    }
}

impl Memmap for Ranges {
    fn page(&self, pfn: Pfn) -> &PageInfo {
        unreachable!("nobody takes {pfn}")
    }
}

impl Trial for Ranges {
    fn try_frames(&self, _frames: PfnRange) -> Result<(), BadMemory> {
        Ok(())
    }

    fn note_withheld(&self, section: SectionId, _why: Distrust) {
        unreachable!("nobody uses {section}")
    }
}

impl Mapper for Ranges {
    const PART: u64 = 16;

    fn own_tables(&self, _range: SectionRange) -> u64 {
        0
    }

    fn map_range(&self, range: SectionRange, _own: PfnRange, _direct_map: DirectMap) -> Result<(), MapRangeError> {
        self.change(range);
        Ok(())
    }

    fn unmap_range(&self, range: SectionRange) {
        self.change(range);
    }

    fn map_memmap(&self, section: SectionId, _backing: PfnRange) -> Result<(), BadMemory> {
        unreachable!("nobody uses {section}")
    }

    fn unmap_memmap(&self, section: SectionId) {
        unreachable!("nobody used {section}")
    }

    fn map_memmap_page(&self, section: SectionId, _index: u64, _frame: Pfn) {
        unreachable!("{section} has its struct pages at its head")
    }

    fn unmap_memmap_page(&self, section: SectionId, _index: u64) -> Pfn {
        unreachable!("{section} has its struct pages at its head")
    }

    fn settle_memmaps(&self) {}

    fn table_frames(&self) -> u64 {
        0
    }
}

impl Mover for Ranges {}

impl Clock for Ranges {
    fn now_ns(&self) -> u64 {
        0
    }
}

impl Machine for Ranges {
    type Spin = RawSpin;
    type Sleep = RawSpin;
    type Reading<'a> = ();

    fn reading(&self) -> Self::Reading<'_> {}

    fn wait_for_readers(&self) {}

    fn cpu(&self) -> usize {
        0
    }

    fn wake_keeper(&self) {}

    /// Never returns early: a wake-up that is lost is a thread that waits for ever, which the scheduler reports.
    fn wait(&self, is_over: &mut dyn FnMut() -> bool) {
        let mut turns = self.turns.lock().unwrap();
        while !is_over() {
            turns = self.changed.wait(turns).unwrap();
        }
    }

    fn wake_waiters(&self) {
        drop(self.turns.lock().unwrap());
        self.changed.notify_all();
    }
}

/// Says what it changes whenever an operation pauses.
struct Changing<'a>(&'a Ranges, SectionRange);

impl Pace for Changing<'_> {
    fn pause(&mut self) -> Result<(), Stop> {
        self.0.change(self.1);
        Ok(())
    }
}

fn memory() -> Arc<Memory<Ranges>> {
    let zones: Vec<_> = ZoneKind::ALL.iter().map(|_| ZoneCell::new()).collect();
    let storage = Storage {
        sections: Vec::leak((0..16).map(|_| AtomicU64::new(0)).collect()),
        withheld: Vec::leak((0..16).map(|_| AtomicU64::new(0)).collect()),
        caches: Vec::leak(zones.iter().map(|_| CacheCell::new()).collect()),
        zones: Vec::leak(zones),
        distances: Distances::UNKNOWN,
    };
    Arc::new(Memory::new(Ranges::new(), storage))
}

fn blocks(first: u64, count: u64) -> SectionRange {
    SectionRange::new(first, count).expect("in reach")
}

/// Adds a DIMM, brings it online and takes it away again.
fn come_and_go(memory: &Memory<Ranges>, number: u16, range: SectionRange) {
    let name = GroupName { kind: GroupKind::Dimm, number };
    let pace = &mut Changing(memory.machine(), range);
    // Somebody else may have something there at the moment.
    if memory.add(&AddRequest { range, node: NodeId::ZERO, name }, pace).is_ok() {
        memory.online(&[range], OnlineAs::Zone(ZoneKind::Movable), pace).expect("nobody else changes it");
        memory.unplug(&[name], &[range], pace).expect("nobody uses it");
    }
}

fn assert_valid(memory: &Memory<Ranges>) {
    let totals = memory.validate(|problem| panic!("{problem}"));
    assert_eq!(totals.problems, 0);
}

/// Tries many orders in which the threads of `test` can run.
fn check(test: impl Fn() + Send + Sync + 'static) {
    let mut config = shuttle::Config::new();
    config.stack_size = 4 << 20;
    let scheduler = shuttle::scheduler::RandomScheduler::new_from_seed(1, 300);
    shuttle::Runner::new(scheduler, config).run(test);
}

#[test]
fn operations_on_any_ranges_end_and_never_change_the_same() {
    check(|| {
        let memory = memory();
        let ranges = [blocks(2, 2), blocks(3, 4), blocks(6, 1), blocks(8, 2)];
        let threads: Vec<_> = (0..)
            .zip(ranges)
            .map(|(number, range)| {
                let memory = Arc::clone(&memory);
                thread::spawn(move || come_and_go(&memory, number, range))
            })
            .collect();
        // It waits for all of them.
        assert_valid(&memory);
        threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
        assert_valid(&memory);
        assert_eq!(memory.blocks().count(), 0);
    });
}

#[test]
fn blocks_of_one_group_leave_their_zone_from_both_ends_at_once() {
    check(|| {
        let memory = memory();
        let name = GroupName { kind: GroupKind::Dimm, number: 0 };
        let all = blocks(2, 6);
        let pace = &mut Changing(memory.machine(), all);
        memory.add(&AddRequest { range: all, node: NodeId::ZERO, name }, pace).expect("vacant");
        memory.online(&[all], OnlineAs::Zone(ZoneKind::Normal), pace).expect("offline");
        let threads: Vec<_> = [blocks(2, 1), blocks(3, 2), blocks(6, 2)]
            .map(|range| {
                let memory = Arc::clone(&memory);
                thread::spawn(move || {
                    let pace = &mut Changing(memory.machine(), range);
                    memory.offline(&[range], pace).expect("nobody uses it");
                })
            })
            .into();
        threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
        // Only block 5 is left: the recount knows where the zone begins and ends.
        assert_valid(&memory);
    });
}
