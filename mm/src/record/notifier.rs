//! The notifier chain: listeners that are asked before memory changes, and told afterwards.
//!
//! Two changes times three calls are Linux's six memory notifications (`Documentation/core-api/memory-hotplug.rst`), but a
//! veto exists only where it can be honoured, and only those that had accepted hear of a cancellation.

use crate::addr::{NodeId, SectionRange};
use crate::section::group::GroupId;
use crate::section::kind::ZoneKind;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};
use heapless::Vec;
use lock_api::{Mutex, RawMutex};

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

/// What is about to happen, or has, to a run of blocks that share all of this.
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
    /// The group that the blocks came with; [`Memory::group`](crate::Memory::group) tells its name and all of its blocks.
    pub group: GroupId,
}

/// A listener's refusal.
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

/// A part of the kernel that wants to know of memory coming and going, on the notifier chain by a priority.
///
/// # Invariants
/// 1. *Locks.* The task that changes memory calls, and holds the range of its blocks but none of the subsystem's locks: a
///    listener may take, give back and look at memory, and may block. A task holds one range at a time, so a listener begins
///    no other operation, neither joins nor leaves the chain, and does not recount memory: it would wait for itself.
/// 2. *At once.* Operations on ranges that do not overlap call at the same time, hence `Sync`. About a block there is one call
///    at a time.
/// 3. *Pairs.* A listener that accepts in `prepare` hears either `committed` or `cancelled` of the same change, once, before the
///    operation is over. None joins or leaves the chain while an operation is under way.
/// 4. *Order.* `prepare` goes run by run of blocks, lowest first, and for each from the highest priority to the lowest; equal
///    ones in the order in which they joined. The first veto ends it. `committed` goes the same way, `cancelled` the
///    reverse way, to those that had accepted.
pub trait MemoryListener: Sync {
    /// May the change happen?
    ///
    /// # Invariants
    /// Before an online, the blocks are going online: their zone is chosen, and does not have them yet. Before an offline,
    /// they are going offline: free frames are out of reach, and what is in use is where it was. Nothing has moved yet.
    fn prepare(&self, change: &Change) -> Accept;

    /// It has happened.
    ///
    /// # Invariants
    /// After an online, the blocks are in their zone, and their frames can be had. After an offline, they are in none, and
    /// no frame of them is in use. Nothing undoes it any more.
    fn committed(&self, change: &Change);

    /// It will not happen, by a veto or a failure.
    ///
    /// # Invariants
    /// Everything has been undone: the blocks and their zones are as before the operation, and what is free can be had. What
    /// had moved stays where it is now.
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
            Self::Full => Errno::NoMemory,
        }
    }
}

/// A listener as it is listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListenerReport {
    /// Its name.
    pub name: Name,
    /// Higher is asked first.
    pub priority: i32,
}

#[derive(Clone, Copy)]
struct Entry {
    name: Name,
    priority: i32,
    listener: &'static dyn MemoryListener,
}

/// The most listeners there can be.
pub const LISTENER_LIMIT: usize = 32;

/// The notifier chain: all listeners, the highest priority first.
///
/// The lock is held to read or to change the list, never at a call. Listeners join and leave while no operation is under
/// way; so an operation finds the same ones each time.
pub(crate) struct Chain<S> {
    entries: Mutex<S, Vec<Entry, LISTENER_LIMIT>>,
    /// How many there are, for those who have nothing to do where nobody listens.
    count: AtomicUsize,
}

impl<S: RawMutex> Chain<S> {
    pub(crate) const fn new() -> Self {
        Self { entries: Mutex::new(Vec::new()), count: AtomicUsize::new(0) }
    }

    /// The caller holds all sections.
    pub(crate) fn register(
        &self,
        name: Name,
        priority: i32,
        listener: &'static dyn MemoryListener,
    ) -> Result<(), ChainError> {
        let mut entries = self.entries.lock();
        if entries.iter().any(|entry| entry.name == name) {
            return Err(ChainError::Exists);
        }
        // Equal priorities are asked in the order in which they came.
        let place = entries.iter().take_while(|entry| entry.priority >= priority).count();
        entries.insert(place, Entry { name, priority, listener }).map_err(|_| ChainError::Full)?;
        self.count.store(entries.len(), Ordering::Relaxed);
        Ok(())
    }

    /// The caller holds all sections.
    pub(crate) fn unregister(&self, name: Name) -> Result<(), ChainError> {
        let mut entries = self.entries.lock();
        let place = entries.iter().position(|entry| entry.name == name).ok_or(ChainError::Unknown)?;
        entries.remove(place);
        self.count.store(entries.len(), Ordering::Relaxed);
        Ok(())
    }

