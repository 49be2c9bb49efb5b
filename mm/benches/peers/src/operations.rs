//! The operations that are compared.

use crate::frames::{Frames, SECTION_BYTES, SECTION_FRAMES};
use crate::runner::{Operation, Runner};
use std::ops::Range;

/// Every operation, on one allocator.
pub(crate) fn all<F: Frames>(runner: &mut Runner) {
    let pairs = if runner.is_quick() { 128 } else { 4096 };
    let pair = |name| Operation { name, size: None, count: pairs };
    hot::<F, 0>(runner, pair("order-0 take + free, hot"));
    hot::<F, 9>(runner, pair("order-9 take + free, hot"));
    hot::<F, 10>(runner, pair("order-10 take + free, hot"));
    random_order::<F>(runner);
    mixed_orders::<F>(runner);
    make_allocatable::<F>(runner);
    take_out::<F>(runner);
}

/// The memory in which frames are taken and freed.
fn space(runner: &Runner) -> u64 {
    if runner.is_quick() { 4 * SECTION_BYTES } else { 16 << 30 }
}

/// The order is known where the call stands, as it is to nearly all callers.
fn hot<F: Frames, const ORDER: u8>(runner: &Runner, operation: Operation) {
    let prepare = || F::with_memory(space(runner));
    runner.repeat(operation, prepare, |frames| {
        for _ in 0..operation.count {
            let frame = frames.allocate(ORDER).expect("almost everything is free");
            frames.free(frame, ORDER);
        }
    });
}

/// Many frames one by one, then back in random order.
fn random_order<F: Frames>(runner: &Runner) {
    let count = if runner.is_quick() { 1024 } else { F::RANDOM_FRAMES };
    let operation = Operation { name: "order-0 take + free, in random order", size: None, count };
    let prepare = || {
        let mut order: Vec<u32> = (0..count as u32).collect();
        fastrand::Rng::with_seed(1).shuffle(&mut order);
        (F::with_memory(space(runner)), vec![0; count as usize], order)
    };
    runner.repeat(operation, prepare, |(frames, held, order)| {
        for slot in held.iter_mut() {
            *slot = frames.allocate(0).expect("there is enough");
        }
        for index in order.iter() {
            frames.free(held[*index as usize], 0);
        }
    });
}

/// A step of a script that was written beforehand.
enum Step {
    Take { slot: usize, order: u8 },
    Free { slot: usize, order: u8 },
}

/// As many takes as frees, in the end; small groups more often than large ones.
fn script(steps: u64) -> Vec<Step> {
    let mut random = fastrand::Rng::with_seed(2);
    let mut held: Vec<(usize, u8)> = Vec::new();
    let mut vacant: Vec<usize> = (0..steps as usize / 2).rev().collect();
    let mut script = Vec::new();
    while (script.len() + held.len()) < steps as usize {
        if held.is_empty() || (held.len() < 2000 && random.bool()) {
            let slot = vacant.pop().expect("no more are held than half the steps");
            let order = random.u16(..).trailing_zeros().min(9) as u8;
            held.push((slot, order));
            script.push(Step::Take { slot, order });
        } else {
            let (slot, order) = held.swap_remove(random.usize(..held.len()));
            vacant.push(slot);
            script.push(Step::Free { slot, order });
        }
    }
    random.shuffle(&mut held);
    script.extend(held.into_iter().map(|(slot, order)| Step::Free { slot, order }));
    script
}

fn mixed_orders<F: Frames>(runner: &Runner) {
    let count = if runner.is_quick() { 1000 } else { 100_000 };
    let operation = Operation { name: "mixed orders 0 to 9, a step", size: None, count };
    let prepare = || (F::with_memory(space(runner)), vec![0; count as usize], script(count));
    runner.repeat(operation, prepare, |(frames, held, script)| {
        for step in script.iter() {
            match *step {
                Step::Take { slot, order } => held[slot] = frames.allocate(order).expect("there is enough"),
                Step::Free { slot, order } => frames.free(held[slot], order),
            }
        }
    });
}

fn make_allocatable<F: Frames>(runner: &Runner) {
    let shifts: &[u32] = if runner.is_quick() { &[27, 30, 33] } else { &[27, 30, 33, 36, 40] };
    for size in shifts.iter().map(|shift| 1 << shift) {
        let operation = Operation { name: "make allocatable", size: Some(size), count: 1 };
        runner.fresh(operation, || F::without_memory(size), |frames| frames.make_allocatable(size));
    }
}

/// The section that is taken out: in the midst of the memory of every allocator.
const SECTION: Range<u64> = 2 * SECTION_FRAMES..3 * SECTION_FRAMES;
const FEW_SECTIONS: u64 = 4 * SECTION_BYTES;

fn take_out<F: Frames>(runner: &Runner) {
    let once = |name| Operation { name, size: Some(SECTION_BYTES), count: 1 };
    if let Some(take) = F::TAKE_FREE {
        let operation = once("take out, wholly free, never used");
        runner.fresh(operation, || F::with_memory(FEW_SECTIONS), |frames| take(frames, SECTION));
        runner.fresh(once("take out, wholly free, used before"), used_before::<F>, |frames| take(frames, SECTION));
    }
    if let Some(take) = F::TAKE_USED {
        runner.fresh(once("isolate, every second frame in use"), half_used::<F>, |frames| take(frames, SECTION));
    }
}

/// Everything was taken frame by frame, and came back.
fn used_before<F: Frames>() -> F {
    let frames = F::with_memory(FEW_SECTIONS);
    let taken: Vec<_> = std::iter::from_fn(|| frames.allocate(0)).collect();
    taken.into_iter().for_each(|frame| frames.free(frame, 0));
    frames
}

/// Everything was taken frame by frame, and a random half of [`SECTION`] came back.
fn half_used<F: Frames>() -> F {
    let frames = F::with_memory(FEW_SECTIONS);
    let taken = std::iter::from_fn(|| frames.allocate(0));
    let mut taken: Vec<_> = taken.filter(|frame| SECTION.contains(frame)).collect();
    fastrand::Rng::with_seed(3).shuffle(&mut taken);
    taken.iter().skip(taken.len() / 2).for_each(|frame| frames.free(*frame, 0));
    frames
}
