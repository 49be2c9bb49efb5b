//! The serial console: COM1, seen as a stream of lines.
//!
//! `screen` finds the places in the output where log lines may go; `serial` carries the bytes.
#![deny(unsafe_code)]

mod screen;
mod serial;

use crate::logging::ring;
use crate::sync::SpinLock;
use crate::task::{self, TaskId, WaitQueue};
use crate::{arch, time};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;
use screen::{LOG_ROOM, Screen, Writer};
use serial::{OUTPUT_BYTES, Serial};

/// What a formatted print sends in one piece, so that nothing comes between.
const PIECE_BYTES: usize = 256;

/// What is sent with interrupts off in between.
const CHUNK_BYTES: usize = 2048;

const CTRL_C: u8 = 3;
const COM1_IRQ: u8 = 4;

static SERIAL: SpinLock<Serial> = SpinLock::new(Serial::new(arch::ports::com1()));
static INPUT_CHANGED: WaitQueue = WaitQueue::new();
static OUTPUT_CHANGED: WaitQueue = WaitQueue::new();

/// The room from which on those are woken who wait for some, so that not every byte that leaves wakes them.
static ROOM_WANTED: AtomicUsize = AtomicUsize::new(0);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static BYTES_RECEIVED: AtomicU64 = AtomicU64::new(0);

static SCREEN: SpinLock<Screen> = SpinLock::new(Screen::new());

/// Log lines wait for room behind the output.
static LOG_WAITS: AtomicBool = AtomicBool::new(false);

/// Whom Ctrl-C cancels.
static FOREGROUND: AtomicU64 = AtomicU64::new(NOBODY);
const NOBODY: u64 = u64::MAX;

/// Whether a line is being edited, for the interrupt handler.
static EDITING: AtomicBool = AtomicBool::new(false);

/// Prepares the device; from here on output works, by polling.
pub(crate) fn early() {
    SERIAL.lock().init();
}

/// Works by interrupt from here on.
pub(crate) fn start() {
    arch::interrupts::route_isa(COM1_IRQ, on_interrupt);
    SERIAL.lock().start_interrupts();
}

/// Waits until everything printed has left, as long as somebody reads it; for those who are about to switch the machine off.
pub(crate) fn flush() {
    SERIAL.lock().flush();
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
    let mut serial = SERIAL.lock();
    serial.flush();
    let usual = control.read_u8(0);
    control.write_u8(0, usual | LOOP_BACK);
    let sent = serial.send_directly(bytes);
    control.write_u8(0, usual);
    sent
}

/// How many bytes have come in since boot.
pub(crate) fn bytes_received() -> u64 {
    BYTES_RECEIVED.load(Relaxed)
}

/// Forgets a Ctrl-C; says whether there was one.
pub(crate) fn take_interrupt() -> bool {
    INTERRUPTED.swap(false, Relaxed)
}

/// Names the task that Ctrl-C cancels while no line is being edited.
pub(crate) fn set_foreground(task: Option<TaskId>) {
    FOREGROUND.store(task.map_or(NOBODY, TaskId::as_u64), Relaxed);
}

/// Sends what the editor draws and records the result, with nothing in between: what stands on the line being edited (prompt
/// and text), and where the cursor is, in characters from its start.
pub(crate) fn draw_input_line(drawn: &str, prompt_and_text: &str, cursor: usize) {
    change_screen(Writer::Command, room_for(drawn), |screen, serial| {
        screen.write(serial, drawn);
        screen.edit(prompt_and_text, cursor);
        EDITING.store(true, Relaxed);
    });
}

/// Sends the last of what the editor draws: the line is finished, and what follows is the output of a command. No log line
/// comes in between, or it would draw the finished line again below itself.
pub(crate) fn end_input_line(drawn: &str) {
    change_screen(Writer::Command, room_for(drawn), |screen, serial| {
        screen.write(serial, drawn);
        screen.end_edit();
        EDITING.store(false, Relaxed);
    });
}

/// Writes text; line feeds become carriage return and line feed.
pub(crate) fn write_str(text: &str) {
    if arch::is_panicking() {
        return last_words(text);
    }
    for chunk in chunks(text) {
        change_screen(Writer::Command, room_for(chunk), |screen, serial| screen.write(serial, chunk));
    }
}

