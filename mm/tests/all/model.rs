//! Random sequences of everything against a small model: what is known of every block, and who holds which frames.
//!
//! A step that the model lets succeed has to, and whoever refuses one has to name a reason that is true in the model.

mod layout;
mod refusal;
mod steps;

use crate::machine::holders::Holder;
use crate::machine::holding::{all_places, booted_with_holders, hold, hold_in, movable, place_of, release};
use crate::machine::taking::request;
use crate::machine::{Fake, SECTIONS, Snapshot, assert_valid, blocks, boot_empty, booted, dimm, node, section};
use layout::{Layout, Source};
use mm::Memory;
use mm::addr::{Order, PAGE_SIZE, PAGES_PER_SECTION, Pfn, SectionId, SectionRange};
use mm::alloc::request::Request;
use mm::errno::Errno;
use mm::frame::memmap::Memmap;
use mm::frame::mobility::Mobility;
use mm::frame::page::{MEMMAP_PAGES, Owner};
use mm::hotplug::{AddRequest, UnplugError};
use mm::inject::Point;
use mm::limits::RESERVE_PAGES;
use mm::machine::mapper::Mapper;
use mm::machine::tasks::Unhurried;
use mm::observe::report::FrameState;
use mm::record::policy::OnlineAs;
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use refusal::{Fixed, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Mutex};
use steps::{Step, Steps};

const FIRST: u64 = 30;
const LAST: u64 = 47;
const DIMMS: u16 = 4;

/// Sequences that are tried, unless `PROPTEST_CASES` says how many.
const CASES: u32 = 96;

/// What must have succeeded in some sequence: what is always refused is not tested.
const KINDS: [&str; 26] = [
    "add with struct pages of its own",
    "add with struct pages in the system",
    "online in Normal",
    "online in Movable",
    "relabel to Normal",
    "relabel to Movable",
    "offline of what is empty",
    "offline of what moves",
    "online of boot memory",
    "offline of boot memory",
    "remove",
    "unplug",
    "allocate unmovable",
    "allocate movable",
    "free",
    "hold a frame",
    "hold a large page",
    "release",
    "pin",
    "unpin",
    "run of unmovable",
    "run of movable",
    "keep",
    "drain",
    "arm",
    "disarm",
];

/// How often each kind of step has succeeded.
static SUCCEEDED: Mutex<BTreeMap<&str, u64>> = Mutex::new(BTreeMap::new());

/// What the allocator has of boot blocks before anybody takes anything.
static BOOT: LazyLock<[Vec<bool>; 2]> = LazyLock::new(|| {
    let memory = booted();
    let is_free = |pfn| memory.frame_report(pfn).state == FrameState::Free;
    [0, 1].map(|block| section(block).pages().iter().map(is_free).collect())
});

/// Blocks that came together.
#[derive(Clone, Copy, Debug)]
struct Dimm {
    first: u64,
    count: u64,
    node: u32,
    /// Whether its struct pages lie in itself.
    on_memory: bool,
}

impl Dimm {
    fn blocks(self) -> std::ops::Range<u64> {
        self.first..self.first + self.count
    }
}

/// Boot memory in which nothing is in use: below all that is added.
const EMPTY_BOOT: Dimm = Dimm { first: FIRST, count: 2, node: 0, on_memory: true };

/// The machine before anything is done.
fn add_empty_boot(memory: &Memory<Fake>) {
    boot_empty(memory, World::range(EMPTY_BOOT.first, EMPTY_BOOT.count), EMPTY_BOOT.node, ZoneKind::Normal);
}

#[derive(Clone, Debug)]
struct Model {
    dimms: BTreeMap<u16, Dimm>,
    online: BTreeMap<u64, Option<ZoneKind>>,
}

impl Model {
    fn new() -> Self {
        let online = EMPTY_BOOT.blocks().map(|block| (block, Some(ZoneKind::Normal))).collect();
        Self { dimms: BTreeMap::new(), online }
    }

