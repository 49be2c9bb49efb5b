//! Random sequences of everything against a small model: what is known of every block, and who holds which frames.

use crate::machine::holders::Holder;
use crate::machine::holding::{all_places, booted_with_holders, hold, hold_in, movable, place_of, release};
use crate::machine::taking::request;
use crate::machine::{Fake, SECTIONS, Snapshot, assert_valid, blocks, booted, dimm, node, section};
use mm::Memory;
use mm::addr::{Order, PAGE_SIZE, PAGES_PER_SECTION, Pfn, SectionRange};
use mm::alloc::request::Request;
use mm::errno::Errno;
use mm::frame::memmap::Memmap;
use mm::frame::mobility::Mobility;
use mm::frame::page::{MEMMAP_PAGES, Owner};
use mm::hotplug::{AddRequest, OfflineError, UnplugError};
use mm::inject::Point;
use mm::limits::{KERNEL_PAGES, RESERVE_PAGES};
use mm::machine::mapper::Mapper;
use mm::machine::tasks::Unhurried;
use mm::record::policy::OnlineAs;
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const FIRST: u64 = 32;
const LAST: u64 = 47;
const DIMMS: u16 = 4;

#[derive(Clone, Debug)]
enum Step {
    Add {
        dimm: u16,
        first: u64,
        count: u64,
        node: u32,
        on_memory: bool,
    },
    Online {
        first: u64,
        count: u64,
        zone: ZoneKind,
    },
    Offline {
        first: u64,
        count: u64,
    },
    /// All blocks of a DIMM, whichever these are by then.
    OnlineAll {
        dimm: u16,
        zone: ZoneKind,
    },
    /// The same.
    OfflineAll {
        dimm: u16,
    },
    Remove {
        dimm: u16,
    },
    Unplug {
        dimm: u16,
    },
    Allocate {
        order: u8,
        mobility: Mobility,
    },
    Free {
        which: prop::sample::Index,
    },
    Hold {
        order: Order,
    },
    Release {
        which: prop::sample::Index,
    },
    Pin {
        which: prop::sample::Index,
    },
    Unpin {
        which: prop::sample::Index,
    },
    Run {
        blocks: u64,
        mobility: Mobility,
    },
    Keep,
    Drain,
    Arm {
        point: prop::sample::Index,
    },
    Disarm,
}

#[derive(Clone, Debug, Default)]
struct Model {
    groups: BTreeMap<u16, (u64, u64)>,
    online: BTreeMap<u64, Option<ZoneKind>>,
}

impl Model {
    fn is(&self, first: u64, count: u64, wanted: impl Fn(Option<&Option<ZoneKind>>) -> bool) -> bool {
        (first..first + count).all(|block| wanted(self.online.get(&block)))
    }

    /// Whether these blocks are all in the other zone.
    fn is_relabel(&self, first: u64, count: u64, zone: ZoneKind) -> bool {
        self.is(first, count, |state| state == Some(&Some(zone.other())))
    }

    /// With blocks instead of a DIMM; of one that is there, unless there is none.
    fn resolve(&self, step: Step) -> Step {
        let of = |dimm: u16| {
            let nth = usize::from(dimm) % self.groups.len().max(1);
            *self.groups.values().nth(nth).unwrap_or(&(FIRST, 1))
        };
        match step {
            Step::OnlineAll { dimm, zone } => Step::Online { first: of(dimm).0, count: of(dimm).1, zone },
            Step::OfflineAll { dimm } => Step::Offline { first: of(dimm).0, count: of(dimm).1 },
            _ => step,
        }
    }

