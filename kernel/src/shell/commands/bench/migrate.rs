//! What it costs to move pages of address spaces.

use super::{Failure, Measured, ROUNDS, TICKS, breathe, movable, timed};
use crate::arch;
use crate::memory::{OwnedFrames, mm};
use crate::vm::{AddressSpace, PageSize, Placement};
use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::Errno;
use mm::addr::Order;
use mm::alloc::request::Request;
use mm::evacuate::evacuation::MOVED_TOGETHER;
use mm::frame::page::Owner;
use mm::machine::mover::{Move, Mover, Stay};

/// Pages of 4 KiB that are moved in each round: as many as an offline moves at once.
const PAGES: u64 = MOVED_TOGETHER as u64;

/// Moves blocks of a space, given by their pages, elsewhere; returns how long the mover took.
#[expect(unsafe_code, reason = "a block that moves changes places with one that is owned")]
fn move_blocks(space: &AddressSpace, pages: impl Iterator<Item = u64>) -> Result<u64, Failure> {
    let mut places = Vec::with_capacity(MOVED_TOGETHER);
    let mut moves = Vec::with_capacity(MOVED_TOGETHER);
    for (frame, order) in pages.filter_map(|page| space.frame_of(page)) {
        let place = OwnedFrames::allocate(&Request { owner: Owner::Anonymous, ..movable(order) })?;
        let from = frame.align_down(order);
        moves.push(Move { from, to: place.head(), order, outcome: Err(Stay::InFlight) });
        places.push(place);
    }
    let ((), ticks) = timed(|| mm().machine().migrate(&mut moves));
    for (place, Move { from, outcome, .. }) in places.into_iter().zip(&moves) {
        // What moved has changed places: the old one is ours then.
        if outcome.is_ok() {
            place.into_head();
            // SAFETY: By the contract of `Mover` nothing uses the old place of what moved, and the space has the new one.
            drop(unsafe { OwnedFrames::from_head(*from) });
        }
    }
    match moves.iter().find_map(|wanted| wanted.outcome.err()) {
        Some(stay) => Err(Failure::new(Errno::Busy, stay)),
        None => Ok(ticks),
    }
}

/// How long it takes to copy a block of that order.
fn copy(order: Order) -> Result<u64, Failure> {
    let [from, mut to] = [OwnedFrames::allocate(&movable(order))?, OwnedFrames::allocate(&movable(order))?];
    let ((), ticks) = timed(|| to.copy_from(&from));
    Ok(ticks)
}

fn space(page: PageSize) -> Result<Arc<AddressSpace>, Failure> {
    AddressSpace::new(page.order().pages().max(PAGES), Placement { node: None, blocks: None, page })
        .map_err(Failure::from)
}

/// How long it takes to bring the pages of a space, each.
fn touch(space: &AddressSpace, pages: u64) -> Result<u64, Failure> {
    let (result, ticks) = timed(|| (0..pages).try_for_each(|page| space.fault_in(page).map(drop)));
    result.map_err(|error| Failure::new(error.errno(), error))?;
    Ok(ticks / pages)
}

pub(super) fn measure() -> Result<Measured, Failure> {
    let new = || Vec::with_capacity(ROUNDS);
    let [mut samples, mut copies, mut large, mut large_copies, mut split, mut touched, mut irqs_off] =
        core::array::from_fn(|_| new());
    for _ in 0..ROUNDS {
        breathe()?;
        let small = space(PageSize::Small)?;
        touched.push(touch(&small, PAGES)?);
        let (moved, off) = arch::worst_irqs_off(|| move_blocks(&small, 0..PAGES));
        samples.push(moved? / PAGES);
        copies.push(copy(Order::PAGE)?);
        let whole = space(PageSize::Huge)?;
        touch(&whole, 1)?;
        let (moved, large_off) = arch::worst_irqs_off(|| move_blocks(&whole, 0..1));
        large.push(moved?);
        large_copies.push(copy(Order::PAGEBLOCK)?);
        let (head, _) = whole.frame_of(0).ok_or_else(|| Failure::new(Errno::Busy, "the page is gone"))?;
        let ((result, ticks), split_off) = arch::worst_irqs_off(|| timed(|| mm().machine().split(head)));
        result.map_err(|stay| Failure::new(Errno::Busy, stay))?;
        split.push(ticks);
        irqs_off.push(off.max(large_off).max(split_off));
    }
    let beside = [
        ("copy", copies),
        ("large", large),
        ("large_copy", large_copies),
        ("split", split),
        ("touch", touched),
        ("irqs_off", irqs_off),
    ];
    Ok(Measured { bench: "migrate", unit: TICKS, samples, frames: ROUNDS as u64 * PAGES, beside: beside.into() })
}
