//! A device: its group in either mode, and how that changes.

use super::mode::{self, Mode, ModeError};
use super::region::Region;
use super::report::{self, State};
use super::resize::Fault;
use super::standby::Standby;
use super::{LOG, LONGEST, NotDriven, SHORTEST, Wait};
use crate::drivers::virtio::mem::{Answer, Config, MemDevice, Request};
use crate::drivers::virtio::{Calls, MemOfMachine, Patience, Trouble};
use crate::memory::mm;
use crate::pace::SteadyPace;
use crate::sync::Mutex;
use crate::task;
use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use core::convert::Infallible;
use mm::addr::{NodeId, SectionRange};
use mm::hotplug::AddError;
use mm::machine::backing::{Backing, BackingError};
use mm::machine::mapper::DirectMap;
use mm::machine::tasks::Pace;
use mm::section::group::{Grant, Group, GroupId, GroupName, Ready, Terms};
use mm::section::kind::MemmapPlace;

/// A device that is driven.
pub(super) struct Device {
    pub(super) name: GroupName,
    pub(super) region: Region,
    pub(super) calls: Arc<Calls>,
    node: NodeId,
    standby: Mutex<Standby<MemOfMachine, Wait>>,
}

/// Whether a device can be driven, with nothing plugged: what somebody has plugged before us, nobody here knows the contents of.
pub(super) fn prepare(
    device: &mut MemOfMachine,
    calls: &Arc<Calls>,
    name: GroupName,
) -> Result<(Region, NodeId), NotDriven> {
    let config = device.config()?;
    let region = Region::new(&config)?;
    let domain = config.domain.unwrap_or(0);
    let node = NodeId::new(domain).ok_or(NotDriven::Domain(domain))?;
    if config.plugged > 0 {
        log::info!(target: LOG, "{name}: {} MiB are plugged already, and are unplugged first", config.plugged >> 20);
    }
    // With nothing plugged it shows whether the device calls.
    let mut pause = SHORTEST;
    while device.ask(Request::UnplugAll, &mut Wait::with(calls))? != Answer::Done {
        task::sleep(pause);
        pause = LONGEST.min(pause * 2);
    }
    Ok((region, node))
}

impl Device {
    pub(super) fn new(device: MemOfMachine, calls: Arc<Calls>, name: GroupName, region: Region, node: NodeId) -> Self {
        let standby = Mutex::new(Standby::new(device, Wait::with(&calls), region));
        Self { name, region, calls, node, standby }
    }

    /// Drives it in one mode after the other until something is wrong with it.
    pub(super) fn serve(&'static self, mode: Mode) -> Result<Infallible, NotDriven> {
        let mut mode = mode;
        let mut id = self.register(mode).map_err(NotDriven::Group)?;
        loop {
            let wanted = match mode {
                Mode::Requested => self.follow(id)?,
                Mode::Standby => self.stand_by()?,
            };
            // Somebody may just be bringing blocks online.
            if let Err(why) = mm().remove(&[self.name], &mut SteadyPace) {
                mode::answer(self.name, Err(ModeError::Remove(why)));
                continue;
            }
            // Blocks that went online and offline since it was asked may not have been taken back.
            let registered = match self.standby.lock().plugged() {
                0 => self.register(wanted).map_err(ModeError::Add),
                plugged => Err(ModeError::Plugged(plugged)),
            };
            (mode, id) = match registered {
                Ok(id) => (wanted, id),
                Err(_) => (mode, self.register(mode).map_err(NotDriven::Group)?),
            };
            report::with_entry(self.name, |report, _| report.mode = mode);
            mode::answer(self.name, registered.map(drop));
        }
    }

