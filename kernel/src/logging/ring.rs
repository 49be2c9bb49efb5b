//! The lines that were logged last, and which of them the console shows.
#![deny(unsafe_code)]

use crate::sync::SpinLock;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use log::{Level, LevelFilter};

/// Longer lines are cut.
pub(crate) const LINE_MAX: usize = 512;

/// Bytes of log that `dmesg` remembers.
const RING_BYTES: usize = 64 * 1024;

pub(crate) type Line = heapless::String<LINE_MAX>;

static CONSOLE_LEVEL: AtomicUsize = AtomicUsize::new(LevelFilter::Info as usize);
static RING: SpinLock<LineRing<RING_BYTES>> = SpinLock::new(LineRing::new());

/// Chooses how severe a line must be for the console to show it.
pub(super) fn set_console_level(level: LevelFilter) {
    CONSOLE_LEVEL.store(level as usize, Relaxed);
}

/// Remembers a line.
pub(super) fn push(level: Level, line: &Line) {
    RING.lock().push(level, line);
}

/// Remembers a line unless the ring is held; returns whether it did.
pub(super) fn try_push(level: Level, line: &Line) -> bool {
    RING.try_lock().map(|mut ring| ring.push(level, line)).is_some()
}

/// Shows every remembered line to `show`, oldest first. `show` may print and log.
pub(crate) fn for_each(mut show: impl FnMut(&str)) {
    let mut line = Line::new();
    let mut next = 0;
    let end = RING.lock().next_number();
    while let Some(after) = read(next, &mut line) {
        if next >= end {
            break;
        }
        show(&line);
        next = after;
    }
}

/// Copies the first line from `number` on that the console shows, and says which comes next; `None` after the newest.
pub(crate) fn read_for_console(number: u64, line: &mut Line) -> Option<u64> {
    RING.lock().read_shown(number, line)
}

/// As `read_for_console`, but finds nothing while the log is locked: for a panic.
pub(crate) fn try_read_for_console(number: u64, line: &mut Line) -> Option<u64> {
    RING.try_lock()?.read_shown(number, line)
}

fn read(number: u64, line: &mut Line) -> Option<u64> {
    Some(RING.lock().read(number, line)?.0)
}

/// Lines one after another in a circle of bytes, each behind its length and level; the newest overwrite the oldest.
struct LineRing<const N: usize> {
    bytes: [u8; N],
    /// Where the oldest line begins, and how many bytes are in use.
    start: usize,
    used: usize,
    /// Numbers of the oldest line and of the next one to come.
    first_number: u64,
    next_number: u64,
    /// What the console passed over last.
    passed: Passed,
}

/// Lines that the console need not look at again: those from one number to another, which lies at that position.
#[derive(Clone, Copy)]
struct Passed {
    from: u64,
    to: u64,
    position: usize,
}

/// Bytes before a line: its length and its level.
const HEADER_BYTES: usize = 3;

impl<const N: usize> LineRing<N> {
    const fn new() -> Self {
        Self {
            bytes: [0; N],
            start: 0,
            used: 0,
            first_number: 0,
            next_number: 0,
            passed: Passed { from: 0, to: 0, position: 0 },
        }
    }

    fn next_number(&self) -> u64 {
        self.next_number
    }

    fn push(&mut self, level: Level, line: &Line) {
        let length = line.len();
        while self.used + HEADER_BYTES + length > N {
            let dropped = HEADER_BYTES + self.length_at(self.start);
            self.start = (self.start + dropped) % N;
            self.used -= dropped;
            self.first_number += 1;
        }
        let mut end = (self.start + self.used) % N;
        let [low, high] = u16::try_from(length).expect("LINE_MAX fits 16 bits").to_le_bytes();
        for byte in [low, high, level as u8].into_iter().chain(line.bytes()) {
            self.bytes[end] = byte;
            end = (end + 1) % N;
        }
        self.used += HEADER_BYTES + length;
        self.next_number += 1;
    }

    /// Copies line `number`, or the oldest one still there; says which comes next, and the line's level.
    fn read(&self, number: u64, line: &mut Line) -> Option<(u64, usize)> {
        let number = number.max(self.first_number);
        let mut position = self.start;
        for _ in self.first_number..number.min(self.next_number) {
            position = self.behind(position);
        }
        let level = self.read_at(number, position, line)?;
        Some((number + 1, level))
    }

