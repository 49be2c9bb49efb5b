//! A machine whose instructions are counted: altmap or Linux, with one module coming and going, or a device that is resized.
//!
//! QEMU counts what the guest executes (`-icount`) and tells by `query-replay`, exactly while the machine stands still. So it
//! is stopped before and after what is measured; waiting costs nothing, and nothing depends on how busy this machine is.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use thiserror::Error;

use super::requests::Requests;
use crate::accelerator::Accelerator;
use crate::guest::Guest;
use crate::ost;
use crate::plug;
use crate::qemu::{Machine, Software, backend};
use crate::qmp::Qmp;
use crate::size::Bytes;

/// For everything that a guest does, on a machine that has better things to do.
const PATIENCE: Duration = Duration::from_secs(1800);

/// QEMU 7.2 sometimes sleeps on although its guest's console can be written to or its guest's next timer is due, when the
/// guest idles and its clock follows real time. Any word wakes it.
const NUDGE: Duration = Duration::from_millis(100);

/// A guest that executes less than this in so much time is idle: Linux's ticks take 500 instructions each.
const SETTLED: Duration = Duration::from_millis(10);
const IDLE_INSTRUCTIONS: u64 = 3000;
const SETTLE_TRIES: u32 = 50;

/// Nothing that is asked of a guest here takes more than this: it is busy with its last memory.
const ENOUGH_INSTRUCTIONS: u64 = 15_000_000_000;

/// A guest that works executes far more than this in so much time, even on a busy host. One that does not is idle, now and
/// then looks for memory, and answers no more.
const PERIOD: Duration = Duration::from_secs(60);
const WORK_OF_PERIOD: u64 = 200_000_000;

/// The module.
const DIMM: &str = "dimm0";

/// The virtio-mem device, and how often is looked at its size.
const DEVICE: &str = "vmem0";
const LOOK: Duration = Duration::from_millis(10);

/// Sections, and so blocks, are 128 MiB.
pub(super) const BLOCK: u64 = 128 << 20;

/// A machine that booted to the prompt; it ends with this value.
pub(super) struct Counted {
    guest: Guest,
    qmp: Qmp,
    requests: Requests,
}

/// How a guest did not cope with a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Unusable {
    #[error("the guest refused it")]
    Refused,
    #[error("the guest does not answer any more")]
    Silent,
    /// Free memory of the kernel's zones before and after, in bytes.
    #[error(
        "the firmware was told success, but {usable} bytes of {size} became usable; of {before} bytes that were free before, \
         {after} are left"
    )]
    Missing { usable: u64, size: Bytes, before: u64, after: u64 },
    #[error("the guest has {plugged} of {size}, and comes no nearer")]
    Short { plugged: Bytes, size: Bytes },
}

/// What it cost to plug the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plugged {
    /// From `device_add` to the guest's final `_OST`.
    pub instructions: u64,
    /// Growth of QEMU's memory meanwhile, in bytes.
    pub host_memory: u64,
    /// Whether the guest told success.
    pub success: bool,
}

/// What it cost to change the size of the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resized {
    /// From `qom-set` until QEMU counts what was requested.
    pub instructions: u64,
    /// Growth of QEMU's memory meanwhile, in bytes.
    pub host_memory: u64,
    /// What the guest asked of the device for it, where QEMU tells.
    pub requests: u64,
}

impl Counted {
    pub(super) fn boot(machine: &Machine, software: Software<'_>) -> Result<Self> {
        let requests = Requests::new()?;
        let mut machine = machine.clone();
        machine.extra.extend(requests.flags());
        let mut guest = Guest::start(&machine, software, Accelerator::Counting, None)?;
        let mut qmp = guest.connect_qmp()?;
        guest.console.command_deadline = PATIENCE;
        let console = &mut guest.console;
        nudged(&mut qmp, || console.expect_prompt(Instant::now() + PATIENCE)).context("booting")?;
        Ok(Self { guest, qmp, requests })
    }

