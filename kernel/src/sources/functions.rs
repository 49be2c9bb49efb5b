//! Functions of PCI: each that is there or comes goes to the source that it is one of.

use super::virtio_mem::{self, Mode};
use crate::drivers::pci::{self, Function};
use crate::firmware::events;
use crate::task;

/// Takes in what is there and starts listening for more.
pub(super) fn start(mode: Mode) {
    for function in pci::functions() {
        take_in(&function, mode);
    }
    task::spawn("pci", move || {
        loop {
            events::PCI.wait();
            for function in pci::look_again() {
                if !take_in(&function, mode) {
                    let Function { address, vendor, device, .. } = function;
                    log::info!(target: "pci", "{address} ({vendor:04x}:{device:04x}) came; it is not used");
                }
            }
        }
    });
}

/// Says whether somebody uses it.
fn take_in(function: &Function, mode: Mode) -> bool {
    let is_used = virtio_mem::is_ours(function);
    if is_used {
        virtio_mem::take_in(function, mode);
    }
    is_used
}
