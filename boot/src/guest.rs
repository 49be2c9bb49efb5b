//! A machine that a program runs: QEMU, and its console on a socket.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::accelerator::Accelerator;
use crate::pulse;
use crate::qemu::{self, Machine, Qemu, Serial, Software};
use crate::qmp::Qmp;
use crate::serial::Console;

/// QEMU opens its sockets before anything else.
const START: Duration = Duration::from_secs(30);

/// The machine ends with this value.
#[derive(Debug)]
pub struct Guest {
    pub qemu: Qemu,
    pub console: Console,
    /// Where QEMU listens for QMP.
    pub qmp: PathBuf,
    _sockets: TempDir,
}

impl Guest {
    /// Starts a machine. Without a path for QMP its socket lies in a directory that ends with the machine.
    pub fn start<'a>(
        machine: &Machine,
        software: impl Into<Software<'a>>,
        accelerator: Accelerator,
        qmp: Option<PathBuf>,
    ) -> Result<Self> {
        let sockets = tempfile::tempdir().context("cannot make a directory for the sockets")?;
        let serial = sockets.path().join("serial");
        let qmp = qmp.unwrap_or_else(|| sockets.path().join("qmp"));
        // We listen and QEMU connects: no byte of the boot is missed.
        let listener = UnixListener::bind(&serial).context("cannot listen for the console")?;
        let serial = Serial::Socket(serial);
        let mut qemu = qemu::start(machine, software.into(), accelerator, serial, qmp.clone())?;
        let console = accept(&listener, &mut qemu)?;
        if accelerator == Accelerator::Counting {
            pulse::keep(pulse::socket(&qmp), START);
        }
        Ok(Self { qemu, console, qmp, _sockets: sockets })
    }

    /// Opens a QMP conversation; QEMU holds one at a time, and listens a moment after it has opened the console.
    pub fn connect_qmp(&self) -> Result<Qmp> {
        let deadline = Instant::now() + START;
        while !self.qmp.exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        Qmp::connect(&self.qmp)
    }
}

fn accept(listener: &UnixListener, qemu: &mut Qemu) -> Result<Console> {
    listener.set_nonblocking(true).context("cannot listen for the console")?;
    let deadline = Instant::now() + START;
    loop {
        if let Ok((socket, _)) = listener.accept() {
            socket.set_nonblocking(false).context("cannot use the console's socket")?;
            return Console::over(socket);
        }
        // Its own words about the reason stand on standard error.
        if let Some(exit) = qemu.ended()? {
            bail!("QEMU ended before the machine started ({exit})");
        }
        if Instant::now() >= deadline {
            bail!("QEMU does not open the console");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
