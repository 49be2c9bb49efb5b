//! How a device calls its driver: by an interrupt, as long as interrupts arrive, and else not at all.
//!
//! Which line a device has may be known wrongly, and a device may call without end. So interrupts are believed in once one has
//! been heard, and no more when they have been cut off; else the driver looks at its device every [`LOOK`]. The handler has the
//! device be quiet, notes that it called, and wakes the driver.

use super::Trouble;
use super::shared::Registers;
use crate::arch::{self, GsiMode, Heard, Listener, Listening, Message};
use crate::drivers::pci::{self, Function, Line};
use crate::memory::mmio::Mmio;
use crate::task::Signal;
use crate::time;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use core::time::Duration;

/// How often a device that does not call is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How often a driver looks for an answer that the device calls for, and for one that it does not.
const LOOK_FOR_ANSWER: Duration = Duration::from_millis(100);
const LOOK_FOR_ANSWER_UNTOLD: Duration = Duration::from_millis(1);

/// So often in a second a device may call that is asked nothing.
const UNASKED_MAX: u32 = 1000;
const SECOND_NS: u64 = 1_000_000_000;

/// How a device that has called is made quiet.
pub(super) enum Quieting<R> {
    /// Its status is zero if it did not call, and reading it suffices (virtio 1.2 §4.1.4.5).
    Read(R),
    /// What its status says is written back (§4.2.2).
    Acknowledge(R),
    /// It calls by messages, of which this is the entry.
    Mask(R),
}

// Registers of devices on a memory-mapped bus.
pub(super) const INTERRUPT_STATUS: usize = 0x60;
pub(super) const INTERRUPT_ACKNOWLEDGE: usize = 0x64;
/// An entry of messages is address, its upper half, data, and this.
const ENTRY_CONTROL: usize = 12;
const ENTRY_MASKED: u32 = 1;
const ENTRY_BYTES: usize = 16;

/// What the interrupt handler leaves to the driver.
pub(super) struct Bell<R> {
    quieting: Option<Quieting<R>>,
    signal: Signal,
    /// How often it rang in the second that began then, without the answers to what it was asked.
    unasked: AtomicU32,
    second_ns: AtomicU64,
    was_heard: AtomicBool,
    is_cut_off: AtomicBool,
}

impl<R: Registers> Bell<R> {
    pub(super) const fn new(quieting: Option<Quieting<R>>) -> Self {
        Self {
            quieting,
            signal: Signal::new(),
            unasked: AtomicU32::new(0),
            second_ns: AtomicU64::new(0),
            was_heard: AtomicBool::new(false),
            is_cut_off: AtomicBool::new(false),
        }
    }

    /// Whether a driver that waits will be woken.
    fn rings(&self) -> bool {
        self.was_heard.load(Relaxed) && !self.is_cut_off.load(Relaxed)
    }

    /// Has the device send a message when it calls.
    fn expect(&self, message: Message) {
        if let Some(Quieting::Mask(entry)) = &self.quieting {
            entry.write_u32(ENTRY_CONTROL, ENTRY_MASKED);
            entry.write_u32(0, message.address as u32);
            entry.write_u32(4, (message.address >> 32) as u32);
            entry.write_u32(8, message.data);
            entry.write_u32(ENTRY_CONTROL, 0);
        }
    }

    fn quieten(&self) -> Heard {
        match &self.quieting {
            Some(Quieting::Read(status)) if status.read_u8(0) == 0 => Heard::Nothing,
            Some(Quieting::Acknowledge(registers)) => match registers.read_u32(INTERRUPT_STATUS) {
                0 => Heard::Nothing,
                status => {
                    registers.write_u32(INTERRUPT_ACKNOWLEDGE, status);
                    Heard::Call
                }
            },
            _ => Heard::Call,
        }
    }
}

