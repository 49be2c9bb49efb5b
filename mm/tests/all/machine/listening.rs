//! Listeners for tests, each called with no lock held, and one that keeps a record.

use crate::machine::{Fake, watched};
use mm::Memory;
use mm::record::notifier::{Accept, Change, MemoryListener, Name};
use std::sync::{Arc, Mutex};

/// Registers a listener, which stays for ever.
pub(crate) fn listen(memory: &Memory<Fake>, name: &str, priority: i32, listener: impl MemoryListener + 'static) {
    let name = Name::new(name).expect("a valid name");
    memory.register_listener(name, priority, Box::leak(Box::new(Unlocked(listener)))).expect("room");
}

/// A listener, and that no lock is held at its calls.
struct Unlocked<L>(L);

impl<L: MemoryListener> MemoryListener for Unlocked<L> {
    fn prepare(&self, change: &Change) -> Accept {
        watched::assert_no_lock_held();
        self.0.prepare(change)
    }

    fn committed(&self, change: &Change) {
        watched::assert_no_lock_held();
        self.0.committed(change);
    }

    fn cancelled(&self, change: &Change) {
        watched::assert_no_lock_held();
        self.0.cancelled(change);
    }
}

/// One call that a recorder got.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Call {
    pub(crate) listener: &'static str,
    pub(crate) kind: CallKind,
    pub(crate) change: Change,
}

/// The calls, with the answer where there is one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum CallKind {
    Prepare(Accept),
    Committed,
    Cancelled,
}

/// What its recorders heard, the oldest call first.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<Call>>>);

impl Heard {
    /// Registers one more recorder, which accepts everything.
    pub(crate) fn listen(&self, memory: &Memory<Fake>, name: &'static str, priority: i32) -> Arc<Refusals> {
        let refusals = Arc::new(Refusals(Mutex::new(|_| false)));
        listen(memory, name, priority, Recorder { name, heard: self.clone(), refusals: Arc::clone(&refusals) });
        refusals
    }

    /// All calls since the last time.
    pub(crate) fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// What a recorder refuses.
pub(crate) struct Refusals(Mutex<fn(&Change) -> bool>);

impl Refusals {
    /// From now on it refuses changes of which this holds.
    pub(crate) fn refuse(&self, these: fn(&Change) -> bool) {
        *self.0.lock().unwrap() = these;
    }
}

struct Recorder {
    name: &'static str,
    heard: Heard,
    refusals: Arc<Refusals>,
}

impl Recorder {
    fn note(&self, change: &Change, kind: CallKind) {
        self.heard.0.lock().unwrap().push(Call { listener: self.name, kind, change: *change });
    }
}

impl MemoryListener for Recorder {
    fn prepare(&self, change: &Change) -> Accept {
        let refuses = *self.refusals.0.lock().unwrap();
        let answer = if refuses(change) { Accept::No } else { Accept::Yes };
        self.note(change, CallKind::Prepare(answer));
        answer
    }

    fn committed(&self, change: &Change) {
        self.note(change, CallKind::Committed);
    }

    fn cancelled(&self, change: &Change) {
        self.note(change, CallKind::Cancelled);
    }
}
