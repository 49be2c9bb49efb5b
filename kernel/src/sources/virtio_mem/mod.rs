//! virtio-mem: each device is a group, whose blocks come and go piece by piece as the host asks for more or less, or stand by until
//! somebody brings them online.
//!
//! | file | what |
//! |---|---|
//! | [`region`] | where a device's memory lies, and whether what it says can be |
//! | [`device`] | the device itself, and its group in either mode |
//! | [`follow`], [`resize`] | its size follows the host, and the steps of that |
//! | [`plugged`] | which pieces there are |
//! | [`pieces`] | the verbs of the memory subsystem that they take |
//! | [`standby`] | blocks that are backed while they are online |
//! | [`mode`] | which of both, and orders to change it |
//! | [`report`] | what the shell tells of a device |
//!
//! A device has a task of its own, so that one whose memory cannot move keeps no other waiting. It sleeps until the device calls.
//! What nobody tells of, such as a host that is not busy any more, is tried again after a time that doubles up to [`LONGEST`].

mod device;
mod follow;
mod mode;
mod pieces;
mod plugged;
mod region;
mod report;
mod resize;
mod standby;

pub(crate) use mode::{Mode, ModeError, set_mode};
pub(crate) use report::{Report, State, reports, wake};

use crate::drivers::pci::Function;
use crate::drivers::virtio::mem::MemDevice;
use crate::drivers::virtio::{self, Calls, MemOfMachine, Patience, Slot, Trouble, Unfit};
use crate::{task, time};
use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::{Arc, Weak};
use core::fmt::Display;
use core::time::Duration;
use device::Device;
use mm::addr::NodeId;
use mm::hotplug::AddError;
use mm::section::group::{GroupKind, GroupName};
use region::Refused;
use resize::Fault;
use thiserror::Error;

/// The target of their lines in the log.
const LOG: &str = "virtio-mem";

/// The device's number, and what that is on PCI with Red Hat's as its vendor (virtio 1.2 §4.1.2, §5.15.1).
pub(super) const NUMBER: u32 = 24;
const VENDOR: u16 = 0x1af4;
const DEVICE: u16 = 0x1040 + NUMBER as u16;

/// How long it takes at first until something is tried again, and at most.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(2);

/// A device that is alive answers within this, even if its host has to find the memory first.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// A device that answers at once does so while its driver lets others run so many times.
const YIELDS: u32 = 100;

/// Whether a function is such a device.
pub(super) fn is_ours(function: &Function) -> bool {
    (function.vendor, function.device) == (VENDOR, DEVICE)
}

/// Drives the device that a function is, at first in that mode; returns what its driver is called by.
pub(super) fn take_in(function: &Function, mode: Mode) -> Option<Weak<Calls>> {
    begin(function.address, virtio::open(function, &mut Wait::default()), mode)
}

/// Drives the device in a slot.
pub(super) fn take_in_slot(slot: &Slot, mode: Mode) {
    begin(slot, virtio::open_slot(slot, &mut Wait::default()), mode);
}

/// Starts the task that drives a device, which is in that place.
fn begin(place: impl Display, opened: Result<(MemOfMachine, Calls), Unfit>, mode: Mode) -> Option<Weak<Calls>> {
    let begun = opened.and_then(|(mut device, calls)| {
        let config = device.config()?;
        Ok((device, Arc::new(calls), config))
    });
    let (device, calls, config) = match begun {
        Ok(begun) => begun,
        Err(why) => {
            log::error!(target: LOG, "{place}: set aside: {why}");
            return None;
        }
    };
    let named = |number| GroupName { kind: GroupKind::VirtioMem, number: number as u16 };
    let name = report::enter(config, mode, Arc::clone(&calls), named);
    let (mib, start) = (config.region >> 20, config.start);
    log::info!(target: LOG, "{name}: {mib} MiB at {start:#x}, from {place}, by {calls}");
    let told = Arc::downgrade(&calls);
    let spawned = task::try_spawn(&name.to_string(), move || drive(device, calls, name, mode));
    if let Err(why) = spawned {
        set_aside(name, why);
    }
    Some(told)
}

fn set_aside(name: GroupName, why: impl Display) {
    log::error!(target: LOG, "{name}: set aside: {why}");
    report::note(name, None, State::SetAside(why.to_string()));
}

/// Why a device is not driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
enum NotDriven {
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error("proximity domain {0} is no node: their numbers end at {end}", end = NodeId::LIMIT - 1)]
    Domain(u32),
    #[error("its region cannot be used: {0}")]
    Group(AddError),
}

impl From<Trouble> for NotDriven {
    fn from(trouble: Trouble) -> Self {
        Self::Fault(trouble.into())
    }
}

impl From<Refused> for NotDriven {
    fn from(refused: Refused) -> Self {
        Self::Fault(refused.into())
    }
}

/// The task of a device.
fn drive(mut device: MemOfMachine, calls: Arc<Calls>, name: GroupName, mode: Mode) {
    match device::prepare(&mut device, &calls, name) {
        Ok((region, node)) => {
            // Blocks that are online need it for as long as the machine runs.
            let device: &'static Device = Box::leak(Box::new(Device::new(device, calls, name, region, node)));
            let Err(why) = device.serve(mode);
            device.give_up();
            set_aside(name, why);
        }
        Err(why) => {
            device.give_up();
            set_aside(name, why);
        }
    }
}

/// Waiting for an answer: first while others run, then until the device calls.
#[derive(Default)]
struct Wait {
    calls: Option<Arc<Calls>>,
    yields: u32,
    deadline_ns: u64,
}

impl Wait {
    fn with(calls: &Arc<Calls>) -> Self {
        Self { calls: Some(Arc::clone(calls)), ..Self::default() }
    }
}

impl Patience for Wait {
    fn begin(&mut self) {
        (self.yields, self.deadline_ns) = (0, time::deadline_after(ANSWER_WITHIN));
        if let Some(calls) = &self.calls {
            calls.expect_one();
        }
    }

    fn wait(&mut self) -> bool {
        match &self.calls {
            _ if self.yields < YIELDS => {
                self.yields += 1;
                task::yield_now();
            }
            Some(calls) if calls.wait_for_answer().is_err() => return false,
            Some(_) => {}
            None => task::sleep(Duration::from_millis(1)),
        }
        time::now_ns() < self.deadline_ns
    }
}

#[cfg(test)]
mod tests;
