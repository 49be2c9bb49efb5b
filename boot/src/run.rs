//! `./x run`: a machine with its console on this terminal, or fed from standard input where there is none.

use std::fs;
use std::io::IsTerminal;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::accelerator::Accelerator;
use crate::feed::Feeder;
use crate::guest::Guest;
use crate::image::Images;
use crate::qemu::{self, Debugger, Exit, Machine, Qemu, Serial};
use crate::workspace;

/// The longest a Unix socket's name may be.
const SOCKET_NAME_BYTES: usize = 107;

/// Runs `machine` until it ends, and says how it did.
pub fn run(machine: &Machine, images: &Images, accelerator: Accelerator, qmp: &Path) -> Result<Exit> {
    let qmp = socket(qmp)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot watch for signals")?;
    }
    let exit = if std::io::stdin().is_terminal() {
        let qemu = qemu::start(machine, images.into(), accelerator, Serial::Terminal, qmp.clone())?;
        announce(machine, images, &qemu, &qmp);
        eprintln!("console: Ctrl-A X leaves, Ctrl-A H helps\n");
        wait(qemu, &stop)
    } else {
        let guest = Guest::start(machine, images, accelerator, Some(qmp.clone()))?;
        announce(machine, images, &guest.qemu, &qmp);
        Feeder::new(guest, boot_limit(machine), stop).run(standard_input())
    };
    // Nobody listens there any more.
    fs::remove_file(&qmp).ok();
    exit
}

/// The lines of standard input, as they come: the console is watched while nobody types.
fn standard_input() -> Receiver<std::io::Result<String>> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        // The receiver is gone when the machine is.
        std::io::stdin().lines().try_for_each(|line| sender.send(line)).ok();
    });
    lines
}

/// A path that QEMU can listen on: short enough, and not another machine's.
pub fn socket(path: &Path) -> Result<PathBuf> {
    if UnixStream::connect(path).is_ok() {
        bail!("another machine listens at {}; give this one its own by --qmp PATH", path.display());
    }
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let short = workspace::short(path);
    if short.as_os_str().len() > SOCKET_NAME_BYTES {
        bail!("{} is too long for a socket's name; give a shorter one by --qmp PATH", path.display());
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
    format!("gdb {} -ex 'target remote localhost:1234' -ex 'hbreak kernel::kernel_main' -ex continue", kernel.display())
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
            qemu.quit();
            bail!("interrupted");
        }
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
        assert!(socket(&path).is_ok(), "what a dead machine left is taken over");
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
        assert!(line.starts_with("gdb /elsewhere/kernel -ex 'target remote localhost:1234'"), "{line}");
    }
}