    fn may(&self, step: &Step) -> bool {
        match *step {
            Step::Add { dimm, first, count, .. } => {
                !self.groups.contains_key(&dimm) && self.is(first, count, |state| state.is_none())
            }
            Step::Online { first, count, zone } => {
                self.is(first, count, |state| state == Some(&None)) || self.is_relabel(first, count, zone)
            }
            Step::Offline { first, count } => self.is(first, count, |state| matches!(state, Some(Some(_)))),
            Step::Remove { dimm } => self
                .groups
                .get(&dimm)
                .is_some_and(|(first, count)| self.is(*first, *count, |state| state == Some(&None))),
            Step::Unplug { dimm } => self.groups.contains_key(&dimm),
            _ => true,
        }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Add { dimm, first, count, .. } => {
                self.groups.insert(dimm, (first, count));
                self.online.extend((first..first + count).map(|block| (block, None)));
            }
            Step::Online { first, count, zone } => {
                self.online.extend((first..first + count).map(|block| (block, Some(zone))));
            }
            Step::Offline { first, count } => {
                self.online.extend((first..first + count).map(|block| (block, None)));
            }
            Step::Remove { dimm } | Step::Unplug { dimm } => {
                let (first, count) = self.groups.remove(&dimm).expect("may be removed");
                (first..first + count).for_each(|block| {
                    self.online.remove(&block);
                });
            }
            _ => {}
        }
    }
}

/// Steps are chosen without looking at the state, so that refused ones come too.
struct Steps;

impl ReferenceStateMachine for Steps {
    type State = ();
    type Transition = Step;

    fn init_state() -> BoxedStrategy<()> {
        Just(()).boxed()
    }

    fn transitions((): &()) -> BoxedStrategy<Step> {
        let range = || (FIRST..=LAST, 1u64..=4).prop_map(|(first, count)| (first, count.min(LAST - first + 1)));
        let zone = || prop_oneof![Just(ZoneKind::Normal), Just(ZoneKind::Movable)];
        let mobility = || prop_oneof![Just(Mobility::Unmovable), Just(Mobility::Movable)];
        let add = (0..DIMMS, range(), 0u32..3, any::<bool>())
            .prop_map(|(dimm, (first, count), node, on_memory)| Step::Add { dimm, first, count, node, on_memory });
        prop_oneof![
            6 => add,
            6 => (0..DIMMS, zone()).prop_map(|(dimm, zone)| Step::OnlineAll { dimm, zone }),
            6 => (0..DIMMS).prop_map(|dimm| Step::OfflineAll { dimm }),
            2 => (range(), zone()).prop_map(|((first, count), zone)| Step::Online { first, count, zone }),
            1 => range().prop_map(|(first, count)| Step::Offline { first, count }),
            1 => (0..DIMMS).prop_map(|dimm| Step::Remove { dimm }),
            1 => (0..DIMMS).prop_map(|dimm| Step::Unplug { dimm }),
            4 => (0u8..=10, mobility()).prop_map(|(order, mobility)| Step::Allocate { order, mobility }),
            3 => any::<prop::sample::Index>().prop_map(|which| Step::Free { which }),
            6 => prop_oneof![3 => Just(Order::PAGE), 1 => Just(Order::PAGEBLOCK)].prop_map(|order| Step::Hold { order }),
            1 => any::<prop::sample::Index>().prop_map(|which| Step::Release { which }),
            1 => any::<prop::sample::Index>().prop_map(|which| Step::Pin { which }),
            1 => any::<prop::sample::Index>().prop_map(|which| Step::Unpin { which }),
            1 => (1u64..=130, mobility()).prop_map(|(blocks, mobility)| Step::Run { blocks, mobility }),
            1 => Just(Step::Keep),
            1 => Just(Step::Drain),
            1 => any::<prop::sample::Index>().prop_map(|point| Step::Arm { point }),
            1 => Just(Step::Disarm),
        ]
        .boxed()
    }

    fn apply((): (), _: &Step) {}
}

fn block_of(pfn: Pfn) -> u64 {
    u64::from(pfn.section().number())
}

struct World {
    memory: Arc<Memory<Fake>>,
    model: Model,
    held: Vec<(Pfn, Order)>,
    /// Frames of those whose memory can move.
    movable: u64,
    pinned: Vec<(Holder, Pfn)>,
    boot_managed: u64,
}

impl World {
    fn new() -> Self {
        let memory = booted_with_holders();
        let boot_managed = memory.memory_report().total / PAGE_SIZE;
        hold_in(&memory, Order::PAGE, blocks(0, 1));
        Self { memory, model: Model::default(), held: Vec::new(), movable: 1, pinned: Vec::new(), boot_managed }
    }

