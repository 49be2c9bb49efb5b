//! The verbs of the memory subsystem that a device's memory comes and goes by, so that the decisions can be tested without a
//! machine.

use super::LOG;
use crate::memory::mm;
use crate::pace::{OFFLINE_WITHIN, SteadyPace, TaskPace};
use crate::time;
use mm::addr::{PfnRange, SectionId, SectionRange};
use mm::hotplug::{AddError, PieceError, RemoveError, UnplugError};
use mm::record::policy::{AutoOnline, OnlineAs};
use mm::section::group::{GroupId, GroupName};
use mm::section::state::BlockState;

/// Blocks of a device that come in pieces.
pub(super) trait Pieces {
    /// Makes a block known, of which the head alone may be touched.
    fn add(&mut self, id: SectionId) -> Result<(), AddError>;

    /// Does with a block that was added what the policy says.
    fn added(&mut self, id: SectionId);

    fn grant(&mut self, frames: PfnRange) -> Result<(), PieceError>;

    fn withhold(&mut self, frames: PfnRange) -> Result<(), PieceError>;

    /// Has the CPUs give back what they keep, so that what is unused shows.
    fn drain(&mut self);

    fn is_unused(&self, frames: PfnRange) -> bool;

    /// Takes a block offline, if it is not, and forgets it; or it is as it was.
    fn remove(&mut self, id: SectionId) -> Result<(), UnplugError>;
}

/// The blocks of a group of this machine.
pub(super) struct PiecesOfGroup {
    pub(super) id: GroupId,
    pub(super) name: GroupName,
}

fn pace() -> TaskPace {
    TaskPace::until(time::deadline_after(OFFLINE_WITHIN))
}

impl Pieces for PiecesOfGroup {
    fn add(&mut self, id: SectionId) -> Result<(), AddError> {
        mm().add_to_group(self.id, SectionRange::single(id), &mut SteadyPace)
    }

    fn added(&mut self, id: SectionId) {
        let AutoOnline::As(how) = mm().policy().auto_online else { return };
        match mm().online(&[SectionRange::single(id)], how, &mut SteadyPace) {
            Ok(None) => {}
            Ok(Some(remark)) => log::warn!(target: LOG, "{}: {remark}", self.name),
            Err(error) => log::warn!(target: LOG, "{}: block {id} is not brought online: {error}", self.name),
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

    fn remove(&mut self, id: SectionId) -> Result<(), UnplugError> {
        let only = SectionRange::single(id);
        let absent = UnplugError::Remove(RemoveError::NoBlock(id));
        let zone = match mm().section(id).ok_or(absent)?.state {
            BlockState::Offline => None,
            state => {
                mm().offline(&[only], &mut pace()).map_err(UnplugError::Offline)?;
                state.zone()
            }
        };
        let removed = mm().remove_from_group(self.id, only, &mut SteadyPace);
        if let (Err(_), Some(zone)) = (removed, zone)
            && let Err(error) = mm().online(&[only], OnlineAs::Zone(zone), &mut SteadyPace)
        {
            log::warn!(target: LOG, "{}: block {id} stays offline: {error}", self.name);
        }
        removed.map_err(UnplugError::Remove)
    }
}
