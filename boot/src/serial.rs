//! The guest's serial console, as a program uses it: send a line, get its output.
//!
//! A thread reads all the time, so that the guest never waits for us and the log is complete. The text is taken apart
//! in lines as a terminal would show them: what a redraw overwrote is gone, escape sequences too.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What the guest prints when it waits for a command.
pub const PROMPT: &str = "altmap> ";

/// The last line of a panic.
const PANIC_END: &str = "panic: stopped";

/// A line that did not grow for so long is what somebody would read.
const SETTLED: Duration = Duration::from_millis(300);

/// Of a line that is still being written, this much of its end is looked at each time it grows.
const OPEN_BYTES: usize = 8 << 10;

/// The longest line whose echo surely shows all of it.
const ECHO_CHARS: usize = 60;

/// A connection to the serial port.
#[derive(Debug)]
pub struct Console {
    socket: UnixStream,
    heard: Arc<Heard>,
    /// Where in the raw text the next line starts.
    position: usize,
    /// How much raw text there was at the last look. From there on the end of the line is looked for.
    seen: usize,
    /// The line looked at last was whole.
    whole: bool,
    /// The line typed last is complete in the echo: what follows is its output. The prompt may be redrawn below a log
    /// line at any time, but only a line that was entered ends with a newline.
    entered: bool,
    /// That line.
    typed: String,
    /// How long a command may take.
    pub command_deadline: Duration,
}

#[derive(Debug, Default)]
struct Heard {
    text: Mutex<Text>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Text {
    raw: Vec<u8>,
    /// The guest's end is closed: nothing follows.
    closed: bool,
}

/// The guest refused a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestError {
    pub errno: String,
    pub sentence: String,
}

impl fmt::Display for GuestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.errno, self.sentence)
    }
}

impl std::error::Error for GuestError {}

impl Console {
    /// The console at the other end of `socket`.
    pub fn over(socket: UnixStream) -> Result<Self> {
        let heard = Arc::new(Heard::default());
        let ears = socket.try_clone().context("cannot listen to the serial port")?;
        let ours = Arc::clone(&heard);
        std::thread::spawn(move || ours.listen(ears));
        Ok(Self {
            socket,
            heard,
            position: 0,
            seen: 0,
            whole: false,
            entered: true,
            typed: String::new(),
            command_deadline: Duration::from_secs(120),
        })
    }

    /// Everything the guest ever said, readable.
    pub fn log(&self) -> String {
        let text = self.heard.lock();
        String::from_utf8_lossy(&text.raw).lines().map(|line| shown(line) + "\n").collect()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket.write_all(bytes).context("the serial port is closed")
    }

    /// Waits until a line contains `text`, and returns that line: whole, or as far as it gets for now.
    pub fn expect(&mut self, text: &str, deadline: Instant) -> Result<String> {
        self.settled(deadline, |line| line.contains(text)).with_context(|| format!("waiting for `{text}`"))
    }

    /// The next whole line; `None` when the machine has ended.
    pub fn whole_line(&mut self, deadline: Instant) -> Result<Option<String>> {
        loop {
            match self.next_line() {
                Line::Whole(line) => return Ok(Some(line)),
                Line::Open(_) if self.closed() && self.heard.lock().raw.len() == self.seen => {
                    return Ok(None);
                }
                Line::Open(_) => self.wait_for_more(deadline)?,
            }
        }
    }

    /// Waits for the prompt.
    pub fn expect_prompt(&mut self, deadline: Instant) -> Result<()> {
        // A line that is being redrawn starts as an empty prompt, too.
        self.settled(deadline, |line| line == PROMPT).context("waiting for the prompt").map(drop)
    }

    /// Runs a command and returns what it printed, lines of the log and of jobs left out. A refusal is a [`GuestError`] inside the error.
    pub fn command(&mut self, line: &str) -> Result<String> {
        self.command_within(line, self.command_deadline)
    }

    /// [`Self::command`] with a time limit of its own.
    pub fn command_within(&mut self, line: &str, limit: Duration) -> Result<String> {
        self.submit(line)?;
        self.ending(limit)
    }