    fn state(&self, id: SectionId) -> Option<Option<ZoneKind>> {
        self.online.get(&u64::from(id.number())).copied()
    }

    fn is(&self, blocks: std::ops::Range<u64>, wanted: impl Fn(Option<Option<ZoneKind>>) -> bool) -> bool {
        blocks.into_iter().all(|block| wanted(self.online.get(&block).copied()))
    }

    /// Whether these blocks are all in the other zone.
    fn is_relabel(&self, first: u64, count: u64, zone: ZoneKind) -> bool {
        self.is(first..first + count, |state| state == Some(Some(zone.other())))
    }

    /// For a DIMM that is there, unless there is none, and with blocks where these are meant.
    fn resolve(&self, step: Step) -> Step {
        let nth = |dimm: u16| {
            let nth = usize::from(dimm) % self.dimms.len().max(1);
            self.dimms.iter().nth(nth).filter(|_| dimm < DIMMS).map(|(number, dimm)| (*number, *dimm))
        };
        let blocks = |dimm: u16| nth(dimm).map_or((FIRST, 1), |(_, Dimm { first, count, .. })| (first, count));
        let number = |dimm: u16| nth(dimm).map_or(dimm, |(number, _)| number);
        match step {
            Step::OnlineAll { dimm, zone } => Step::Online { first: blocks(dimm).0, count: blocks(dimm).1, zone },
            Step::OfflineAll { dimm } => Step::Offline { first: blocks(dimm).0, count: blocks(dimm).1 },
            Step::Remove { dimm } => Step::Remove { dimm: number(dimm) },
            Step::Unplug { dimm } => Step::Unplug { dimm: number(dimm) },
            _ => step,
        }
    }

    fn may(&self, step: &Step) -> bool {
        match *step {
            Step::Add { dimm, first, count, .. } => {
                !self.dimms.contains_key(&dimm) && self.is(first..first + count, |state| state.is_none())
            }
            Step::Online { first, count, zone } => {
                self.is(first..first + count, |state| state == Some(None)) || self.is_relabel(first, count, zone)
            }
            Step::Offline { first, count } => self.is(first..first + count, |state| matches!(state, Some(Some(_)))),
            Step::Remove { dimm } => {
                self.dimms.get(&dimm).is_some_and(|dimm| self.is(dimm.blocks(), |state| state == Some(None)))
            }
            Step::Unplug { dimm } => self.dimms.contains_key(&dimm),
            _ => true,
        }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Add { dimm, first, count, node, on_memory } => {
                self.dimms.insert(dimm, Dimm { first, count, node, on_memory });
                self.online.extend((first..first + count).map(|block| (block, None)));
            }
            Step::Online { first, count, zone } => {
                self.online.extend((first..first + count).map(|block| (block, Some(zone))));
            }
            Step::Offline { first, count } => {
                self.online.extend((first..first + count).map(|block| (block, None)));
            }
            Step::Remove { dimm } | Step::Unplug { dimm } => {
                for block in self.dimms.remove(&dimm).expect("may be removed").blocks() {
                    self.online.remove(&block);
                }
            }
            _ => {}
        }
    }
}

fn block_of(pfn: Pfn) -> u64 {
    u64::from(pfn.section().number())
}

/// What the model says of a step before it is tried.
struct Prospect {
    /// Whether its blocks are in the state for it.
    is_allowed: bool,
    /// What is in the way.
    fixed: Option<Fixed>,
    /// How many frames are missing, at least and at most.
    lack: RangeInclusive<u64>,
    armed: Vec<Point>,
    /// How many blocks have been withheld, and how many frames have moved.
    withheld: usize,
    moved: u64,
}

struct World {
    memory: Arc<Memory<Fake>>,
    model: Model,
    held: Vec<(Pfn, Order)>,
    /// Frames of those whose memory can move.
    movable: u64,
    pinned: Vec<(Holder, Pfn)>,
    /// How often opening a section was made to fail.
    armed_open: usize,
}

