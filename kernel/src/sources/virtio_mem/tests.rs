//! Devices that grow and shrink, on memory that remembers what it was told.

use super::pieces::Pieces;
use super::region::{Refused, Region};
use super::resize::{Fault, Obstacle, Resizer, Step};
use super::standby::Standby;
use crate::drivers::virtio::mem::{Answer, Config, MemDevice, Request};
use crate::drivers::virtio::{Patience, Trouble};
use alloc::collections::{BTreeMap, BTreeSet};
use mm::addr::{PAGE_SIZE, PfnRange, SECTION_SIZE, SectionId, SectionRange};
use mm::hotplug::{AddError, PieceError, RemoveError, UnplugError};
use mm::machine::backing::BackingError;
use std::cell::RefCell;
use std::rc::Rc;

const MIB: u64 = 1 << 20;
const START: u64 = 4 << 30;

/// The host: which of the device's blocks are plugged, by address.
struct Host {
    config: Config,
    plugged: BTreeSet<u64>,
    /// What it answers instead.
    answers: Vec<Answer>,
}

#[derive(Clone)]
struct Device(Rc<RefCell<Host>>);

impl MemDevice for Device {
    fn config(&mut self) -> Result<Config, Trouble> {
        let host = self.0.borrow();
        Ok(Config { plugged: host.plugged.len() as u64 * host.config.block_size, ..host.config })
    }

    fn ask(&mut self, request: Request, _: &mut impl Patience) -> Result<Answer, Trouble> {
        let host = &mut *self.0.borrow_mut();
        if let Some(answer) = host.answers.pop() {
            return Ok(answer);
        }
        let size = host.config.block_size;
        let (start, count, is_plug) = match request {
            Request::Plug { start, blocks } => (start, u64::from(blocks), true),
            Request::Unplug { start, blocks } => (start, u64::from(blocks), false),
            Request::UnplugAll => {
                host.plugged.clear();
                return Ok(Answer::Done);
            }
        };
        let blocks: Vec<u64> = (0..count).map(|n| start + n * size).collect();
        let end = start + count * size;
        let is_inside = start.is_multiple_of(size) && start >= START && end <= START + host.config.usable;
        if !is_inside || count == 0 {
            return Ok(Answer::Wrong);
        }
        if is_plug && (host.plugged.len() as u64 + count) * size > host.config.requested {
            return Ok(Answer::TooMuch);
        }
        if blocks.iter().any(|block| host.plugged.contains(block) == is_plug) {
            return Ok(Answer::Wrong);
        }
        blocks.iter().for_each(|block| {
            if is_plug {
                host.plugged.insert(*block)
            } else {
                host.plugged.remove(block)
            };
        });
        Ok(Answer::Done)
    }

    fn give_up(&mut self) {}
}

/// The memory: of each unit that is known, the pieces that are granted; and which pieces are in use, or stay.
#[derive(Default)]
struct Blocks {
    granted: BTreeMap<SectionId, u64>,
    used: BTreeSet<(SectionId, u64)>,
    fixed: BTreeSet<(SectionId, u64)>,
    /// Those that the kernel may use for itself.
    for_kernel: BTreeSet<SectionId>,
    /// How often something does not work.
    failures: u32,
}

struct Memory(Rc<RefCell<Blocks>>, Rc<RefCell<Host>>);

fn pieces(frames: PfnRange) -> (SectionId, std::ops::Range<u64>) {
    let first = frames.start().index_in_section() / 512;
    (frames.start().section(), first..first + frames.len() / 512)
}

impl Memory {
    fn fails(&self) -> bool {
        let mut blocks = self.0.borrow_mut();
        blocks.failures = blocks.failures.saturating_sub(1);
        blocks.failures > 0
    }

    /// Whoever touches memory has it plugged.
    #[track_caller]
    fn assert_plugged(&self, id: SectionId, piece: u64) {
        let host = self.1.borrow();
        let start = id.address() + piece * 2 * MIB;
        let size = host.config.block_size;
        for address in (start..start + 2 * MIB).step_by(size.min(2 * MIB) as usize) {
            assert!(host.plugged.contains(&(address / size * size)), "{address:#x} is not plugged");
        }
    }

    /// Of a block that comes as a whole, all is granted at once.
    fn granted_at_first(&self) -> u64 {
        if self.1.borrow().config.block_size < SECTION_SIZE { 1 } else { u64::MAX }
    }
}

