//! The journal of hotplug operations: what was done, how it ended, and where the time went.

use crate::addr::SectionRange;
use crate::errno::Errno;
use crate::machine::Clock;
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
pub const PHASE_LIMIT: usize = 6;

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

/// Measures the phases of one operation.
pub(crate) struct Stopwatch<'a, C: Clock + ?Sized> {
    clock: &'a C,
    since: u64,
    phases: Vec<Phase, PHASE_LIMIT>,
    /// Pages that were moved elsewhere.
    pub(crate) moved: u64,
}

impl<'a, C: Clock + ?Sized> Stopwatch<'a, C> {
    pub(crate) fn start(clock: &'a C) -> Self {
        Self { clock, since: clock.now_ns(), phases: Vec::new(), moved: 0 }
    }

    /// The time since the start or the last lap was spent on `name`.
    pub(crate) fn lap(&mut self, name: &'static str) {
        let now = self.clock.now_ns();
        let phase = Phase { name, ns: now.saturating_sub(self.since) };
        assert!(self.phases.push(phase).is_ok(), "an operation has at most PHASE_LIMIT phases");
        self.since = now;
    }

    /// What the journal keeps of an operation that has just ended. Of one that failed, the last phase is the step that it ended
    /// in and the undoing of those before.
    pub(crate) fn event(&mut self, op: Op, range: SectionRange, result: Result<(), Errno>) -> Event {
        if result.is_err() {
            self.lap("failed");
        }
        let t_ns = self.clock.now_ns();
        Event { number: 0, t_ns, op, range, result, moved: self.moved, phases: self.phases.clone() }
    }
}
