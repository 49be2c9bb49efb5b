//! virtio-mem: each device is a group, whose blocks come and go piece by piece as the host asks for more or less.
//!
//! | file | what |
//! |---|---|
//! | [`region`] | where a device's memory lies, and whether what it says can be |
//! | [`resize`] | the steps by which its size follows the host |
//! | [`pieces`] | the verbs of the memory subsystem that they take |
//! | [`report`] | what the shell tells of a device |
//!
//! A device has a task of its own, so that one whose memory cannot move keeps no other waiting. Nothing interrupts it: it looks
//! at the device's configuration every [`LOOK`]. What has no event at all, such as a host that is busy, is tried again after a
//! time that doubles up to [`LONGEST`].

mod pieces;
mod region;
mod report;
mod resize;

pub(crate) use report::{Report, State, reports};

use crate::drivers::pci::Function;
use crate::drivers::virtio::mem::{Answer, MemDevice, Request};
use crate::drivers::virtio::{self, MemOfMachine, Patience, Trouble};
use crate::memory::mm;
use crate::pace::SteadyPace;
use crate::{task, time};
use alloc::string::ToString;
use core::fmt::Display;
use core::time::Duration;
use mm::addr::NodeId;
use mm::hotplug::AddError;
use mm::machine::mapper::DirectMap;
use mm::section::group::{Grant, Group, GroupKind, GroupName, Ready, Terms};
use mm::section::kind::MemmapPlace;
use pieces::PiecesOfGroup;
use region::{Refused, Region};
use resize::{Fault, Resizer, Step};
use thiserror::Error;

/// The target of their lines in the log.
const LOG: &str = "virtio-mem";

/// Red Hat's vendor number, and the device's (virtio 1.2 §4.1.2, §5.15.1).
const VENDOR: u16 = 0x1af4;
const DEVICE: u16 = 0x1040 + 24;

/// How often the configuration of a device is looked at.
const LOOK: Duration = Duration::from_millis(50);
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

/// Starts a device and the task that drives it.
pub(super) fn take_in(function: &Function) {
    let started = virtio::open(function, &mut Wait::default()).and_then(|mut device| {
        let config = device.config()?;
        Ok((device, config))
    });
    let (device, config) = match started {
        Ok(started) => started,
        Err(why) => {
            log::error!(target: LOG, "{}: set aside: {why}", function.address);
            return;
        }
    };
    let name = report::enter(config, |number| GroupName { kind: GroupKind::VirtioMem, number: number as u16 });
    log::info!(target: LOG, "{name}: {} MiB at {:#x}, from {}", config.region >> 20, config.start, function.address);
    let spawned = task::try_spawn(&name.to_string(), move || drive(device, name));
    if let Err(why) = spawned {
        set_aside(name, why);
    }
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
fn drive(mut device: MemOfMachine, name: GroupName) {
    match prepare(&mut device, name) {
        Ok((region, pieces)) => {
            let mut resizer = Resizer::new(device, pieces, Wait::default(), region);
            let fault = follow(&mut resizer, name);
            resizer.give_up();
            set_aside(name, fault);
        }
        Err(why) => {
            device.give_up();
            set_aside(name, why);
        }
    }
}

/// Makes the device's group, with nothing plugged: what somebody has plugged before us, nobody here knows the contents of.
fn prepare(device: &mut MemOfMachine, name: GroupName) -> Result<(Region, PiecesOfGroup), NotDriven> {
    let config = device.config()?;
    let region = Region::new(&config)?;
    let domain = config.domain.unwrap_or(0);
    let node = NodeId::new(domain).ok_or(NotDriven::Domain(domain))?;
    if config.plugged > 0 {
        log::info!(target: LOG, "{name}: {} MiB are plugged already, and are unplugged first", config.plugged >> 20);
        let mut pause = SHORTEST;
        while device.ask(Request::UnplugAll, &mut Wait::default())? != Answer::Done {
            task::sleep(pause);
            pause = LONGEST.min(pause * 2);
        }
    }
    let grant = if region.per_unit() > 1 { Grant::Pieces } else { Grant::Whole };
    let terms = Terms {
        memmap: MemmapPlace::Head,
        unit: region.unit_blocks(),
        ready: Ready::AtAdd,
        grant,
        direct_map: DirectMap::Present,
    };
    let group = Group { name, window: region.window, node, terms };
    let id = mm().register_group(&group, None, &mut SteadyPace).map_err(NotDriven::Group)?;
    Ok((region, PiecesOfGroup { id, name }))
}

/// Follows the host until something is wrong with the device.
fn follow(resizer: &mut Resizer<MemOfMachine, PiecesOfGroup, Wait>, name: GroupName) -> Fault {
    loop {
        if let Err(fault) = follow_on(resizer, name) {
            return fault;
        }
    }
}

/// Takes steps until there is as much as the host wants, and then waits until it wants something else.
fn follow_on(resizer: &mut Resizer<MemOfMachine, PiecesOfGroup, Wait>, name: GroupName) -> Result<(), Fault> {
    let mut pause = SHORTEST;
    loop {
        // What it says after the step may have come after it.
        let requested = resizer.look()?.requested;
        let step = resizer.step()?;
        let config = resizer.look()?;
        match step {
            Step::Moved => {
                report::note(name, Some(config), State::Working);
                pause = SHORTEST;
            }
            Step::Waiting(obstacle) => {
                let why = obstacle.to_string();
                if report::note(name, Some(config), State::Waiting(why.clone())) {
                    let (plugged, requested) = (config.plugged >> 20, config.requested >> 20);
                    log::warn!(target: LOG, "{name}: {plugged} MiB plugged, {requested} requested: {why}");
                }
                wait_for_change(resizer, requested, Some(pause))?;
                pause = LONGEST.min(pause * 2);
            }
            Step::Settled => {
                if report::note(name, Some(config), State::Idle) {
                    log::info!(target: LOG, "{name}: {} MiB plugged, as requested", config.plugged >> 20);
                }
                return wait_for_change(resizer, requested, None);
            }
        }
    }
}

/// Waits until something else is requested, or for so long.
fn wait_for_change(
    resizer: &mut Resizer<MemOfMachine, PiecesOfGroup, Wait>,
    requested: u64,
    limit: Option<Duration>,
) -> Result<(), Fault> {
    let mut left = limit;
    while resizer.look()?.requested == requested && left != Some(Duration::ZERO) {
        let nap = left.map_or(LOOK, |left| left.min(LOOK));
        task::sleep(nap);
        left = left.map(|left| left - nap);
    }
    Ok(())
}

/// Waiting for an answer: first while others run, then asleep.
#[derive(Default)]
struct Wait {
    yields: u32,
    deadline_ns: u64,
}

impl Patience for Wait {
    fn begin(&mut self) {
        *self = Self { yields: 0, deadline_ns: time::deadline_after(ANSWER_WITHIN) };
    }

    fn wait(&mut self) -> bool {
        if self.yields < YIELDS {
            self.yields += 1;
            task::yield_now();
        } else {
            task::sleep(Duration::from_millis(1));
        }
        time::now_ns() < self.deadline_ns
    }
}

#[cfg(test)]
mod tests;
