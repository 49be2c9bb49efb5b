//! Sources of memory: what turns the events of a device into verbs of the memory subsystem.
//!
//! | file | what |
//! |---|---|
//! | [`blocks`] | those verbs, so that the decisions of a source can be tested without a machine |
//! | [`added`] | blocks added for a source, and then done with as the policy says |
//! | [`dimm`] | DIMMs, plugged and unplugged |
//! | [`mod@probe`] | memory that is added by hand |
//! | [`functions`] | functions of PCI that are there, and that come |
//! | [`slots`] | devices on virtio's memory-mapped bus |
//! | [`virtio_mem`] | virtio-mem devices, which grow and shrink |
#![deny(unsafe_code)]

mod added;
mod blocks;
pub(crate) mod dimm;
mod functions;
mod probe;
mod slots;
pub(crate) mod virtio_mem;

pub(crate) use probe::{ProbeError, probe};

use crate::drivers::virtio::Slot;
use core::sync::atomic::{AtomicU64, Ordering};

/// How often somebody has let go of something.
static RELIEFS: AtomicU64 = AtomicU64::new(0);

/// Memory was given back, unpinned or allowed to go: a source that waits for such a thing tries again at once.
pub(crate) fn relieve() {
    RELIEFS.fetch_add(1, Ordering::Relaxed);
    virtio_mem::wake();
}

fn reliefs() -> u64 {
    RELIEFS.load(Ordering::Relaxed)
}

/// Takes in what is there already, also in slots that the command line names, and starts listening for more; virtio-mem devices
/// begin in that mode. The memory subsystem and ACPI's events work.
pub(crate) fn start(named: &[Slot], mode: virtio_mem::Mode) {
    dimm::start();
    functions::start(mode);
    slots::start(named, mode);
}
