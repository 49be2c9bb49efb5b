//! `./x run`: a machine with its console on this terminal, or fed from standard input where there is none.

use std::fs;
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::accelerator::Accelerator;
use crate::image::Images;
use crate::qemu::{self, Debugger, Exit, Machine, Qemu, Serial};
use crate::qmp::Qmp;
use crate::serial::Console;
use crate::workspace;

/// A guest that was told to power off has this long.
const POWER_OFF: Duration = Duration::from_secs(30);

/// The longest a Unix socket's name may be.
const SOCKET_NAME_BYTES: usize = 107;

/// Runs `machine` until it ends, and says how it did.
pub fn run(
    machine: &Machine,
    images: &Images,
    accelerator: Accelerator,
    qmp: &Path,
) -> Result<Exit> {
    let qmp = socket(qmp)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .context("cannot watch for signals")?;
    }
    let exit = if std::io::stdin().is_terminal() {
        let qemu = qemu::start(machine, images, accelerator, Serial::Terminal, qmp.clone())?;
        announce(machine, images, &qemu, &qmp);
        eprintln!("console: Ctrl-A X leaves, Ctrl-A H helps\n");
        wait(qemu, &stop)
    } else {
        let directory =
            tempfile::tempdir().context("cannot make a directory for the console's socket")?;
        let serial = directory.path().join("serial");
        let qemu = qemu::start(
            machine,
            images,
            accelerator,
            Serial::Socket(serial.clone()),
            qmp.clone(),
        )?;
        announce(machine, images, &qemu, &qmp);
        let console = Console::connect(&serial, Instant::now() + Duration::from_secs(30))?;
        Feeder {
            qemu,
            console,
            qmp: qmp.clone(),
            stop,
            shown: 0,
            boot_limit: boot_limit(machine),
        }
        .run()
    };
    // Nobody listens there any more.
    fs::remove_file(&qmp).ok();
    exit
}

/// A path that QEMU can listen on: short enough, and not another machine's.
pub fn socket(path: &Path) -> Result<PathBuf> {
    if UnixStream::connect(path).is_ok() {
        bail!(
            "another machine listens at {}; give this one its own by --qmp PATH",
            path.display()
        );
    }
    if let Some(directory) = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
    {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let short = workspace::short(path);
    if short.as_os_str().len() > SOCKET_NAME_BYTES {
        bail!(
            "{} is too long for a socket's name; give a shorter one by --qmp PATH",
            path.display()
        );
    }
    Ok(short)
}

fn announce(machine: &Machine, images: &Images, qemu: &Qemu, qmp: &Path) {
    eprintln!("{}", qemu.command_line);
    eprintln!("QMP socket: {}", qmp.display());
    if machine.debugger == Debugger::WaitFor {
        eprintln!("the machine waits for a debugger; in another terminal:");
        eprintln!("  {}", debugger_line(&images.kernel));
    }
}

/// The first breakpoint is a hardware one: the kernel is not in memory yet when it is set.
fn debugger_line(kernel: &Path) -> String {
    let kernel = workspace::short(kernel);
    format!(
        "gdb {} -ex 'target remote localhost:1234' -ex 'hbreak _start' -ex continue",
        kernel.display()
    )
}

/// With a debugger attached the guest may stand still as long as somebody thinks.
fn boot_limit(machine: &Machine) -> Duration {
    match machine.debugger {
        Debugger::None => Duration::from_secs(300),
        Debugger::WaitFor => Duration::from_secs(24 * 3600),
    }
}

fn wait(mut qemu: Qemu, stop: &AtomicBool) -> Result<Exit> {
    loop {
        if let Some(exit) = qemu.wait(Duration::from_millis(200)) {
            return Ok(exit);
        }
        if stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
    }
}

/// Types standard input into the console, a line whenever the prompt is there.
struct Feeder {
    qemu: Qemu,
    console: Console,
    qmp: PathBuf,
    stop: Arc<AtomicBool>,
    /// How much of the console's text was passed on.
    shown: usize,
    boot_limit: Duration,
}

/// The state of the console between two lines of input.
enum Prompt {
    Ready,
    /// The machine ended before it asked for more.
    Ended,
}

impl Feeder {
    fn run(mut self) -> Result<Exit> {
        let boot_deadline = Instant::now() + self.boot_limit;
        if let Prompt::Ended = self.prompt(Some(boot_deadline))? {
            return self.end();
        }
        for line in std::io::stdin().lock().lines() {
            let line = line.context("cannot read standard input")?;
            // An empty line does nothing, but a prompt answers it as well.
            if self.console.submit(&line).is_err() {
                return self.end();
            }
            if let Prompt::Ended = self.prompt(None)? {
                return self.end();
            }
        }
        self.power_off()
    }

    /// Waits for the prompt, showing what comes before it.
    fn prompt(&mut self, deadline: Option<Instant>) -> Result<Prompt> {
        loop {
            let soon = Instant::now() + Duration::from_millis(100);
            let at_prompt = self.console.prompt_after_entry(soon);
            self.show()?;
            if at_prompt {
                return Ok(Prompt::Ready);
            }
            if self.console.closed() || self.qemu.ended()?.is_some() {
                return Ok(Prompt::Ended);
            }
            if self.stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                bail!(
                    "the machine did not get to its prompt within {} s",
                    self.boot_limit.as_secs()
                );
            }
        }
    }

    /// The command, then the power button for a shell that does not listen.
    fn power_off(mut self) -> Result<Exit> {
        self.console.submit("poweroff").ok();
        if let Some(exit) = self.shown_until_end(POWER_OFF)? {
            return Ok(exit);
        }
        if let Ok(mut qmp) = Qmp::connect(&self.qmp) {
            qmp.execute("system_powerdown", json!({})).ok();
        }
        self.end()
    }

    fn end(mut self) -> Result<Exit> {
        match self.shown_until_end(POWER_OFF)? {
            Some(exit) => Ok(exit),
            None => bail!("the machine does not power off"),
        }
    }

    fn shown_until_end(&mut self, limit: Duration) -> Result<Option<Exit>> {
        let deadline = Instant::now() + limit;
        loop {
            let exit = self.qemu.wait(Duration::from_millis(100));
            if exit.is_some() {
                self.console.wait_closed(Duration::from_secs(1));
            }
            self.show()?;
            if exit.is_some() || Instant::now() >= deadline {
                return Ok(exit);
            }
            if self.stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
        }
    }

    /// Passes on what the guest wrote, as it wrote it.
    fn show(&mut self) -> Result<()> {
        let text = self.console.raw_from(self.shown);
        self.shown += text.len();
        let mut out = std::io::stdout().lock();
        out.write_all(&text)
            .and_then(|()| out.flush())
            .context("cannot write to standard output")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_that_another_machine_uses_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("qmp.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        assert!(socket(&path).is_err());
        drop(listener);
        assert!(
            socket(&path).is_ok(),
            "what a dead machine left is taken over"
        );
    }

    #[test]
    fn a_name_too_long_for_a_socket_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = socket(&directory.path().join("x".repeat(120))).expect_err("too long");
        assert!(error.to_string().contains("--qmp"), "{error}");
    }

    #[test]
    fn the_debugger_gets_the_kernel_with_symbols() {
        let line = debugger_line(Path::new("/elsewhere/kernel"));
        assert!(
            line.starts_with("gdb /elsewhere/kernel -ex 'target remote localhost:1234'"),
            "{line}"
        );
    }
}