impl World {
    fn new() -> Self {
        let memory = booted_with_holders();
        hold_in(&memory, Order::PAGE, blocks(0, 1));
        add_empty_boot(&memory);
        Self { memory, model: Model::new(), held: Vec::new(), movable: 1, pinned: Vec::new(), armed_open: 0 }
    }

    /// Tries a step, which succeeds or is refused as the model would have it; of what kind it is
    /// if it succeeded.
    fn attempt(&mut self, step: &Step) -> Option<&'static str> {
        let before = Snapshot::of(&self.memory);
        let prospect = self.prospect(step);
        match self.run(step) {
            Ok(()) => {
                assert!(prospect.is_allowed, "{step:?} worked on blocks in the wrong state");
                assert!(prospect.fixed.is_none(), "{step:?} worked in spite of {:?}", prospect.fixed);
                assert_eq!(*prospect.lack.start(), 0, "{step:?} worked without room");
                let kind = self.kind(step, self.moved() > prospect.moved);
                self.model.apply(step);
                Some(kind)
            }
            Err(refusal) => {
                assert!(self.is_true(refusal, step, &prospect), "{step:?} was refused for no reason: {refusal:?}");
                // A block that is withheld stays so, and what moved before it was missed stays where it is.
                let is_withheld = self.withheld() > prospect.withheld;
                assert!(is_withheld || Snapshot::of(&self.memory) == before, "{step:?} left a trace");
                None
            }
        }
    }

    fn prospect(&self, step: &Step) -> Prospect {
        let is_allowed = self.model.may(step);
        let lack_if = |is_short: bool| u64::from(is_short)..=u64::from(is_short);
        let (fixed, lack) = match *step {
            _ if !is_allowed => (None, 0..=0),
            Step::Add { first, count, on_memory: false, .. } => {
                let wanted = count * MEMMAP_PAGES + self.memory.machine().own_tables(Self::range(first, count));
                let lack = wanted.saturating_sub(self.layout().bulk(None));
                (None, lack..=lack)
            }
            Step::Online { first, count, zone: ZoneKind::Movable } => {
                (self.first_fixed(Self::range(first, count)), 0..=0)
            }
            Step::Offline { first, count } => self.prospect_of_emptying(Self::range(first, count)),
            Step::Unplug { dimm } => {
                let Dimm { first, count, .. } = self.model.dimms[&dimm];
                self.prospect_of_emptying(Self::range(first, count))
            }
            Step::Allocate { order, mobility } => (None, lack_if(!self.layout().has_group(order, mobility))),
            Step::Hold { order } => (None, lack_if(!self.layout().has_group(order, Mobility::Movable))),
            Step::Run { blocks, mobility } => (None, lack_if(!self.layout().has_run(blocks, mobility))),
            _ => (None, 0..=0),
        };
        let armed =
            Point::ALL.iter().copied().filter(|point| self.memory.failure_points().armed(*point).is_some()).collect();
        Prospect { is_allowed, fixed, lack, armed, withheld: self.withheld(), moved: self.moved() }
    }

    /// What is in the way of an offline, and what it lacks elsewhere if the kernel shall keep its own.
    fn prospect_of_emptying(&self, range: SectionRange) -> (Option<Fixed>, RangeInclusive<u64>) {
        let is_inside = |pfn: Pfn| range.contains(pfn.section());
        let places = all_places(&self.memory).into_iter().filter(|(_, pfn, _)| is_inside(*pfn));
        let orders: Vec<_> = places.map(|(.., order)| order).collect();
        let tables = self.tables().into_iter().filter(|pfn| is_inside(*pfn)).count() as u64;
        let need = tables + orders.iter().map(|order| order.pages()).sum::<u64>();
        // Each large page may have to be split, and needs a table then.
        let large = orders.iter().filter(|order| **order > Order::PAGE).count() as u64;
        let layout = self.layout();
        let room = layout.bulk(Some(range)) + layout.movable(range);
        (self.first_fixed(range), need.saturating_sub(room)..=(need + large).saturating_sub(room))
    }

    /// The first of what stays where it is: what cannot move, and what is pinned.
    fn first_fixed(&self, range: SectionRange) -> Option<Fixed> {
        let held = self.held.iter().map(|(pfn, _)| Fixed { pfn: *pfn, owner: Owner::Selftest, is_pinned: false });
        let pinned = self.pinned.iter().map(|(_, pfn)| Fixed { pfn: *pfn, owner: Owner::Anonymous, is_pinned: true });
        let memmaps = self.memmaps_in_system();
        let memmaps = memmaps.into_iter().map(|pfn| Fixed { pfn, owner: Owner::Memmap, is_pinned: false });
        let inside = held.chain(pinned).chain(memmaps).filter(|fixed| range.contains(fixed.pfn.section()));
        inside.min_by_key(|fixed| fixed.pfn)
    }

    /// Frames that hold struct pages of blocks elsewhere.
    fn memmaps_in_system(&self) -> Vec<Pfn> {
        let is_elsewhere = |id: SectionId| {
            let id = u64::from(id.number());
            self.model.dimms.values().any(|dimm| dimm.blocks().contains(&id) && !dimm.on_memory)
        };
        let backing = self.memory.machine().memmap_frames();
        backing.into_iter().filter(|(id, _)| is_elsewhere(*id)).map(|(_, pfn)| pfn).collect()
    }

    /// Frames that holders have, with their tables.
    fn moving(&self) -> impl Iterator<Item = (Pfn, Order)> {
        let places = all_places(&self.memory).into_iter().map(|(_, pfn, order)| (pfn, order));
        places.chain(self.tables().into_iter().map(|pfn| (pfn, Order::PAGE)))
    }

    fn tables(&self) -> Vec<Pfn> {
        self.memory.machine().holders.tables.lock().unwrap().clone()
    }

    fn moved(&self) -> u64 {
        self.memory.machine().holders.moved.load(Ordering::Relaxed)
    }

    fn withheld(&self) -> usize {
        self.memory.machine().withheld.lock().unwrap().len()
    }

    /// All online blocks, and what is free in them.
    fn layout(&self) -> Layout {
        let mut layout = Layout::default();
        for (block, managed) in (0..).zip(&*BOOT) {
            layout.include(section(block), Source { node: 0, zone: ZoneKind::Normal, is_boot: true }, managed.clone());
        }
        for (block, zone) in &self.model.online {
            let id = section(*block);
            let Some(zone) = *zone else { continue };
            if self.memory.section(id).expect("present").is_withheld() {
                continue;
            }
            let dimm = self.model.dimms.values().find(|dimm| dimm.blocks().contains(block));
            let Dimm { node, .. } = *dimm.unwrap_or(&EMPTY_BOOT);
            let head = self.head_pages(*dimm.unwrap_or(&EMPTY_BOOT), id);
            let managed = (0..PAGES_PER_SECTION).map(|n| n >= head).collect();
            layout.include(id, Source { node, zone, is_boot: dimm.is_none() }, managed);
        }
        let memmaps = self.memmaps_in_system().into_iter().map(|pfn| (pfn, Order::PAGE));
        for (head, order) in self.held.iter().copied().chain(self.moving()).chain(memmaps) {
            layout.take(head, order);
        }
        layout
    }

    /// How many frames at the head of a block hold its own struct pages, and tables for all blocks of its part.
    fn head_pages(&self, dimm: Dimm, id: SectionId) -> u64 {
        let part = Self::range(dimm.first, dimm.count).cut(Fake::PART).find(|part| part.first() == id);
        let tables = part.map_or(0, |part| self.memory.machine().own_tables(part));
        if dimm.on_memory { tables + MEMMAP_PAGES } else { 0 }
    }

    fn nth_place(&self, which: prop::sample::Index) -> (Holder, Pfn, Order) {
        let mut places = all_places(&self.memory);
        places.sort_unstable();
        places[which.index(places.len())]
    }

    fn range(first: u64, count: u64) -> SectionRange {
        blocks(first, first + count - 1)
    }

    fn online_ranges(&self, dimm: Dimm) -> Vec<SectionRange> {
        let online = dimm.blocks().filter(|block| self.model.online[block].is_some());
        online.map(|block| SectionRange::single(section(block))).collect()
    }

    /// Whether there is nothing that the step could be done to.
    fn is_idle(&self, step: &Step) -> bool {
        match *step {
            Step::Free { .. } => self.held.is_empty(),
            Step::Unpin { .. } => self.pinned.is_empty(),
            Step::Release { which } => {
                let (holder, _, order) = self.nth_place(which);
                // The last one stays, so that there always is one.
                self.pinned.iter().any(|(pinned, _)| *pinned == holder) || self.movable == order.pages()
            }
            _ => false,
        }
    }

    /// Which of [`KINDS`] it is.
    fn kind(&self, step: &Step, has_moved: bool) -> &'static str {
        let is_relabel = |first, count, zone| self.model.is_relabel(first, count, zone);
        match *step {
            Step::Add { on_memory: true, .. } => "add with struct pages of its own",
            Step::Add { on_memory: false, .. } => "add with struct pages in the system",
            Step::Online { first, .. } if EMPTY_BOOT.blocks().contains(&first) => "online of boot memory",
            Step::Offline { first, .. } if EMPTY_BOOT.blocks().contains(&first) => "offline of boot memory",
            Step::Online { first, count, zone } => match (zone, is_relabel(first, count, zone)) {
                (ZoneKind::Normal, false) => "online in Normal",
                (ZoneKind::Movable, false) => "online in Movable",
                (ZoneKind::Normal, true) => "relabel to Normal",
                (ZoneKind::Movable, true) => "relabel to Movable",
            },
            Step::Offline { .. } if has_moved => "offline of what moves",
            Step::Offline { .. } => "offline of what is empty",
            Step::Remove { .. } => "remove",
            Step::Unplug { .. } => "unplug",
            Step::Allocate { mobility: Mobility::Unmovable, .. } => "allocate unmovable",
            Step::Allocate { mobility: Mobility::Movable, .. } => "allocate movable",
            Step::Free { .. } => "free",
            Step::Hold { order: Order::PAGE } => "hold a frame",
            Step::Hold { .. } => "hold a large page",
            Step::Release { .. } => "release",
            Step::Pin { .. } => "pin",
            Step::Unpin { .. } => "unpin",
            Step::Run { mobility: Mobility::Unmovable, .. } => "run of unmovable",
            Step::Run { mobility: Mobility::Movable, .. } => "run of movable",
            Step::Keep => "keep",
            Step::Drain => "drain",
            Step::Arm { .. } => "arm",
            Step::Disarm => "disarm",
            Step::OnlineAll { .. } | Step::OfflineAll { .. } => unreachable!("resolved"),
        }
    }

    fn run(&mut self, step: &Step) -> Result<(), Refusal> {
        let memory = &self.memory;
        match *step {
            Step::Add { dimm: number, first, count, node: on, on_memory } => {
                memory.set_policy(|policy| policy.memmap_on_memory = on_memory);
                let request = AddRequest { range: Self::range(first, count), node: node(on), name: dimm(number) };
                memory.add(&request, &mut Unhurried).map(drop).map_err(Refusal::Add)
            }
            Step::Online { first, count, zone } => memory
                .online(&[Self::range(first, count)], OnlineAs::Zone(zone), &mut Unhurried)
                .map(drop)
                .map_err(Refusal::Online),
            Step::Offline { first, count } => {
                memory.offline(&[Self::range(first, count)], &mut Unhurried).map_err(Refusal::Offline)
            }
            Step::Remove { dimm: number } => memory.remove(&[dimm(number)], &mut Unhurried).map_err(Refusal::Remove),
            Step::Unplug { dimm: number } => {
                let online = self.model.dimms.get(&number).map(|dimm| self.online_ranges(*dimm)).unwrap_or_default();
                memory.unplug(&[dimm(number)], &online, &mut Unhurried).map_err(|error| match error {
                    UnplugError::Offline(error) => Refusal::Offline(error),
                    UnplugError::Remove(error) => Refusal::Remove(error),
                })
            }
            Step::Allocate { order, mobility } => {
                let head = memory.allocate(&request(order, mobility)).map_err(Refusal::Alloc)?;
                assert_eq!(head.align_down(order), head);
                let block = block_of(head);
                if mobility == Mobility::Unmovable && block >= FIRST {
                    assert_eq!(self.model.online[&block], Some(ZoneKind::Normal));
                }
                self.held.push((head, order));
                Ok(())
            }
            Step::Run { blocks, mobility } => {
                let request = Request { mobility, ..Request::kernel(Owner::Selftest) };
                let run = memory.allocate_run(blocks, &request).map_err(Refusal::Alloc)?;
                assert_eq!(run.len(), blocks * Order::PAGEBLOCK.pages());
                let heads = (0..blocks).map(|n| run.start().add(n * Order::PAGEBLOCK.pages()));
                self.held.extend(heads.map(|head| (head, Order::PAGEBLOCK)));
                Ok(())
            }
            Step::Keep => {
                memory.housekeep();
                Ok(())
            }
            Step::Drain => {
                memory.drain_caches();
                Ok(())
            }
            Step::Free { which } => {
                let (head, order) = self.held.swap_remove(which.index(self.held.len()));
                memory.free(head, order);
                Ok(())
            }
            Step::Hold { order } => {
                let holder = hold(memory, &movable(order)).map_err(Refusal::Alloc)?;
                assert_eq!(place_of(memory, holder).expect("held").1, order);
                self.movable += order.pages();
                Ok(())
            }
            Step::Release { which } => {
                let (holder, _, order) = self.nth_place(which);
                release(memory, holder);
                self.movable -= order.pages();
                Ok(())
            }
            Step::Pin { which } => {
                let (holder, pfn, _) = self.nth_place(which);
                assert!(memory.machine().page(pfn).pin(), "nothing is moving");
                self.pinned.push((holder, pfn));
                Ok(())
            }
            Step::Unpin { which } => {
                let (_, pfn) = self.pinned.swap_remove(which.index(self.pinned.len()));
                memory.machine().page(pfn).unpin();
                Ok(())
            }
            Step::OnlineAll { .. } | Step::OfflineAll { .. } => unreachable!("resolved"),
            Step::Arm { point } => {
                let point = *point.get(Point::ALL);
                memory.failure_points().arm(point, Errno::Io, 1);
                self.armed_open += usize::from(point == Point::AllocOpen);
                Ok(())
            }
            Step::Disarm => {
                memory.failure_points().disarm_all();
                Ok(())
            }
        }
    }

    fn check(&self) {
        assert_valid(&self.memory);
        for (block, zone) in &self.model.online {
            let present = self.memory.section(section(*block)).expect("present");
            let expected = zone.map_or(BlockState::Offline, BlockState::Online);
            assert_eq!(present.state, expected, "block {block}");
        }
        let places = all_places(&self.memory);
        assert_eq!(places.iter().map(|(.., order)| order.pages()).sum::<u64>(), self.movable, "nothing is lost");
        for (holder, pfn) in &self.pinned {
            assert_eq!(place_of(&self.memory, *holder).expect("held").0, *pfn, "what is pinned does not move");
        }
        let layout = self.layout();
        let report = self.memory.memory_report();
        assert_eq!((report.total / PAGE_SIZE, report.free / PAGE_SIZE), (layout.managed(), layout.free()));
        assert!(layout.free_boot() >= RESERVE_PAGES, "nobody but hotplug takes from the reserve");
        assert!(self.withheld() <= self.armed_open, "only blocks that cannot be opened are withheld");
        let untouched = self.memory.blocks().filter(|(_, section)| section.is_untouched());
        assert_eq!(report.untouched / PAGE_SIZE, untouched.map(|(_, section)| u64::from(section.managed)).sum::<u64>());
        // Whoever holds memory in a block has had it opened.
        let used: BTreeSet<_> = self.held.iter().copied().chain(self.moving()).map(|(pfn, _)| block_of(pfn)).collect();
        for block in used {
            assert!(self.memory.section(section(block)).expect("present").is_open(), "block {block}");
        }
        assert_eq!(self.memory.blocks().count() as u64, 2 + self.model.online.len() as u64);
        assert!(self.memory.blocks().all(|(id, _)| u64::from(id.number()) < SECTIONS));
    }
}