    /// How many there are. It changes only while no operation is under way, as its caller's is.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn entry(&self, place: usize) -> Option<Entry> {
        self.entries.lock().get(place).copied()
    }

    /// Asks everybody in order. After a veto, those that had accepted are still to hear of it, by
    /// [`cancelled`](Self::cancelled), once everything is as it was.
    pub(crate) fn prepare(&self, change: &Change) -> Result<(), Refusal> {
        let mut accepted = 0;
        while let Some(entry) = self.entry(accepted) {
            if entry.listener.prepare(change) == Accept::No {
                return Err(Refusal { veto: Veto { by: entry.name }, accepted });
            }
            accepted += 1;
        }
        Ok(())
    }

    /// Tells everybody that the change has happened.
    pub(crate) fn committed(&self, change: &Change) {
        let mut told = 0;
        while let Some(entry) = self.entry(told) {
            entry.listener.committed(change);
            told += 1;
        }
    }

    /// Tells the first `accepted`, last first, that the change will not happen.
    pub(crate) fn cancelled(&self, accepted: usize, change: &Change) {
        for place in (0..accepted).rev() {
            let entry = self.entry(place).expect("nobody leaves while an operation is under way");
            entry.listener.cancelled(change);
        }
    }

    pub(crate) fn report(&self, each: &mut dyn FnMut(ListenerReport)) {
        for &Entry { name, priority, .. } in &*self.entries.lock() {
            each(ListenerReport { name, priority });
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use parking_lot::{Mutex, RawMutex};
    use std::boxed::Box;
    use std::string::String;
    use std::sync::Arc;

    /// Writes down who was called, `a` by `prepare`, `a!` by `committed` and `A` by `cancelled`; may refuse one way.
    struct Recorder {
        letter: &'static str,
        refuses: Option<Direction>,
        calls: Arc<Mutex<String>>,
    }

    impl MemoryListener for Recorder {
        fn prepare(&self, change: &Change) -> Accept {
            *self.calls.lock() += self.letter;
            if self.refuses == Some(change.direction) { Accept::No } else { Accept::Yes }
        }

        fn committed(&self, _: &Change) {
            *self.calls.lock() += &std::format!("{}!", self.letter);
        }

        fn cancelled(&self, _: &Change) {
            *self.calls.lock() += &self.letter.to_uppercase();
        }
    }

    fn name(text: &str) -> Name {
        Name::new(text).expect("a valid name")
    }

    fn change(direction: Direction) -> Change {
        let range = SectionRange::new(32, 2).expect("in reach");
        Change { direction, range, zone: ZoneKind::Movable, node: NodeId::ZERO, group: GroupId::new(3) }
    }

    /// `a` to `d`, of which `c` may refuse, and their calls.
    fn chain_of_four(refuses: Option<Direction>) -> (Chain<RawMutex>, Arc<Mutex<String>>) {
        let (chain, calls) = (Chain::new(), Arc::default());
        for (letter, priority) in [("d", 1), ("b", 5), ("a", 9), ("c", 5)] {
            let refuses = refuses.filter(|_| letter == "c");
            let listener = Box::leak(Box::new(Recorder { letter, refuses, calls: Arc::clone(&calls) }));
            chain.register(name(letter), priority, listener).expect("room");
        }
        (chain, calls)
    }

    #[test]
    fn only_those_that_accepted_hear_of_a_cancellation_last_first() {
        let (chain, calls) = chain_of_four(Some(Direction::Online));
        let change = change(Direction::Online);
        assert_eq!(chain.prepare(&change), Err(Refusal { veto: Veto { by: name("c") }, accepted: 2 }));
        chain.cancelled(2, &change);
        assert_eq!(*calls.lock(), "abcBA");
    }

    #[test]
    fn a_change_is_told_in_the_order_in_which_it_was_asked() {
        let (chain, calls) = chain_of_four(Some(Direction::Offline));
        let change = change(Direction::Online);
        assert_eq!(chain.prepare(&change), Ok(()));
        chain.committed(&change);
        assert_eq!(*calls.lock(), "abcda!b!c!d!");
    }

    #[test]
    fn a_name_is_taken_once() {
        let (chain, calls) = chain_of_four(None);
        let another = Box::leak(Box::new(Recorder { letter: "e", refuses: None, calls }));
        assert_eq!(chain.register(name("a"), 0, another), Err(ChainError::Exists));
        assert_eq!(chain.unregister(name("e")), Err(ChainError::Unknown));
        assert_eq!(chain.unregister(name("a")), Ok(()));
        assert_eq!(chain.register(name("a"), 0, another), Ok(()));
    }

    #[test]
    fn there_are_so_many_listeners_and_no_more() {
        let (chain, calls) = chain_of_four(None);
        let another = &*Box::leak(Box::new(Recorder { letter: "e", refuses: None, calls }));
        let register = |number| chain.register(name(&std::format!("e{number}")), 0, another);
        for number in 4..LISTENER_LIMIT {
            assert_eq!(register(number), Ok(()));
        }
        assert_eq!(register(LISTENER_LIMIT), Err(ChainError::Full));
    }
}