    /// Blocks in which somebody holds memory.
    fn blocks_in_use(&self) -> BTreeSet<u64> {
        let places = all_places(&self.memory);
        let moving = places.into_iter().map(|(_, pfn, _)| pfn).chain(self.tables());
        self.fixed().into_iter().chain(moving).map(block_of).collect()
    }

    /// What stays where it is: what cannot move, and what is pinned.
    fn fixed(&self) -> Vec<Pfn> {
        let held = self.held.iter().map(|(pfn, _)| *pfn);
        let pinned = self.pinned.iter().map(|(_, pfn)| *pfn);
        held.chain(pinned).collect()
    }

    fn tables(&self) -> Vec<Pfn> {
        self.memory.machine().holders.tables.lock().unwrap().clone()
    }

    fn moved(&self) -> u64 {
        self.memory.machine().holders.moved.load(Ordering::Relaxed)
    }

    fn nth_place(&self, which: prop::sample::Index) -> (Holder, Pfn, Order) {
        let mut places = all_places(&self.memory);
        places.sort_unstable();
        places[which.index(places.len())]
    }

    /// Whether there is room outside these blocks for what would have to move, and for the kernel.
    fn has_room_beside(&self, first: u64, count: u64) -> bool {
        let is_inside = |block: u64| (first..first + count).contains(&block);
        let places = all_places(&self.memory).into_iter().filter(|(_, pfn, _)| is_inside(block_of(*pfn)));
        let orders: Vec<_> = places.map(|(.., order)| order).collect();
        let tables = self.tables().into_iter().filter(|pfn| is_inside(block_of(*pfn))).count() as u64;
        let need = tables + orders.iter().map(|order| order.pages()).sum::<u64>();
        // Each large page may have to be split.
        let new_tables = orders.iter().filter(|order| **order > Order::PAGE).count() as u64;
        let online = (first..first + count).filter(|block| self.model.online[block].is_some());
        let managed: u64 =
            online.map(|block| u64::from(self.memory.section(section(block)).expect("present").managed)).sum();
        let free = self.memory.memory_report().free / PAGE_SIZE;
        need == 0 || free + need >= managed + need + new_tables + RESERVE_PAGES + KERNEL_PAGES
    }

    /// Whoever is told to be in the way is, and nobody before him.
    fn check_blocker(&self, error: OfflineError, first: u64, count: u64) {
        let (blocker, is_pinned) = match error {
            OfflineError::Unmovable { owner: Owner::Memmap | Owner::PageTable, .. } => return,
            OfflineError::Unmovable { pfn, .. } => (pfn, false),
            OfflineError::Pinned { pfn, .. } => (pfn, true),
            _ => return,
        };
        let inside = self.fixed().into_iter().filter(|pfn| (first..first + count).contains(&block_of(*pfn)));
        assert_eq!(Some(blocker), inside.min());
        assert_eq!(self.pinned.iter().any(|(_, pfn)| *pfn == blocker), is_pinned);
    }

    fn range(first: u64, count: u64) -> SectionRange {
        blocks(first, first + count - 1)
    }

    /// Whether a step that the model allows must still fail because somebody holds memory in its blocks.
    fn is_blocked(&self, step: &Step) -> bool {
        let held: BTreeSet<_> = self.fixed().into_iter().map(block_of).collect();
        let (first, count) = match *step {
            Step::Offline { first, count } => (first, count),
            Step::Online { first, count, zone: ZoneKind::Movable } => (first, count),
            Step::Unplug { dimm } => self.model.groups[&dimm],
            _ => return false,
        };
        (first..first + count).any(|block| held.contains(&block))
    }

    fn online_ranges(&self, first: u64, count: u64) -> Vec<SectionRange> {
        (first..first + count)
            .filter(|block| self.model.online[block].is_some())
            .map(|block| SectionRange::single(section(block)))
            .collect()
    }

