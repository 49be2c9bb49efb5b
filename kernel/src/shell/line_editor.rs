//! The line being typed: keys in, edits and what to draw out.
//!
//! Nothing here asks the terminal anything, so a script at the other end sees plain text: a character typed at
//! the end of the line is echoed as it is, and only an edit in the middle redraws. The width of the terminal is
//! not known; a redraw shows a window of the line that fits [`COLUMNS`].

use super::history::History;
use super::keys::{Decoder, Key};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// The longest line taken, in bytes.
pub(crate) const MAX_LINE: usize = 4096;

/// The terminal width that redrawing relies on.
const COLUMNS: usize = 80;

/// Candidates that are listed; of more than these only the number is told.
const LISTED_MAX: usize = 100;

/// What the completer knows about the text before the cursor.
#[derive(Debug, Default)]
pub(crate) struct Completion {
    /// Where in the text the piece to be completed begins (a byte index).
    start: usize,
    /// What all candidates begin with, if there are any.
    shared: Option<String>,
    /// The first of them.
    listed: Vec<String>,
    count: usize,
}

impl Completion {
    /// Nothing yet that could stand in place of the piece that begins at `start`.
    pub(crate) fn at(start: usize) -> Self {
        Self { start, ..Self::default() }
    }

    /// One more word that may stand there; it begins with the piece.
    pub(crate) fn add(&mut self, word: &str) {
        self.count += 1;
        match &mut self.shared {
            Some(shared) => shared.truncate(shared_len(shared, word)),
            None => self.shared = Some(word.into()),
        }
        if self.listed.len() < LISTED_MAX {
            self.listed.push(word.into());
        }
    }

    /// Where the piece begins, and the words that are listed.
    #[cfg(test)]
    pub(crate) fn into_parts(self) -> (usize, Vec<String>) {
        (self.start, self.listed)
    }
}

/// How many bytes two words have in common at their beginning.
fn shared_len(a: &str, b: &str) -> usize {
    let differ = a.char_indices().zip(b.chars()).find(|((_, a), b)| a != b);
    differ.map_or(a.len().min(b.len()), |((index, _), _)| index)
}

/// What the keys so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A line, without its end.
    Line(String),
    /// A line of more than [`MAX_LINE`] bytes; none of it was kept.
    TooLong,
    /// Ctrl-C: the line was given up.
    Interrupted,
}

/// What stands on the edited line, for whoever must write above it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// Prompt and visible text.
    pub(crate) text: String,
    /// The column of the cursor, counted in characters from the start of `text`.
    pub(crate) cursor: usize,
}

/// The editor of one terminal.
#[derive(Debug)]
pub(crate) struct LineEditor {
    prompt: &'static str,
    text: String,
    /// A byte index into `text`, always at a character boundary.
    cursor: usize,
    /// The line has outgrown [`MAX_LINE`]; its rest is dropped.
    overflowed: bool,
    decoder: Decoder,
    history: History,
}

impl LineEditor {
    pub(crate) const fn new(prompt: &'static str) -> Self {
        Self {
            prompt,
            text: String::new(),
            cursor: 0,
            overflowed: false,
            decoder: Decoder::new(),
            history: History::new(),
        }
    }

    /// Takes one byte, draws what it changes, and says what it finished.
    pub(crate) fn feed(
        &mut self,
        byte: u8,
        complete: impl Fn(&str) -> Completion,
        screen: &mut impl Write,
    ) -> Option<Event> {
        let mut event = None;
        for key in self.decoder.feed(byte) {
            event = self.press(key, &complete, screen).or(event);
        }
        event
    }

    /// What a redraw shows, and where its cursor is.
    pub(crate) fn view(&self) -> View {
        let before = self.text[..self.cursor].chars().count();
        let total = self.text.chars().count();
        let room = COLUMNS - 1 - self.prompt.len();
        let first = if total <= room { 0 } else { before.saturating_sub(room * 3 / 4).min(total - room) };
        let mut text = String::from(self.prompt);
        text.extend(self.text.chars().skip(first).take(room));
        View { text, cursor: self.prompt.len() + before - first }
    }

    fn press(&mut self, key: Key, complete: &impl Fn(&str) -> Completion, screen: &mut impl Write) -> Option<Event> {
        match key {
            Key::Enter => return Some(self.finish(screen)),
            Key::Interrupt => {
                draw(screen, "^C\n");
                self.start_over();
                return Some(Event::Interrupted);
            }
            _ if self.overflowed => return None,
            Key::Char(c) => self.insert_typed(c, screen),
            Key::Tab => self.complete(complete, screen),
            Key::Previous => self.recall(History::previous_of, screen),
            Key::Next => self.recall(History::next_of, screen),
            Key::ClearScreen => {
                draw(screen, "\x1b[2J\x1b[H");
                self.redraw(screen);
            }
            _ => {
                self.edit(key);
                self.redraw(screen);
            }
        }
        None
    }

    fn finish(&mut self, screen: &mut impl Write) -> Event {
        draw(screen, "\n");
        if self.overflowed {
            self.start_over();
            return Event::TooLong;
        }
        self.history.remember(&self.text);
        let line = core::mem::take(&mut self.text);
        self.start_over();
        Event::Line(line)
    }

