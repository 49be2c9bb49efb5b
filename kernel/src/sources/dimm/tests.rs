//! What the host hears and what becomes of the blocks, with QEMU's registers and a list of blocks in place of the machine.

use super::check::Nonsense;
use super::*;
use crate::drivers::dimm::tests::FakeRegisters;
use crate::sources::added::NotAdded;
use crate::sources::probe::{Backed, ProbeError, add_by_hand};
use mm::Errno;
use mm::addr::{NodeId, SectionId};
use mm::frame::page::Owner;
use mm::hotplug::zone_choice::Remark;
use mm::hotplug::{AddError, AddRequest, OfflineError, OnlineError, RemoveError, UnplugError};
use mm::machine::mapper::DirectMap;
use mm::record::policy::{AutoOnline, OnlineAs};
use mm::section::group::{Grant, Ready, Terms};
use mm::section::kind::MemmapPlace;
use std::boxed::Box;
use std::cell::Cell;
use std::rc::Rc;
use std::string::ToString;
use std::vec;

const MIB: u64 = 1 << 20;
const BASE: u64 = 0x1_0000_0000;
const BLOCK: u64 = 128 * MIB;

/// Groups of blocks that do as the test says.
struct Fake {
    groups: Vec<Group>,
    online: Vec<SectionRange>,
    policy: AutoOnline,
    add_fails: Option<AddError>,
    online_fails: bool,
    unplug_fails: Option<UnplugError>,
    /// What goes on elsewhere while blocks are added or unplugged.
    meanwhile: Option<Box<dyn Fn()>>,
}

impl Fake {
    fn take_time(&self) {
        if let Some(meanwhile) = &self.meanwhile {
            meanwhile();
        }
    }
}

impl Default for Fake {
    fn default() -> Self {
        let policy = AutoOnline::Offline;
        Self {
            groups: vec![],
            online: vec![],
            policy,
            add_fails: None,
            online_fails: false,
            unplug_fails: None,
            meanwhile: None,
        }
    }
}

impl Blocks for Fake {
    fn known(&self, range: SectionRange) -> Vec<SectionRange> {
        let is_known = |id: &SectionId| self.groups.iter().any(|group| group.window.contains(*id));
        SectionRange::merged(range.iter().filter(is_known).map(SectionRange::single)).collect()
    }

    fn groups(&self) -> Vec<Group> {
        self.groups.clone()
    }

    fn auto_online(&self) -> AutoOnline {
        self.policy
    }

    fn add(&mut self, request: &AddRequest) -> Result<(), AddError> {
        self.take_time();
        if let Some(error) = self.add_fails {
            return Err(error);
        }
        let AddRequest { name, range, node } = *request;
        assert!(self.known(range).is_empty(), "{name} is added over others");
        self.groups.push(group(name, range, node));
        Ok(())
    }

    fn online(&mut self, range: SectionRange, _: OnlineAs) -> Result<Option<Remark>, OnlineError> {
        if self.online_fails {
            return Err(OnlineError::Absent(range.first()));
        }
        self.online.push(range);
        Ok(None)
    }

    fn unplug(&mut self, names: &[GroupName]) -> Result<(), UnplugError> {
        self.take_time();
        if let Some(error) = self.unplug_fails {
            return Err(error);
        }
        self.groups.retain(|group| !names.contains(&group.name));
        Ok(())
    }
}

/// Where memory may come: all that can be held from 4 GiB on, and more.
const WINDOW: Window = Window { start: BASE, len: 1 << 47 };

type Device = Controller<FakeRegisters>;

fn slots(count: usize) -> Slots<Device> {
    Slots::new(Controller::fake(count))
}

/// What the host does with the slots, and what it sees.
impl Slots<Device> {
    fn host(&self) -> impl core::ops::DerefMut<Target = Device> {
        self.device.lock()
    }
}

fn plug<'a>(slots: &'a Slots<Device>, blocks: &'a mut Fake) -> Plug<'a, Device, Fake> {
    Plug { slots, blocks, windows: &[WINDOW] }
}

fn handle(slots: &Slots<Device>, blocks: &mut Fake) {
    plug(slots, blocks).handle_events();
}

fn names(blocks: &Fake) -> Vec<(String, u32, u64, u8)> {
    let tell = |group: &Group| {
        (group.name.to_string(), group.window.first().number(), group.window.count(), group.node.number())
    };
    blocks.groups.iter().map(tell).collect()
}

