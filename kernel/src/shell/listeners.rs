//! Scripted listeners: they answer as somebody at the console has told them, and log every call.
//!
//! The notifier chain wants a listener that stays for ever, so there is a pool, as large as the chain. What a listener is to
//! answer, and the log, are behind one spin lock: whatever task changes memory calls it, and several may at once.

use crate::sync::SpinLock;
use heapless::Deque;
use mm::addr::SectionRange;
use mm::record::notifier::{Accept, ChainError, Change, Direction, LISTENER_LIMIT, MemoryListener, Name};

/// How many calls the log keeps.
const CALL_LOG_LIMIT: usize = 256;

/// A member of the pool, by its place.
#[derive(Clone, Copy)]
struct Scripted(usize);

static POOL: [Scripted; LISTENER_LIMIT] = {
    let mut pool = [Scripted(0); LISTENER_LIMIT];
    let mut place = 0;
    while place < LISTENER_LIMIT {
        pool[place] = Scripted(place);
        place += 1;
    }
    pool
};

static SCRIPTS: SpinLock<Scripts> = SpinLock::new(Scripts::new());

impl MemoryListener for Scripted {
    fn prepare(&self, change: &Change) -> Accept {
        SCRIPTS.lock().prepare(self.0, About::of(change))
    }

    fn committed(&self, change: &Change) {
        SCRIPTS.lock().note(self.0, About::of(change), CallKind::Committed);
    }

    fn cancelled(&self, change: &Change) {
        SCRIPTS.lock().note(self.0, About::of(change), CallKind::Cancelled);
    }
}

/// What a listener was told to answer.
#[derive(Clone, Copy)]
pub(super) struct Script {
    name: Name,
    /// Whether it refuses to let memory come.
    pub(super) vetoes_online: bool,
    /// Whether it refuses to let memory go.
    pub(super) vetoes_offline: bool,
}

impl Script {
    /// It refuses changes in `direction` from now on.
    pub(super) fn veto(&mut self, direction: Direction) {
        match direction {
            Direction::Online => self.vetoes_online = true,
            Direction::Offline => self.vetoes_offline = true,
        }
    }

    /// It accepts everything from now on.
    pub(super) fn allow(&mut self) {
        self.vetoes_online = false;
        self.vetoes_offline = false;
    }

    fn answer(&self, direction: Direction) -> Accept {
        let vetoes = match direction {
            Direction::Online => self.vetoes_online,
            Direction::Offline => self.vetoes_offline,
        };
        if vetoes { Accept::No } else { Accept::Yes }
    }
}

/// What a call is about, as the log tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct About {
    pub(super) direction: Direction,
    pub(super) blocks: SectionRange,
}

impl About {
    const fn of(change: &Change) -> Self {
        Self { direction: change.direction, blocks: change.range }
    }
}

/// One call that a listener got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Call {
    /// Whom.
    pub(super) listener: Name,
    /// About what.
    pub(super) about: About,
    /// Which call.
    pub(super) kind: CallKind,
}

/// The calls, with the answer where there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CallKind {
    /// Asked, and how it answered.
    Prepare(Accept),
    /// Told of success.
    Committed,
    /// Told of failure.
    Cancelled,
}

/// The scripts of the pool, and the log.
struct Scripts {
    places: [Option<Script>; LISTENER_LIMIT],
    calls: Deque<Call, CALL_LOG_LIMIT>,
}

impl Scripts {
    const fn new() -> Self {
        Self { places: [None; LISTENER_LIMIT], calls: Deque::new() }
    }

    fn claim(&mut self, name: Name) -> Result<usize, ChainError> {
        if self.find(name).is_some() {
            return Err(ChainError::Exists);
        }
        let place = self.places.iter().position(Option::is_none).ok_or(ChainError::Full)?;
        self.places[place] = Some(Script { name, vetoes_online: false, vetoes_offline: false });
        Ok(place)
    }

    fn release(&mut self, name: Name) {
        self.places
            .iter_mut()
            .filter(|place| place.is_some_and(|script| script.name == name))
            .for_each(|it| *it = None);
    }

