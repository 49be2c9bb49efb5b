//! The task of a device whose size follows the host.

use super::device::Device;
use super::mode::Mode;
use super::pieces::PiecesOfGroup;
use super::report::{self, State};
use super::resize::{Fault, Resizer, Step};
use super::{LOG, LONGEST, SHORTEST, Wait};
use crate::sources::reliefs;
use crate::time;
use alloc::string::ToString;
use core::time::Duration;
use mm::section::group::GroupId;

/// What there was before a step.
#[derive(Clone, Copy)]
struct Since {
    requested: u64,
    reliefs: u64,
}

type ResizerOfDevice = Resizer<&'static Device, PiecesOfGroup, Wait>;

impl Device {
    /// Follows the host until another mode is ordered.
    pub(super) fn follow(&'static self, id: GroupId) -> Result<Mode, Fault> {
        let pieces = PiecesOfGroup { id, name: self.name };
        let mut resizer = Resizer::new(self, pieces, Wait::with(&self.calls), self.region);
        loop {
            if let Some(mode) = self.follow_on(&mut resizer)? {
                return Ok(mode);
            }
        }
    }

    /// Takes steps until there is as much as the host wants, and then waits until it wants something else, or another mode is ordered.
    fn follow_on(&'static self, resizer: &mut ResizerOfDevice) -> Result<Option<Mode>, Fault> {
        let mut pause = SHORTEST;
        loop {
            if let Some(mode) = self.ordered(Mode::Requested, &resizer.look()?) {
                return Ok(Some(mode));
            }
            // What is there after the step may have come after it.
            let since = Since { requested: resizer.look()?.requested, reliefs: reliefs() };
            let step = resizer.step()?;
            let config = resizer.look()?;
            match step {
                Step::Moved => {
                    report::note(self.name, Some(config), State::Working);
                    pause = SHORTEST;
                }
                Step::Waiting(obstacle) => {
                    let why = obstacle.to_string();
                    if report::note(self.name, Some(config), State::Waiting(why.clone())) {
                        let (plugged, requested) = (config.plugged >> 20, config.requested >> 20);
                        log::warn!(target: LOG, "{}: {plugged} MiB plugged, {requested} requested: {why}", self.name);
                    }
                    self.wait_for_change(resizer, since, Some(pause))?;
                    pause = LONGEST.min(pause * 2);
                }
                Step::Settled => {
                    if report::note(self.name, Some(config), State::Idle) {
                        log::info!(target: LOG, "{}: {} MiB plugged, as requested", self.name, config.plugged >> 20);
                    }
                    self.wait_for_change(resizer, since, None)?;
                    return Ok(None);
                }
            }
        }
    }

    /// Waits until something else is requested, or ordered; or, for so long at most, until something else may help.
    fn wait_for_change(
        &self,
        resizer: &mut ResizerOfDevice,
        since: Since,
        limit: Option<Duration>,
    ) -> Result<(), Fault> {
        let deadline_ns = limit.map(time::deadline_after);
        while resizer.look()?.requested == since.requested && !self.is_ordered() {
            let left = deadline_ns.map(|deadline| Duration::from_nanos(deadline.saturating_sub(time::now_ns())));
            let is_relieved = limit.is_some() && reliefs() != since.reliefs;
            if is_relieved || left == Some(Duration::ZERO) {
                break;
            }
            self.calls.wait(left)?;
        }
        Ok(())
    }
}
