//! What stands on the other end's screen, and where a log line may go.
//!
//! While somebody edits a command, a log line moves above that line, which is drawn again. Else a command is printing:
//! log lines wait until its current line is complete. Either way they stay in the log until they can be shown. Whoever
//! has begun a line, a command or a job, ends it before anybody else prints.
#![deny(unsafe_code)]

use crate::logging::ring::{LINE_MAX, Line};
use crate::task::TaskId;
use core::fmt::Write;

/// A longer input line is redrawn as far as this.
const EDIT_MAX: usize = 4096;

/// Back to the first column, and erase what stands there.
const ERASE_LINE: &str = "\r\x1b[K";

/// The most that showing one log line sends: the line with its end, and the edited line erased and drawn again.
pub(super) const LOG_ROOM: usize = ERASE_LINE.len() + LINE_MAX + 2 + 2 * EDIT_MAX;

/// Who prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Writer {
    /// The command at the prompt, or the editor of its line.
    Command,
    /// A job, above the line being edited.
    Job(TaskId),
}

/// The state of the screen. Every method sends to `port`, which cannot fail.
pub(super) struct Screen {
    /// The line being edited, when one is.
    edit: Option<EditedLine>,
    /// Who has printed the beginning of a line.
    line_of: Option<Writer>,
    /// The number of the next log line to show.
    next_log: u64,
}

struct EditedLine {
    text: heapless::String<EDIT_MAX>,
    /// Characters to the right of the cursor.
    behind_cursor: usize,
}

impl EditedLine {
    /// Draws the line from the first column on, and puts the cursor where it was.
    fn draw(&self, port: &mut impl Write) {
        send(port, &self.text);
        for _ in 0..self.behind_cursor {
            send(port, "\x08");
        }
    }
}

impl Screen {
    pub(super) const fn new() -> Self {
        Self { edit: None, line_of: None, next_log: 0 }
    }

    /// Whether `writer` may print now: nobody else has begun a line.
    pub(super) fn takes(&self, writer: Writer) -> bool {
        self.line_of.is_none_or(|of| of == writer)
    }

    /// Whether somebody has begun a line and not ended it.
    pub(super) fn is_line_open(&self) -> bool {
        self.line_of.is_some()
    }

    /// Sends what a command prints, or what an editor draws.
    pub(super) fn write(&mut self, port: &mut impl Write, text: &str) {
        send(port, text);
        if self.edit.is_none() && !text.is_empty() {
            self.line_of = (!text.ends_with('\n')).then_some(Writer::Command);
        }
    }

    /// Sends what a job prints: its lines go above the line being edited, which is gone while one of them is incomplete.
    pub(super) fn write_above(&mut self, port: &mut impl Write, job: TaskId, text: &str) {
        if self.edit.is_some() && self.line_of.is_none() {
            send(port, ERASE_LINE);
        }
        send(port, text);
        self.line_of = (!text.ends_with('\n')).then_some(Writer::Job(job));
        if let (Some(edit), None) = (&self.edit, self.line_of) {
            edit.draw(port);
        }
    }

    /// The line being edited now reads `text`, with the cursor behind its first `cursor` characters.
    pub(super) fn edit(&mut self, text: &str, cursor: usize) {
        let mut kept = heapless::String::new();
        for letter in text.chars() {
            if kept.push(letter).is_err() {
                break;
            }
        }
        let behind_cursor = kept.chars().count().saturating_sub(cursor);
        self.edit = Some(EditedLine { text: kept, behind_cursor });
        self.line_of = None;
    }

    /// Nothing is being edited any more; the cursor stands at the beginning of a line.
    pub(super) fn end_edit(&mut self) {
        self.edit = None;
        self.line_of = None;
    }

    /// Shows the log lines that `read` has and that have not been shown, if this is a moment for it, as long as the port
    /// has room for `LOG_ROOM` bytes. Says whether lines are left that wait for room.
    pub(super) fn show_log<P: Write>(
        &mut self,
        port: &mut P,
        has_room: impl Fn(&mut P) -> bool,
        read: impl Fn(u64, &mut Line) -> Option<u64>,
    ) -> bool {
        if self.is_line_open() {
            return false;
        }
        let mut line = Line::new();
        let mut erased = false;
        let mut waits = false;
        while let Some(next) = read(self.next_log, &mut line) {
            if !has_room(port) {
                waits = true;
                break;
            }
            if self.edit.is_some() && !erased {
                send(port, ERASE_LINE);
                erased = true;
            }
            send(port, &line);
            send(port, "\n");
            self.next_log = next;
        }
        if let Some(edit) = &self.edit
            && erased
        {
            edit.draw(port);
        }
        waits
    }

    /// Ends whatever stands on the screen's last line, so that something urgent can begin a line of its own.
    pub(super) fn break_line(&mut self, port: &mut impl Write) {
        if self.is_line_open() || self.edit.is_some() {
            send(port, "\n");
        }
        self.end_edit();
    }
}

