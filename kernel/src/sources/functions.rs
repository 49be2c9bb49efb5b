//! Functions of PCI: each that is there or comes goes to the source that it is one of, which is told when it goes.

use super::virtio_mem::{self, Mode};
use crate::drivers::pci::{self, Address, Function};
use crate::drivers::virtio::Calls;
use crate::firmware::{self, events};
use crate::task;
use alloc::sync::Weak;
use alloc::vec::Vec;

/// Functions that somebody uses, with what their drivers are called by.
struct Used(Vec<(Address, Weak<Calls>)>);

/// Takes in what is there and starts listening for more.
pub(super) fn start(mode: Mode) {
    let mut used = Used(Vec::new());
    for function in pci::functions() {
        used.take_in(&function, mode);
    }
    let ejector = firmware::get().eject_ports.map(|ports| ports.ejector());
    task::spawn("pci", move || {
        loop {
            events::PCI.wait();
            if let Some(ejector) = &ejector {
                ejector.eject_all();
            }
            let changes = pci::look_again();
            for function in changes.went {
                used.let_go(&function);
            }
            for function in changes.came {
                if !used.take_in(&function, mode) {
                    let Function { address, vendor, device, .. } = function;
                    log::info!(target: "pci", "{address} ({vendor:04x}:{device:04x}) came; it is not used");
                }
            }
        }
    });
}

impl Used {
    /// Says whether somebody uses it.
    fn take_in(&mut self, function: &Function, mode: Mode) -> bool {
        let is_ours = virtio_mem::is_ours(function);
        if is_ours {
            let calls = virtio_mem::take_in(function, mode);
            self.0.extend(calls.map(|calls| (function.address, calls)));
        }
        is_ours
    }

    /// Tells whoever uses it that it has gone.
    fn let_go(&mut self, function: &Function) {
        log::info!(target: "pci", "{} ({:04x}:{:04x}) went", function.address, function.vendor, function.device);
        for (_, calls) in self.0.extract_if(.., |(address, _)| *address == function.address) {
            if let Some(calls) = calls.upgrade() {
                calls.end();
            }
        }
    }
}
