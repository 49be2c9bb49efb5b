//! Typing lines into a machine's console, each when the prompt asks for it, and passing on what the guest writes.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::guest::Guest;
use crate::qemu::Exit;

/// A guest that was told to power off has this long.
const POWER_OFF: Duration = Duration::from_secs(30);

/// How often something is looked at.
const TICK: Duration = Duration::from_millis(50);

pub(crate) struct Feeder {
    guest: Guest,
    boot_limit: Duration,
    /// Set by a signal.
    stop: Arc<AtomicBool>,
    /// How much of the console's text was passed on.
    shown: usize,
}

/// The state of the console between two lines.
enum Prompt {
    Ready,
    /// The machine ended before it asked for more.
    Ended,
}

impl Feeder {
    pub(crate) fn new(guest: Guest, boot_limit: Duration, stop: Arc<AtomicBool>) -> Self {
        Self { guest, boot_limit, stop, shown: 0 }
    }

    /// Types every line, then powers off; says how the machine ended.
    pub(crate) fn run(mut self, lines: Receiver<std::io::Result<String>>) -> Result<Exit> {
        let mut prompt = self.prompt(Some(Instant::now() + self.boot_limit))?;
        while let Prompt::Ready = prompt {
            match lines.recv_timeout(TICK) {
                Ok(line) => {
                    let line = line.context("cannot read standard input")?;
                    prompt = self.type_line(&line)?;
                }
                Err(RecvTimeoutError::Timeout) => prompt = self.watch()?,
                Err(RecvTimeoutError::Disconnected) => return self.power_off(),
            }
        }
        self.end()
    }

    fn type_line(&mut self, line: &str) -> Result<Prompt> {
        match self.guest.console.submit(line) {
            Ok(()) => self.prompt(None),
            Err(_) => Ok(Prompt::Ended),
        }
    }

    /// Waits for the prompt, showing what comes before it.
    fn prompt(&mut self, deadline: Option<Instant>) -> Result<Prompt> {
        loop {
            let at_prompt = self.guest.console.prompt_after_entry(Instant::now() + TICK);
            if let Prompt::Ended = self.watch()? {
                return Ok(Prompt::Ended);
            }
            if at_prompt {
                return Ok(Prompt::Ready);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                bail!("no prompt within {} s", self.boot_limit.as_secs());
            }
        }
    }

    /// Shows what is new, and notices an end.
    fn watch(&mut self) -> Result<Prompt> {
        self.show()?;
        if self.stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        let ended = self.guest.console.closed() || self.guest.qemu.ended()?.is_some();
        Ok(if ended { Prompt::Ended } else { Prompt::Ready })
    }

    /// By the command, then by the power button for a shell that does not listen.
    fn power_off(mut self) -> Result<Exit> {
        // The port is closed only when the machine has ended, which is what follows anyway.
        self.guest.console.submit("poweroff").ok();
        if let Some(exit) = self.wait_for_end(POWER_OFF)? {
            return Ok(exit);
        }
        if let Ok(mut qmp) = self.guest.connect_qmp() {
            qmp.execute("system_powerdown", json!({})).ok();
        }
        self.end()
    }

    fn end(mut self) -> Result<Exit> {
        self.wait_for_end(POWER_OFF)?.context("the machine does not power off")
    }

    fn wait_for_end(&mut self, limit: Duration) -> Result<Option<Exit>> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(exit) = self.guest.qemu.wait(TICK) {
                self.guest.console.wait_closed(Duration::from_secs(1));
                self.show()?;
                return Ok(Some(exit));
            }
            self.watch()?;
        }
        Ok(None)
    }

    /// Passes on what the guest wrote, as it wrote it.
    fn show(&mut self) -> Result<()> {
        let text = self.guest.console.raw_from(self.shown);
        self.shown += text.len();
        let mut out = std::io::stdout().lock();
        out.write_all(&text).and_then(|()| out.flush()).context("cannot write to standard output")
    }
}
