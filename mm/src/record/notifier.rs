//! The notifier chain: who is asked before memory changes, and told afterwards.
//!
//! Two changes times three calls are Linux's six memory notifications (`Documentation/core-api/memory-hotplug.rst`), but a
//! refusal exists only where it can be honoured, and only those that had accepted hear of a cancellation.

use crate::addr::{NodeId, SectionRange};
use crate::section::kind::ZoneKind;
use core::fmt;
use heapless::{Deque, Vec};

/// Which way memory goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Into a zone.
    Online,
    /// Out of a zone.
    Offline,
}

impl Direction {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
        }
    }
}

/// What is about to happen, or has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// Which way.
    pub direction: Direction,
    /// The blocks.
    pub range: SectionRange,
    /// The zone they enter or leave.
    pub zone: ZoneKind,
    /// The node of that zone.
    pub node: NodeId,
}

/// A refusal, and whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Veto {
    /// The listener that refused.
    pub by: Name,
}

/// A veto, and how many listeners had accepted before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(crate) veto: Veto,
    pub(crate) accepted: usize,
}

impl fmt::Display for Veto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vetoed by listener {}", self.by)
    }
}

/// The name of a listener: 1 to 24 letters, digits, `-`, `_` or `.`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; Self::LIMIT],
    len: u8,
}

impl Name {
    /// The longest name.
    pub const LIMIT: usize = 24;

    /// Checks and keeps `text`.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=Self::LIMIT).contains(&text.len());
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !fits || !plain {
            return None;
        }
        let mut bytes = [0; Self::LIMIT];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Some(Self { bytes, len: text.len() as u8 })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..usize::from(self.len)]).expect("only ASCII is kept")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A part of the kernel that wants to know.
///
/// Listeners are called by the task that changes memory, with no spin lock held: they may allocate, also from the new
/// memory once it is committed, but must not start another change.
pub trait MemoryListener: Sync {
    /// May the change happen? Whoever accepts hears `committed` or `cancelled` later.
    fn prepare(&self, change: &Change) -> Accept;
    /// It has happened.
    fn committed(&self, change: &Change);
    /// It will not happen; everything is as it was.
    fn cancelled(&self, change: &Change);
}

/// The answer to `prepare`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accept {
    /// Go on.
    Yes,
    /// Do not.
    No,
}

/// Why the chain could not be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChainError {
    /// A listener of that name exists.
    #[error("a listener of that name exists already")]
    Exists,
    /// No listener has that name.
    #[error("no such listener")]
    Unknown,
    /// It is a part of the kernel and cannot be scripted.
    #[error("that listener belongs to the kernel")]
    BuiltIn,
    /// There are too many.
    #[error("too many listeners")]
    Full,
}

impl ChainError {
    /// The errno name.
    #[must_use]
    pub const fn errno(self) -> crate::errno::Errno {
        use crate::errno::Errno;
        match self {
            Self::Exists => Errno::Exists,
            Self::Unknown => Errno::NoEntry,
            Self::BuiltIn => Errno::Invalid,
            Self::Full => Errno::NoMemory,
        }
    }
}

/// One call that a listener got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Whom.
    pub listener: Name,
    /// About what.
    pub change: Change,
    /// Which call.
    pub kind: CallKind,
}

/// The calls, with the answer where there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallKind {
    /// Asked, and how it answered.
    Prepare(Accept),
    /// Told of success.
    Committed,
    /// Told of failure.
    Cancelled,
}

/// A listener as the shell lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerReport {
    /// Its name.
    pub name: Name,
    /// Higher is asked first.
    pub priority: i32,
    /// Whether the shell made it.
    pub scripted: bool,
    /// Whether it refuses to let memory come.
    pub vetoes_online: bool,
    /// Whether it refuses to let memory go.
    pub vetoes_offline: bool,
}