    /// Makes the device's group: empty, or with every block offline.
    fn register(&'static self, mode: Mode) -> Result<GroupId, AddError> {
        let is_standby = mode == Mode::Standby;
        let is_whole = is_standby || self.region.per_unit() == 1;
        let terms = Terms {
            memmap: MemmapPlace::Head,
            unit: self.region.unit_blocks(),
            ready: if is_standby { Ready::AtOnline } else { Ready::AtAdd },
            grant: if is_whole { Grant::Whole } else { Grant::Pieces },
            direct_map: DirectMap::Present,
        };
        let group = Group { name: self.name, window: self.region.window, node: self.node, terms };
        let backing = is_standby.then_some(self as &dyn Backing);
        let id = mm().register_group(&group, backing, &mut SteadyPace)?;
        if is_standby && let Err(why) = mm().add_to_group(id, group.window, &mut SteadyPace) {
            // There is nothing in it that could keep it.
            let _ = mm().remove(&[self.name], &mut SteadyPace);
            return Err(why);
        }
        Ok(id)
    }

    /// Lets the administrator bring blocks online and offline until another mode is ordered.
    fn stand_by(&self) -> Result<Mode, Fault> {
        let (first, last) = (self.region.window.first(), self.region.window.last());
        log::info!(target: LOG, "{}: blocks {first}-{last} stand by", self.name);
        let mut pause = SHORTEST;
        loop {
            let (is_settled, config) = {
                let mut standby = self.standby.lock();
                (standby.offer_again(), standby.look()?)
            };
            if let Some(mode) = self.ordered(Mode::Standby, &config) {
                return Ok(mode);
            }
            let state = match config.plugged.saturating_sub(config.requested) {
                _ if !is_settled => State::Waiting("the host takes nothing back now".to_string()),
                0 => State::Idle,
                surplus => State::Waiting(format!("the host wants {} MiB back, which are online", surplus >> 20)),
            };
            if report::note(self.name, Some(config), state.clone())
                && let State::Waiting(why) = state
            {
                log::warn!(target: LOG, "{}: {} MiB plugged: {why}", self.name, config.plugged >> 20);
            }
            pause = if is_settled { SHORTEST } else { LONGEST.min(pause * 2) };
            self.calls.wait((!is_settled).then_some(pause))?;
        }
    }

    /// Whoever asks afterwards hears what the device says after it.
    fn with_standby<R>(&self, work: impl FnOnce(&mut Standby<MemOfMachine, Wait>) -> R) -> R {
        let mut standby = self.standby.lock();
        let done = work(&mut standby);
        // What is wrong with it, its task finds out.
        if let Ok(config) = standby.look() {
            report::with_entry(self.name, |report, _| report.config = config);
        }
        drop(standby);
        // What the device called for meanwhile, and what it did not take back, is for its task to see.
        self.calls.wake();
        done
    }

    /// The mode that is wanted instead of this one, if nothing keeps the device in it; orders that change nothing are answered.
    pub(super) fn ordered(&self, mode: Mode, config: &Config) -> Option<Mode> {
        let wanted = mode::wanted(self.name)?;
        let said = match config.plugged {
            _ if wanted == mode => Ok(()),
            0 => return Some(wanted),
            plugged => Err(ModeError::Plugged(plugged)),
        };
        mode::answer(self.name, said);
        None
    }

    pub(super) fn is_ordered(&self) -> bool {
        mode::wanted(self.name).is_some()
    }

    /// The device is not used any more; what is plugged stays.
    pub(super) fn give_up(&self) {
        self.standby.lock().give_up();
        self.calls.close();
    }
}

impl MemDevice for &Device {
    fn config(&mut self) -> Result<Config, Trouble> {
        self.standby.lock().device.config()
    }

    fn ask(&mut self, request: Request, patience: &mut impl Patience) -> Result<Answer, Trouble> {
        self.standby.lock().device.ask(request, patience)
    }

    fn give_up(&mut self) {
        Device::give_up(self);
    }
}

impl Backing for Device {
    fn back(&self, unit: SectionRange, _: &mut dyn Pace) -> Result<(), BackingError> {
        self.with_standby(|standby| standby.back(unit.first()))
    }

    fn release(&self, unit: SectionRange) {
        self.with_standby(|standby| standby.release(unit.first()));
    }
}