    fn find(&mut self, name: Name) -> Option<&mut Script> {
        self.places.iter_mut().flatten().find(|script| script.name == name)
    }

    fn script(&self, place: usize) -> Script {
        self.places[place].expect("a listener is released when nobody calls it any more")
    }

    fn prepare(&mut self, place: usize, about: About) -> Accept {
        let answer = self.script(place).answer(about.direction);
        self.note(place, about, CallKind::Prepare(answer));
        answer
    }

    /// Logs a call, and forgets the oldest one where there is no room.
    fn note(&mut self, place: usize, about: About, kind: CallKind) {
        if self.calls.is_full() {
            self.calls.pop_front();
        }
        let call = Call { listener: self.script(place).name, about, kind };
        assert!(self.calls.push_back(call).is_ok(), "room was made");
    }
}

/// Takes a listener that accepts everything out of the pool; it is to be registered under that name.
pub(super) fn claim(name: Name) -> Result<&'static dyn MemoryListener, ChainError> {
    SCRIPTS.lock().claim(name).map(|place| &POOL[place] as &dyn MemoryListener)
}

/// Puts the listener of that name back; it is not registered any more.
pub(super) fn release(name: Name) {
    SCRIPTS.lock().release(name);
}

/// Changes the script of a listener, or looks at it; `None` if no scripted one has that name.
pub(super) fn with_script<R>(name: Name, work: impl FnOnce(&mut Script) -> R) -> Option<R> {
    SCRIPTS.lock().find(name).map(work)
}

/// Takes the oldest call off the log.
pub(super) fn next_call() -> Option<Call> {
    SCRIPTS.lock().calls.pop_front()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a valid name")
    }

    fn about(direction: Direction, first: u64) -> About {
        About { direction, blocks: SectionRange::new(first, 1).expect("in reach") }
    }

    #[test]
    fn a_veto_counts_in_its_own_direction_only_until_all_is_allowed() {
        let mut scripts = Scripts::new();
        let place = scripts.claim(name("a")).expect("room");
        let answers = |scripts: &mut Scripts| {
            [Direction::Online, Direction::Offline].map(|direction| scripts.prepare(place, about(direction, 32)))
        };
        assert_eq!(answers(&mut scripts), [Accept::Yes, Accept::Yes]);
        scripts.find(name("a")).expect("there").veto(Direction::Offline);
        assert_eq!(answers(&mut scripts), [Accept::Yes, Accept::No]);
        scripts.find(name("a")).expect("there").veto(Direction::Online);
        assert_eq!(answers(&mut scripts), [Accept::No, Accept::No]);
        scripts.find(name("a")).expect("there").allow();
        assert_eq!(answers(&mut scripts), [Accept::Yes, Accept::Yes]);
    }

    #[test]
    fn a_name_is_taken_once_and_a_place_again_and_again() {
        let mut scripts = Scripts::new();
        for number in 0..LISTENER_LIMIT {
            assert_eq!(scripts.claim(name(&alloc::format!("n{number}"))), Ok(number));
        }
        assert_eq!(scripts.claim(name("n3")), Err(ChainError::Exists));
        assert_eq!(scripts.claim(name("more")), Err(ChainError::Full));
        scripts.release(name("n7"));
        assert!(scripts.find(name("n7")).is_none());
        assert_eq!(scripts.claim(name("more")), Ok(7));
    }

    #[test]
    fn the_log_forgets_the_oldest_call() {
        let mut scripts = Scripts::new();
        let place = scripts.claim(name("a")).expect("room");
        for first in 0..=CALL_LOG_LIMIT as u64 {
            scripts.note(place, about(Direction::Online, first), CallKind::Committed);
        }
        assert_eq!(scripts.calls.len(), CALL_LOG_LIMIT);
        let oldest = scripts.calls.pop_front().expect("it is full");
        assert_eq!(oldest.about, about(Direction::Online, 1));
    }
}
