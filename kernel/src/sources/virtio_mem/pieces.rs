//! The verbs of the memory subsystem that a device's memory comes and goes by, so that the decisions can be tested without a
//! machine.

use super::LOG;
use crate::memory::mm;
use crate::pace::{OFFLINE_WITHIN, SteadyPace, TaskPace};
use crate::time;
use alloc::vec::Vec;
use mm::addr::{PfnRange, SectionId, SectionRange};
use mm::hotplug::{AddError, PieceError, UnplugError};
use mm::record::policy::{AutoOnline, OnlineAs};
use mm::section::group::{GroupId, GroupName};
use mm::section::kind::ZoneKind;

/// Units of a device, which come as a whole or in pieces.
pub(super) trait Pieces {
    /// Makes a unit known, of which the head alone may be touched if it comes in pieces.
    fn add(&mut self, unit: SectionRange) -> Result<(), AddError>;

    /// Does with a unit that was added what the policy says.
    fn added(&mut self, unit: SectionRange);

    fn grant(&mut self, frames: PfnRange) -> Result<(), PieceError>;

    fn withhold(&mut self, frames: PfnRange) -> Result<(), PieceError>;

    /// Has the CPUs give back what they keep, so that what is unused shows.
    fn drain(&mut self);

    fn is_unused(&self, frames: PfnRange) -> bool;

    /// Whether the kernel may use a block for itself.
    fn is_for_kernel(&self, id: SectionId) -> bool;

    /// Takes a unit offline, if it is not, and forgets it; or it is as it was.
    fn remove(&mut self, unit: SectionRange) -> Result<(), UnplugError>;
}

/// The units of a group of this machine.
pub(super) struct PiecesOfGroup {
    pub(super) id: GroupId,
    pub(super) name: GroupName,
}

fn pace() -> TaskPace {
    TaskPace::until(time::deadline_after(OFFLINE_WITHIN))
}

impl Pieces for PiecesOfGroup {
    fn add(&mut self, unit: SectionRange) -> Result<(), AddError> {
        mm().add_to_group(self.id, unit, &mut SteadyPace)
    }

    fn added(&mut self, unit: SectionRange) {
        let AutoOnline::As(how) = mm().policy().auto_online else { return };
        match mm().online(&[unit], how, &mut SteadyPace) {
            Ok(None) => {}
            Ok(Some(remark)) => log::warn!(target: LOG, "{}: {remark}", self.name),
            Err(error) => {
                log::warn!(target: LOG, "{}: block {} is not brought online: {error}", self.name, unit.first())
            }
        }
    }

    fn grant(&mut self, frames: PfnRange) -> Result<(), PieceError> {
        mm().grant(frames, &mut SteadyPace)
    }

    fn withhold(&mut self, frames: PfnRange) -> Result<(), PieceError> {
        mm().withhold(frames, &mut pace())
    }

    fn drain(&mut self) {
        mm().drain_caches();
    }

    fn is_unused(&self, frames: PfnRange) -> bool {
        mm().is_unused(frames)
    }

    fn is_for_kernel(&self, id: SectionId) -> bool {
        mm().section(id).is_some_and(|section| section.state.zone() == Some(ZoneKind::Normal))
    }

    fn remove(&mut self, unit: SectionRange) -> Result<(), UnplugError> {
        // Some of them somebody may have taken offline before.
        let online: Vec<(SectionRange, ZoneKind)> =
            unit.iter().filter_map(|id| Some((SectionRange::single(id), mm().section(id)?.state.zone()?))).collect();
        let ranges: Vec<SectionRange> = online.iter().map(|(range, _)| *range).collect();
        if !ranges.is_empty() {
            mm().offline(&ranges, &mut pace()).map_err(UnplugError::Offline)?;
        }
        let removed = mm().remove_from_group(self.id, unit, &mut SteadyPace);
        if removed.is_err() {
            for (range, zone) in online {
                if let Err(error) = mm().online(&[range], OnlineAs::Zone(zone), &mut SteadyPace) {
                    log::warn!(target: LOG, "{}: block {} stays offline: {error}", self.name, range.first());
                }
            }
        }
        removed.map_err(UnplugError::Remove)
    }
}
