//! The journal of hotplug operations: what was done, how it ended, and where the time went.

use crate::addr::SectionRange;
use crate::errno::Errno;
use crate::machine::tasks::Clock;
use core::cell::{Cell, RefCell};
use heapless::{Deque, Vec};

/// The four verbs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Memory became known.
    Add,
    /// Memory entered a zone.
    Online,
    /// Memory left a zone.
    Offline,
    /// Memory was forgotten.
    Remove,
}

impl Op {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Remove => "remove",
        }
    }
}

/// A part of an operation and the time it took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Phase {
    /// Which part.
    pub name: &'static str,
    /// How long it took.
    pub ns: u64,
}

/// The most phases of one operation.
pub const PHASE_LIMIT: usize = 8;

/// One operation on consecutive blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Counts up from zero over all events.
    pub number: u64,
    /// When it ended, on the machine's clock.
    pub t_ns: u64,
    /// What.
    pub op: Op,
    /// On which blocks.
    pub range: SectionRange,
    /// How it ended.
    pub result: Result<(), Errno>,
    /// Pages that were moved elsewhere; of a command on several ranges, all of them with the first.
    pub moved: u64,
    /// Where the time went.
    pub phases: Vec<Phase, PHASE_LIMIT>,
}

/// How many events are kept.
pub const EVENT_LIMIT: usize = 256;

/// The last events.
pub(crate) struct Journal {
    events: Deque<Event, EVENT_LIMIT>,
    next_number: u64,
}

impl Journal {
    pub(crate) const fn new() -> Self {
        Self { events: Deque::new(), next_number: 0 }
    }

    pub(crate) fn record(&mut self, mut event: Event) {
        if self.events.is_full() {
            self.events.pop_front();
        }
        event.number = self.next_number;
        self.next_number += 1;
        assert!(self.events.push_back(event).is_ok(), "room was made");
    }

    /// The oldest kept event whose number is at least `number`.
    pub(crate) fn since(&self, number: u64) -> Option<Event> {
        let oldest = self.events.front()?.number;
        let skip = usize::try_from(number.saturating_sub(oldest)).ok()?;
        self.events.iter().nth(skip).cloned()
    }
}

/// Measures the phases of one operation, each from the moment that it is entered. Shared, so that what undoes a step can say that it
/// has begun, wherever the step before it ended.
pub(crate) struct Stopwatch<'a, C: Clock + ?Sized> {
    clock: &'a C,
    since: Cell<u64>,
    /// The one that is under way.
    current: Cell<Option<&'static str>>,
    /// Pushed to in place: to take them out and put them back would copy them all at each phase.
    phases: RefCell<Vec<Phase, PHASE_LIMIT>>,
    moved: Cell<u64>,
}

impl<'a, C: Clock + ?Sized> Stopwatch<'a, C> {
    /// Starts with the phase `first`.
    pub(crate) fn start(clock: &'a C, first: &'static str) -> Self {
        let since = Cell::new(clock.now_ns());
        Self { clock, since, current: Cell::new(Some(first)), phases: RefCell::default(), moved: Cell::new(0) }
    }

    /// The phase `next` begins, and the one before it ends.
    pub(crate) fn enter(&self, next: &'static str) {
        self.leave();
        self.current.set(Some(next));
    }

    /// The same for the last phase of an operation that failed, which several steps may share.
    pub(crate) fn enter_undo(&self) {
        const UNDO: &str = "undo";
        if self.current.get() != Some(UNDO) {
            self.enter(UNDO);
        }
    }

    fn leave(&self) {
        let Some(name) = self.current.take() else { return };
        let now = self.clock.now_ns();
        let phase = Phase { name, ns: now.saturating_sub(self.since.replace(now)) };
        assert!(self.phases.borrow_mut().push(phase).is_ok(), "an operation has at most PHASE_LIMIT phases");
    }

    /// So many pages more were moved elsewhere.
    pub(crate) fn note_moved(&self, pages: u64) {
        self.moved.set(self.moved.get() + pages);
    }

    /// What the journal keeps of an operation that has just ended. Of one that failed, the last phase is the undoing of those before
    /// it, if there was anything to be undone, and the one before that is where it ended.
    pub(crate) fn event(&self, op: Op, range: SectionRange, result: Result<(), Errno>) -> Event {
        self.leave();
        let phases = self.phases.borrow().clone();
        Event { number: 0, t_ns: self.clock.now_ns(), op, range, result, moved: self.moved.get(), phases }
    }
}