enum Kind {
    BuiltIn(&'static dyn MemoryListener),
    Scripted { vetoes_online: bool, vetoes_offline: bool },
}

struct Listener {
    name: Name,
    priority: i32,
    kind: Kind,
}

/// The most listeners there can be.
pub const LISTENER_LIMIT: usize = 32;
/// How many calls the log keeps.
pub const CALL_LOG_LIMIT: usize = 256;

/// All listeners, the one to be asked first first.
pub(crate) struct Chain {
    listeners: Vec<Listener, LISTENER_LIMIT>,
    calls: Deque<Call, CALL_LOG_LIMIT>,
}

impl Chain {
    pub(crate) const fn new() -> Self {
        Self { listeners: Vec::new(), calls: Deque::new() }
    }

    pub(crate) fn register(
        &mut self,
        name: Name,
        priority: i32,
        listener: &'static dyn MemoryListener,
    ) -> Result<(), ChainError> {
        self.insert(Listener { name, priority, kind: Kind::BuiltIn(listener) })
    }

    pub(crate) fn add_scripted(&mut self, name: Name, priority: i32) -> Result<(), ChainError> {
        let kind = Kind::Scripted { vetoes_online: false, vetoes_offline: false };
        self.insert(Listener { name, priority, kind })
    }

    fn insert(&mut self, listener: Listener) -> Result<(), ChainError> {
        if self.position(listener.name).is_some() {
            return Err(ChainError::Exists);
        }
        // Equal priorities are asked in the order in which they came.
        let place = self.listeners.iter().take_while(|l| l.priority >= listener.priority).count();
        self.listeners.insert(place, listener).map_err(|_| ChainError::Full)
    }

    fn position(&self, name: Name) -> Option<usize> {
        self.listeners.iter().position(|l| l.name == name)
    }

    pub(crate) fn remove_scripted(&mut self, name: Name) -> Result<(), ChainError> {
        let place = self.position(name).ok_or(ChainError::Unknown)?;
        match self.listeners[place].kind {
            Kind::BuiltIn(_) => Err(ChainError::BuiltIn),
            Kind::Scripted { .. } => {
                self.listeners.remove(place);
                Ok(())
            }
        }
    }

    /// Makes a scripted listener refuse changes in `direction` from now on.
    pub(crate) fn veto(&mut self, name: Name, direction: Direction) -> Result<(), ChainError> {
        let (online, offline) = self.vetoes(name)?;
        match direction {
            Direction::Online => *online = true,
            Direction::Offline => *offline = true,
        }
        Ok(())
    }

    /// Makes a scripted listener accept everything again.
    pub(crate) fn allow(&mut self, name: Name) -> Result<(), ChainError> {
        let (online, offline) = self.vetoes(name)?;
        *online = false;
        *offline = false;
        Ok(())
    }

    fn vetoes(&mut self, name: Name) -> Result<(&mut bool, &mut bool), ChainError> {
        let place = self.position(name).ok_or(ChainError::Unknown)?;
        match &mut self.listeners[place].kind {
            Kind::BuiltIn(_) => Err(ChainError::BuiltIn),
            Kind::Scripted { vetoes_online, vetoes_offline } => Ok((vetoes_online, vetoes_offline)),
        }
    }

    /// Asks everybody in order. After a refusal, those that had accepted are still to hear of it, by
    /// [`cancelled`](Self::cancelled), once everything is as it was.
    pub(crate) fn prepare(&mut self, change: &Change) -> Result<(), Refusal> {
        for place in 0..self.listeners.len() {
            let listener = &self.listeners[place];
            let answer = match &listener.kind {
                Kind::BuiltIn(listener) => listener.prepare(change),
                Kind::Scripted { vetoes_online, vetoes_offline } => {
                    let vetoes = match change.direction {
                        Direction::Online => *vetoes_online,
                        Direction::Offline => *vetoes_offline,
                    };
                    if vetoes { Accept::No } else { Accept::Yes }
                }
            };
            let by = listener.name;
            self.log(by, change, CallKind::Prepare(answer));
            if answer == Accept::No {
                return Err(Refusal { veto: Veto { by }, accepted: place });
            }
        }
        Ok(())
    }