impl Pieces for Memory {
    fn add(&mut self, unit: SectionRange) -> Result<(), AddError> {
        let first = self.granted_at_first();
        for id in unit.iter() {
            (0..64).filter(|piece| first >> piece & 1 != 0).for_each(|piece| self.assert_plugged(id, piece));
        }
        if self.fails() {
            return Err(AddError::NoMemory);
        }
        for id in unit.iter() {
            assert_eq!(self.0.borrow_mut().granted.insert(id, first), None);
        }
        Ok(())
    }

    fn added(&mut self, _: SectionRange) {}

    fn grant(&mut self, frames: PfnRange) -> Result<(), PieceError> {
        let (id, range) = pieces(frames);
        range.clone().for_each(|piece| self.assert_plugged(id, piece));
        if self.fails() {
            return Err(PieceError::Absent(id));
        }
        for piece in range {
            let granted = &mut *self.0.borrow_mut();
            let bits = granted.granted.get_mut(&id).expect("known");
            assert_eq!(*bits >> piece & 1, 0);
            *bits |= 1 << piece;
        }
        Ok(())
    }

    fn withhold(&mut self, frames: PfnRange) -> Result<(), PieceError> {
        let (id, range) = pieces(frames);
        assert!(range.start > 0, "the head goes last");
        let blocks = &mut *self.0.borrow_mut();
        if range.clone().any(|piece| blocks.fixed.contains(&(id, piece))) {
            return Err(PieceError::Poisoned(id));
        }
        for piece in range {
            blocks.used.remove(&(id, piece));
            let bits = blocks.granted.get_mut(&id).expect("known");
            assert_eq!(*bits >> piece & 1, 1);
            *bits &= !(1 << piece);
        }
        Ok(())
    }

    fn drain(&mut self) {}

    fn is_unused(&self, frames: PfnRange) -> bool {
        let (id, mut range) = pieces(frames);
        let blocks = self.0.borrow();
        !range.any(|piece| blocks.used.contains(&(id, piece)) || blocks.fixed.contains(&(id, piece)))
    }

    fn is_for_kernel(&self, id: SectionId) -> bool {
        self.0.borrow().for_kernel.contains(&id)
    }

    fn remove(&mut self, unit: SectionRange) -> Result<(), UnplugError> {
        let blocks = &mut *self.0.borrow_mut();
        if let Some((id, _)) = blocks.fixed.iter().find(|(block, _)| unit.contains(*block)) {
            return Err(UnplugError::Remove(RemoveError::NotOffline(*id)));
        }
        blocks.used.retain(|(block, _)| !unit.contains(*block));
        for id in unit.iter() {
            assert!(blocks.granted.remove(&id).is_some());
        }
        Ok(())
    }
}

struct Never;

impl Patience for Never {
    fn begin(&mut self) {}

    fn wait(&mut self) -> bool {
        false
    }
}

struct Guest {
    host: Rc<RefCell<Host>>,
    blocks: Rc<RefCell<Blocks>>,
    resizer: Resizer<Device, Memory, Never>,
}

impl Guest {
    fn new(block_size: u64, region: u64) -> Self {
        let config = Config { block_size, domain: None, start: START, region, usable: 0, plugged: 0, requested: 0 };
        let host = Rc::new(RefCell::new(Host { config, plugged: BTreeSet::new(), answers: Vec::new() }));
        let blocks = Rc::new(RefCell::new(Blocks::default()));
        let memory = Memory(Rc::clone(&blocks), Rc::clone(&host));
        let region = Region::new(&config).expect("it can be");
        Self { resizer: Resizer::new(Device(Rc::clone(&host)), memory, Never, region), host, blocks }
    }

    fn request(&self, bytes: u64) {
        let mut host = self.host.borrow_mut();
        host.config.requested = bytes;
        host.config.usable = host.config.usable.max(host.config.region.min(bytes + 256 * MIB));
    }

    /// Steps until there is nothing more to be done now; each leaves both sides of one mind.
    #[track_caller]
    fn settle(&mut self) -> Step {
        for _ in 0..10_000 {
            let step = self.resizer.step().expect("the device does right");
            self.resizer.look().expect("what it counts is right");
            if step != Step::Moved {
                return step;
            }
        }
        panic!("it never settles");
    }

    fn plugged(&self) -> u64 {
        self.host.borrow().plugged.len() as u64 * self.host.borrow().config.block_size
    }

    /// What is granted is what is plugged.
    #[track_caller]
    fn assert_agreed(&self) {
        let granted: u32 = self.blocks.borrow().granted.values().map(|bits| bits.count_ones()).sum();
        assert_eq!(u64::from(granted) * 2 * MIB, self.plugged());
    }
}

