//! The lines typed before, and where in them Up and Down have walked to.

use alloc::collections::VecDeque;
use alloc::string::String;

/// How many lines are kept.
const CAPACITY: usize = 64;

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
        if self.lines.len() == CAPACITY {
            self.lines.pop_front();
        }
        self.lines.push_back(line.into());
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