/// Cuts a text into what is sent at once.
fn chunks(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    core::iter::from_fn(move || {
        let (chunk, after) = rest.split_at(rest.floor_char_boundary(CHUNK_BYTES));
        rest = after;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// The bytes that a text becomes, at most.
fn room_for(text: &str) -> usize {
    // Twice, for the line feeds.
    (2 * text.len()).min(OUTPUT_BYTES)
}

/// Writes what the current task has to say in the background, above the line being edited. A line that it begins it also
/// ends: until then nobody else prints.
pub(crate) fn write_above(text: &str) {
    let job = task::current();
    for chunk in chunks(text) {
        change_screen(Writer::Job(job), room_for(chunk), |screen, serial| screen.write_above(serial, job, chunk));
    }
}

/// Shows the log lines that have not been shown yet, if this is a moment for it.
pub(crate) fn show_log() {
    if !arch::is_panicking() {
        change_any_screen(0, |_| true, |_, _| ());
    }
}

/// Shows the log lines that have not been shown yet, unless somebody holds the console.
pub(crate) fn try_show_log() -> bool {
    let Some((mut screen, mut serial)) = SCREEN.try_lock().zip(SERIAL.try_lock()) else { return false };
    let has_room = |serial: &mut Serial| serial.has_room_for(LOG_ROOM);
    LOG_WAITS.store(screen.show_log(&mut *serial, has_room, ring::read_for_console), Relaxed);
    serial.kick();
    true
}

/// For a panic: ends an open line and shows every log line still waiting, as far as no lock is in the way.
pub(crate) fn flush_for_panic() {
    let locks = SCREEN.try_lock().zip(SERIAL.try_lock());
    let Some((mut screen, mut serial)) = locks else {
        return last_words("\n");
    };
    screen.break_line(&mut *serial);
    let make_room = |serial: &mut Serial| {
        serial.flush();
        true
    };
    screen.show_log(&mut *serial, make_room, ring::try_read_for_console);
    serial.flush();
}

/// Does something to the screen for `writer` that sends up to `bytes`, as soon as nobody else's line is in the way.
fn change_screen(writer: Writer, bytes: usize, change: impl FnOnce(&mut Screen, &mut Serial)) {
    change_any_screen(bytes, |screen| screen.takes(writer), change);
}

/// Does something to the screen that sends up to `bytes`, then shows the log lines for which there is a place now. Before
/// that it waits, where waiting is possible, until the screen is `fit` and the output has drained so far that the bytes fit.
fn change_any_screen(bytes: usize, fit: impl Fn(&Screen) -> bool, change: impl FnOnce(&mut Screen, &mut Serial)) {
    let patient = arch::may_block();
    loop {
        if patient {
            OUTPUT_CHANGED.wait_until(|| {
                ROOM_WANTED.fetch_max(bytes.max(OUTPUT_BYTES / 2), Relaxed);
                fit(&SCREEN.lock()) && SERIAL.lock().has_room_for(bytes)
            });
        }
        let mut screen = SCREEN.lock();
        let mut serial = SERIAL.lock();
        // Somebody else may have been faster.
        if patient && !(fit(&screen) && serial.has_room_for(bytes)) {
            continue;
        }
        let was_open = screen.is_line_open();
        change(&mut screen, &mut serial);
        let is_free_again = was_open && !screen.is_line_open();
        let has_room = |serial: &mut Serial| serial.has_room_for(LOG_ROOM);
        LOG_WAITS.store(screen.show_log(&mut *serial, has_room, ring::read_for_console), Relaxed);
        serial.kick();
        drop((screen, serial));
        if is_free_again {
            OUTPUT_CHANGED.wake_all();
        }
        return;
    }
}

/// Sends to the device without asking anybody.
pub(crate) fn last_words(text: &str) {
    let mut uart = arch::ports::com1_unlocked();
    for line in text.split_inclusive('\n') {
        uart.send_bytes_exact(line.trim_end_matches('\n').as_bytes());
        if line.ends_with('\n') {
            uart.send_bytes_exact(b"\r\n");
        }
    }
}

/// The device's interrupt handler.
fn on_interrupt() {
    let mut received = 0;
    let mut interrupted = false;
    SERIAL.lock().on_interrupt(|byte| {
        received += 1;
        let cancels = byte == CTRL_C && !EDITING.load(Relaxed);
        interrupted |= cancels;
        !cancels
    });
    BYTES_RECEIVED.fetch_add(received, Relaxed);
    if interrupted {
        INTERRUPTED.store(true, Relaxed);
        let foreground = FOREGROUND.load(Relaxed);
        if foreground != NOBODY {
            task::cancel(TaskId::from(foreground));
        }
    }
    if LOG_WAITS.load(Relaxed) && SERIAL.lock().has_room_for(LOG_ROOM) {
        show_log();
    }
    INPUT_CHANGED.wake_all();
    if SERIAL.lock().has_room_for(ROOM_WANTED.load(Relaxed)) {
        ROOM_WANTED.store(0, Relaxed);
        OUTPUT_CHANGED.wake_all();
    }
}

fn take_byte() -> Option<u8> {
    SERIAL.lock().take_input()
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