#[test]
fn a_plugged_dimm_becomes_blocks_of_its_own_node_and_the_host_hears_it() {
    let (slots, mut blocks) = (slots(4), Fake::default());
    slots.host().plug(2, BASE, 3 * BLOCK, 1);
    handle(&slots, &mut blocks);
    assert_eq!(names(&blocks), [("dimm2".into(), 32, 3, 1)]);
    assert_eq!(slots.host().messages(2), [(1, 0)]);
    assert_eq!(blocks.online, []);
}

#[test]
fn a_large_dimm_is_announced_first() {
    let (slots, mut blocks) = (slots(1), Fake::default());
    slots.host().plug(0, BASE, 2 << 30, 0);
    handle(&slots, &mut blocks);
    assert_eq!(slots.host().messages(0), [(1, 0x80), (1, 0)]);
}

#[test]
fn a_dimm_that_was_there_at_boot_is_taken_in_without_an_answer() {
    let (slots, mut blocks) = (slots(4), Fake::default());
    slots.host().cold_plug(0, BASE, BLOCK, 0);
    slots.host().plug(1, BASE + BLOCK, BLOCK, 0);
    plug(&slots, &mut blocks).take_in_present();
    assert_eq!(blocks.groups.len(), 2);
    let host = slots.host();
    assert_eq!((host.messages(0), host.messages(1)), (vec![], vec![(1, 0)]));
}

#[test]
fn two_dimms_at_once_are_both_taken_in() {
    let (slots, mut blocks) = (slots(4), Fake::default());
    slots.host().plug(0, BASE, BLOCK, 0);
    slots.host().plug(1, BASE + BLOCK, 2 * BLOCK, 1);
    handle(&slots, &mut blocks);
    assert_eq!(names(&blocks), [("dimm0".into(), 32, 1, 0), ("dimm1".into(), 33, 2, 1)]);
    let host = slots.host();
    assert_eq!((host.messages(0), host.messages(1)), (vec![(1, 0)], vec![(1, 0)]));
}

#[test]
fn only_whole_blocks_become_memory() {
    let (slots, mut blocks) = (slots(1), Fake::default());
    slots.host().plug(0, BASE + 2 * MIB, 2 * BLOCK, 0);
    handle(&slots, &mut blocks);
    assert_eq!(names(&blocks), [("dimm0".into(), 33, 1, 0)]);
    assert_eq!(slots.host().messages(0), [(1, 0)]);
    let dimm = slots.host().dimm(0).expect("it is in its slot");
    let ends: Vec<_> =
        leftovers_of(&dimm, |range| blocks.known(range)).iter().map(|end| (end.start, end.len, end.why)).collect();
    assert_eq!(ends, [(BASE + 2 * MIB, 126 * MIB, Why::PartOfBlock), (BASE + 2 * BLOCK, 2 * MIB, Why::PartOfBlock)]);
}

#[test]
fn a_dimm_without_a_whole_block_is_a_failure() {
    let (slots, mut blocks) = (slots(1), Fake::default());
    slots.host().plug(0, BASE + 64 * MIB, BLOCK, 0);
    handle(&slots, &mut blocks);
    assert_eq!((blocks.groups.len(), slots.host().messages(0)), (0, vec![(1, 1)]));
}

#[test]
fn a_refused_dimm_is_a_failure_and_stays_unused() {
    for (domain, add_fails) in [(0, Some(AddError::NoMemory)), (128, None), (u32::MAX, None)] {
        let (slots, mut blocks) = (slots(1), Fake { add_fails, ..Fake::default() });
        slots.host().plug(0, BASE, BLOCK, domain);
        handle(&slots, &mut blocks);
        assert_eq!((blocks.groups.len(), slots.host().messages(0)), (0, vec![(1, 1)]));
        let dimm = slots.host().dimm(0).expect("it is in its slot");
        let left = leftovers_of(&dimm, |range| blocks.known(range));
        assert_eq!(left.iter().map(|left| (left.len, left.why)).collect::<Vec<_>>(), [(BLOCK, Why::NotAdded)]);
    }
}

/// Memory of others at blocks 40 to 43: blocks of boot memory, and then a DIMM in slot 1.
fn neighbours() -> Fake {
    let group = |name, first| {
        let name = GroupName::parse(name).expect("a name");
        group(name, SectionRange::new(first, 2).expect("in reach"), NodeId::ZERO)
    };
    Fake { groups: vec![group("boot0", 40), group("dimm1", 42)], ..Fake::default() }
}

