//! A spin lock that knows what its thread holds and does meanwhile: nobody may hold one for long.

use lock_api::RawMutex;
use std::cell::{Cell, RefCell};

/// How often struct pages may be looked at from the first spin lock that is taken to the last that is given back: about
/// what emptying a full cache of frames needs.
const MOST_LOOKS: usize = 2500;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static LOOKS: Cell<usize> = const { Cell::new(0) };
    /// Where somebody wants to know: the addresses of the locks that this thread takes, in order.
    pub(crate) static TAKEN: RefCell<Option<Vec<usize>>> = const { RefCell::new(None) };
}

/// See the module.
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