    /// Waits for the end of the line that was typed last; what it printed, as [`Self::command`] says.
    pub fn ending(&mut self, limit: Duration) -> Result<String> {
        let line = self.typed.clone();
        let output = self.rest_of_output(limit).with_context(|| format!("command `{line}`"))?;
        let error = output.lines().find_map(|line| line.strip_prefix("error: "));
        match error.and_then(|error| error.split_once(": ")) {
            Some((errno, sentence)) => {
                let error = GuestError { errno: errno.to_owned(), sentence: sentence.to_owned() };
                Err(anyhow::Error::new(error).context(format!("command `{line}`")))
            }
            None => Ok(output),
        }
    }

    /// Runs a command with `-J` and returns its object.
    pub fn json(&mut self, line: &str) -> Result<Value> {
        let output = self.command(&format!("{line} -J"))?;
        serde_json::from_str(output.trim()).with_context(|| format!("`{line} -J` printed no JSON: {output}"))
    }

    /// Types a line at the prompt, without waiting for what it does.
    pub fn submit(&mut self, line: &str) -> Result<()> {
        self.skip_to_end();
        self.entered = false;
        self.typed = line.to_owned();
        self.send(format!("{line}\r").as_bytes())
    }

    /// Whether the prompt is there, after the line that was typed last was entered; waits until `deadline` for it.
    pub fn prompt_after_entry(&mut self, deadline: Instant) -> bool {
        loop {
            match self.next_line() {
                Line::Whole(line) => self.entered |= is_echo(&line, &self.typed),
                Line::Open(line) if self.entered && line == PROMPT => return true,
                Line::Open(_) if self.wait_for_more(deadline).is_err() => return false,
                Line::Open(_) => {}
            }
        }
    }

    /// The bytes from `position` on, as the guest wrote them.
    pub fn raw_from(&self, position: usize) -> Vec<u8> {
        self.heard.lock().raw[position..].to_vec()
    }

    /// Nothing more will come.
    pub fn closed(&self) -> bool {
        self.heard.lock().closed
    }

    /// Gives the last bytes of a machine that ended time to arrive.
    pub fn wait_closed(&self, limit: Duration) {
        let waiting = |text: &mut Text| !text.closed;
        drop(self.heard.more.wait_timeout_while(self.heard.lock(), limit, waiting));
    }

    /// Sends a line at the prompt and collects the lines up to the next prompt, refusals included, those of the log and of
    /// jobs left out.
    pub fn output(&mut self, line: &str, limit: Duration) -> Result<String> {
        self.submit(line)?;
        self.rest_of_output(limit)
    }

    fn rest_of_output(&mut self, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        let mut output = String::new();
        loop {
            match self.next_line() {
                Line::Whole(line) if line.contains(PANIC_END) => bail!("the kernel panicked"),
                Line::Whole(line) if !self.entered => self.entered = is_echo(&line, &self.typed),
                Line::Whole(text) if !is_output_of(&self.typed, &text) => {}
                Line::Whole(line) => output.push_str(&(line + "\n")),
                Line::Open(line) if self.entered && line == PROMPT => return Ok(output),
                Line::Open(_) => self.wait_for_more(deadline)?,
            }
        }
    }

    /// What came before a command is sent is not its output. The prompt itself stays: the echo completes its line.
    fn skip_to_end(&mut self) {
        let text = self.heard.lock();
        self.position = text.raw.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    }

    /// The first line that is `wanted`, and still is when it does not grow any more.
    fn settled(&mut self, deadline: Instant, wanted: impl Fn(&str) -> bool) -> Result<String> {
        loop {
            let line = self.line_until(deadline, &wanted)?;
            // A whole line is consumed already: what follows has nothing to do with it.
            if self.whole || self.wait_for_more(Instant::now() + SETTLED).is_err() {
                return Ok(line);
            }
        }
    }

