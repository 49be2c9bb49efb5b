//! The serial console: COM1, seen as a stream of lines.
//!
//! What goes out passes through `screen`, which finds the places where log lines may go.
//!
//! Input is taken out of the device by its interrupt and kept in a ring. When the ring is full the interrupt is turned
//! off and the bytes stay with the sender, so none is lost.
#![deny(unsafe_code)]

mod screen;

use crate::logging;
use crate::sync::SpinLock;
use crate::task::{self, Cancelled, TaskId, WaitQueue};
use crate::{arch, time};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use core::time::Duration;
use screen::Screen;
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::IER;
use uart_16550::{BaudRate, Config, Uart16550};

/// Input that nobody has read yet.
const INPUT_BYTES: usize = 128 * 1024;

/// What a formatted print sends in one piece, so that nothing comes between.
const PIECE_BYTES: usize = 256;

const CTRL_C: u8 = 3;
const COM1_IRQ: u8 = 4;

static UART: SpinLock<Uart16550<PioBackend>> = SpinLock::new(arch::ports::com1());
static INPUT: SpinLock<heapless::Deque<u8, INPUT_BYTES>> = SpinLock::new(heapless::Deque::new());
static INPUT_CHANGED: WaitQueue = WaitQueue::new();
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static BYTES_RECEIVED: AtomicU64 = AtomicU64::new(0);

static SCREEN: SpinLock<Screen> = SpinLock::new(Screen::new());

/// Whom Ctrl-C cancels; 0 for nobody.
static FOREGROUND: AtomicU64 = AtomicU64::new(0);

/// Whether a line is being edited, for the interrupt handler.
static EDITING: AtomicBool = AtomicBool::new(false);

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
/// The editor draws first and tells then; what it drew as its prompt counts as an output line until it has told.
pub(crate) fn set_input_line(prompt_and_text: &str, cursor: usize) {
    draw_input_line("", prompt_and_text, cursor);
}

/// Sends what the editor draws and records the result, with nothing in between.
pub(crate) fn draw_input_line(drawn: &str, prompt_and_text: &str, cursor: usize) {
    let mut screen = SCREEN.lock();
    let mut uart = UART.lock();
    screen.write(&mut Port(&mut uart), drawn);
    screen.edit(prompt_and_text, cursor);
    EDITING.store(true, Relaxed);
    screen.show_log(&mut Port(&mut uart), logging::read);
}

/// The line is finished, and the editor has sent its line end: what follows is the output of a command.
pub(crate) fn clear_input_line() {
    let mut screen = SCREEN.lock();
    screen.end_edit();
    EDITING.store(false, Relaxed);
    screen.show_log(&mut Port(&mut UART.lock()), logging::read);
}

/// Writes text; line feeds become carriage return and line feed.
pub(crate) fn write_str(text: &str) {
    if crate::panic::in_progress() {
        let sent = Port(&mut arch::ports::com1_unlocked()).write_str(text);
        return sent.expect("the port takes everything");
    }
    let mut screen = SCREEN.lock();
    let mut uart = UART.lock();
    screen.write(&mut Port(&mut uart), text);
    screen.show_log(&mut Port(&mut uart), logging::read);
}

/// Shows the log lines that have not been shown yet, if this is a moment for it.
pub(crate) fn show_log() {
    if !crate::panic::in_progress() {
        SCREEN.lock().show_log(&mut Port(&mut UART.lock()), logging::read);
    }
}

/// For a panic: ends an open line and shows every log line still waiting, as far as no lock is in the way.
pub(crate) fn flush_for_panic() {
    let mut uart = arch::ports::com1_unlocked();
    let port = &mut Port(&mut uart);
    match SCREEN.try_lock() {
        Some(mut screen) => {
            screen.break_line(port);
            screen.show_log(port, logging::try_read);
        }
        None => port.write_str("\n").expect("the port takes everything"),
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

/// The device as something to write text to: by polling, a FIFO full at a time.
struct Port<'a>(&'a mut Uart16550<PioBackend>);

impl Write for Port<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for line in text.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(line) => {
                    self.0.send_bytes_exact(line.as_bytes());
                    self.0.send_bytes_exact(b"\r\n");
                }
                None => self.0.send_bytes_exact(line.as_bytes()),
            }
        }
        Ok(())
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
