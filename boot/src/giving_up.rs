//! A QEMU that gives its guest up stops it and stays: it is noticed by what it writes, and ended.
//!
//! Where KVM meets an instruction that it cannot run, QEMU writes a line and the registers to standard error, and waits in the
//! state `internal-error` (QEMU's accel/kvm/kvm-all.c).

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::process::ChildExt;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Signal, pidfd_send_signal};

use crate::qemu::QUIT;

/// How such a line begins.
const BEGINNINGS: [&str; 3] = ["KVM internal error", "KVM: entry failed", "error: kvm run failed"];

/// The registers are written by then.
const DUMP: Duration = Duration::from_millis(200);

/// Whether any process of this one's has given up.
static SEEN: AtomicBool = AtomicBool::new(false);

/// What is to be said of it.
pub(crate) const SENTENCE: &str =
    "QEMU stopped with an internal error: this KVM cannot run the kernel; --tcg, or ALTMAP_ACCEL=tcg, does without it";

/// The reason behind every error that follows, if a QEMU of this process has given up: the console is closed then, or silent.
pub fn reason() -> Option<&'static str> {
    SEEN.load(Ordering::Relaxed).then_some(SENTENCE)
}

/// Who hears what a QEMU complains of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    User,
    /// It is only tried whether it runs.
    Nobody,
}

/// Watches one process.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    has_given_up: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Passes what a child, which has a pidfd and its standard error piped, writes there on to `told`; ends it when it has given up.
    pub(crate) fn start(child: &mut Child, told: Told) -> Result<Self> {
        let stderr = child.stderr.take().context("the standard error of QEMU is not piped")?;
        let process = child.pidfd().and_then(|process| process.as_fd().try_clone_to_owned());
        let process = process.context("cannot name QEMU's process")?;
        let has_given_up = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&has_given_up);
        let given_up = move || {
            flag.store(true, Ordering::Relaxed);
            SEEN.fetch_or(told == Told::User, Ordering::Relaxed);
            thread::sleep(DUMP);
            end(&process);
        };
        let thread = thread::spawn(move || match told {
            Told::User => pass_on(stderr, &mut std::io::stderr(), given_up),
            Told::Nobody => pass_on(stderr, &mut std::io::sink(), given_up),
        });
        Ok(Self { has_given_up, thread: Some(thread) })
    }

    /// Whether the process was ended because it had given up.
    pub(crate) fn has_given_up(&self) -> bool {
        self.has_given_up.load(Ordering::Relaxed)
    }

    /// Waits until all is passed on of a process that has ended.
    pub(crate) fn finish(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// As somebody would who can give it up: it leaves a terminal as it was, if it still listens.
fn end(process: &OwnedFd) {
    // It may have ended by itself.
    pidfd_send_signal(process, Signal::TERM).ok();
    thread::sleep(QUIT);
    pidfd_send_signal(process, Signal::KILL).ok();
}

/// Copies lines until there are no more, and calls `given_up` at one that says so.
fn pass_on(from: impl Read, to: &mut impl Write, mut given_up: impl FnMut()) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while let Ok(1..) = from.read_until(b'\n', &mut line) {
        // Nobody is left who could be told that standard error is closed.
        to.write_all(&line).ok();
        if BEGINNINGS.iter().any(|beginning| line.starts_with(beginning.as_bytes())) {
            given_up();
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lines_are_passed_on_and_the_one_that_counts_is_noticed() {
        let said = "warning: x\nKVM internal error. Suberror: 1\nemulation failure\nRAX=0";
        let (mut passed, mut count) = (Vec::new(), 0);
        pass_on(said.as_bytes(), &mut passed, || count += 1);
        assert_eq!((passed.as_slice(), count), (said.as_bytes(), 1));
        pass_on("qemu: not a KVM internal error\n".as_bytes(), &mut passed, || count += 1);
        assert_eq!(count, 1);
    }
}
