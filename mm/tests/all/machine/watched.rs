//! Locks that know what their thread holds and does meanwhile: nobody may hold a spin lock for long, and seams are called
//! without one.

use lock_api::RawMutex;
use std::cell::{Cell, RefCell};

/// How often struct pages may be looked at from the first spin lock that is taken to the last that is given back: about
/// what emptying a full cache of frames needs.
const MOST_LOOKS: usize = 2500;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static SLEEPING_HELD: Cell<usize> = const { Cell::new(0) };
    static LOOKS: Cell<usize> = const { Cell::new(0) };
    /// Where somebody wants to know: the addresses of the locks that this thread takes, in order.
    pub(crate) static TAKEN: RefCell<Option<Vec<usize>>> = const { RefCell::new(None) };
}

/// The spin lock.
pub(crate) struct Watched(parking_lot::RawMutex);

impl Watched {
    fn note_taken(&self) {
        HELD.set(HELD.get() + 1);
        TAKEN.with_borrow_mut(|taken| {
            if let Some(taken) = taken {
                taken.push(std::ptr::from_ref(self).addr());
            }
        });
    }
}

// SAFETY: Mutual exclusion is that of the inner lock.
unsafe impl RawMutex for Watched {
    const INIT: Self = Self(parking_lot::RawMutex::INIT);
    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        self.0.lock();
        self.note_taken();
    }

    fn try_lock(&self) -> bool {
        let is_taken = self.0.try_lock();
        if is_taken {
            self.note_taken();
        }
        is_taken
    }

    unsafe fn unlock(&self) {
        // SAFETY: The caller holds the lock.
        unsafe { self.0.unlock() };
        HELD.set(HELD.get() - 1);
        if HELD.get() == 0 {
            let looks = LOOKS.take();
            assert!(looks <= MOST_LOOKS, "struct pages are looked at {looks} times while a spin lock is held");
        }
    }
}

/// The sleeping lock.
pub(crate) struct WatchedSleep(parking_lot::RawMutex);

// SAFETY: Mutual exclusion is that of the inner lock.
unsafe impl RawMutex for WatchedSleep {
    const INIT: Self = Self(parking_lot::RawMutex::INIT);
    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        self.0.lock();
        SLEEPING_HELD.set(SLEEPING_HELD.get() + 1);
    }

    fn try_lock(&self) -> bool {
        let is_taken = self.0.try_lock();
        SLEEPING_HELD.set(SLEEPING_HELD.get() + usize::from(is_taken));
        is_taken
    }

    unsafe fn unlock(&self) {
        // SAFETY: The caller holds the lock.
        unsafe { self.0.unlock() };
        SLEEPING_HELD.set(SLEEPING_HELD.get() - 1);
    }
}

/// This thread holds neither a spin lock nor a sleeping one.
#[track_caller]
pub(crate) fn assert_no_lock_held() {
    assert_none_held();
    assert_eq!(SLEEPING_HELD.get(), 0, "a sleeping lock is held");
}

/// This thread holds no spin lock.
#[track_caller]
pub(crate) fn assert_none_held() {
    assert_eq!(HELD.get(), 0, "a spin lock is held");
}

/// This thread looks at a struct page.
pub(crate) fn note_look() {
    if HELD.get() > 0 {
        LOOKS.set(LOOKS.get() + 1);
    }
}
