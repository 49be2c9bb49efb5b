//! Removal of a DIMM that the host asked for: its blocks go offline, its memory is forgotten, and it is ejected.

use super::check::foreign_group;
use super::{LOG, Plug, bounds, end, name};
use crate::drivers::dimm::{Answer, Dimm, DimmSlots, Ejected};
use crate::sources::blocks::Blocks;
use alloc::vec::Vec;
use mm::Errno;
use mm::addr::SectionRange;
use mm::hotplug::{OfflineError, UnplugError};
use mm::section::group::GroupName;
use thiserror::Error;

impl<S: DimmSlots, B: Blocks> Plug<'_, S, B> {
    pub(super) fn removal_requested(&mut self, dimm: &Dimm) {
        let name = name(dimm);
        log::info!(target: LOG, "{name}: removal requested");
        self.answer(dimm, Answer::EjectionInProgress);
        let answer = match self.give_up(dimm) {
            Ok(()) => match self.eject(dimm) {
                Ejected::Gone => {
                    log::info!(target: LOG, "{name}: ejected");
                    Answer::Ejected
                }
                Ejected::StillThere => {
                    log::error!(target: LOG, "{name}: eject failed: the DIMM is still in its slot; its memory was removed and is not used");
                    Answer::EjectionFailed
                }
            },
            Err(error) => {
                log::warn!(target: LOG, "{name}: removal refused: {error}");
                error.answer()
            }
        };
        self.answer(dimm, answer);
    }

    fn eject(&self, dimm: &Dimm) -> Ejected {
        let ejected = self.slots.device.lock().eject(dimm.slot);
        if ejected == Ejected::Gone {
            self.slots.refusals.forget(dimm.slot);
        }
        ejected
    }

    /// Takes all memory of a DIMM out of use, or nothing.
    fn give_up(&mut self, dimm: &Dimm) -> Result<(), NotRemoved> {
        let groups = self.blocks.groups();
        if let Some(name) = foreign_group(dimm, &groups) {
            return Err(NotRemoved::Taken(name));
        }
        let lies_inside = |range: SectionRange| {
            let (start, after) = bounds(range);
            dimm.start <= start && after <= end(dimm)
        };
        let names: Vec<GroupName> =
            groups.iter().filter(|group| lies_inside(group.window)).map(|group| group.name).collect();
        self.blocks.unplug(&names).map_err(NotRemoved::Unplug)
    }
}

/// Why the memory of a DIMM is not removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
enum NotRemoved {
    #[error("it overlaps {0}")]
    Taken(GroupName),
    #[error(transparent)]
    Unplug(UnplugError),
}

impl NotRemoved {
    /// What stands in the way may go away by itself, or not.
    fn answer(self) -> Answer {
        match self {
            Self::Unplug(UnplugError::Offline(OfflineError::NoDestination { .. })) => Answer::EjectionRefused,
            Self::Unplug(error)
                if matches!(error.errno(), Errno::Busy | Errno::Again | Errno::TimedOut | Errno::Canceled) =>
            {
                Answer::EjectionRefused
            }
            Self::Unplug(_) | Self::Taken(_) => Answer::EjectionFailed,
        }
    }
}