    /// Copies line `number`, which lies at `position`; says its level.
    fn read_at(&self, number: u64, position: usize, line: &mut Line) -> Option<usize> {
        if number >= self.next_number {
            return None;
        }
        let length = self.length_at(position);
        let mut bytes: heapless::Vec<u8, LINE_MAX> = heapless::Vec::new();
        bytes.extend((0..length).map(|index| self.bytes[(position + HEADER_BYTES + index) % N]));
        line.clear();
        let text = core::str::from_utf8(&bytes).expect("lines are stored whole");
        line.push_str(text).expect("a stored line fits a line");
        Some(self.level_at(position))
    }

    /// Copies the first line from `number` on that the console shows. What it does not show is passed over once, not each
    /// time somebody asks.
    fn read_shown(&mut self, number: u64, line: &mut Line) -> Option<u64> {
        let Passed { from, to, position } = self.passed;
        let (mut at, mut position) = match number {
            _ if (from..=to).contains(&number) && to >= self.first_number => (to, position),
            _ => (self.first_number, self.start),
        };
        let is_hidden = |ring: &Self, position| ring.level_at(position) > CONSOLE_LEVEL.load(Relaxed);
        while at < self.next_number && (at < number || is_hidden(self, position)) {
            (at, position) = (at + 1, self.behind(position));
        }
        self.passed = Passed { from: number, to: at, position };
        self.read_at(at, position, line).map(|_| at + 1)
    }

    /// Where the line behind the one at `position` begins.
    fn behind(&self, position: usize) -> usize {
        (position + HEADER_BYTES + self.length_at(position)) % N
    }

    fn level_at(&self, position: usize) -> usize {
        usize::from(self.bytes[(position + 2) % N])
    }

    fn length_at(&self, position: usize) -> usize {
        usize::from(u16::from_le_bytes([self.bytes[position], self.bytes[(position + 1) % N]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn line(text: &str) -> Line {
        text.try_into().expect("short")
    }

    fn contents<const N: usize>(ring: &LineRing<N>) -> Vec<String> {
        let mut next = 0;
        let mut text = Line::new();
        core::iter::from_fn(|| {
            next = ring.read(next, &mut text)?.0;
            Some(text.to_string())
        })
        .collect()
    }

    #[test]
    fn lines_come_back_in_order() {
        let mut ring = LineRing::<64>::new();
        ring.push(Level::Info, &line("one"));
        ring.push(Level::Info, &line(""));
        ring.push(Level::Info, &line("three"));
        assert_eq!(contents(&ring), ["one", "", "three"]);
    }

    #[test]
    fn the_oldest_lines_make_room() {
        let mut ring = LineRing::<32>::new();
        for number in 0..100 {
            ring.push(Level::Info, &line(&format!("line {number}")));
        }
        assert_eq!(contents(&ring), ["line 97", "line 98", "line 99"]);
    }

    #[test]
    fn a_reader_that_fell_behind_goes_on_with_the_oldest() {
        let mut ring = LineRing::<32>::new();
        for number in 0..10 {
            ring.push(Level::Info, &line(&format!("line {number}")));
        }
        let mut text = Line::new();
        assert_eq!(ring.read(0, &mut text), Some((8, Level::Info as usize)));
        assert_eq!(text, "line 7");
    }

    #[test]
    fn the_console_skips_what_it_does_not_show() {
        let mut ring = LineRing::<64>::new();
        ring.push(Level::Debug, &line("detail"));
        ring.push(Level::Error, &line("trouble"));
        ring.push(Level::Debug, &line("detail"));
        let mut text = Line::new();
        assert_eq!(ring.read_shown(0, &mut text), Some(2));
        assert_eq!(text, "trouble");
        assert_eq!(ring.read_shown(2, &mut text), None);
        ring.push(Level::Error, &line("again"));
        assert_eq!((ring.read_shown(2, &mut text), text.as_str()), (Some(4), "again"));
        assert_eq!((ring.read_shown(0, &mut text), text.as_str()), (Some(2), "trouble"));
    }

    #[test]
    fn the_console_misses_nothing_but_what_was_overwritten() {
        let mut ring = LineRing::<64>::new();
        let (mut next, mut seen, mut text) = (0, Vec::new(), Line::new());
        for number in 0..200 {
            let level = if number % 3 == 0 { Level::Error } else { Level::Debug };
            ring.push(level, &line(&format!("line {number}")));
            // Now and then it has no time to read.
            while number % 7 < 4
                && let Some(after) = ring.read_shown(next, &mut text)
            {
                seen.push(text.to_string());
                next = after;
            }
        }
        let (lines, hidden): (Vec<_>, Vec<_>) =
            seen.iter().map(|text| text[5..].parse::<u32>().expect("a number")).partition(|number| number % 3 == 0);
        assert!(hidden.is_empty() && lines.is_sorted_by(|a, b| a < b), "{seen:?}");
        assert!((50..=67).contains(&lines.len()), "{}", lines.len());
    }
}
