//! A running machine: its shell, its monitor, and how it ends.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use boot::accelerator::Accelerator;
use boot::guest::Guest;
use boot::image::Images;
use boot::qemu::{Exit, Machine, Qemu};
use boot::qmp::{Event, Qmp};
use boot::serial::{Console, GuestError};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// From QEMU's start to the prompt, on a busy machine without virtualization.
pub const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// For what takes a moment. A test never fails because a machine is slow: this is for what does not come at all.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// For a machine that ends by itself: one may boot by UEFI and test all of its kernel before it does.
const END_LIMIT: Duration = Duration::from_secs(600);

/// A machine that booted to the prompt; it ends with this value.
#[derive(Debug)]
pub struct Vm {
    pub console: Console,
    pub qmp: Qmp,
    qemu: Qemu,
}

/// A point in time [`PATIENCE`] away.
pub fn soon() -> Instant {
    Instant::now() + PATIENCE
}

impl Vm {
    /// Starts `machine` and waits for the prompt.
    pub fn boot(machine: &Machine, images: &Images, accelerator: Accelerator) -> Result<Self> {
        let mut vm = Self::start(machine, images, accelerator)?;
        match vm.console.expect_prompt(Instant::now() + BOOT_LIMIT) {
            Ok(()) => Ok(vm),
            Err(error) => Err(vm.explain(error.context("booting"))),
        }
    }

