//! Why steps are refused, and whether that is true.

use super::{Prospect, Step, World};
use mm::addr::Pfn;
use mm::alloc::request::AllocError;
use mm::errno::Errno;
use mm::frame::page::Owner;
use mm::hotplug::{AddError, OfflineError, OnlineError, RelabelError, RemoveError};
use mm::inject::Injected;

#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    Add(AddError),
    Online(OnlineError),
    Offline(OfflineError),
    Remove(RemoveError),
    Alloc(AllocError),
}

/// Something that stays where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fixed {
    pub(super) pfn: Pfn,
    pub(super) owner: Owner,
    pub(super) is_pinned: bool,
}

impl World {
    /// Whether what was said is so. Nobody else is there, so nothing is ever in flight, and nobody vetoes or stops anything.
    pub(super) fn is_true(&self, refusal: Refusal, step: &Step, before: &Prospect) -> bool {
        use Refusal::{Add, Alloc, Offline, Online, Remove};
        let state = |block| self.model.state(block);
        let is_short = |short_by: Option<u64>| {
            // A block that could not be opened was counted on.
            let is_withheld = self.withheld() > before.withheld;
            is_withheld || short_by.map_or(*before.lack.end() > 0, |pages| pages > 0 && before.lack.contains(&pages))
        };
        match refusal {
            Add(AddError::Exists(block)) => state(block).is_some(),
            Add(AddError::NameTaken(_)) => {
                matches!(step, Step::Add { dimm, .. } if self.model.dimms.contains_key(dimm))
            }
            Online(OnlineError::Absent(block) | OnlineError::Relabel(RelabelError::Absent(block)))
            | Offline(OfflineError::Absent(block)) => state(block).is_none(),
            Online(OnlineError::NotOffline { block, .. }) | Remove(RemoveError::NotOffline(block)) => {
                matches!(state(block), Some(Some(_)))
            }
            Online(OnlineError::Relabel(RelabelError::NotThere { block, zone, .. })) => {
                state(block).is_some_and(|state| state != Some(zone))
            }
            Offline(OfflineError::NotOnline { block, .. }) => state(block) == Some(None),
            Remove(RemoveError::Absent) => {
                matches!(step, Step::Remove { dimm } | Step::Unplug { dimm } if !self.model.dimms.contains_key(dimm))
            }
            Online(OnlineError::Relabel(RelabelError::Unmovable { pfn, owner }))
            | Offline(OfflineError::Unmovable { pfn, owner }) => {
                before.fixed == Some(Fixed { pfn, owner, is_pinned: false })
            }
            Online(OnlineError::Relabel(RelabelError::Pinned { pfn, owner }))
            | Offline(OfflineError::Pinned { pfn, owner }) => {
                before.fixed == Some(Fixed { pfn, owner, is_pinned: true })
            }
            Offline(OfflineError::NoDestination { short_by }) => is_short(Some(short_by)),
            Add(AddError::NoMemory) | Alloc(AllocError::OutOfMemory) => is_short(None),
            Add(AddError::Injected(injected))
            | Online(OnlineError::Injected(injected) | OnlineError::Relabel(RelabelError::Injected(injected)))
            | Offline(OfflineError::Injected(injected))
            | Remove(RemoveError::Injected(injected))
            | Alloc(AllocError::Injected(injected)) => self.was_armed(injected, before),
            _ => false,
        }
    }

    /// Whether the failure was asked for, once.
    fn was_armed(&self, injected: Injected, before: &Prospect) -> bool {
        injected.errno == Errno::Io
            && before.armed.contains(&injected.point)
            && self.memory.failure_points().armed(injected.point).is_none()
    }
}
