//! The kernel log: what the `log` macros write.
//!
//! Every line goes into the [`ring`], which `dmesg` reads; the console, which lies between the ring and this, takes its lines
//! from there when it can show them, so a line that must wait for the end of a command's output line is never lost.
#![deny(unsafe_code)]

pub(crate) mod ring;

use crate::drivers::console;
use crate::time;
use core::fmt::Write;
use log::{Level, LevelFilter, Log, Metadata, Record};
use ring::Line;

struct KernelLog;

static LOGGER: KernelLog = KernelLog;

/// Makes the `log` macros work.
pub(crate) fn init() {
    log::set_logger(&LOGGER).expect("the logger is set once, at boot");
    log::set_max_level(LevelFilter::Info);
}

/// Chooses what the console shows: as Linux' `loglevel=`, everything more severe than a number. Errors are 3, warnings 4,
/// information 6, debugging 7. `dmesg` has at least information whatever the console shows.
pub(crate) fn set_console_level(loglevel: u8) {
    let level = match loglevel {
        0..=3 => LevelFilter::Off,
        4 => LevelFilter::Error,
        5 | 6 => LevelFilter::Warn,
        7 => LevelFilter::Info,
        8 => LevelFilter::Debug,
        9.. => LevelFilter::Trace,
    };
    ring::set_console_level(level);
    log::set_max_level(level.max(LevelFilter::Info));
}

impl Log for KernelLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = stamped(record.target(), *record.args());
        ring::push(record.level(), &line);
        console::show_log();
    }

    fn flush(&self) {}
}

/// Writes a line whatever locks are held, maybe for ever: then only the device gets it.
pub(crate) fn urgent(level: Level, target: &str, arguments: core::fmt::Arguments<'_>) {
    /// Others hold the locks for microseconds.
    const ATTEMPTS: usize = 100_000;
    let line = stamped(target, arguments);
    let pushed = (0..ATTEMPTS).any(|_| ring::try_push(level, &line));
    let shown = pushed && (0..ATTEMPTS).any(|_| console::try_show_log());
    if !shown {
        console::last_words(&line);
        console::last_words("\n");
    }
}

/// The line with the time and its target.
fn stamped(target: &str, arguments: core::fmt::Arguments<'_>) -> Line {
    let microseconds = time::now_ns() / 1000;
    let (seconds, fraction) = (microseconds / 1_000_000, microseconds % 1_000_000);
    let mut line = Cut { line: Line::new() };
    // Writing into `Cut` cannot fail; a `Display` that fails leaves a shorter line.
    let _ = write!(line, "[{seconds}.{fraction:06}] {target}: {arguments}");
    line.line
}

/// A line that takes what fits and keeps to one line.
struct Cut {
    line: Line,
}

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for letter in text.chars() {
            let letter = if letter.is_control() { ' ' } else { letter };
            if self.line.push(letter).is_err() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::ring::LINE_MAX;
    use super::*;

    #[test]
    fn control_characters_do_not_break_a_line() {
        let mut cut = Cut { line: Line::new() };
        cut.write_str("a\nb\x1b[2J").expect("never fails");
        assert_eq!(cut.line, "a b [2J");
    }

    #[test]
    fn a_line_too_long_is_cut() {
        let mut cut = Cut { line: Line::new() };
        cut.write_str(&"é".repeat(LINE_MAX)).expect("never fails");
        assert_eq!(cut.line.len(), LINE_MAX);
    }
}
