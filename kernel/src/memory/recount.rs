//! The recount of all memory, as `memcheck` and whoever tests the machine from inside ask for it.
#![deny(unsafe_code)]

use super::mm;
use crate::task::{self, Frozen};
use crate::time;
use core::fmt;
use core::time::Duration;
use mm::validate::{Problem, Totals};

/// Problems beyond these are only counted.
const SHOWN_PROBLEMS: usize = 32;

/// How often what disagrees is counted.
const LOOKS: usize = 8;

/// How long others go on before they stand still again.
const GOING_ON: Duration = Duration::from_millis(2);

/// What a recount found.
pub(crate) struct Recount {
    /// Kept without the heap: room there could come from the memory that is being counted.
    problems: heapless::Vec<Problem, SHOWN_PROBLEMS>,
    totals: Totals,
}

/// Recounts all memory and compares with every counter. All other tasks stand still meanwhile; interrupts go on.
///
/// A task may be made to stand still between two steps of taking or giving memory, and then counts disagree: it is let go on,
/// and all is counted anew. What is really wrong is wrong each time.
pub(crate) fn recount() -> Recount {
    for _ in 1..LOOKS {
        let recount = look();
        if recount.is_ok() {
            return recount;
        }
        time::sleep(GOING_ON);
    }
    look()
}

fn look() -> Recount {
    let mut problems = heapless::Vec::new();
    let totals = mm().validate_with(freeze_others, |problem| {
        // The first ones say enough; all are counted.
        let _ = problems.push(problem);
    });
    Recount { problems, totals }
}

/// Whoever takes memory may be opening a section for it, whose struct pages are not all there: he is let finish.
fn freeze_others() -> Frozen {
    loop {
        let frozen = task::freeze_others();
        if !mm().is_opening_or_closing() {
            return frozen;
        }
        drop(frozen);
        time::sleep(GOING_ON);
    }
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
