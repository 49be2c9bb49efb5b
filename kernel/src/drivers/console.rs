//! The serial console: COM1, seen as a stream of lines.
//!
//! Output has two modes. While somebody edits a command (`set_input_line`), a log line moves above that line, which is
//! drawn again. Else a command is printing: log lines wait until its current line is complete.
//!
//! Input is taken out of the device by its interrupt and kept in a ring. When the ring is full the interrupt is turned
//! off and the bytes stay with the sender, so none is lost.
#![deny(unsafe_code)]

use crate::logging::{self, Line};
use crate::sync::SpinLock;
use crate::task::{self, Cancelled, TaskId, WaitQueue};
use crate::{arch, time};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use core::time::Duration;
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::IER;
use uart_16550::{BaudRate, Config, Uart16550};

/// Input that nobody has read yet.
const INPUT_BYTES: usize = 128 * 1024;

/// A longer input line is redrawn as far as this.
const EDIT_MAX: usize = 4096;

/// What a formatted print sends in one piece, so that nothing comes between.
const PIECE_BYTES: usize = 256;

const CTRL_C: u8 = 3;
const COM1_IRQ: u8 = 4;

/// Erases the line being edited.
const ERASE_LINE: &str = "\r\x1b[K";

static UART: SpinLock<Uart16550<PioBackend>> = SpinLock::new(arch::ports::com1());
static INPUT: SpinLock<heapless::Deque<u8, INPUT_BYTES>> = SpinLock::new(heapless::Deque::new());
static INPUT_CHANGED: WaitQueue = WaitQueue::new();
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static BYTES_RECEIVED: AtomicU64 = AtomicU64::new(0);

static OUTPUT: SpinLock<Output> = SpinLock::new(Output { edit: None, line_open: false, next_log: 0 });

/// Whom Ctrl-C cancels; 0 for nobody.
static FOREGROUND: AtomicU64 = AtomicU64::new(0);

/// Whether a line is being edited, for the interrupt handler.
static EDITING: AtomicBool = AtomicBool::new(false);

/// What is on the screen.
struct Output {
    /// The line being edited, when one is.
    edit: Option<EditedLine>,
    /// A command has printed the beginning of a line.
    line_open: bool,
    /// The number of the next log line to show.
    next_log: u64,
}

struct EditedLine {
    text: heapless::String<EDIT_MAX>,
    /// Characters to the right of the cursor.
    behind_cursor: usize,
}

/// Prepares the device; from here on output works, by polling.
pub(crate) fn early() {
    let mut uart = UART.lock();
    let config = Config { baud_rate: BaudRate::Baud115200, ..Config::DEFAULT };
    // Without a device there is nobody to tell; the kernel runs on in silence.
    let _ = uart.init(config);
}

/// Takes input by interrupt from here on.
pub(crate) fn start() {
    arch::interrupts::route_isa(COM1_IRQ, receive);
    UART.lock().enable_interrupts(IER::DATA_READY);
}

/// Waits for a byte of input.
pub(crate) fn read_byte() -> u8 {
    let mut byte = None;
    INPUT_CHANGED.wait_until(|| {
        byte = take_byte();
        byte.is_some()
    });
    byte.expect("the wait ends with a byte")
}

/// Waits for a byte of input, or until the task is asked to stop.
pub(crate) fn read_byte_cancellable() -> Result<u8, Cancelled> {
    let mut byte = None;
    INPUT_CHANGED.wait_until_cancellable(|| {
        byte = take_byte();
        byte.is_some()
    })?;
    Ok(byte.expect("the wait ends with a byte"))
}

/// Waits for a byte of input, but not for ever.
pub(crate) fn read_timeout(patience: Duration) -> Option<u8> {
    let mut byte = None;
    INPUT_CHANGED.wait_until_deadline(
        || {
            byte = take_byte();
            byte.is_some()
        },
        time::deadline_after(patience),
    );
    byte
}

/// Lets the device send bytes to itself, as far as its FIFO takes them; for testing. Says how many.
pub(crate) fn loop_back(bytes: &[u8]) -> usize {
    const LOOP_BACK: u8 = 1 << 4;
    let control = arch::ports::com1_modem_control();
    let mut uart = UART.lock();
    let usual = control.read_u8(0);
    control.write_u8(0, usual | LOOP_BACK);
    let sent = uart.send_bytes(bytes);
    control.write_u8(0, usual);
    sent
}

/// How many bytes have come in since boot.
pub(crate) fn bytes_received() -> u64 {
    BYTES_RECEIVED.load(Relaxed)
}

/// Whether Ctrl-C came while a command ran.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Relaxed)
}

/// Forgets a Ctrl-C; says whether there was one.
pub(crate) fn take_interrupt() -> bool {
    INTERRUPTED.swap(false, Relaxed)
}

/// Names the task that Ctrl-C cancels while no line is being edited.
pub(crate) fn set_foreground(task: Option<TaskId>) {
    FOREGROUND.store(task.map_or(0, TaskId::as_u64), Relaxed);
}

/// Tells what stands on the line being edited (prompt and text) and where the cursor is, in characters from its start.
///
/// The editor draws the line itself; this is for redrawing it below a log line.
pub(crate) fn set_input_line(prompt_and_text: &str, cursor: usize) {
    let mut text = heapless::String::new();
    for letter in prompt_and_text.chars() {
        if text.push(letter).is_err() {
            break;
        }
    }
    let behind_cursor = text.chars().count().saturating_sub(cursor);
    let mut output = OUTPUT.lock();
    output.show_log();
    output.edit = Some(EditedLine { text, behind_cursor });
    EDITING.store(true, Relaxed);
}