fn group(name: GroupName, window: SectionRange, node: NodeId) -> Group {
    let terms = Terms {
        memmap: MemmapPlace::Head,
        unit: 1,
        ready: Ready::AtAdd,
        grant: Grant::Whole,
        direct_map: DirectMap::Present,
    };
    Group { name, window, node, terms }
}

#[test]
fn a_dimm_that_cannot_be_is_refused_with_the_reason() {
    let name = |text| GroupName::parse(text).expect("a name");
    let all_ones = u64::from(u32::MAX) << 32 | u64::from(u32::MAX);
    for (start, len, why) in [
        (BASE, 0, Nonsense::Empty),
        (all_ones, 0, Nonsense::Empty),
        (all_ones, all_ones, Nonsense::Endless),
        (BASE, all_ones, Nonsense::Endless),
        (0, all_ones, Nonsense::OutsideWindow(WINDOW)),
        (0, BLOCK, Nonsense::OutsideWindow(WINDOW)),
        (BASE - BLOCK, 2 * BLOCK, Nonsense::OutsideWindow(WINDOW)),
        (WINDOW.end() - BLOCK, 2 * BLOCK, Nonsense::OutsideWindow(WINDOW)),
        (40 * BLOCK, 4 * BLOCK, Nonsense::Taken(name("boot0"))),
        (41 * BLOCK + 64 * MIB, 2 * MIB, Nonsense::Taken(name("boot0"))),
        (42 * BLOCK, BLOCK, Nonsense::Taken(name("dimm1"))),
        (43 * BLOCK, 2 * BLOCK, Nonsense::Taken(name("dimm1"))),
    ] {
        let (slots, mut blocks) = (slots(2), neighbours());
        let before = blocks.groups.clone();
        slots.host().plug(0, start, len, 0);
        let dimm = slots.host().dimm(0).expect("it is in its slot");
        assert_eq!(check(&dimm, &[WINDOW], &blocks.groups), Err(why), "{dimm:x?}");
        handle(&slots, &mut blocks);
        assert!(slots.host().messages(0).ends_with(&[(1, 1)]), "{dimm:x?}");
        assert_eq!(blocks.groups, before, "{dimm:x?}");
    }
    let dimm = Dimm { slot: 0, start: BASE, len: BLOCK, domain: 0 };
    assert_eq!(check(&dimm, &[], &[]), Err(Nonsense::NoWindow));
    assert_eq!(check(&dimm, &[WINDOW], &neighbours().groups), Ok(()));
    let windows = [Window { start: BASE, len: BLOCK }, Window { start: BASE + 2 * BLOCK, len: BLOCK }];
    assert_eq!(check(&dimm, &windows, &[]), Ok(()));
    assert_eq!(check(&Dimm { len: 3 * BLOCK, ..dimm }, &windows, &[]), Err(Nonsense::OutsideWindows));
}

#[test]
fn a_dimm_at_addresses_of_others_is_not_ejected_under_them() {
    let (slots, mut blocks) = (slots(2), neighbours());
    let before = blocks.groups.clone();
    slots.host().cold_plug(0, 42 * BLOCK, 2 * BLOCK, 0);
    slots.host().request_removal(0);
    handle(&slots, &mut blocks);
    let host = slots.host();
    assert_eq!((host.messages(0), host.ejected()), (vec![(3, 0x84), (3, 1)], &[][..]));
    assert_eq!(blocks.groups, before);
}

#[test]
fn an_address_that_cannot_be_held_is_a_failure() {
    for (start, len) in [(1 << 46, BLOCK), ((1 << 46) - BLOCK, 2 * BLOCK)] {
        let (slots, mut blocks) = (slots(1), Fake::default());
        slots.host().plug(0, start, len, 0);
        handle(&slots, &mut blocks);
        assert_eq!(slots.host().messages(0), [(1, 1)]);
        assert_eq!(blocks.groups.len(), 0);
    }
}

#[test]
fn a_dimm_beyond_all_is_told_apart_from_one_without_a_whole_block() {
    let why = |start, len| {
        let left = leftovers_of(&Dimm { slot: 0, start, len, domain: 0 }, |_| vec![]);
        left.iter().map(|left| (left.start, left.len, left.why)).collect::<Vec<_>>()
    };
    let end = 1 << 46;
    assert_eq!(why(end, 2 * BLOCK), [(end, 2 * BLOCK, Why::OutOfReach)]);
    assert_eq!(why(end - BLOCK, 2 * BLOCK), [(end - BLOCK, 2 * BLOCK, Why::OutOfReach)]);
    assert_eq!(why(end - BLOCK, BLOCK), [(end - BLOCK, BLOCK, Why::NotAdded)]);
    assert_eq!(why(end - 64 * MIB, 64 * MIB), [(end - 64 * MIB, 64 * MIB, Why::PartOfBlock)]);
}

