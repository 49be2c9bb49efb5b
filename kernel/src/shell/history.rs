//! The lines typed before, and where in them Up and Down have walked to.

use alloc::collections::VecDeque;
use alloc::string::String;

/// How many lines are kept.
const CAPACITY: usize = 64;

/// How many bytes they may have together: the history must not grow the heap when memory is short.
const BYTES: usize = 16 << 10;

/// Past lines, oldest first, and the walk through them.
#[derive(Debug)]
pub(crate) struct History {
    lines: VecDeque<String>,
    /// How many lines back the walk is; 0 is the line being typed.
    back: usize,
    /// The line being typed, kept while the walk is elsewhere.
    draft: String,
}

impl History {
    pub(crate) const fn new() -> Self {
        Self { lines: VecDeque::new(), back: 0, draft: String::new() }
    }

    /// Remembers a finished line, unless it is blank or repeats the one before, and ends the walk.
    pub(crate) fn remember(&mut self, line: &str) {
        self.forget_walk();
        if line.trim().is_empty() || self.lines.back().is_some_and(|last| last == line) {
            return;
        }
        self.lines.push_back(line.into());
        while self.lines.len() > CAPACITY || self.lines.iter().map(String::len).sum::<usize>() > BYTES {
            self.lines.pop_front();
        }
    }

    pub(crate) fn forget_walk(&mut self) {
        self.back = 0;
        self.draft.clear();
    }

    /// One line back; `current` is what the editor shows now.
    pub(crate) fn previous(&mut self, current: &str) -> Option<&str> {
        if self.back == self.lines.len() {
            return None;
        }
        if self.back == 0 {
            self.draft = current.into();
        }
        self.back += 1;
        self.lines.get(self.lines.len() - self.back).map(String::as_str)
    }

    /// One line forward, at last the line that was being typed.
    pub(crate) fn next(&mut self) -> Option<&str> {
        self.back = self.back.checked_sub(1)?;
        if self.back == 0 {
            return Some(&self.draft);
        }
        self.lines.get(self.lines.len() - self.back).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn walking_back_and_forth_returns_to_the_draft() {
        let mut history = History::new();
        history.remember("one");
        history.remember("two");
        assert_eq!(history.previous("dra"), Some("two"));
        assert_eq!(history.previous("two"), Some("one"));
        assert_eq!(history.previous("one"), None);
        assert_eq!(history.next(), Some("two"));
        assert_eq!(history.next(), Some("dra"));
        assert_eq!(history.next(), None);
    }

    #[test]
    fn blank_and_repeated_lines_are_not_kept() {
        let mut history = History::new();
        for line in ["one", "one", "  ", "", "one"] {
            history.remember(line);
        }
        assert_eq!(history.previous(""), Some("one"));
        assert_eq!(history.previous(""), None);
    }

    #[test]
    fn long_lines_take_the_place_of_many() {
        let mut history = History::new();
        for n in 0..CAPACITY {
            history.remember(&format!("{n}{}", "x".repeat(4000)));
        }
        assert_eq!(history.lines.len(), 4);
    }

    #[test]
    fn the_oldest_lines_go_first() {
        let mut history = History::new();
        for n in 0..CAPACITY + 3 {
            history.remember(&format!("line {n}"));
        }
        let mut oldest = String::new();
        while let Some(line) = history.previous("") {
            oldest = line.into();
        }
        assert_eq!(oldest, "line 3");
    }
}