    /// Starts `machine`.
    pub fn start(machine: &Machine, images: &Images, accelerator: Accelerator) -> Result<Self> {
        let guest = Guest::start(machine, images, accelerator, None)?;
        let deadline = soon();
        let qmp = loop {
            match guest.connect_qmp() {
                Ok(qmp) => break qmp,
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        // Both sockets are connected: their names are not needed any more.
        let Guest { qemu, console, .. } = guest;
        Ok(Self { console, qmp, qemu })
    }

    /// `error`, and what the machine was and said.
    pub fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        let mut error = error;
        if let Ok(Some(exit)) = self.qemu.ended() {
            self.console.wait_closed(Duration::from_secs(2));
            if exit == Exit::GivenUp {
                error = error.context(exit);
            }
        }
        anyhow!(
            "{error:#}\n--- machine ---\n{}\n--- serial log ---\n{}--- end of serial log ---",
            self.qemu.command_line,
            self.console.log()
        )
    }

    /// Runs a command that succeeds, and returns what it printed.
    #[track_caller]
    pub fn cmd(&mut self, line: &str) -> Result<String> {
        self.console.command(line)
    }

    /// Runs a command with `-J` and returns its object.
    #[track_caller]
    pub fn json(&mut self, line: &str) -> Result<Value> {
        self.console.json(line)
    }

    /// The same, as a value of our own.
    #[track_caller]
    pub fn ask<T: DeserializeOwned>(&mut self, line: &str) -> Result<T> {
        let object = self.console.json(line)?;
        serde_json::from_value(object.clone()).with_context(|| format!("`{line} -J` printed {object}"))
    }

    /// Runs a command that fails with `errno` in exactly one line, and returns the sentence.
    #[track_caller]
    pub fn fails(&mut self, line: &str, errno: &str) -> Result<String> {
        self.fails_with_one_of(line, &[errno])
    }

    /// The same where more than one errno tells the truth.
    #[track_caller]
    pub fn fails_with_one_of(&mut self, line: &str, errnos: &[&str]) -> Result<String> {
        let output = self.console.output(line, PATIENCE)?;
        let error = match output.lines().collect::<Vec<_>>()[..] {
            [only] => only.strip_prefix("error: "),
            _ => None,
        };
        let error = error
            .with_context(|| format!("`{line}` should fail in one line with {errnos:?} and printed: {output:?}"))?;
        let (errno, sentence) = error.split_once(": ").context("an error without a sentence")?;
        ensure!(errnos.contains(&errno), "`{line}`: got {errno}: {sentence}; expected one of {errnos:?}");
        ensure!(!sentence.trim().is_empty(), "`{line}`: {errno} without a sentence");
        Ok(sentence.to_owned())
    }

    /// Types a command and, after a while, Ctrl-C; how the command ended, which may have been before that.
    #[track_caller]
    pub fn interrupt(&mut self, line: &str, after: Duration) -> Result<String> {
        self.console.submit(line)?;
        std::thread::sleep(after);
        self.type_raw(b"\x03")?;
        self.console.ending(PATIENCE)
    }

    /// Starts a command as a job and returns its number.
    #[track_caller]
    pub fn job(&mut self, command: &str) -> Result<u64> {
        let output = self.cmd(&format!("{command} &"))?;
        let number = output.lines().find_map(|line| line.strip_prefix("job ")?.trim().parse().ok());
        number.with_context(|| format!("`{command} &` printed {output:?}"))
    }

    /// Runs a command that fills memory, and returns the number of the fill.
    #[track_caller]
    pub fn fill(&mut self, command: &str) -> Result<u64> {
        self.json(command)?["id"].as_u64().with_context(|| format!("`{command} -J` printed no id"))
    }

    /// Gives back every fill there is.
    #[track_caller]
    pub fn free_everything(&mut self) -> Result<()> {
        let list = self.json("verify")?;
        for fill in list["fills"].as_array().into_iter().flatten() {
            self.cmd(&format!("free {}", fill["id"]))?;
        }
        Ok(())
    }

    /// The kernel's log, by `dmesg`.
    #[track_caller]
    pub fn kernel_log(&mut self) -> Result<Vec<String>> {
        let log = self.json("dmesg")?;
        let lines = log["lines"].as_array().with_context(|| format!("no lines: {log}"))?;
        Ok(lines.iter().filter_map(|line| line.as_str().map(str::to_owned)).collect())
    }

    /// Recounts all memory.
    #[track_caller]
    pub fn memcheck(&mut self) -> Result<()> {
        let line = self.cmd("memcheck")?;
        ensure!(line.starts_with("memcheck: ok"), "memcheck printed: {line}");
        let recount = self.json("memcheck")?;
        ensure!(recount["ok"] == true && recount["problems"] == json!([]), "memcheck: {recount}");
        Ok(())
    }

    /// A QMP command.
    #[track_caller]
    pub fn qmp(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.qmp.execute(command, arguments).with_context(|| format!("QMP {command}"))
    }

    /// Bytes that the host has given to memory files behind the machine's devices.
    pub fn memory_file_bytes(&self) -> Result<u64> {
        self.qemu.memory_file_bytes()
    }

    /// Bytes of the host's memory that the machine uses now.
    pub fn host_memory(&self) -> Result<u64> {
        self.qemu.resident_bytes()
    }

    /// A command of QEMU's human monitor, which can poke what QMP cannot.
    #[track_caller]
    pub fn monitor(&mut self, line: &str) -> Result<String> {
        let answer = self.qmp("human-monitor-command", json!({ "command-line": line }))?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// What lies in the guest's memory at a physical address.
    #[track_caller]
    pub fn physical_memory(&mut self, address: u64, bytes: u64) -> Result<Vec<u8>> {
        let file = tempfile::NamedTempFile::new().context("no place for the guest's memory")?;
        self.qmp("pmemsave", json!({ "val": address, "size": bytes, "filename": file.path() }))?;
        std::fs::read(file.path()).context("QEMU saved nothing")
    }

    /// Waits for an event of QEMU.
    #[track_caller]
    pub fn event<T>(&mut self, what: &str, wanted: impl FnMut(&Event) -> Option<T>) -> Result<T> {
        let found = self.qmp.wait_event(soon(), wanted)?;
        found.with_context(|| format!("{what} did not come"))
    }

    /// Types bytes as they are.
    pub fn type_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.console.send(bytes)
    }

    /// Waits until a line contains `text`, and returns that line.
    pub fn expect(&mut self, text: &str) -> Result<String> {
        self.console.expect(text, soon())
    }

    /// Asks until `settled` has an answer: for what happens by itself a moment later.
    pub fn wait_for<T>(&mut self, what: &str, mut settled: impl FnMut(&mut Self) -> Result<Option<T>>) -> Result<T> {
        let deadline = soon();
        loop {
            if let Some(found) = settled(self)? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("{what} did not happen");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for the machine's end and says how it ended.
    pub fn end(&mut self) -> Result<Exit> {
        let exit = self.qemu.wait(END_LIMIT).context("the machine did not end")?;
        self.console.wait_closed(Duration::from_secs(5));
        Ok(exit)
    }
}

/// The errno of a command that the guest refused.
pub fn errno_of(error: &anyhow::Error) -> Option<&str> {
    error.downcast_ref::<GuestError>().map(|error| error.errno.as_str())
}