#[test]
fn the_size_follows_the_host_both_ways() {
    for block_size in [4096, 64 << 10, MIB, 2 * MIB, 8 * MIB, 64 * MIB, 128 * MIB, 256 * MIB, 1 << 30] {
        let mut guest = Guest::new(block_size, 8 << 30);
        for size in [1 << 30, 3 << 30, 2 << 30, 128 * MIB, 0, 256 * MIB, 0] {
            let size = size / block_size * block_size;
            guest.request(size);
            assert_eq!(guest.settle(), Step::Settled);
            assert_eq!(guest.plugged(), size, "with blocks of {block_size:#x}");
            guest.assert_agreed();
        }
        assert!(guest.blocks.borrow().granted.is_empty());
    }
}

#[test]
fn blocks_are_filled_lowest_first_and_emptied_highest_first() {
    let mut guest = Guest::new(2 * MIB, 1 << 30);
    guest.request(134 * MIB);
    guest.settle();
    let known = |guest: &Guest| -> Vec<_> {
        guest.blocks.borrow().granted.iter().map(|(id, bits)| (id.number(), *bits)).collect()
    };
    assert_eq!(known(&guest), [(32, u64::MAX), (33, 7)]);
    guest.request(130 * MIB);
    guest.settle();
    assert_eq!(known(&guest), [(32, u64::MAX), (33, 1)]);
    guest.request(126 * MIB);
    guest.settle();
    assert_eq!(known(&guest), [(32, u64::MAX >> 1)]);
    guest.request(256 * MIB);
    guest.settle();
    assert_eq!(known(&guest), [(32, u64::MAX), (33, u64::MAX)]);
}

#[test]
fn what_is_no_whole_piece_stays_with_the_host() {
    let mut guest = Guest::new(MIB, 1 << 30);
    guest.request(5 * MIB);
    assert_eq!((guest.settle(), guest.plugged()), (Step::Waiting(Obstacle::Rest(MIB)), 4 * MIB));
    guest.request(3 * MIB);
    assert_eq!((guest.settle(), guest.plugged()), (Step::Waiting(Obstacle::Rest(MIB)), 2 * MIB));
    guest.request(0);
    assert_eq!((guest.settle(), guest.plugged()), (Step::Settled, 0));
}

#[test]
fn what_the_kernel_may_use_goes_last() {
    let mut guest = Guest::new(2 * MIB, 1 << 30);
    guest.request(512 * MIB);
    guest.settle();
    let id = |number| SectionId::new(number).expect("in reach");
    guest.blocks.borrow_mut().for_kernel.extend([id(34), id(35)]);
    guest.request(256 * MIB);
    guest.settle();
    assert!(guest.blocks.borrow().granted.keys().copied().eq([id(34), id(35)]));
}

#[test]
fn what_nobody_uses_goes_before_anything_moves_and_what_stays_is_named() {
    let mut guest = Guest::new(2 * MIB, 1 << 30);
    guest.request(256 * MIB);
    guest.settle();
    let at = |block, piece| (SectionId::new(block).expect("in reach"), piece);
    guest.blocks.borrow_mut().used.extend((0..63).map(|piece| at(33, piece)));
    guest.blocks.borrow_mut().fixed.insert(at(33, 10));
    guest.request(126 * MIB);
    assert_eq!(guest.settle(), Step::Settled);
    let granted = guest.blocks.borrow().granted.clone();
    assert_eq!(granted.get(&at(32, 0).0), None, "it was free as a whole");
    assert_eq!(granted.get(&at(33, 0).0), Some(&(u64::MAX >> 1)));
    guest.request(0);
    let Step::Waiting(Obstacle::Remove(why)) = guest.settle() else { panic!("it cannot go") };
    assert_eq!(why, UnplugError::Remove(RemoveError::NotOffline(at(33, 0).0)));
    assert_eq!(guest.blocks.borrow().granted.values().collect::<Vec<_>>(), [&(1 << 10 | 1)]);
    guest.blocks.borrow_mut().fixed.clear();
    assert_eq!((guest.settle(), guest.plugged()), (Step::Settled, 0));
}

