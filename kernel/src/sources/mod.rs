//! Sources of memory: what turns the events of a device into verbs of the memory subsystem.
//!
//! | file | what |
//! |---|---|
//! | [`blocks`] | those verbs, so that the decisions of a source can be tested without a machine |
//! | [`added`] | blocks added for a source, and then done with as the policy says |
//! | [`dimm`] | DIMMs, plugged and unplugged |
//! | [`mod@probe`] | memory that is added by hand |
//! | [`functions`] | functions of PCI that are there, and that come |
//! | [`virtio_mem`] | virtio-mem devices, which grow and shrink |
#![deny(unsafe_code)]

mod added;
mod blocks;
pub(crate) mod dimm;
mod functions;
mod probe;
pub(crate) mod virtio_mem;

pub(crate) use probe::{ProbeError, probe};

/// Takes in what is there already and starts listening for more. The memory subsystem and ACPI's events work.
pub(crate) fn start() {
    dimm::start();
    functions::start();
}
