//! The recount of all memory, for `memcheck` and for tests from inside the machine.
#![deny(unsafe_code)]

use crate::memory::mm;
use crate::{task, vm};
use core::cell::RefCell;
use core::fmt;
use mm::observe::validate::{Problem, Totals};

/// Problems beyond these are only counted.
const SHOWN_PROBLEMS: usize = 32;

/// What a recount found.
pub(crate) struct Recount {
    /// Kept without the heap: room there could come from the memory that is being counted.
    problems: heapless::Vec<Problem, SHOWN_PROBLEMS>,
    totals: Totals,
}

/// Recounts all memory and compares with every counter. All other tasks stand still meanwhile; interrupts go on.
pub(crate) fn recount() -> Recount {
    let problems = RefCell::new(heapless::Vec::new());
    let note = |problem| {
        // The first ones say enough; all are counted.
        let _ = problems.borrow_mut().push(problem);
    };
    let mut in_spaces = 0;
    let stop_others = || {
        let frozen = task::freeze_others();
        vm::recount(&mut |problem| {
            in_spaces += 1;
            note(problem);
        });
        frozen
    };
    let mut totals = mm().validate_with(stop_others, note);
    totals.problems += in_spaces;
    Recount { problems: problems.into_inner(), totals }
}

impl Recount {
    pub(crate) const fn is_ok(&self) -> bool {
        self.totals.problems == 0
    }

    pub(crate) const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The first problems.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }
}

/// What disagrees.
impl fmt::Display for Recount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.problems.iter().enumerate() {
            let separator = if number == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        match self.totals.problems.saturating_sub(self.problems.len() as u64) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}