/// The line is finished: what follows is the output of a command. The editor has sent its line end.
pub(crate) fn clear_input_line() {
    let mut output = OUTPUT.lock();
    output.edit = None;
    EDITING.store(false, Relaxed);
    output.line_open = false;
    output.show_log();
}

/// Writes text; line feeds become carriage return and line feed.
pub(crate) fn write_str(text: &str) {
    if text.is_empty() {
        return;
    }
    if crate::panic::in_progress() {
        send(&mut arch::ports::com1_unlocked(), text);
        return;
    }
    let mut output = OUTPUT.lock();
    send(&mut UART.lock(), text);
    if output.edit.is_none() {
        output.line_open = !text.ends_with('\n');
        output.show_log();
    }
}

/// Shows the log lines that have not been shown yet, if this is a moment for it.
pub(crate) fn show_log() {
    if !crate::panic::in_progress() {
        OUTPUT.lock().show_log();
    }
}

/// For a panic: ends an open line and shows every log line still waiting, without taking a lock for granted.
pub(crate) fn flush_for_panic() {
    let uart = &mut arch::ports::com1_unlocked();
    let mut next_log = match OUTPUT.try_lock() {
        Some(output) => {
            if output.line_open || output.edit.is_some() {
                send(uart, "\n");
            }
            output.next_log
        }
        None => {
            send(uart, "\n");
            return;
        }
    };
    let mut line = Line::new();
    while let Some(after) = logging::try_read(next_log, &mut line) {
        send(uart, &line);
        send(uart, "\n");
        next_log = after;
    }
}

impl Output {
    fn show_log(&mut self) {
        if self.line_open {
            return;
        }
        let mut line = Line::new();
        let Some(mut next) = logging::read(self.next_log, &mut line) else {
            return;
        };
        let mut uart = UART.lock();
        if self.edit.is_some() {
            send(&mut uart, ERASE_LINE);
        }
        loop {
            send(&mut uart, &line);
            send(&mut uart, "\n");
            self.next_log = next;
            match logging::read(next, &mut line) {
                Some(after) => next = after,
                None => break,
            }
        }
        if let Some(edit) = &self.edit {
            send(&mut uart, &edit.text);
            for _ in 0..edit.behind_cursor {
                send(&mut uart, "\x08");
            }
        }
    }
}

/// The interrupt handler: moves what the device holds into the ring.
fn receive() {
    let mut uart = UART.lock();
    let mut input = INPUT.lock();
    let mut received = 0;
    let mut interrupted = false;
    while !input.is_full() {
        let Ok(byte) = uart.try_receive_byte() else {
            break;
        };
        received += 1;
        if byte == CTRL_C && !EDITING.load(Relaxed) {
            interrupted = true;
        } else {
            input.push_back(byte).expect("the ring is not full");
        }
    }
    if input.is_full() {
        uart.disable_interrupts(IER::DATA_READY);
    }
    drop(input);
    drop(uart);
    BYTES_RECEIVED.fetch_add(received, Relaxed);
    if interrupted {
        INTERRUPTED.store(true, Relaxed);
        task::cancel(TaskId::from(FOREGROUND.load(Relaxed)));
    }
    INPUT_CHANGED.wake_all();
}

fn take_byte() -> Option<u8> {
    let mut input = INPUT.lock();
    let was_full = input.is_full();
    let byte = input.pop_front();
    drop(input);
    if was_full {
        UART.lock().enable_interrupts(IER::DATA_READY);
    }
    byte
}

/// Sends text by polling, a FIFO full at a time.
fn send(uart: &mut Uart16550<PioBackend>, text: &str) {
    for line in text.split_inclusive('\n') {
        match line.strip_suffix('\n') {
            Some(line) => {
                uart.send_bytes_exact(line.as_bytes());
                uart.send_bytes_exact(b"\r\n");
            }
            None => uart.send_bytes_exact(line.as_bytes()),
        }
    }
}

/// Formats into pieces, each sent at once.
#[derive(Default)]
struct Pieces {
    piece: heapless::String<PIECE_BYTES>,
}

impl Pieces {
    fn flush(&mut self) {
        write_str(&self.piece);
        self.piece.clear();
    }
}

impl Write for Pieces {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for line in text.split_inclusive('\n') {
            for letter in line.chars() {
                if self.piece.push(letter).is_err() {
                    self.flush();
                    self.piece.push(letter).expect("an empty piece has room for a character");
                }
            }
            if line.ends_with('\n') {
                self.flush();
            }
        }
        Ok(())
    }
}

/// Writes formatted text; `print!` and `println!` come here.
pub(crate) fn print(arguments: fmt::Arguments<'_>) {
    let mut pieces = Pieces::default();
    // Writing pieces cannot fail; a `Display` that fails leaves shorter text.
    let _ = pieces.write_fmt(arguments);
    pieces.flush();
}

/// Prints to the console.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::drivers::console::print(::core::format_args!($($argument)*)) };
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::drivers::console::write_str("\n") };
    ($($argument:tt)*) => {
        $crate::drivers::console::print(::core::format_args!("{}\n", ::core::format_args!($($argument)*)))
    };
}