    /// Runs a command and returns what it printed.
    pub(super) fn command(&mut self, line: &str) -> Result<String> {
        let console = &mut self.guest.console;
        nudged(&mut self.qmp, || console.command(line))
    }

    /// Runs a command with `-J` and returns its object.
    pub(super) fn json(&mut self, line: &str) -> Result<Value> {
        let console = &mut self.guest.console;
        nudged(&mut self.qmp, || console.json(line))
    }

    /// What a whole command executes, from the first key to the prompt, and what it printed.
    pub(super) fn count_command(&mut self, line: &str) -> Result<(u64, String)> {
        self.count(|machine| machine.command(line))
    }

    /// Plugs a module and waits until the guest is through with it.
    pub(super) fn plug(&mut self, size: Bytes) -> Result<Plugged> {
        // QEMU keeps three bits for each page of its own; that is no cost of the guest.
        plug::provide(&mut self.qmp, DIMM, size)?;
        let before = self.guest.qemu.resident_bytes()?;
        let device = json!({"driver": "pc-dimm", "id": DIMM, "memdev": backend(DIMM)});
        let (instructions, success) = self.count(|machine| {
            machine.qmp.forget_events();
            machine.qmp.execute("device_add", device)?;
            machine.answer(ost::Event::Insertion)
        })?;
        let host_memory = self.guest.qemu.resident_bytes()?.saturating_sub(before);
        Ok(Plugged { instructions, host_memory, success })
    }

    /// Takes the module out; what that executed until it was gone.
    pub(super) fn unplug(&mut self) -> Result<u64> {
        let (instructions, success) = self.count(|machine| {
            machine.qmp.forget_events();
            machine.qmp.execute("device_del", json!({ "id": DIMM }))?;
            machine.answer(ost::Event::Ejection)
        })?;
        if !success {
            bail!("the guest keeps the module");
        }
        self.qmp.execute("object-del", json!({ "id": backend(DIMM) }))?;
        Ok(instructions)
    }

    /// Changes the size of the device and waits until the guest is through with it.
    pub(super) fn resize(&mut self, size: Bytes) -> Result<Resized> {
        let memory = self.guest.qemu.resident_bytes()?;
        let requests = self.requests.count()?;
        let (instructions, ()) = self.count(|machine| {
            plug::request(&mut machine.qmp, DEVICE, size)?;
            machine.has_size(size)
        })?;
        Ok(Resized {
            instructions,
            host_memory: self.guest.qemu.resident_bytes()?.saturating_sub(memory),
            requests: self.requests.count()? - requests,
        })
    }

    /// The first block of the module or of the device.
    pub(super) fn first_block(&mut self) -> Result<u64> {
        let devices = self.qmp.execute("query-memory-devices", json!({}))?;
        let data = &devices[0]["data"];
        let address = data["addr"].as_u64().or_else(|| data["memaddr"].as_u64());
        Ok(address.with_context(|| format!("no module in {devices}"))? / BLOCK)
    }

    /// The line in which the guest said that it cannot go on.
    pub(super) fn last_words(&mut self) -> Option<String> {
        self.guest.console.wait_closed(Duration::from_secs(2));
        self.guest.console.log().lines().rfind(|line| line.contains("panic")).map(str::to_owned)
    }

    /// The guest's final answer about the module: whether it was success.
    fn answer(&mut self, about: ost::Event) -> Result<bool> {
        let final_answer = |event: &_| plug::answer_about(event, DIMM, about).filter(|answer| !answer.in_progress());
        let deadline = Instant::now() + PATIENCE;
        let mut watch = Watch::start(&mut self.qmp)?;
        while Instant::now() < deadline {
            if let Some(answer) = self.qmp.wait_event(Instant::now() + NUDGE, final_answer)? {
                return Ok(answer.success());
            }
            watch.nudge(&mut self.qmp)?;
        }
        bail!("the guest does not answer");
    }