#[test]
fn the_answers_of_the_host_are_told_apart_and_nothing_is_lost() {
    let mut guest = Guest::new(2 * MIB, 1 << 30);
    guest.request(128 * MIB);
    for (answer, expected) in [(Answer::Busy, Obstacle::Busy), (Answer::TooMuch, Obstacle::TooMuch)] {
        guest.host.borrow_mut().answers.push(answer);
        assert_eq!(guest.settle(), Step::Waiting(expected));
    }
    guest.host.borrow_mut().answers.push(Answer::Wrong);
    assert!(matches!(guest.settle(), Step::Waiting(Obstacle::Wrong(_))));
    assert_eq!(guest.settle(), Step::Settled);
    // What it does not take back is offered again.
    guest.request(64 * MIB);
    guest.host.borrow_mut().answers.extend([Answer::Busy; 3]);
    assert_eq!([guest.settle(), guest.settle(), guest.settle()], [Step::Waiting(Obstacle::Busy); 3]);
    assert_eq!((guest.settle(), guest.plugged()), (Step::Settled, 64 * MIB));
    guest.assert_agreed();
    guest.host.borrow_mut().config.usable = 0;
    assert_eq!(
        guest.resizer.step(),
        Err(Fault::Refused(Refused::Sizes { plugged: 64 * MIB, usable: 0, requested: 64 * MIB, region: 1 << 30 }))
    );
}

#[test]
fn memory_that_cannot_be_added_or_granted_goes_back_to_the_host() {
    for failures in 1..20 {
        let mut guest = Guest::new(2 * MIB, 1 << 30);
        guest.request(256 * MIB);
        guest.blocks.borrow_mut().failures = failures;
        let settled = (0..40).any(|_| {
            let step = guest.settle();
            guest.assert_agreed();
            step == Step::Settled
        });
        assert!(settled && guest.plugged() == 256 * MIB);
    }
}

#[test]
fn a_region_that_cannot_be_is_refused() {
    let good = Config {
        block_size: 2 * MIB,
        domain: None,
        start: START,
        region: 1 << 30,
        usable: 1 << 29,
        plugged: 0,
        requested: 1 << 28,
    };
    assert!(Region::new(&good).is_ok());
    let refused = |config: Config| Region::new(&config).expect_err("it cannot be");
    for block_size in [0, 3 * MIB, 2048, u64::MAX] {
        assert_eq!(refused(Config { block_size, ..good }), Refused::BlockSize(block_size));
    }
    for block_size in [2 << 30, 1 << 40] {
        assert_eq!(refused(Config { block_size, ..good }), Refused::BlockSizeUnsupported(block_size));
    }
    assert!(matches!(refused(Config { start: START + MIB, ..good }), Refused::Uneven { .. }));
    for start in [u64::MAX << 30, 1 << 63, (1 << 46) - (1 << 29)] {
        assert!(matches!(refused(Config { start, ..good }), Refused::OutOfReach { .. }), "{start:#x}");
    }
    let inside = Config { region: 64 * MIB, usable: 0, requested: 0, ..good };
    assert!(matches!(refused(inside), Refused::NoBlock { .. }));
    for wrong in [
        Config { usable: good.region + 1, ..good },
        Config { plugged: good.usable + 1, ..good },
        Config { requested: good.region + 1, ..good },
    ] {
        assert!(matches!(refused(wrong), Refused::Sizes { .. }), "{wrong:?}");
    }
    // One that begins and ends anywhere on its blocks is used where it holds whole ones of ours.
    let odd = Region::new(&Config { start: START + 2 * MIB, ..good }).expect("it can be");
    assert_eq!((odd.window.first().number(), odd.window.count()), (33, (1 << 30) / SECTION_SIZE - 1));
    assert_eq!(odd.len % PAGE_SIZE, 0);
}

#[test]
fn whatever_the_host_wants_and_whoever_uses_memory_both_sides_agree() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let block_size = MIB << random.u32(0..10);
        let mut guest = Guest::new(block_size, 1 << 30);
        for _ in 0..60 {
            guest.request(random.u64(0..=(1 << 30) / block_size) * block_size);
            if random.bool() {
                let answer = random.choice([Answer::Busy, Answer::TooMuch, Answer::Wrong]).expect("some");
                guest.host.borrow_mut().answers.push(answer);
            }
            for _ in 0..random.u32(0..4) {
                let piece = (SectionId::new(random.u64(32..40)).expect("in reach"), random.u64(0..64));
                let blocks = &mut *guest.blocks.borrow_mut();
                let is_granted = blocks.granted.get(&piece.0).is_some_and(|bits| bits >> piece.1 & 1 != 0);
                if is_granted {
                    let kind = if random.u8(0..4) == 0 { &mut blocks.fixed } else { &mut blocks.used };
                    kind.insert(piece);
                }
            }
            guest.settle();
        }
        guest.host.borrow_mut().answers.clear();
        guest.blocks.borrow_mut().fixed.clear();
        guest.request(0);
        assert_eq!((guest.settle(), guest.plugged()), (Step::Settled, 0));
        guest.request(512 * MIB);
        assert_eq!((guest.settle(), guest.plugged()), (Step::Settled, 512 * MIB));
        guest.assert_agreed();
    }
}