#[test]
fn automatic_onlining_comes_before_the_answer_and_may_fail() {
    for online_fails in [false, true] {
        let policy = AutoOnline::As(OnlineAs::ByPolicy);
        let (slots, mut blocks) = (slots(1), Fake { policy, online_fails, ..Fake::default() });
        slots.host().plug(0, BASE, 2 * BLOCK, 0);
        handle(&slots, &mut blocks);
        assert_eq!(blocks.online.len(), usize::from(!online_fails));
        assert_eq!((blocks.groups.len(), slots.host().messages(0)), (1, vec![(1, 0)]));
    }
}

#[test]
fn a_removed_dimm_is_ejected_after_its_blocks_are_gone() {
    let (slots, mut blocks) = (slots(2), Fake::default());
    slots.host().plug(1, BASE, 2 * BLOCK, 0);
    handle(&slots, &mut blocks);
    slots.host().request_removal(1);
    handle(&slots, &mut blocks);
    assert_eq!((blocks.groups.len(), slots.host().ejected()), (0, &[1][..]));
    assert_eq!(slots.host().messages(1), [(1, 0), (3, 0x84), (3, 0)]);
}

#[test]
fn a_dimm_plugged_and_unplugged_before_anybody_looked_comes_and_goes() {
    let (slots, mut blocks) = (slots(1), Fake::default());
    slots.host().plug(0, BASE, BLOCK, 0);
    slots.host().request_removal(0);
    handle(&slots, &mut blocks);
    assert_eq!((blocks.groups.len(), slots.host().ejected()), (0, &[0][..]));
    assert_eq!(slots.host().messages(0), [(1, 0), (3, 0x84), (3, 0)]);
}

#[test]
fn a_refused_removal_leaves_everything_and_says_whether_it_may_work_later() {
    let block = SectionId::new(32).expect("it exists");
    let held = OfflineError::Unmovable { pfn: block.pages().start(), owner: Owner::Memmap };
    let broken = RemoveError::Boot(GroupName { kind: GroupKind::Dimm, number: 0 });
    let crowded = OfflineError::NoDestination { short_by: 7 };
    for (error, status) in
        [(UnplugError::Offline(held), 0x82), (UnplugError::Offline(crowded), 0x82), (UnplugError::Remove(broken), 1)]
    {
        let (slots, mut blocks) = (slots(1), Fake { unplug_fails: Some(error), ..Fake::default() });
        slots.host().plug(0, BASE, BLOCK, 0);
        slots.host().request_removal(0);
        handle(&slots, &mut blocks);
        assert_eq!((blocks.groups.len(), slots.host().ejected()), (1, &[][..]));
        assert_eq!(slots.host().messages(0), [(1, 0), (3, 0x84), (3, status)]);
        blocks.unplug_fails = None;
        slots.host().request_removal(0);
        handle(&slots, &mut blocks);
        assert_eq!((blocks.groups.len(), slots.host().ejected()), (0, &[0][..]));
    }
}

#[test]
fn a_machine_that_keeps_the_dimm_is_told_that_it_failed() {
    let (slots, mut blocks) = (slots(1), Fake::default());
    slots.host().plug(0, BASE, BLOCK, 0);
    slots.host().request_removal(0);
    slots.host().refuse_ejection();
    handle(&slots, &mut blocks);
    assert_eq!((blocks.groups.len(), slots.host().messages(0)), (0, vec![(1, 0), (3, 0x84), (3, 1)]));
}

#[test]
fn a_dimm_whose_memory_was_removed_by_hand_is_just_ejected() {
    let (slots, mut blocks) = (slots(1), Fake::default());
    slots.host().cold_plug(0, BASE, BLOCK, 0);
    slots.host().request_removal(0);
    handle(&slots, &mut blocks);
    let host = slots.host();
    assert_eq!((host.ejected(), host.messages(0)), (&[0][..], vec![(3, 0x84), (3, 0)]));
}

#[test]
fn groups_of_other_dimms_stay() {
    let (slots, mut blocks) = (slots(2), Fake::default());
    slots.host().plug(0, BASE, BLOCK, 0);
    slots.host().plug(1, BASE + BLOCK, BLOCK, 0);
    slots.host().request_removal(0);
    handle(&slots, &mut blocks);
    assert_eq!(names(&blocks), [("dimm1".into(), 33, 1, 0)]);
}

