//! A slot is handled by one task at a time: no DIMM is ejected while its memory is being added by hand.
//!
//! A turn lasts as long as the work does, so none is taken only to look.

use crate::drivers::dimm::SLOT_LIMIT;
use crate::task::{Cancelled, WaitQueue};
use core::sync::atomic::{AtomicBool, Ordering};

/// Which slots are being handled.
#[derive(Debug)]
pub(in crate::sources) struct Turns {
    taken: [AtomicBool; SLOT_LIMIT as usize],
    waiters: WaitQueue,
}

/// The right to handle one slot, given up when dropped.
#[must_use = "a turn that nobody holds is over"]
#[derive(Debug)]
pub(in crate::sources) struct Turn<'a> {
    turns: &'a Turns,
    slot: u32,
}

impl Turns {
    pub(in crate::sources) const fn new() -> Self {
        Self { taken: [const { AtomicBool::new(false) }; SLOT_LIMIT as usize], waiters: WaitQueue::new() }
    }

    /// Waits until no other task handles the slot.
    pub(in crate::sources) fn take(&self, slot: u32) -> Turn<'_> {
        let mut turn = None;
        self.waiters.wait_until(|| {
            turn = self.try_take(slot);
            turn.is_some()
        });
        turn.expect("the wait ends with a turn")
    }

    /// The same, unless the task is asked to stop meanwhile.
    pub(in crate::sources) fn take_cancellable(&self, slot: u32) -> Result<Turn<'_>, Cancelled> {
        let mut turn = None;
        self.waiters.wait_until_cancellable(|| {
            turn = self.try_take(slot);
            turn.is_some()
        })?;
        Ok(turn.expect("the wait ends with a turn"))
    }

    /// The turn, if it is free.
    pub(in crate::sources) fn try_take(&self, slot: u32) -> Option<Turn<'_>> {
        // Acquire pairs with the Release in `drop`: what was done in the turn before is seen.
        let taken = self.taken[slot as usize].compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        taken.is_ok().then(|| Turn { turns: self, slot })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Release pairs with the Acquire in `try_take`.
        self.turns.taken[self.slot as usize].store(false, Ordering::Release);
        self.turns.waiters.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_handled_by_one_at_a_time_and_others_meanwhile() {
        let turns = Turns::new();
        let first = turns.take(3);
        // Asking in vain takes nothing from anybody.
        assert!((0..2).all(|_| turns.try_take(3).is_none()));
        let other = turns.take_cancellable(4);
        assert!(other.is_ok());
        drop(first);
        assert!(turns.try_take(3).is_some() && turns.try_take(4).is_none());
    }
}