/// Standby memory of 1 GiB from block 32 on, of which the host grants so much.
fn standby(block_size: u64, requested: u64) -> (Rc<RefCell<Host>>, Standby<Device, Never>) {
    let guest = Guest::new(block_size, 1 << 30);
    guest.request(requested);
    let region = Region::new(&guest.host.borrow().config).expect("it can be");
    let device = Device(Rc::clone(&guest.host));
    (guest.host, Standby::new(device, Never, region))
}

fn block(number: u64) -> SectionId {
    SectionId::new(number).expect("in reach")
}

#[test]
fn a_block_that_stands_by_is_backed_while_it_is_in_use() {
    for block_size in [4096, MIB, 2 * MIB, 128 * MIB] {
        let (host, mut standby) = standby(block_size, 256 * MIB);
        let plugged = |standby: &mut Standby<_, _>| standby.look().expect("the device does right").plugged / MIB;
        assert_eq!(standby.back(block(35)), Ok(()));
        assert_eq!(standby.back(block(33)), Ok(()));
        assert_eq!(plugged(&mut standby), 256);
        let blocks = [33, 35].map(|number| number * SECTION_SIZE);
        let is_inside = |at: &u64| blocks.iter().any(|start| (*start..start + SECTION_SIZE).contains(at));
        assert!(host.borrow().plugged.iter().all(is_inside));
        assert_eq!(standby.back(block(34)), Err(BackingError::Refused), "the host grants no more");
        assert_eq!(standby.back(block(39)), Err(BackingError::Refused), "it is not usable");
        standby.release(block(33));
        assert_eq!(standby.back(block(34)), Ok(()));
        [35, 34].into_iter().for_each(|number| standby.release(block(number)));
        assert_eq!(plugged(&mut standby), 0);
    }
    let (host, mut standby) = standby(1 << 30, 1 << 30);
    assert_eq!(standby.back(block(32)), Ok(()));
    assert_eq!(host.borrow().plugged.len(), 1);
}

#[test]
fn a_block_that_the_host_does_not_take_back_is_offered_again() {
    let (host, mut standby) = standby(2 * MIB, 1 << 30);
    host.borrow_mut().answers.push(Answer::Busy);
    assert_eq!(standby.back(block(32)), Err(BackingError::Busy));
    [32, 33].into_iter().for_each(|number| standby.back(block(number)).expect("granted"));
    host.borrow_mut().answers.extend([Answer::Busy; 4]);
    [32, 33].into_iter().for_each(|number| standby.release(block(number)));
    assert_eq!(standby.look().expect("counted").plugged, 256 * MIB);
    assert_eq!(standby.back(block(33)), Err(BackingError::Busy), "it may have gone for all that we know");
    assert!(!standby.offer_again());
    assert!(standby.offer_again());
    assert_eq!(standby.look().expect("counted").plugged, 0);
    // What is not taken back counts for what is granted.
    host.borrow_mut().config.requested = 128 * MIB;
    standby.back(block(32)).expect("granted");
    host.borrow_mut().answers.extend([Answer::Busy; 2]);
    standby.release(block(32));
    assert_eq!(standby.back(block(33)), Err(BackingError::Busy));
    assert_eq!(standby.back(block(33)), Ok(()));
    standby.release(block(33));
    host.borrow_mut().answers.push(Answer::Wrong);
    assert_eq!(standby.back(block(32)), Err(BackingError::Failed));
    host.borrow_mut().plugged.insert(START);
    assert_eq!(standby.look(), Err(Fault::Refused(Refused::Count { device: 2 * MIB, own: 0 })));
    assert_eq!(standby.back(block(32)), Err(BackingError::Failed), "it counts wrong");
    host.borrow_mut().plugged.clear();
    host.borrow_mut().config.usable = u64::MAX;
    assert_eq!(standby.back(block(32)), Err(BackingError::Failed));
    host.borrow_mut().config.usable = 1 << 30;
    standby.back(block(32)).expect("granted");
    standby.give_up();
    standby.release(block(32));
    assert_eq!(standby.back(block(33)), Err(BackingError::Failed));
    assert_eq!(host.borrow().plugged.len(), 64);
}
