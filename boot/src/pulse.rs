//! Keeps a machine going that counts instructions.
//!
//! Under `-icount sleep=on` QEMU's main loop wakes sleeping CPUs: each time it goes round, it sees whether all of them sleep and
//! sets a timer for the next moment of the guest's clock. Now and then it misses that (seen with 7.2), and then the whole
//! process sleeps until something comes from outside; the clock stands, and a byte that arrives waits in the serial port for a
//! timeout on that clock. Whatever makes the main loop go round mends it, so somebody asks it how it is, all the time.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::qmp::Qmp;

/// How long a machine may sleep too long.
const INTERVAL: Duration = Duration::from_millis(100);

/// The QMP socket for this, beside the one that is for others: QEMU talks to one client at a time on each.
pub(crate) fn socket(qmp: &Path) -> PathBuf {
    qmp.with_added_extension("pulse")
}

/// Asks the machine at this socket, which may have to open it first, until it has ended.
pub(crate) fn keep(socket: PathBuf, patience: Duration) {
    thread::spawn(move || {
        let deadline = Instant::now() + patience;
        loop {
            match Qmp::connect(&socket) {
                Ok(qmp) => ask(qmp),
                Err(_) if Instant::now() >= deadline => return,
                Err(_) => {}
            }
            thread::sleep(INTERVAL);
        }
    });
}

/// Until there is no answer.
fn ask(mut qmp: Qmp) {
    while qmp.execute("query-status", json!({})).is_ok() {
        qmp.forget_events();
        thread::sleep(INTERVAL);
    }
}