#[test]
fn nobody_who_looks_waits_while_a_dimm_comes_or_goes() {
    let slots = Rc::new(slots(2));
    let looked = Rc::new(Cell::new(0));
    let (seen, counted) = (Rc::clone(&slots), Rc::clone(&looked));
    let look = move || {
        assert_eq!(dimm::present(&seen.device).count(), 1);
        assert_eq!(seen.refusals.of(&[]), []);
        counted.set(counted.get() + 1);
    };
    let mut blocks = Fake { meanwhile: Some(Box::new(look)), ..Fake::default() };
    slots.host().plug(0, BASE, BLOCK, 0);
    slots.host().request_removal(0);
    handle(&slots, &mut blocks);
    assert_eq!(looked.get(), 2);
    assert_eq!(slots.host().messages(0), [(1, 0), (3, 0x84), (3, 0)]);
}

#[test]
fn whoever_acts_on_a_slot_has_its_turn_and_no_other() {
    let slots = Rc::new(slots(2));
    let acted = Rc::new(Cell::new(0));
    let (acting, counted) = (Rc::clone(&slots), Rc::clone(&acted));
    let act = move || {
        assert!(acting.turns.try_take(0).is_none() && acting.turns.try_take(1).is_some());
        counted.set(counted.get() + 1);
    };
    let mut blocks = Fake { meanwhile: Some(Box::new(act)), ..Fake::default() };
    slots.host().cold_plug(0, BASE, 2 * BLOCK, 0);
    plug(&slots, &mut blocks).take_in_present();
    blocks.groups.clear();
    plug(&slots, &mut blocks).probe(&[], BASE, Some(BLOCK)).expect("it is there");
    slots.host().request_removal(0);
    handle(&slots, &mut blocks);
    assert_eq!((acted.get(), slots.host().ejected()), (3, &[0][..]));
    assert!(slots.turns.try_take(0).is_some());
}

#[test]
fn a_refused_dimm_is_remembered_until_it_goes_or_is_taken_after_all() {
    let why = Refused::NotAdded(NotAdded::Add(AddError::NoMemory));
    let refused = |slots: &Slots<Device>| {
        let dimms: Vec<Dimm> = dimm::present(&slots.device).collect();
        slots.refusals.of(&dimms).iter().map(|refusal| (refusal.dimm.slot, refusal.why)).collect::<Vec<_>>()
    };
    let (slots, mut blocks) = (slots(4), Fake { add_fails: Some(AddError::NoMemory), ..Fake::default() });
    for slot in 0..4 {
        slots.host().plug(slot, BASE + slot as u64 * BLOCK, BLOCK, 0);
    }
    handle(&slots, &mut blocks);
    assert_eq!(refused(&slots), [(0, why), (1, why), (2, why), (3, why)]);

    // Removed as the host wishes, pulled without asking, replaced, added by hand.
    slots.host().request_removal(0);
    handle(&slots, &mut blocks);
    slots.host().eject(1);
    slots.host().cold_plug(2, BASE + 8 * BLOCK, BLOCK, 0);
    assert_eq!(refused(&slots), [(3, why)]);
    let by_hand = plug(&slots, &mut blocks).probe(&[], BASE + 3 * BLOCK, None).map(drop);
    let name = GroupName::parse("dimm3").expect("a name");
    assert_eq!(by_hand, Err(ProbeError::Refused { name, why }));
    assert_eq!(refused(&slots), [(3, why)]);
    blocks.add_fails = None;
    plug(&slots, &mut blocks).probe(&[], BASE + 3 * BLOCK, None).expect("there is memory now");
    assert_eq!(refused(&slots), []);
    assert_eq!(slots.refusals.of(&[Dimm { slot: 0, start: BASE, len: BLOCK, domain: 0 }]), []);
}