    fn line_until(&mut self, deadline: Instant, wanted: impl Fn(&str) -> bool) -> Result<String> {
        loop {
            match self.next_line() {
                Line::Whole(line) | Line::Open(line) if wanted(&line) => return Ok(line),
                Line::Whole(line) if line.contains(PANIC_END) => bail!("the kernel panicked"),
                Line::Whole(_) => {}
                Line::Open(_) => self.wait_for_more(deadline)?,
            }
        }
    }

    /// The line at our position: consumed when it is whole.
    fn next_line(&mut self) -> Line {
        let text = self.heard.lock();
        let unseen = if self.whole { self.position } else { self.seen.max(self.position) };
        self.seen = text.raw.len();
        let rest = &text.raw[self.position..];
        let end = text.raw[unseen..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end.map(|end| unseen - self.position + end) else {
            self.whole = false;
            return Line::Open(shown(&String::from_utf8_lossy(&rest[rest.len().saturating_sub(OPEN_BYTES)..])));
        };
        let line = shown(&String::from_utf8_lossy(&rest[..end]));
        self.position += end + 1;
        self.whole = true;
        Line::Whole(line)
    }

    fn wait_for_more(&self, deadline: Instant) -> Result<()> {
        let text = self.heard.lock();
        let known = self.seen;
        if text.closed && text.raw.len() == known {
            bail!("the machine is gone");
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let waiting = |text: &mut Text| text.raw.len() == known && !text.closed;
        let (_text, timeout) =
            self.heard.more.wait_timeout_while(text, left, waiting).unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            bail!("out of time");
        }
        Ok(())
    }
}

enum Line {
    /// Ended by a newline.
    Whole(String),
    /// Still being written.
    Open(String),
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Text> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, mut socket: UnixStream) {
        let mut chunk = [0; 16 << 10];
        loop {
            let read = socket.read(&mut chunk);
            let mut text = self.lock();
            match read {
                Ok(0) => text.closed = true,
                Ok(n) => text.raw.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => text.closed = true,
            }
            self.more.notify_all();
            if text.closed {
                return;
            }
        }
    }
}

/// Whether a whole line is the one that was typed, at the prompt, perhaps behind keys that were there already. Echoes of
/// what was typed before may still come. Keys that edit show something else than themselves.
fn is_echo(line: &str, typed: &str) -> bool {
    let plain = typed.len() <= ECHO_CHARS && typed.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    match line.strip_prefix(PROMPT.trim_end()) {
        Some(echo) if plain => echo.trim_end().ends_with(typed.trim()),
        echo => echo.is_some(),
    }
}

/// Whether a command prints such a line, and not somebody else in its time.
fn is_output_of(command: &str, line: &str) -> bool {
    let mut words = command.split_whitespace();
    // As JSON, the log is one line of another look.
    let prints_log = words.next() == Some("dmesg") && words.all(|word| word != "-J");
    of_job(line).is_none() && (prints_log || !is_log(line))
}

/// What a job printed: `job 1: text`.
pub fn of_job(line: &str) -> Option<&str> {
    let (number, text) = line.strip_prefix("job ")?.split_once(": ")?;
    number.parse::<u64>().is_ok().then_some(text)
}

/// A kernel log line: `[seconds.microseconds] area: message`.
fn is_log(line: &str) -> bool {
    let stamp = line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map(|(stamp, _)| stamp.trim());
    stamp.is_some_and(|stamp| !stamp.is_empty() && stamp.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

/// What a terminal shows of a line in the end: the part after the last return to its start, without escape sequences.
fn shown(raw: &str) -> String {
    let line = raw.trim_end_matches(['\r', '\n']);
    let last = line.rsplit('\r').next().unwrap_or_default();
    let mut text = String::new();
    let mut chars = last.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => skip_escape(&mut chars, &mut text),
            '\x08' => drop(text.pop()),
            '\x07' => {}
            c => text.push(c),
        }
    }
    text
}

