//! A QMP client: commands, and events with deadlines.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// QEMU answers a command at once; a minute is a machine that stands still.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// One conversation with QEMU's monitor. Events that nobody waits for yet are kept.
#[derive(Debug)]
pub struct Qmp {
    socket: UnixStream,
    unread: Vec<u8>,
    events: VecDeque<Event>,
}

/// Something QEMU reports by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: String,
    pub data: Value,
}

/// QEMU refused a command; the text is its own.
#[derive(Debug)]
pub struct Refused {
    pub class: String,
    pub description: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QEMU refused: {}", self.description)
    }
}

impl std::error::Error for Refused {}

impl Qmp {
    /// Connects to a running machine.
    pub fn connect(path: &Path) -> Result<Self> {
        let socket = UnixStream::connect(path).with_context(|| {
            format!("no machine listens at {}; is it running (./x run), with this QMP socket?", path.display())
        })?;
        let mut qmp = Self { socket, unread: Vec::new(), events: VecDeque::new() };
        // QEMU talks to one client at a time; the next one waits for its greeting.
        let greeting = qmp.message(Instant::now() + Duration::from_secs(10))?;
        if greeting.and_then(|message| message.get("QMP").cloned()).is_none() {
            bail!("{} gives no QMP greeting; is another client connected?", path.display());
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs one command. A refusal is a [`Refused`] inside the error.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({"execute": command, "arguments": arguments});
        self.socket.write_all(format!("{request}\n").as_bytes()).with_context(|| format!("{command}: QEMU is gone"))?;
        let deadline = Instant::now() + COMMAND_DEADLINE;
        loop {
            let message = self.message(deadline)?.with_context(|| format!("{command}: QEMU does not answer"))?;
            if let Some(value) = message.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = message.get("error") {
                let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                bail!(Refused { class: text("class"), description: text("desc") });
            }
            self.keep_event(&message);
        }
    }

    /// The next event for which `wanted` has an answer; events before it are dropped. `None` when the time is over.
    pub fn wait_event<T>(
        &mut self,
        deadline: Instant,
        mut wanted: impl FnMut(&Event) -> Option<T>,
    ) -> Result<Option<T>> {
        loop {
            while let Some(event) = self.events.pop_front() {
                if let Some(found) = wanted(&event) {
                    return Ok(Some(found));
                }
            }
            match self.message(deadline)? {
                Some(message) => self.keep_event(&message),
                None => return Ok(None),
            }
        }
    }

    /// Forgets the events that came so far.
    pub fn forget_events(&mut self) {
        self.events.clear();
    }

    fn keep_event(&mut self, message: &Value) {
        if let Some(name) = message.get("event").and_then(Value::as_str) {
            let data = message.get("data").cloned().unwrap_or(Value::Null);
            self.events.push_back(Event { name: name.to_owned(), data });
        }
    }

    /// One line from QEMU; `None` when the time is over.
    fn message(&mut self, deadline: Instant) -> Result<Option<Value>> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line).context("QEMU sent what is no JSON")?));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let mut chunk = [0; 4096];
            match self.socket.read(&mut chunk) {
                Ok(0) => bail!("QEMU closed the connection"),
                Ok(n) => self.unread.extend_from_slice(&chunk[..n]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("the connection to QEMU broke"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Qmp, UnixStream) {
        let (socket, peer) = UnixStream::pair().expect("a socket pair");
        (Qmp { socket, unread: Vec::new(), events: VecDeque::new() }, peer)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn events_that_come_before_an_answer_are_kept() {
        let (mut qmp, mut peer) = pair();
        peer.write_all(b"{\"event\": \"A\", \"data\": {\"x\": 1}}\n{\"return\": {\"y\": 2}}\n").expect("written");
        assert_eq!(qmp.execute("whatever", json!({})).expect("answered"), json!({"y": 2}));
        let found = qmp.wait_event(soon(), |event| (event.name == "A").then(|| event.data["x"].clone()));
        assert_eq!(found.expect("connected"), Some(json!(1)));
    }

    #[test]
    fn a_refusal_carries_the_words_of_qemu() {
        let (mut qmp, mut peer) = pair();
        peer.write_all(b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"not enough space\"}}\n")
            .expect("written");
        let error = qmp.execute("device_add", json!({})).expect_err("refused");
        assert_eq!(error.downcast_ref::<Refused>().expect("a refusal").description, "not enough space");
    }

    #[test]
    fn waiting_ends_at_the_deadline_and_keeps_half_a_message() {
        let (mut qmp, mut peer) = pair();
        peer.write_all(b"{\"event\": \"H").expect("written");
        let early = Instant::now() + Duration::from_millis(50);
        assert_eq!(qmp.wait_event(early, |_| Some(())).expect("connected"), None);
        peer.write_all(b"ALF\"}\n").expect("written");
        let name = qmp.wait_event(soon(), |event| Some(event.name.clone())).expect("connected");
        assert_eq!(name.as_deref(), Some("HALF"));
    }

    #[test]
    fn a_peer_that_goes_away_is_an_error() {
        let (mut qmp, peer) = pair();
        drop(peer);
        assert!(qmp.wait_event(soon(), |_| Some(())).is_err());
    }
}