fn send(port: &mut impl Write, text: &str) {
    port.write_str(text).expect("ports take everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A screen, what it sent, and the log behind it.
    struct Bench {
        screen: Screen,
        sent: String,
        log: Vec<&'static str>,
    }

    impl Bench {
        fn new() -> Self {
            Self { screen: Screen::new(), sent: String::new(), log: Vec::new() }
        }

        fn print(&mut self, text: &str) {
            self.screen.write(&mut self.sent, text);
            self.show();
        }

        fn edit(&mut self, drawn: &str, text: &str, cursor: usize) {
            self.screen.write(&mut self.sent, drawn);
            self.screen.edit(text, cursor);
            self.show();
        }

        fn log(&mut self, line: &'static str) {
            self.log.push(line);
            self.show();
        }

        fn show(&mut self) {
            self.show_within(usize::MAX);
        }

        /// Shows the log as far as `room` bytes of output go.
        fn show_within(&mut self, room: usize) -> bool {
            let log = &self.log;
            let read = |number: u64, line: &mut Line| {
                *line = Line::try_from(*log.get(number as usize)?).expect("short");
                Some(number + 1)
            };
            self.screen.show_log(&mut self.sent, |sent| sent.len() < room, read)
        }
    }

    #[test]
    fn a_log_line_waits_for_the_end_of_an_output_line() {
        let mut bench = Bench::new();
        bench.print("half");
        bench.log("[1] late");
        bench.print(" done\n");
        bench.print("next\n");
        assert_eq!(bench.sent, "half done\n[1] late\nnext\n");
    }

    #[test]
    fn a_log_line_between_output_lines_comes_at_once() {
        let mut bench = Bench::new();
        bench.print("one\n");
        bench.log("[1] now");
        assert_eq!(bench.sent, "one\n[1] now\n");
    }

    #[test]
    fn a_log_line_moves_above_the_edited_line() {
        let mut bench = Bench::new();
        bench.edit("> ab\x08", "> ab", 3);
        bench.log("[1] now");
        assert_eq!(bench.sent, "> ab\x08\r\x1b[K[1] now\n> ab\x08");
    }

    #[test]
    fn log_lines_that_came_under_the_prompt_show_when_editing_begins() {
        let mut bench = Bench::new();
        bench.screen.write(&mut bench.sent, "> ");
        bench.log("[1] now");
        bench.edit("", "> ", 2);
        assert_eq!(bench.sent, "> \r\x1b[K[1] now\n> ");
    }

    #[test]
    fn every_log_line_is_shown_once() {
        let mut bench = Bench::new();
        bench.log("[1] a");
        bench.print("x");
        bench.log("[2] b");
        bench.log("[3] c");
        bench.print("\n");
        bench.show();
        assert_eq!(bench.sent, "[1] a\nx\n[2] b\n[3] c\n");
    }

    #[test]
    fn log_lines_without_room_wait_and_the_edited_line_is_whole() {
        let mut bench = Bench::new();
        bench.edit("> ab", "> ab", 4);
        bench.log.extend(["[1] a", "[2] b"]);
        assert!(bench.show_within(4), "no room at all");
        assert_eq!(bench.sent, "> ab");
        assert!(bench.show_within(5), "room for the first");
        assert_eq!(bench.sent, "> ab\r\x1b[K[1] a\n> ab");
        assert!(!bench.show_within(usize::MAX));
        assert_eq!(bench.sent, "> ab\r\x1b[K[1] a\n> ab\r\x1b[K[2] b\n> ab");
    }

    #[test]
    fn an_endless_input_line_is_redrawn_in_part() {
        let mut bench = Bench::new();
        bench.edit("", &"x".repeat(2 * EDIT_MAX), 2 * EDIT_MAX);
        bench.log("[1] now");
        assert!(bench.sent.ends_with(&"x".repeat(EDIT_MAX)));
        assert!(!bench.sent.ends_with('\x08'));
    }

    #[test]
    fn a_line_of_a_job_may_come_in_pieces() {
        let mut bench = Bench::new();
        let job = TaskId::from(7);
        bench.edit("> ab", "> ab", 4);
        for piece in ["{", "1", "}\n"] {
            bench.screen.write_above(&mut bench.sent, job, piece);
            bench.log("[1] now");
        }
        assert_eq!(bench.sent, "> ab\r\x1b[K{1}\n> ab\r\x1b[K[1] now\n[1] now\n[1] now\n> ab");
    }

    #[test]
    fn nobody_prints_into_a_line_that_somebody_else_has_begun() {
        let (job, other) = (TaskId::from(7), TaskId::from(8));
        let mut bench = Bench::new();
        bench.screen.write_above(&mut bench.sent, job, "half");
        let writers = [Writer::Command, Writer::Job(job), Writer::Job(other)];
        assert_eq!(writers.map(|writer| bench.screen.takes(writer)), [false, true, false]);
        bench.screen.write_above(&mut bench.sent, job, "\n");
        assert_eq!(writers.map(|writer| bench.screen.takes(writer)), [true; 3]);
        bench.print("half");
        assert_eq!(writers.map(|writer| bench.screen.takes(writer)), [true, false, false]);
    }

    #[test]
    fn something_urgent_gets_a_line_of_its_own() {
        let mut bench = Bench::new();
        bench.print("half");
        bench.screen.break_line(&mut bench.sent);
        bench.screen.break_line(&mut bench.sent);
        assert_eq!(bench.sent, "half\n");
    }
}