/// Skips `ESC [ … letter`; clearing the line or the screen forgets what was on it.
fn skip_escape(chars: &mut std::str::Chars<'_>, text: &mut String) {
    if chars.next() != Some('[') {
        return;
    }
    let mut parameters = String::new();
    for c in chars.by_ref() {
        match c {
            '0'..='9' | ';' | '?' => parameters.push(c),
            'J' | 'K' if parameters == "2" => return text.clear(),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console() -> (Console, UnixStream) {
        let (socket, guest) = UnixStream::pair().expect("a socket pair");
        (Console::over(socket).expect("listening"), guest)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    /// A guest that prints `before`, reads a line and prints `after`.
    fn guest(mut socket: UnixStream, before: &'static str, after: &'static str) {
        socket.write_all(before.as_bytes()).expect("written");
        std::thread::spawn(move || {
            let mut byte = [0];
            while byte != *b"\r" {
                socket.read_exact(&mut byte).expect("a line");
            }
            socket.write_all(after.as_bytes()).expect("written");
            // Stays open until the test is over.
            socket.read_exact(&mut byte).ok();
        });
    }

    #[test]
    fn a_command_returns_its_output_without_echo_prompt_and_log() {
        let (mut console, socket) = console();
        let after = "lsmem\r\nRANGE SIZE\r\n[    1.250000] dimm: slot 0\r\n0-1 256M\r\naltmap> ";
        guest(socket, "altmap 0.1.0\r\naltmap> ", after);
        console.expect_prompt(soon()).expect("a prompt");
        assert_eq!(console.command("lsmem").expect("answered"), "RANGE SIZE\n0-1 256M\n");
    }

    #[test]
    fn a_very_long_line_in_pieces_is_one_line() {
        let (mut console, mut socket) = console();
        let long = "0123456789abcdef".repeat(1 << 14);
        socket.write_all(b"altmap> ").expect("written");
        console.expect_prompt(soon()).expect("a prompt");
        let written = long.clone();
        std::thread::spawn(move || {
            let mut command = [0; 2];
            socket.read_exact(&mut command).expect("a line");
            socket.write_all(b"x\r\n").expect("written");
            for piece in written.as_bytes().chunks(1000) {
                socket.write_all(piece).expect("written");
            }
            socket.write_all(b"\r\naltmap> ").expect("written");
            socket.read_exact(&mut command).ok();
        });
        assert_eq!(console.command("x").expect("answered"), long + "\n");
    }

    #[test]
    fn a_log_line_above_the_prompt_does_not_end_a_command() {
        let (mut console, socket) = console();
        let after = "\r\x1b[K[1.0] dimm: slot 0\r\naltmap> vers\r\x1b[K[1.1] dimm: slot 1\r\naltmap> version\r\n0.1\r\naltmap> ";
        guest(socket, "altmap> ", after);
        console.expect_prompt(soon()).expect("a prompt");
        assert_eq!(console.command("version").expect("answered"), "0.1\n");
    }

    #[test]
    fn the_echo_and_output_of_an_earlier_line_are_not_taken_for_ours() {
        let (mut console, socket) = console();
        let after = "\r\nearlier output\r\naltmap> version\r\n0.1\r\naltmap> ";
        guest(socket, "altmap> lsmem", after);
        assert_eq!(console.command("version").expect("answered"), "0.1\n");
    }

    #[test]
    fn keys_that_edit_and_keys_typed_before_are_no_obstacle() {
        assert!(is_echo("altmap> version", "vers\t") && is_echo("altmap> version", "ion") && is_echo("altmap>", ""));
        assert!(!is_echo("altmap> lsmem", "version") && !is_echo("version", "version"));
    }

    #[test]
    fn a_line_that_is_redrawn_is_no_empty_prompt() {
        let (mut console, mut socket) = console();
        socket.write_all(b"altmap> onl\raltmap> ").expect("written");
        let rest = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            socket.write_all(b"onl^C\r\naltmap> ").expect("written");
            socket
        });
        console.expect_prompt(soon()).expect("a prompt");
        assert!(console.log().contains("^C"), "{}", console.log());
        drop(rest.join());
    }

    #[test]
    fn the_log_is_the_output_of_dmesg() {
        let (mut console, socket) = console();
        guest(socket, "altmap> ", "dmesg\r\n[0.1] boot: hello\r\naltmap> ");
        assert_eq!(console.command("dmesg").expect("answered"), "[0.1] boot: hello\n");
    }

    #[test]
    fn a_line_that_is_still_being_written_is_waited_for() {
        let (mut console, mut socket) = console();
        socket.write_all(b"{\"t\": 1, ").expect("written");
        let rest = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            socket.write_all(b"\"op\": 2}\r\n").expect("written");
            socket
        });
        assert_eq!(console.expect("\"t\"", soon()).expect("written"), "{\"t\": 1, \"op\": 2}");
        drop(rest.join());
    }

    #[test]
    fn a_refusal_names_errno_and_sentence() {
        let (mut console, socket) = console();
        guest(socket, "altmap> ", "online 99\r\nerror: ENOENT: no block 99: none of 0-15\r\naltmap> ");
        console.expect_prompt(soon()).expect("a prompt");
        let error = console.command("online 99").expect_err("refused");
        let error = error.downcast_ref::<GuestError>().expect("the guest's words");
        assert_eq!((error.errno.as_str(), error.sentence.as_str()), ("ENOENT", "no block 99: none of 0-15"));
    }

    #[test]
    fn json_is_parsed() {
        let (mut console, socket) = console();
        guest(socket, "altmap> ", "meminfo -J\r\n{\"total\": 4096}\r\naltmap> ");
        console.expect_prompt(soon()).expect("a prompt");
        assert_eq!(console.json("meminfo").expect("answered")["total"], 4096);
    }

    #[test]
    fn a_panic_and_a_closed_port_end_the_waiting() {
        let (mut console, mut socket) = console();
        socket.write_all(b"panic: stopped\r\n").expect("written");
        let error = console.expect_prompt(soon()).expect_err("panicked");
        assert!(format!("{error:#}").contains("panicked"), "{error:#}");
        drop(socket);
        let error = console.expect_prompt(soon()).expect_err("closed");
        assert!(format!("{error:#}").contains("gone"), "{error:#}");
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (mut console, _socket) = console();
        let error = console.expect("never", Instant::now() + Duration::from_millis(50)).expect_err("silence");
        assert!(format!("{error:#}").contains("out of time"), "{error:#}");
    }

    #[test]
    fn a_line_is_what_a_terminal_shows() {
        for (raw, text) in [
            ("altmap> \r\x1b[K[1.0] x: y\r", "[1.0] x: y"),
            ("\x1b[2J\x1b[01;01Hhello", "hello"),
            ("abc\x08d", "abd"),
            ("old\x1b[2Knew", "new"),
        ] {
            assert_eq!(shown(raw), text, "{raw:?}");
        }
    }

    #[test]
    fn lines_of_jobs_are_told_from_those_of_the_command() {
        assert_eq!(of_job("job 12: fill 1"), Some("fill 1"));
        for line in ["job 12", "job x: y", "job : y", "jobs 1: y", "a job 1: y"] {
            assert_eq!(of_job(line), None, "{line}");
        }
        let (mut console, socket) = console();
        guest(socket, "altmap> ", "meminfo -J\r\njob 1: seed 7\r\n{\"total\": 4096}\r\njob 1: {}\r\naltmap> ");
        console.expect_prompt(soon()).expect("a prompt");
        assert_eq!(console.json("meminfo").expect("answered")["total"], 4096);
    }

    #[test]
    fn the_log_is_output_of_the_command_that_prints_it() {
        let line = "[1.5] fill: x";
        for (command, is_its) in [("dmesg", true), ("dmesg -J", false), ("lsmem", false)] {
            assert_eq!(is_output_of(command, line), is_its, "{command}");
        }
        assert!(is_output_of("dmesg -J", "{}") && !is_output_of("dmesg", "job 1: x"));
    }

    #[test]
    fn only_stamped_lines_are_log() {
        assert!(is_log("[    0.001234] acpi: x") && is_log("[12.5] a: b"));
        assert!(!is_log("[abc] x") && !is_log("[] x") && !is_log("[1, 2]") && !is_log("{}"));
    }
}