impl StateMachineTest for World {
    type SystemUnderTest = Self;
    type Reference = Steps;

    fn init_test((): &()) -> Self {
        Self::new()
    }

    fn apply(mut world: Self, (): &(), step: Step) -> Self {
        let step = world.model.resolve(step);
        if !world.is_idle(&step) {
            if let Some(kind) = world.attempt(&step) {
                *SUCCEEDED.lock().unwrap().entry(kind).or_default() += 1;
            }
            world.check();
        }
        world
    }

    fn teardown(mut world: Self, (): ()) {
        world.memory.failure_points().disarm_all();
        for (_, pfn) in std::mem::take(&mut world.pinned) {
            world.memory.machine().page(pfn).unpin();
        }
        for (holder, ..) in all_places(&world.memory) {
            release(&world.memory, holder);
        }
        world.movable = 0;
        for table in std::mem::take(&mut *world.memory.machine().holders.tables.lock().unwrap()) {
            world.memory.free(table, Order::PAGE);
        }
        for (head, order) in std::mem::take(&mut world.held) {
            world.memory.free(head, order);
        }
        // Groups whose memmaps lie in other groups' blocks can only go first, so a few rounds may be needed.
        for _ in 0..DIMMS {
            for dimm in world.model.dimms.keys().copied().collect::<Vec<_>>() {
                world.attempt(&Step::Unplug { dimm });
            }
        }
        for block in
            EMPTY_BOOT.blocks().filter(|block| world.model.online[block] != Some(ZoneKind::Normal)).collect::<Vec<_>>()
        {
            world.attempt(&Step::Online { first: block, count: 1, zone: ZoneKind::Normal });
        }
        world.check();
        assert!(world.model.dimms.is_empty(), "nothing is in use");
        // What is withheld stays so until it is removed, or boot memory has been offline.
        if !world.memory.blocks().any(|(_, section)| section.is_withheld()) {
            let fresh = booted();
            add_empty_boot(&fresh);
            assert_eq!(Snapshot::of(&world.memory), Snapshot::of(&fresh));
        }
    }
}

#[test]
fn no_sequence_of_operations_breaks_the_books() {
    let cases = std::env::var("PROPTEST_CASES").map_or(CASES, |cases| cases.parse().expect("a number"));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let result = TestRunner::new(config.clone()).run(&Steps::sequential_strategy(1..60), |(start, steps, seen)| {
        World::test_sequential(config.clone(), start, steps, seen);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    let succeeded = SUCCEEDED.lock().unwrap();
    println!("{succeeded:#?}");
    let missing: Vec<_> = KINDS.iter().filter(|kind| !succeeded.contains_key(*kind)).collect();
    assert!(missing.is_empty(), "nothing is tested of {missing:?}");
}
