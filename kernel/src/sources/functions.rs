//! Functions of PCI that come while the machine runs.

use crate::drivers::pci::{self, Function};
use crate::firmware::events;
use crate::task;

/// Starts listening for them. Nobody uses any yet.
pub(super) fn start() {
    task::spawn("pci", || {
        loop {
            events::PCI.wait();
            for function in pci::look_again() {
                let Function { address, vendor, device, .. } = function;
                log::info!(target: "pci", "{address} ({vendor:04x}:{device:04x}) came; it is not used");
            }
        }
    });
}