impl<R: Registers + Send + Sync> Listener for Bell<R> {
    fn hear(&self) -> Heard {
        if self.quieten() == Heard::Nothing {
            return Heard::Nothing;
        }
        let now = time::now_ns();
        if now.saturating_sub(self.second_ns.load(Relaxed)) >= SECOND_NS {
            self.second_ns.store(now, Relaxed);
            self.unasked.store(0, Relaxed);
        }
        let unasked = self.unasked.fetch_add(1, Relaxed);
        self.was_heard.store(true, Relaxed);
        self.signal.raise();
        if unasked < UNASKED_MAX { Heard::Call } else { Heard::TooMuch }
    }

    fn cut_off(&self) {
        self.is_cut_off.store(true, Relaxed);
        if let Some(Quieting::Mask(entry)) = &self.quieting {
            entry.write_u32(ENTRY_CONTROL, ENTRY_MASKED);
        }
        self.signal.raise();
    }
}

/// The calls of a device.
pub(crate) struct Calls {
    bell: Arc<Bell<Mmio>>,
    listening: Option<Listening>,
    /// Whose line is to be quiet when nobody listens any more.
    line_of: Option<Function>,
    is_over: AtomicBool,
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.listening {
            Some(listening) => listening.fmt(f),
            None => f.write_str("no interrupt"),
        }
    }
}

impl Calls {
    const fn new(bell: Arc<Bell<Mmio>>, listening: Option<Listening>, line_of: Option<Function>) -> Self {
        Self { bell, listening, line_of, is_over: AtomicBool::new(false) }
    }

    /// Of a device that does not call.
    pub(super) fn none() -> Self {
        Self::new(Arc::new(Bell::new(None)), None, None)
    }

    /// Of a function that sends messages, if it can and there is one left for it.
    pub(super) fn by_message(function: &Function) -> Option<Self> {
        let entry = Mmio::map(pci::messages(function)?.entry, ENTRY_BYTES)?;
        let bell = Arc::new(Bell::new(Some(Quieting::Mask(entry))));
        let (listening, message) = arch::listen_to_message(Arc::clone(&bell) as Arc<dyn Listener>)?;
        bell.expect(message);
        Some(Self::new(bell, Some(listening), None))
    }

    /// Of a function that says by `status` whether it called on its line, if it is known where that arrives.
    pub(super) fn by_line(function: &Function, status: Mmio) -> Option<Self> {
        let bell = Arc::new(Bell::new(Some(Quieting::Read(status))));
        let listening = arch::listen_on_line(pci::line(function)?, Arc::clone(&bell) as Arc<dyn Listener>)?;
        pci::set_line(function, Line::Heard);
        Some(Self::new(bell, Some(listening), Some(function.clone())))
    }

    /// Of a device with a line of its own, and with these registers.
    pub(super) fn by_own_line(registers: Mmio, gsi: u32, mode: GsiMode) -> Option<Self> {
        let bell = Arc::new(Bell::new(Some(Quieting::Acknowledge(registers))));
        let listening = arch::listen(gsi, mode, Arc::clone(&bell) as Arc<dyn Listener>)?;
        Some(Self::new(bell, Some(listening), None))
    }

    /// Has whoever waits look at once.
    pub(crate) fn wake(&self) {
        self.bell.signal.raise();
    }

    /// Waits until the device may have something to say, or for so long; fails if it has gone.
    pub(crate) fn wait(&self, limit: Option<Duration>) -> Result<(), Trouble> {
        let look = (!self.bell.rings()).then_some(LOOK);
        match limit.into_iter().chain(look).min() {
            Some(pause) => {
                self.bell.signal.wait_until(time::deadline_after(pause));
            }
            None => self.bell.signal.wait(),
        }
        if self.is_over.load(Relaxed) { Err(Trouble::Gone) } else { Ok(()) }
    }

    /// Waits a moment for the answer to what the device was asked.
    pub(crate) fn wait_for_answer(&self) -> Result<(), Trouble> {
        self.wait(Some(if self.bell.rings() { LOOK_FOR_ANSWER } else { LOOK_FOR_ANSWER_UNTOLD }))
    }

