//! Listeners that use memory the moment they hear of it.
#![deny(unsafe_code)]

use super::Test;
use super::fixture::{memory_adds_up, with_a_block};
use crate::memory::{OwnedFrames, mm};
use crate::sync::Mutex;
use crate::vm::{AddressSpace, PageSize, Placement};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::SeqCst;
use mm::addr::{NodeId, Order, SectionRange};
use mm::alloc::request::{Place, Request, Urgency};
use mm::frame::mobility::Mobility;
use mm::frame::page::Owner;
use mm::hotplug::OfflineError;
use mm::machine::tasks::Unhurried;
use mm::record::notifier::{Accept, ChainError, Change, Direction, MemoryListener, Name};
use mm::section::kind::ZoneKind;
use mm::site::Site;

pub(super) const TESTS: &[Test] =
    &[Test { name: "listener::it_takes_memory_of_the_block_that_came", run: it_takes_memory_of_the_block }];

/// What a listener has taken of the block that it was just told of.
struct Taken {
    frames: Vec<OwnedFrames>,
    space: Arc<AddressSpace>,
}

/// Takes memory of every block that comes online while its owner waits for that.
struct Taker(Mutex<Wish>);

enum Wish {
    Nothing,
    /// Of the next block that comes.
    Take,
    Taken(Taken),
}

static TAKER: Taker = Taker(Mutex::new(Wish::Nothing));

impl MemoryListener for Taker {
    fn prepare(&self, _: &Change) -> Accept {
        Accept::Yes
    }

    fn committed(&self, change: &Change) {
        let mut wish = self.0.lock();
        if change.direction == Direction::Online && matches!(*wish, Wish::Take) {
            *wish = Wish::Taken(Taken::of(change.range, change.zone));
        }
    }

    fn cancelled(&self, _: &Change) {}
}

impl Taken {
    /// Blocks of all sizes, each with its number in it, and a page that is brought when it is touched.
    fn of(range: SectionRange, zone: ZoneKind) -> Self {
        let mobility = match zone {
            ZoneKind::Normal => Mobility::Unmovable,
            ZoneKind::Movable => Mobility::Movable,
        };
        let take = |order| {
            let place = Place::Near(NodeId::ZERO);
            let (owner, urgency) = (Owner::Selftest, Urgency::Ordinary);
            let request = Request { order, mobility, place, owner, urgency, site: Site::here() };
            OwnedFrames::allocate_within(&request, range).expect("all of it is free")
        };
        let mut frames: Vec<_> = Order::all().chain([Order::PAGE; 100]).map(take).collect();
        for (number, frames) in frames.iter_mut().enumerate() {
            frames.bytes_mut()[..8].copy_from_slice(&number.to_le_bytes());
        }
        let placement = Placement { node: None, blocks: Some(alloc::vec![range]), page: PageSize::Huge };
        let space = AddressSpace::new(2 * 512, placement).expect("there is memory");
        space.enter().words(700)[3].store(77, SeqCst);
        Self { frames, space }
    }

    #[track_caller]
    fn lies_in(&self, range: SectionRange) {
        for (number, frames) in self.frames.iter().enumerate() {
            assert!(range.pages().contains(frames.head()), "{frames:?}");
            assert_eq!(frames.bytes()[..8], number.to_le_bytes());
        }
        let (frame, order) = self.space.frame_of(700).expect("it is there");
        assert!(range.pages().contains(frame) && order == Order::PAGEBLOCK, "{frame} of order {order:?}");
        assert_eq!(self.space.enter().words(700)[3].load(SeqCst), 77);
    }
}

fn it_takes_memory_of_the_block() {
    let name = Name::new("taker").expect("a valid name");
    assert_eq!(mm().register_listener(name, 0, &TAKER), Ok::<(), ChainError>(()));
    for zone in ZoneKind::ALL {
        *TAKER.0.lock() = Wish::Take;
        with_a_block(zone, |range| {
            let wish = core::mem::replace(&mut *TAKER.0.lock(), Wish::Nothing);
            let Wish::Taken(taken) = wish else { panic!("it was not told of {range:?}") };
            taken.lies_in(range);
            memory_adds_up();
            let refusal = mm().offline(&[range], &mut Unhurried);
            assert!(matches!(refusal, Err(OfflineError::Unmovable { owner: Owner::Selftest, .. })), "{refusal:?}");
            taken.lies_in(range);
        });
    }
    assert_eq!(mm().unregister_listener(name), Ok(()));
}
