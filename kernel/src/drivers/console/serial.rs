//! The serial port and the bytes on their way through it.
//!
//! Short output leaves at once, so that nothing that was said is lost when the machine hangs a moment later; the rest
//! waits in a ring and leaves by interrupt. Input comes by interrupt; when its ring is full the interrupt stays off and
//! the bytes stay with the sender.
#![deny(unsafe_code)]

use crate::time;
use core::fmt::{self, Write};
use core::time::Duration;
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::IER;
use uart_16550::{BaudRate, Config, Uart16550};

/// Input that nobody has read yet.
const INPUT_BYTES: usize = 128 * 1024;

/// Output that the device has not taken yet.
pub(super) const OUTPUT_BYTES: usize = 64 * 1024;

/// How many times the device's FIFO is filled while the writer waits, and per interrupt.
const LOADS_AT_ONCE: usize = 8;

/// When the device takes nothing for so long, nobody reads at its other end.
const STALL: Duration = Duration::from_secs(5);

/// A 16550 and its rings.
pub(super) struct Serial {
    uart: Uart16550<PioBackend>,
    /// Without a device everything is accepted and forgotten.
    present: bool,
    /// Before interrupts work, output is sent by polling.
    by_interrupt: bool,
    /// The device took nothing for `STALL`, and has taken nothing since.
    stalled: bool,
    /// The interrupts that the device has turned on.
    announced: IER,
    input: heapless::Deque<u8, INPUT_BYTES>,
    output: heapless::Deque<u8, OUTPUT_BYTES>,
}

impl Serial {
    pub(super) const fn new(uart: Uart16550<PioBackend>) -> Self {
        Self {
            uart,
            present: false,
            by_interrupt: false,
            stalled: false,
            announced: IER::empty(),
            input: heapless::Deque::new(),
            output: heapless::Deque::new(),
        }
    }

    /// Sets the line parameters; from here on output works.
    pub(super) fn init(&mut self) {
        let config = Config { baud_rate: BaudRate::Baud115200, ..Config::DEFAULT };
        self.present = self.uart.init(config).is_ok();
    }

    /// Works by interrupt from here on.
    pub(super) fn start_interrupts(&mut self) {
        self.by_interrupt = self.present;
        self.announce(self.wanted());
    }

    /// Serves the device. `keep` says which bytes of the input go into the ring.
    ///
    /// The interrupt line of an ISA device is an edge. So all causes are turned off during the work and on again after it:
    /// whatever has come up meanwhile then raises a new one, and the work can be bounded.
    pub(super) fn on_interrupt(&mut self, mut keep: impl FnMut(u8) -> bool) {
        self.announce(IER::empty());
        while !self.input.is_full() {
            let Ok(byte) = self.uart.try_receive_byte() else { break };
            if keep(byte) {
                self.input.push_back(byte).expect("the ring is not full");
            }
        }
        self.send(LOADS_AT_ONCE);
        self.announce(self.wanted());
    }

    /// The next byte of input.
    pub(super) fn take_input(&mut self) -> Option<u8> {
        let byte = self.input.pop_front();
        self.announce_changes();
        byte
    }

    /// Lets the device have what was written since the last call.
    pub(super) fn kick(&mut self) {
        if self.by_interrupt {
            self.send(LOADS_AT_ONCE);
            self.announce_changes();
        } else {
            self.flush();
        }
    }

    /// Waits until the device has taken everything, or takes no more.
    pub(super) fn flush(&mut self) {
        self.send_until(LOADS_AT_ONCE, |serial| serial.output.is_empty());
    }

    fn send_until(&mut self, loads: usize, done: impl Fn(&Self) -> bool) {
        let mut deadline = time::deadline_after(if self.stalled { Duration::ZERO } else { STALL });
        while !done(self) {
            if self.send(loads) {
                deadline = time::deadline_after(STALL);
            } else if time::now_ns() >= deadline {
                self.stalled = true;
                break;
            }
        }
    }

    /// Whether so many bytes can be written without waiting for the device.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.output.capacity() - self.output.len() >= bytes
    }

    /// Lets the device send directly, past the ring; for a test that has turned its output back into its input.
    pub(super) fn send_directly(&mut self, bytes: &[u8]) -> usize {
        self.uart.send_bytes(bytes)
    }

    /// Says whether the ring is shorter than before.
    fn send(&mut self, loads: usize) -> bool {
        let before = self.output.len();
        if !self.present {
            self.output.clear();
        }
        for _ in 0..loads {
            let sent = self.uart.send_bytes(self.output.as_slices().0);
            if sent == 0 {
                break;
            }
            for _ in 0..sent {
                self.output.pop_front();
            }
        }
        let moved = self.output.len() < before;
        self.stalled &= !moved;
        moved
    }

    fn wanted(&self) -> IER {
        let mut wanted = IER::empty();
        wanted.set(IER::DATA_READY, !self.input.is_full());
        wanted.set(IER::THR_EMPTY, !self.output.is_empty());
        wanted
    }

    fn announce_changes(&mut self) {
        if self.announced != self.wanted() {
            self.announce(self.wanted());
        }
    }

    fn announce(&mut self, interrupts: IER) {
        if self.by_interrupt {
            self.uart.disable_interrupts(self.announced - interrupts);
            self.uart.enable_interrupts(interrupts);
            self.announced = interrupts;
        }
    }
}

/// Text goes into the ring, line feeds as carriage return and line feed; only a full ring makes the writer wait.
/// Where that may not last for ever, because interrupts are off, what finds no room in the end is lost.
impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.put(b'\r');
            }
            self.put(byte);
        }
        Ok(())
    }
}

impl Serial {
    fn put(&mut self, byte: u8) {
        if self.output.is_full() {
            self.send_until(1, |serial| !serial.output.is_full());
        }
        if !self.output.is_full() {
            self.output.push_back(byte).expect("the ring is not full");
        }
    }
}