    /// Waits until the guest has so much of the device, as long as it comes nearer.
    fn has_size(&mut self, size: Bytes) -> Result<()> {
        let mut watch = Watch::start(&mut self.qmp)?;
        let mut last = None;
        loop {
            let plugged = plug::size_of(&mut self.qmp, DEVICE)?.context("the machine has no such device")?;
            if plugged == size {
                return Ok(());
            }
            if last.replace(plugged) != Some(plugged) {
                watch = Watch::start(&mut self.qmp)?;
            }
            watch.nudge(&mut self.qmp).map_err(|error| match error.is::<Unusable>() {
                true => Unusable::Short { plugged, size }.into(),
                false => error,
            })?;
            std::thread::sleep(LOOK);
        }
    }

    /// What the guest executes while `act` acts.
    fn count<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<(u64, T)> {
        let before = self.stop()?;
        self.qmp.execute("cont", json!({}))?;
        let outcome = act(self)?;
        let after = self.settle()?;
        self.qmp.execute("cont", json!({}))?;
        Ok((after - before, outcome))
    }

    /// The count when the guest has become idle. What was waited for is seen a little before its end: there are a log line
    /// after an event, and the last words of a command.
    fn settle(&mut self) -> Result<u64> {
        let at_once = self.stop()?;
        let mut count = at_once;
        for _ in 0..SETTLE_TRIES {
            self.qmp.execute("cont", json!({}))?;
            std::thread::sleep(SETTLED);
            let next = self.stop()?;
            if next - count < IDLE_INSTRUCTIONS {
                return Ok(count);
            }
            count = next;
        }
        // It is busy with something else, for example with its last memory.
        Ok(at_once)
    }

    fn stop(&mut self) -> Result<u64> {
        self.qmp.execute("stop", json!({}))?;
        executed(&mut self.qmp)
    }
}

/// Runs `act`, which waits for the guest, and keeps QEMU awake meanwhile. A guest that makes nothing of its time is ended.
fn nudged<T: Send>(qmp: &mut Qmp, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let (done, outcome) = mpsc::channel();
        scope.spawn(move || done.send(act()));
        let mut watch = Watch::start(qmp)?;
        let mut seen = Ok(());
        loop {
            match outcome.recv_timeout(NUDGE) {
                Ok(Err(error)) => return seen.and(Err(error)),
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Disconnected) => bail!("waiting for the guest panicked"),
                // A machine that is gone closes its console, and the wait ends.
                Err(RecvTimeoutError::Timeout) if seen.is_err() => {}
                Err(RecvTimeoutError::Timeout) => seen = watch.nudge(qmp),
            }
        }
    })
}

/// What a guest has executed since somebody began to wait for it.
struct Watch {
    start: u64,
    /// When the period under way began, and the count then.
    period: (Instant, u64),
}

impl Watch {
    fn start(qmp: &mut Qmp) -> Result<Self> {
        let start = executed(qmp)?;
        Ok(Self { start, period: (Instant::now(), start) })
    }

    /// Wakes QEMU. Ends the machine when there is nothing to wait for any more.
    fn nudge(&mut self, qmp: &mut Qmp) -> Result<()> {
        let now = executed(qmp)?;
        let (since, count) = self.period;
        let mut is_hopeless = now - self.start > ENOUGH_INSTRUCTIONS;
        if since.elapsed() > PERIOD {
            is_hopeless |= now - count < WORK_OF_PERIOD;
            self.period = (Instant::now(), now);
        }
        if is_hopeless {
            qmp.execute("quit", json!({}))?;
            return Err(Unusable::Silent.into());
        }
        Ok(())
    }
}

/// Exact while the machine stands still; a moment old otherwise.
fn executed(qmp: &mut Qmp) -> Result<u64> {
    let replay = qmp.execute("query-replay", json!({}))?;
    replay["icount"].as_u64().with_context(|| format!("no count in {replay}"))
}