    fn run(&mut self, step: &Step) -> Result<(), Errno> {
        let memory = &self.memory;
        match *step {
            Step::Add { dimm: number, first, count, node: on, on_memory } => {
                memory.set_policy(|policy| policy.memmap_on_memory = on_memory);
                let request = AddRequest { range: Self::range(first, count), node: node(on), name: dimm(number) };
                memory.add(&request, &mut Unhurried).map(drop).map_err(|error| error.errno())
            }
            Step::Online { first, count, zone } => memory
                .online(&[Self::range(first, count)], OnlineAs::Zone(zone), &mut Unhurried)
                .map(drop)
                .map_err(|error| error.errno()),
            Step::Offline { first, count } => {
                let result = memory.offline(&[Self::range(first, count)], &mut Unhurried);
                result.inspect_err(|error| self.check_blocker(*error, first, count)).map_err(|error| error.errno())
            }
            Step::Remove { dimm: number } => {
                memory.remove(&[dimm(number)], &mut Unhurried).map_err(|error| error.errno())
            }
            Step::Unplug { dimm: number } => {
                let (first, count) = *self.model.groups.get(&number).ok_or(Errno::NoEntry)?;
                let online = self.online_ranges(first, count);
                let result = memory.unplug(&[dimm(number)], &online, &mut Unhurried);
                if let Err(UnplugError::Offline(error)) = result {
                    self.check_blocker(error, first, count);
                }
                result.map_err(|error| error.errno())
            }
            Step::Allocate { order, mobility } => {
                let order = Order::new(order).expect("kept");
                let request = request(order, mobility);
                let head = memory.allocate(&request).map_err(|error| error.errno())?;
                assert_eq!(head.align_down(order), head);
                let block = u64::from(head.section().number());
                if mobility == Mobility::Unmovable && block >= FIRST {
                    assert_eq!(self.model.online[&block], Some(ZoneKind::Normal));
                }
                self.held.push((head, order));
                Ok(())
            }
            Step::Run { blocks, mobility } => {
                let request = Request { mobility, ..Request::kernel(Owner::Selftest) };
                let run = memory.allocate_run(blocks, &request).map_err(|error| error.errno())?;
                assert_eq!(run.len(), blocks * Order::PAGEBLOCK.pages());
                let heads = (0..blocks).map(|n| run.start().add(n * Order::PAGEBLOCK.pages()));
                self.held.extend(heads.map(|head| (head, Order::PAGEBLOCK)));
                Ok(())
            }
            Step::Keep => {
                memory.keep();
                Ok(())
            }
            Step::Drain => {
                memory.drain_caches();
                Ok(())
            }
            Step::Free { which } => {
                if !self.held.is_empty() {
                    let (head, order) = self.held.swap_remove(which.index(self.held.len()));
                    memory.free(head, order);
                }
                Ok(())
            }
            Step::Hold { order } => {
                let holder = hold(memory, &movable(order)).map_err(|error| error.errno())?;
                assert_eq!(place_of(memory, holder).expect("held").1, order);
                self.movable += order.pages();
                Ok(())
            }
            Step::Release { which } => {
                let (holder, _, order) = self.nth_place(which);
                // The first one stays for ever.
                if self.pinned.iter().all(|(pinned, _)| *pinned != holder) && self.movable > order.pages() {
                    release(memory, holder);
                    self.movable -= order.pages();
                }
                Ok(())
            }
            Step::Pin { which } => {
                let (holder, pfn, _) = self.nth_place(which);
                assert!(memory.machine().page(pfn).pin(), "nothing is moving");
                self.pinned.push((holder, pfn));
                Ok(())
            }
            Step::Unpin { which } => {
                if !self.pinned.is_empty() {
                    let (_, pfn) = self.pinned.swap_remove(which.index(self.pinned.len()));
                    memory.machine().page(pfn).unpin();
                }
                Ok(())
            }
            Step::OnlineAll { .. } | Step::OfflineAll { .. } => unreachable!("resolved"),
            Step::Arm { point } => {
                memory.arm(*point.get(Point::ALL), Errno::Io, 1);
                Ok(())
            }
            Step::Disarm => {
                memory.disarm_all();
                Ok(())
            }
        }
    }

    fn is_armed(&self) -> bool {
        Point::ALL.iter().any(|point| self.memory.armed(*point).is_some())
    }

