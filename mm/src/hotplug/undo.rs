//! The undoing of a step, as a value.

use crate::machine::tasks::Clock;
use crate::record::journal::Stopwatch;

/// Undoes something when dropped, unless it is disarmed; that is a phase of the operation.
#[must_use = "what is not disarmed is undone at once"]
pub(super) struct Undo<'a, C: Clock, F: FnMut()> {
    stopwatch: &'a Stopwatch<'a, C>,
    undo: Option<F>,
}

impl<'a, C: Clock, F: FnMut()> Undo<'a, C, F> {
    pub(super) fn new(stopwatch: &'a Stopwatch<'a, C>, undo: F) -> Self {
        Self { stopwatch, undo: Some(undo) }
    }

    /// What was done stays.
    pub(super) fn disarm(mut self) {
        self.undo = None;
    }
}

impl<C: Clock, F: FnMut()> Drop for Undo<'_, C, F> {
    fn drop(&mut self) {
        if let Some(mut undo) = self.undo.take() {
            self.stopwatch.enter_undo();
            undo();
        }
    }
}
