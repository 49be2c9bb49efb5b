//! Interrupts of devices that come and go: lines that several share, and messages that a device writes (Intel SDM volume 3,
//! §11.11).
//!
//! A driver listens with a [`Listener`] for as long as it keeps what it got for that. A device that calls again and again while
//! nobody comes, and a line on which nobody calls but which never rests, are cut off: one line in the log, and whoever listened
//! is told.

use super::interrupts::{self, GSIS_MAX};
use super::madt::{GsiMode, Trigger};
use crate::sync::SpinLock;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::{fmt, ptr};

/// Who wants to know that a device calls. Interrupts are off in both.
pub(crate) trait Listener: Send + Sync {
    /// Notes whether the device called, and has it be quiet.
    fn hear(&self) -> Heard;

    /// Nothing will be heard any more; also makes the device quiet, if it can.
    fn cut_off(&self);
}

/// What a listener makes of an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It was another device on the line.
    Nothing,
    Call,
    /// It called too often while nobody came.
    TooMuch,
}

/// So often in a row nobody has called; then the line is stuck.
const UNEXPLAINED_MAX: u32 = 1000;

/// How many devices can have a message.
pub(super) const MESSAGES_MAX: usize = 45;

/// Where and what a device writes to interrupt the boot CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) address: u64,
    pub(crate) data: u32,
}

/// Listens until it is dropped.
#[must_use = "nobody listens any more when it is dropped"]
pub(crate) struct Listening {
    place: Place,
    listener: Arc<dyn Listener>,
}

#[derive(Clone, Copy)]
enum Place {
    Line(u32),
    Message(usize),
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Line(gsi) => write!(f, "interrupt {gsi}"),
            Place::Message(number) => write!(f, "message {number}"),
        }
    }
}

/// Who listens on a line or to a message.
struct Audience {
    listeners: Vec<Arc<dyn Listener>>,
    mode: GsiMode,
    /// How often nobody called since somebody did.
    unexplained: u32,
}

impl Audience {
    const NOBODY: Self = Self { listeners: Vec::new(), mode: GsiMode::ISA, unexplained: 0 };

    /// Lets everybody listen; says whether it must be the last time.
    fn tell(&mut self) -> bool {
        let mut all = Heard::Nothing;
        for listener in &self.listeners {
            match listener.hear() {
                Heard::Nothing => {}
                Heard::Call if all == Heard::TooMuch => {}
                heard => all = heard,
            }
        }
        self.unexplained = if all == Heard::Nothing { self.unexplained + 1 } else { 0 };
        all == Heard::TooMuch || self.unexplained > UNEXPLAINED_MAX
    }

    fn cut_off(&mut self) {
        self.listeners.iter().for_each(|listener| listener.cut_off());
        self.unexplained = 0;
    }
}

static LINES: [SpinLock<Audience>; GSIS_MAX] = [const { SpinLock::new(Audience::NOBODY) }; GSIS_MAX];
static MESSAGES: [SpinLock<Audience>; MESSAGES_MAX] = [const { SpinLock::new(Audience::NOBODY) }; MESSAGES_MAX];

/// Listens on the line that a device of PCI shares, which arrives as that ISA interrupt; `None` if it is somebody's alone, or
/// arrives nowhere. Such a line is low while somebody calls, unless the firmware says otherwise.
pub(crate) fn listen_on_line(irq: u8, listener: Arc<dyn Listener>) -> Option<Listening> {
    let (gsi, said) = interrupts::isa_unless_default(irq);
    let mode = said.map_or(GsiMode::PCI, |mode| GsiMode { trigger: Trigger::Level, ..mode });
    listen(gsi, mode, listener)
}

/// Listens on a line; `None` if it is somebody's alone, arrives nowhere, or others on it have it be otherwise.
pub(crate) fn listen(gsi: u32, mode: GsiMode, listener: Arc<dyn Listener>) -> Option<Listening> {
    if !interrupts::may_be_shared(gsi) {
        return None;
    }
    let mut audience = LINES.get(gsi as usize)?.lock();
    let is_first = audience.listeners.is_empty();
    if !is_first && audience.mode != mode {
        return None;
    }
    audience.listeners.push(Arc::clone(&listener));
    audience.mode = mode;
    if is_first {
        interrupts::open_line(gsi, mode);
    }
    Some(Listening { place: Place::Line(gsi), listener })
}

/// Listens to a message of a device's own; `None` if there are no more.
pub(crate) fn listen_to_message(listener: Arc<dyn Listener>) -> Option<(Listening, Message)> {
    let (listening, number) = claim(listener)?;
    Some((listening, interrupts::message(number)))
}