    fn start_over(&mut self) {
        self.text.clear();
        self.cursor = 0;
        self.overflowed = false;
        self.history.forget_walk();
    }

    fn insert_typed(&mut self, c: char, screen: &mut impl Write) {
        if self.text.len() + c.len_utf8() > MAX_LINE {
            self.overflowed = true;
            return;
        }
        let at_end = self.cursor == self.text.len();
        self.text.insert(self.cursor, c);
        self.cursor += c.len_utf8();
        if at_end {
            draw(screen, c.encode_utf8(&mut [0; 4]));
        } else {
            self.redraw(screen);
        }
    }

    /// The edits that need nothing but the text.
    fn edit(&mut self, key: Key) {
        match key {
            Key::Left => self.cursor = self.left(),
            Key::Right => self.cursor = self.right(),
            Key::WordLeft => self.cursor = self.word_left(),
            Key::WordRight => self.cursor = self.word_right(),
            Key::Home => self.cursor = 0,
            Key::End => self.cursor = self.text.len(),
            Key::Backspace => self.cut(self.left(), self.cursor),
            Key::Delete | Key::EndOfInput => self.cut(self.cursor, self.right()),
            Key::KillToEnd => self.cut(self.cursor, self.text.len()),
            Key::KillToStart => self.cut(0, self.cursor),
            Key::KillWordLeft => self.cut(self.word_left(), self.cursor),
            Key::KillWordRight => self.cut(self.cursor, self.word_right()),
            Key::Char(_) | Key::Enter | Key::Tab | Key::Previous | Key::Next | Key::ClearScreen | Key::Interrupt => {}
        }
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.text.drain(from..to);
        self.cursor = from;
    }

    fn left(&self) -> usize {
        self.text[..self.cursor].char_indices().next_back().map_or(0, |(index, _)| index)
    }

    fn right(&self) -> usize {
        let next = self.text[self.cursor..].chars().next();
        self.cursor + next.map_or(0, char::len_utf8)
    }

    fn word_left(&self) -> usize {
        let before = self.text[..self.cursor].trim_end_matches(' ');
        before.rfind(' ').map_or(0, |space| space + 1)
    }

    fn word_right(&self) -> usize {
        let after = self.text[self.cursor..].trim_start_matches(' ');
        let start = self.text.len() - after.len();
        start + after.find(' ').unwrap_or(after.len())
    }

    fn recall(&mut self, step: impl Fn(&mut History, &str) -> Option<String>, screen: &mut impl Write) {
        if let Some(line) = step(&mut self.history, &self.text) {
            self.text = line;
            self.cursor = self.text.len();
        }
        self.redraw(screen);
    }

    fn complete(&mut self, complete: &impl Fn(&str) -> Completion, screen: &mut impl Write) {
        let found = complete(&self.text[..self.cursor]);
        let Some(shared) = &found.shared else {
            return;
        };
        let unique = found.count == 1;
        let typed = self.text.get(found.start..self.cursor).map_or(0, str::len);
        let mut missing = String::from(shared.get(typed..).unwrap_or(""));
        if unique && !self.text[self.cursor..].starts_with(' ') {
            missing.push(' ');
        }
        if missing.is_empty() && !unique {
            list(&found, screen);
        } else if self.text.len() + missing.len() <= MAX_LINE {
            self.text.insert_str(self.cursor, &missing);
            self.cursor += missing.len();
        }
        self.redraw(screen);
    }

    fn redraw(&self, screen: &mut impl Write) {
        let view = self.view();
        draw(screen, "\r");
        draw(screen, &view.text);
        draw(screen, "\x1b[K");
        let behind = view.text.chars().count() - view.cursor;
        if behind > 0 {
            // A screen that cannot be written to has nobody who could be told.
            let _ = write!(screen, "\x1b[{behind}D");
        }
    }
}

impl History {
    fn previous_of(&mut self, current: &str) -> Option<String> {
        self.previous(current).map(String::from)
    }

    fn next_of(&mut self, _current: &str) -> Option<String> {
        self.next().map(String::from)
    }
}

/// Shows the candidates in columns below the line.
fn list(found: &Completion, screen: &mut impl Write) {
    let width = found.listed.iter().map(|word| word.chars().count()).max().unwrap_or(0) + 2;
    let per_line = (COLUMNS / width).max(1);
    for row in found.listed.chunks(per_line) {
        draw(screen, "\n");
        for (index, word) in row.iter().enumerate() {
            draw(screen, word);
            if index + 1 < row.len() {
                let padding = width - word.chars().count();
                let _ = write!(screen, "{:padding$}", "");
            }
        }
    }
    if found.count > found.listed.len() {
        let _ = write!(screen, "\n... and {} more", found.count - found.listed.len());
    }
    draw(screen, "\n");
}

fn draw(screen: &mut impl Write, text: &str) {
    let _ = screen.write_str(text);
}

#[cfg(test)]
#[path = "line_editor_tests.rs"]
mod tests;
