//! Frames: the RAM that there is at boot, and frames taken, owned and given back.
//!
//! | file | what |
//! |---|---|
//! | [`ram`], [`early`] | the RAM that the boot loader reports, and frames of it before there is an allocator |
//! | [`frame`] | frames taken from the system, and frames owned as values |
//! | [`frame_list`] | many of these, on a list that takes no memory |
//! | [`contents`] | what frames hold, as a whole: zeroed, copied |
//! | [`trial`] | whether memory keeps what is written to it |
//!
//! Frames come from boot memory before, from `mm` after [`open`].

pub(crate) mod contents;
pub(crate) mod early;
pub(crate) mod frame;
pub(crate) mod frame_list;
pub(crate) mod ram;
pub(crate) mod trial;

pub(crate) use frame::OwnedFrames;

use crate::sync::SpinLock;
use core::sync::atomic::{AtomicBool, Ordering};
use early::EarlyFrames;
use mm::Memory;

/// This machine, as `mm` sees it. What it does for `mm` is told above, in [`host`](super::host): it needs page tables and
/// tasks.
pub(crate) struct Kernel;

/// Frames until `mm` has them. The holder of the lock must not allocate: the heap grows by frames from here.
pub(crate) static EARLY: SpinLock<EarlyFrames> = SpinLock::new(EarlyFrames::empty());
pub(crate) static MM: spin::Once<Memory<Kernel>> = spin::Once::new();
/// Whether frames come from `mm`: what it has of boot memory then is enough to hand the rest over.
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// The memory of the machine.
///
/// # Panics
/// Boot memory was not handed over before, a mistake of the boot order.
pub(crate) fn mm() -> &'static Memory<Kernel> {
    MM.get().expect("the boot order hands memory over first")
}

/// From now on frames come from `mm`.
pub(crate) fn open() {
    // Release pairs with the Acquire in `mm_if_open`.
    IS_OPEN.store(true, Ordering::Release);
}

pub(crate) fn mm_if_open() -> Option<&'static Memory<Kernel>> {
    // Acquire pairs with the Release in `open`.
    if IS_OPEN.load(Ordering::Acquire) { MM.get() } else { None }
}