    /// The device is about to be asked something, whose answer it calls for; what it called for so far is looked at before the
    /// driver waits.
    pub(crate) fn expect_one(&self) {
        self.bell.signal.take();
        self.bell.unasked.update(Relaxed, Relaxed, |count| count.saturating_sub(1));
    }

    /// The device is not to call any more.
    pub(crate) fn close(&self) {
        if self.listening.is_some() {
            self.bell.cut_off();
        }
        if let Some(function) = &self.line_of {
            pci::set_line(function, Line::Quiet);
        }
    }

    /// The device has gone; its driver is told.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Relaxed);
        self.bell.signal.raise();
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::vec::Vec;

    /// Registers of which all read the same; the last that was written, and what.
    struct Registered(u32, Mutex<(usize, u32)>);

    impl Registered {
        fn reading(value: u32) -> Self {
            Self(value, Mutex::new((0, 0)))
        }

        fn written(&self) -> (usize, u32) {
            *self.1.lock().expect("unpoisoned")
        }
    }

    impl Registers for Registered {
        fn len(&self) -> usize {
            0x100
        }

        fn read_u8(&self, _: usize) -> u8 {
            self.0 as u8
        }

        fn read_u16(&self, _: usize) -> u16 {
            self.0 as u16
        }

        fn read_u32(&self, _: usize) -> u32 {
            self.0
        }

        fn write_u8(&self, _: usize, _: u8) {}

        fn write_u16(&self, _: usize, _: u16) {}

        fn write_u32(&self, at: usize, value: u32) {
            *self.1.lock().expect("unpoisoned") = (at, value);
        }
    }

    fn bell(quieting: fn(Registered) -> Quieting<Registered>, value: u32) -> Bell<Registered> {
        Bell::new(Some(quieting(Registered::reading(value))))
    }

    #[test]
    fn interrupts_are_believed_in_once_one_was_heard_and_until_they_are_cut_off() {
        let bell = bell(Quieting::Read, 3);
        assert!(!bell.rings());
        assert_eq!(bell.hear(), Heard::Call);
        assert!(bell.rings() && bell.signal.take());
        bell.cut_off();
        assert!(!bell.rings() && bell.signal.take(), "its driver looks at once");
    }

    #[test]
    fn a_device_that_did_not_call_is_not_taken_to_have_done_so() {
        for quieting in [Quieting::Read, Quieting::Acknowledge] {
            let bell = bell(quieting, 0);
            assert_eq!(bell.hear(), Heard::Nothing);
            assert!(!bell.rings() && !bell.signal.take());
        }
    }

    #[test]
    fn what_a_status_says_is_written_back_and_a_message_is_masked_in_the_end() {
        let mapped = bell(Quieting::Acknowledge, 2);
        assert_eq!(mapped.hear(), Heard::Call);
        let Some(Quieting::Acknowledge(registers)) = &mapped.quieting else { panic!("it has registers") };
        assert_eq!(registers.written(), (0x64, 2));
        let other = bell(Quieting::Mask, 0);
        assert_eq!(other.hear(), Heard::Call);
        other.cut_off();
        let Some(Quieting::Mask(entry)) = &other.quieting else { panic!("it has an entry") };
        assert_eq!(entry.written(), (12, 1));
    }

    #[test]
    fn a_device_that_calls_without_end_is_too_much_and_one_that_answers_is_not() {
        let calls = Calls::none();
        for _ in 0..10 * UNASKED_MAX {
            calls.expect_one();
            assert_eq!(calls.bell.hear(), Heard::Call);
        }
        let bell = bell(Quieting::Mask, 0);
        let heard: Vec<_> = (0..2 * UNASKED_MAX).map(|_| bell.hear()).collect();
        assert!(heard.contains(&Heard::TooMuch));
    }
}