    /// Tells everybody that the change has happened.
    pub(crate) fn committed(&mut self, change: &Change) {
        for place in 0..self.listeners.len() {
            let listener = &self.listeners[place];
            if let Kind::BuiltIn(listener) = listener.kind {
                listener.committed(change);
            }
            self.log(self.listeners[place].name, change, CallKind::Committed);
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.listeners.len()
    }

    /// Tells the first `accepted`, last first, that the change will not happen.
    pub(crate) fn cancelled(&mut self, accepted: usize, change: &Change) {
        for place in (0..accepted).rev() {
            if let Kind::BuiltIn(listener) = self.listeners[place].kind {
                listener.cancelled(change);
            }
            self.log(self.listeners[place].name, change, CallKind::Cancelled);
        }
    }

    fn log(&mut self, listener: Name, change: &Change, kind: CallKind) {
        if self.calls.is_full() {
            self.calls.pop_front();
        }
        let call = Call { listener, change: *change, kind };
        assert!(self.calls.push_back(call).is_ok(), "room was made");
    }

    /// The oldest call not yet read.
    pub(crate) fn next_call(&mut self) -> Option<Call> {
        self.calls.pop_front()
    }

    pub(crate) fn report(&self, each: &mut dyn FnMut(ListenerReport)) {
        for listener in &self.listeners {
            let (scripted, vetoes_online, vetoes_offline) = match listener.kind {
                Kind::BuiltIn(_) => (false, false, false),
                Kind::Scripted { vetoes_online, vetoes_offline } => (true, vetoes_online, vetoes_offline),
            };
            each(ListenerReport {
                name: listener.name,
                priority: listener.priority,
                scripted,
                vetoes_online,
                vetoes_offline,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::String;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a valid name")
    }

    fn change() -> Change {
        Change {
            direction: Direction::Online,
            range: SectionRange::new(32, 2).expect("in reach"),
            zone: ZoneKind::Movable,
            node: NodeId::ZERO,
        }
    }

    fn calls(chain: &mut Chain) -> String {
        let mut text = String::new();
        while let Some(call) = chain.next_call() {
            let letter = call.listener.as_str();
            text += &match call.kind {
                CallKind::Prepare(_) => letter.to_lowercase(),
                CallKind::Committed => std::format!("{letter}!"),
                CallKind::Cancelled => letter.to_uppercase(),
            };
        }
        text
    }

    fn chain_of_four() -> Chain {
        let mut chain = Chain::new();
        for (text, priority) in [("d", 1), ("b", 5), ("a", 9), ("c", 5)] {
            chain.add_scripted(name(text), priority).expect("room");
        }
        chain
    }

    #[test]
    fn only_those_that_accepted_hear_of_a_cancellation_last_first() {
        let mut chain = chain_of_four();
        chain.veto(name("c"), Direction::Online).expect("exists");
        assert_eq!(chain.prepare(&change()), Err(Refusal { veto: Veto { by: name("c") }, accepted: 2 }));
        chain.cancelled(2, &change());
        assert_eq!(calls(&mut chain), "abcBA");
    }

    #[test]
    fn a_veto_counts_in_its_own_direction_only() {
        let mut chain = chain_of_four();
        chain.veto(name("c"), Direction::Offline).expect("exists");
        assert_eq!(chain.prepare(&change()), Ok(()));
        chain.committed(&change());
        assert_eq!(calls(&mut chain), "abcda!b!c!d!");
        chain.allow(name("c")).expect("exists");
        assert_eq!(chain.prepare(&Change { direction: Direction::Offline, ..change() }), Ok(()));
    }

    #[test]
    fn a_name_is_taken_once() {
        let mut chain = chain_of_four();
        assert_eq!(chain.add_scripted(name("a"), 0), Err(ChainError::Exists));
        assert_eq!(chain.remove_scripted(name("e")), Err(ChainError::Unknown));
        assert_eq!(chain.remove_scripted(name("a")), Ok(()));
        assert_eq!(chain.add_scripted(name("a"), 0), Ok(()));
    }

    #[test]
    fn the_log_forgets_the_oldest_call() {
        let mut chain = chain_of_four();
        for _ in 0..CALL_LOG_LIMIT {
            chain.committed(&change());
        }
        assert_eq!(calls(&mut chain).len(), 2 * CALL_LOG_LIMIT);
    }
}