#[test]
fn a_probe_of_a_dimm_that_cannot_be_says_why() {
    let taken = Nonsense::Taken(GroupName::parse("boot0").expect("a name"));
    for (start, len, domain, why, errno) in [
        (40 * BLOCK, BLOCK, 0, Refused::Nonsense(taken), Errno::Exists),
        (BASE - BLOCK, BLOCK, 0, Refused::Nonsense(Nonsense::OutsideWindow(WINDOW)), Errno::Invalid),
        (BASE, 64 * MIB, 0, Refused::NoBlock, Errno::Invalid),
        (1 << 46, BLOCK, 0, Refused::OutOfReach, Errno::Invalid),
        (BASE, BLOCK, 128, Refused::NotAdded(NotAdded::Domain { domain: 128 }), Errno::Invalid),
    ] {
        let (slots, mut blocks) = (slots(1), neighbours());
        slots.host().plug(0, start, len, domain);
        handle(&slots, &mut blocks);
        let dimm = slots.host().dimm(0).expect("it is in its slot");
        assert_eq!(slots.refusals.of(&[dimm]), [Refusal { dimm, why }]);
        let error = plug(&slots, &mut blocks).probe(&[], start, None).map(drop).expect_err("it is refused");
        assert_eq!(error, ProbeError::Refused { name: name(&dimm), why });
        assert_eq!((error.errno(), error.to_string()), (errno, std::format!("dimm0: {why}")));
    }
}

fn by_hand(known: &[Backed], start: u64, len: Option<u64>, blocks: &mut Fake) -> Result<(), ProbeError> {
    add_by_hand(known, start, len, blocks).map(drop)
}

fn backed(start: u64, end: u64) -> Backed {
    Backed { start, end, domain: 1, name: GroupName::parse("dimm5") }
}

#[test]
fn what_is_known_to_be_there_can_be_added_by_hand() {
    let known = [backed(BASE, BASE + 4 * BLOCK)];
    let mut blocks = Fake::default();
    assert_eq!(by_hand(&known, BASE, None, &mut blocks), Ok(()));
    assert_eq!(names(&blocks), [("dimm5".into(), 32, 4, 1)]);

    let mut blocks = Fake::default();
    assert_eq!(by_hand(&known, BASE + BLOCK, Some(BLOCK), &mut blocks), Ok(()));
    assert_eq!(by_hand(&known, BASE + 2 * BLOCK, None, &mut blocks), Ok(()));
    assert_eq!(names(&blocks), [("probe0".into(), 33, 1, 1), ("probe1".into(), 34, 2, 1)]);
}

#[test]
fn nothing_is_poked_to_find_out() {
    let known = [backed(BASE, BASE + 2 * BLOCK + 64 * MIB)];
    let mut blocks = Fake::default();
    let mut probe = |start, len| by_hand(&known, start, len, &mut blocks);
    assert_eq!(probe(BASE + 2 * MIB, None), Err(ProbeError::Unaligned(BASE + 2 * MIB)));
    assert_eq!(probe(BASE, Some(MIB)), Err(ProbeError::BadSize(MIB)));
    assert_eq!(probe(BASE, Some(0)), Err(ProbeError::BadSize(0)));
    assert_eq!(probe(2 * BASE, None), Err(ProbeError::Nothing(2 * BASE)));
    assert_eq!(probe(BASE, Some(4 * BLOCK)), Err(ProbeError::Nothing(BASE)));
    assert_eq!(probe(BASE + 2 * BLOCK, None), Err(ProbeError::Nothing(BASE + 2 * BLOCK)));
    let (start, len) = (u64::MAX / BLOCK * BLOCK, BLOCK);
    assert_eq!(probe(start, Some(len)), Err(ProbeError::OutOfReach { start, len }));
    assert_eq!(probe(0, Some(start)), Err(ProbeError::OutOfReach { start: 0, len: start }));
    assert_eq!(probe(BASE, Some(BLOCK)), Ok(()));
    assert_eq!(probe(BASE, None), Err(ProbeError::Exists(SectionId::new(32).expect("it exists"))));
    assert_eq!(blocks.groups.len(), 1);
}

#[test]
fn memory_hidden_at_boot_can_be_added_by_hand() {
    let known = [Backed { start: BLOCK, end: 4 * BLOCK, domain: 0, name: None }];
    let mut blocks = Fake::default();
    assert_eq!(by_hand(&known, BLOCK, None, &mut blocks), Ok(()));
    assert_eq!(names(&blocks), [("probe0".into(), 1, 3, 0)]);
}

#[test]
fn leftovers_between_blocks_are_told() {
    let dimm = Dimm { slot: 0, start: BASE, len: 4 * BLOCK, domain: 0 };
    let left: Vec<_> = leftovers_of(&dimm, |_| SectionRange::new(33, 1).into_iter().collect())
        .iter()
        .map(|left| (left.start, left.len))
        .collect();
    assert_eq!(left, [(BASE, BLOCK), (BASE + 2 * BLOCK, 2 * BLOCK)]);
    assert_eq!(leftovers_of(&dimm, |range| vec![range]), []);
}
