//! A QEMU that runs, and how it ended.

use std::fmt;
use std::fs;
use std::os::unix::process::ChildExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::SIGTERM;
use tempfile::TempDir;

use crate::giving_up::{self, Watch};

/// A QEMU that was told to quit has this long.
pub(crate) const QUIT: Duration = Duration::from_secs(1);

/// A QEMU that runs; it ends with this value.
#[derive(Debug)]
pub struct Qemu {
    pub(super) child: Child,
    pub(super) watch: Watch,
    /// As somebody would type it.
    pub command_line: String,
    pub(super) _variables: Option<TempDir>,
}

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest left through the debug exit and was content.
    Success,
    /// The guest left through the debug exit and was not.
    Failure,
    /// Powered off, or somebody told QEMU to quit.
    PoweredOff,
    /// QEMU could not run the guest any further.
    GivenUp,
    /// QEMU itself failed or was killed.
    Broken(ExitStatus),
}

impl Qemu {
    /// Bytes of the host's memory that it uses now.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).context("QEMU is gone")?;
        resident_bytes(&status).context("no VmRSS in the status of QEMU's process")
    }

    /// Bytes of the host's memory in its memory files: backends of the kind `memory-backend-memfd`.
    pub fn memory_file_bytes(&self) -> Result<u64> {
        use std::os::unix::fs::MetadataExt;
        let files = fs::read_dir(format!("/proc/{}/fd", self.child.id())).context("QEMU is gone")?;
        let paths = files.filter_map(|file| Some(file.ok()?.path()));
        let is_memory = |path: &std::path::PathBuf| {
            fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains("memfd:memory-backend-memfd"))
        };
        let blocks = paths.filter(is_memory).map(|path| Ok(fs::metadata(path)?.blocks() * 512));
        blocks.sum()
    }

    /// What all its threads have executed until now.
    pub fn cpu_time(&self) -> Result<Duration> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).context("QEMU is gone")?;
        let times = threads.map(|thread| {
            let file = thread?.path().join("schedstat");
            let text = fs::read_to_string(&file)?;
            // The first number is the time on a CPU in nanoseconds (Documentation/scheduler/sched-stats.rst).
            let nanos = text.split_whitespace().next().and_then(|text| text.parse::<u64>().ok());
            nanos.with_context(|| format!("{} says: {text}", file.display()))
        });
        Ok(Duration::from_nanos(times.sum::<Result<u64>>()?))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<Exit>> {
        Ok(self.child.try_wait().context("cannot wait for QEMU")?.map(|status| self.exit(status)))
    }

    /// Waits for its end; `None` when the time is over.
    pub fn wait(&mut self, limit: Duration) -> Option<Exit> {
        wait_at_most(&mut self.child, limit).map(|status| self.exit(status))
    }

    fn exit(&self, status: ExitStatus) -> Exit {
        if self.watch.has_given_up() { Exit::GivenUp } else { Exit::of(status) }
    }

    /// Tells QEMU to quit, which gives a terminal back as it was; what does not listen is killed.
    pub fn quit(&mut self) {
        // It may have ended by itself already.
        self.child.send_signal(SIGTERM).ok();
        if self.wait(QUIT).is_none() {
            self.kill();
        }
    }

    /// Ends it without asking the guest.
    pub fn kill(&mut self) {
        // It may have ended by itself already.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

/// What the status of a Linux process says of its memory.
fn resident_bytes(status: &str) -> Option<u64> {
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    kib.parse::<u64>().ok().map(|kib| kib << 10)
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
        self.watch.finish();
    }
}

/// Waits for a process; `None` when the time is over.
fn wait_at_most(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Exit {
    const SUCCESS: i32 = 0x10 << 1 | 1;
    const FAILURE: i32 = 0x20 << 1 | 1;

    /// What QEMU's exit status says.
    fn of(status: ExitStatus) -> Self {
        match status.code() {
            Some(0) => Self::PoweredOff,
            Some(Self::SUCCESS) => Self::Success,
            Some(Self::FAILURE) => Self::Failure,
            _ => Self::Broken(status),
        }
    }

    /// An error unless the guest was content.
    pub fn check(self) -> Result<()> {
        match self {
            Self::Success | Self::PoweredOff => Ok(()),
            Self::Failure | Self::GivenUp | Self::Broken(_) => bail!("{self}"),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("the guest ended content"),
            Self::Failure => f.write_str("the guest failed"),
            Self::PoweredOff => f.write_str("the machine was powered off"),
            Self::GivenUp => f.write_str(giving_up::SENTENCE),
            Self::Broken(status) => write!(f, "QEMU failed: {status}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::giving_up::Told;
    use signal_hook::consts::SIGKILL;
    use std::io::Read;
    use std::os::linux::process::CommandExt;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    #[test]
    fn the_memory_of_a_process_is_read_from_its_status() {
        assert_eq!(resident_bytes("Name:\tqemu\nVmRSS:\t  103096 kB\nThreads:\t5\n"), Some(103_096 << 10));
        assert_eq!(resident_bytes("Name:\tqemu\n"), None);
    }

    #[track_caller]
    fn assert_quits(script: &str, signal: i32) {
        let mut command = Command::new("sh");
        let mut child = command.args(["-c", script]).stdout(Stdio::piped()).spawn().expect("started");
        // It says when it is ready for a signal.
        let ready = child.stdout.as_mut().expect("piped").read(&mut [0]).expect("read");
        assert_eq!(ready, 1);
        let mut qemu = Qemu { child, watch: Watch::default(), command_line: String::new(), _variables: None };
        qemu.quit();
        let exit = qemu.ended().expect("waited");
        assert!(matches!(exit, Some(Exit::Broken(status)) if status.signal() == Some(signal)), "{exit:?}");
    }

    #[test]
    fn a_process_is_asked_to_quit_before_it_is_killed() {
        assert_quits("echo; exec sleep 60", SIGTERM);
        assert_quits("trap '' TERM; echo; exec sleep 60", SIGKILL);
    }

    #[test]
    fn a_process_that_has_given_up_is_ended_and_told_from_others() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'KVM internal error. Suberror: 1' >&2; exec sleep 60"]).stderr(Stdio::piped());
        let mut child = command.create_pidfd(true).spawn().expect("started");
        let watch = Watch::start(&mut child, Told::Nobody).expect("watched");
        let mut qemu = Qemu { child, watch, command_line: String::new(), _variables: None };
        assert_eq!(qemu.wait(Duration::from_secs(30)), Some(Exit::GivenUp));
    }

    #[test]
    fn the_guests_codes_are_told_from_qemus() {
        let exit = |code: i32| Exit::of(ExitStatus::from_raw(code << 8));
        assert_eq!([exit(0), exit(33), exit(65)], [Exit::PoweredOff, Exit::Success, Exit::Failure]);
        assert!(matches!(exit(1), Exit::Broken(_)));
        assert!(matches!(Exit::of(ExitStatus::from_raw(9)), Exit::Broken(_)));
    }
}