    fn check(&self) {
        assert_valid(&self.memory);
        let mut managed = self.boot_managed;
        let mut reserved = 0;
        for (first, count) in self.model.groups.values() {
            let range = Self::range(*first, *count);
            let (_, head) = self.memory.blocks().find(|(id, _)| *id == range.first()).expect("present");
            let own = head.memmap == mm::section::kind::MemmapPlace::Head;
            let head_tables = |block: u64| {
                let part = range.cut(Fake::PART).find(|part| part.first() == section(block));
                part.map_or(0, |part| self.memory.machine().own_tables(part))
            };
            for block in *first..first + count {
                let present = self.memory.section(section(block)).expect("present");
                let expected = self.model.online[&block].map_or(BlockState::Offline, BlockState::Online);
                assert_eq!(present.state, expected, "block {block}");
                if expected != BlockState::Offline && !present.is_withheld() {
                    managed += PAGES_PER_SECTION - if own { head_tables(block) + MEMMAP_PAGES } else { 0 };
                }
            }
            if !own {
                reserved += count * MEMMAP_PAGES;
            }
        }
        let places = all_places(&self.memory);
        assert_eq!(places.iter().map(|(.., order)| order.pages()).sum::<u64>(), self.movable, "nothing is lost");
        for (holder, pfn) in &self.pinned {
            assert_eq!(place_of(&self.memory, *holder).expect("held").0, *pfn, "what is pinned does not move");
        }
        let held: u64 = self.held.iter().map(|(_, order)| order.pages()).sum();
        let held = held + self.movable + self.tables().len() as u64;
        let report = self.memory.memory_report();
        assert_eq!(report.total / PAGE_SIZE, managed);
        assert_eq!(report.free / PAGE_SIZE, managed - held - reserved);
        let untouched = self.memory.blocks().filter(|(_, section)| section.is_untouched());
        assert_eq!(report.untouched / PAGE_SIZE, untouched.map(|(_, section)| u64::from(section.managed)).sum::<u64>());
        // Whoever holds memory in a block has had it opened.
        for block in self.blocks_in_use() {
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
        let before = Snapshot::of(&world.memory);
        let step = world.model.resolve(step);
        let allowed = world.model.may(&step);
        let certain = allowed && !(allowed && world.is_blocked(&step)) && !world.is_armed();
        // Memory held by memmaps of other groups blocks an offline too, and may make an add run short.
        let may_run_short = matches!(
            step,
            Step::Add { on_memory: false, .. } | Step::Allocate { .. } | Step::Run { .. } | Step::Hold { .. }
        );
        let holds_memmaps = match step {
            Step::Offline { .. } | Step::Unplug { .. } => true,
            Step::Online { first, count, zone } => world.model.is_relabel(first, count, zone),
            _ => false,
        };
        let is_out_of_room = match step {
            Step::Offline { first, count } if allowed => !world.has_room_beside(first, count),
            Step::Unplug { dimm } if allowed => {
                let (first, count) = world.model.groups[&dimm];
                !world.has_room_beside(first, count)
            }
            _ => false,
        };
        let moved = world.moved();
        // In Movable a block does not help the kernel any more.
        let may_starve = holds_memmaps && matches!(step, Step::Online { .. });
        match world.run(&step) {
            Ok(()) => {
                assert!(allowed && !world.is_blocked(&step), "{step:?} worked against the model");
                world.model.apply(&step);
            }
            Err(errno) => {
                let excused = may_run_short
                    || (is_out_of_room && errno == Errno::NoMemory)
                    || (holds_memmaps && errno == Errno::Busy)
                    || (may_starve && errno == Errno::NoMemory);
                assert!(!certain || excused, "{step:?} failed with {errno}");
                // What had moved before an unplug failed at its end stays there.
                let is_late = matches!(step, Step::Unplug { .. }) && world.moved() > moved;
                assert!(is_late || Snapshot::of(&world.memory) == before, "{step:?} left a trace");
            }
        }
        world.check();
        world
    }

    fn teardown(mut world: Self, (): ()) {
        world.memory.disarm_all();
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
            for number in world.model.groups.keys().copied().collect::<Vec<_>>() {
                let step = Step::Unplug { dimm: number };
                if world.run(&step).is_ok() {
                    world.model.apply(&step);
                }
            }
        }
        world.check();
        if world.model.groups.is_empty() {
            assert_eq!(Snapshot::of(&world.memory), Snapshot::of(&booted()));
        }
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_operations_breaks_the_books(sequential 1..60 => World);
}