fn claim(listener: Arc<dyn Listener>) -> Option<(Listening, usize)> {
    for (number, audience) in MESSAGES.iter().enumerate() {
        let mut audience = audience.lock();
        if audience.listeners.is_empty() {
            audience.listeners.push(Arc::clone(&listener));
            return Some((Listening { place: Place::Message(number), listener }, number));
        }
    }
    None
}

/// A line with listeners calls.
pub(super) fn on_line(gsi: u32) {
    let mut audience = LINES[gsi as usize].lock();
    if audience.tell() {
        log::warn!(target: "irq", "interrupt {gsi} does not rest: it is masked");
        interrupts::close_line(gsi);
        audience.cut_off();
    }
}

/// A device has written a message. Whoever listened may have stopped while it was on its way.
pub(super) fn on_message(number: usize) {
    let Some(mut audience) = MESSAGES.get(number).map(SpinLock::lock) else { return };
    if !audience.listeners.is_empty() && audience.tell() {
        log::warn!(target: "irq", "message {number} comes again and again: its device is not listened to any more");
        audience.cut_off();
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut audience = match self.place {
            Place::Line(gsi) => LINES[gsi as usize].lock(),
            Place::Message(number) => MESSAGES[number].lock(),
        };
        audience.listeners.retain(|listener| !ptr::addr_eq(Arc::as_ptr(listener), Arc::as_ptr(&self.listener)));
        if let (Place::Line(gsi), true) = (self.place, audience.listeners.is_empty()) {
            interrupts::close_line(gsi);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
    use std::vec;

    /// Hears the same always.
    struct Ear {
        hears: Heard,
        heard: AtomicUsize,
        is_cut_off: AtomicBool,
    }

    impl Listener for Ear {
        fn hear(&self) -> Heard {
            self.heard.fetch_add(1, Relaxed);
            self.hears
        }

        fn cut_off(&self) {
            self.is_cut_off.store(true, Relaxed);
        }
    }

    fn ear(hears: Heard) -> Arc<Ear> {
        Arc::new(Ear { hears, heard: AtomicUsize::new(0), is_cut_off: AtomicBool::new(false) })
    }

    fn audience(ears: &[&Arc<Ear>]) -> Audience {
        let listeners = ears.iter().map(|ear| Arc::clone(ear) as Arc<dyn Listener>).collect();
        Audience { listeners, ..Audience::NOBODY }
    }

    #[test]
    fn everybody_on_a_line_is_told_and_one_who_is_called_explains_it() {
        let (called, other) = (ear(Heard::Call), ear(Heard::Nothing));
        let mut both = audience(&[&called, &other]);
        assert!((0..5 * UNEXPLAINED_MAX).all(|_| !both.tell()));
        assert_eq!((called.heard.load(Relaxed), other.heard.load(Relaxed)), (5000, 5000));
    }

    #[test]
    fn a_line_on_which_nobody_calls_is_cut_off_after_a_while() {
        let others = [ear(Heard::Nothing), ear(Heard::Nothing)];
        let mut all = audience(&[&others[0], &others[1]]);
        assert!((0..UNEXPLAINED_MAX).all(|_| !all.tell()));
        assert!(all.tell());
        all.cut_off();
        assert!(others.iter().all(|ear| ear.is_cut_off.load(Relaxed)));
        assert!(!all.tell());
    }

    #[test]
    fn one_call_too_many_is_one_whatever_the_others_hear() {
        let ears = [ear(Heard::Call), ear(Heard::TooMuch), ear(Heard::Call), ear(Heard::Nothing)];
        assert!(audience(&ears.iter().collect::<Vec<_>>()).tell());
        assert_eq!(ears.iter().map(|ear| ear.heard.load(Relaxed)).collect::<Vec<_>>(), vec![1; 4]);
    }

    #[test]
    fn messages_are_given_once_and_again_when_nobody_listens_any_more() {
        let first = ear(Heard::Call);
        let second = ear(Heard::Call);
        let claimed = |ear: &Arc<Ear>| claim(Arc::clone(ear) as Arc<dyn Listener>).expect("there are messages");
        let (kept, number) = claimed(&first);
        let (other, other_number) = claimed(&second);
        assert_ne!(number, other_number);
        on_message(number);
        drop(kept);
        on_message(number);
        on_message(other_number);
        assert_eq!((first.heard.load(Relaxed), second.heard.load(Relaxed)), (1, 1));
        drop(other);
    }
}
