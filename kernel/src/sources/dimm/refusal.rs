//! DIMMs that are in their slots and did not become memory, and why.

use super::check::Nonsense;
use super::name;
use crate::drivers::dimm::Dimm;
use crate::sources::added::NotAdded;
use crate::sync::Mutex;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use mm::Errno;
use mm::section::group::GroupName;
use thiserror::Error;

/// Why memory that is there does not become blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Nonsense(Nonsense),
    #[error("it holds no whole block")]
    NoBlock,
    #[error("it lies beyond the addresses that are supported")]
    OutOfReach,
    #[error(transparent)]
    NotAdded(#[from] NotAdded),
}

impl Refused {
    /// The errno name.
    pub(crate) fn errno(self) -> Errno {
        match self {
            Self::Nonsense(nonsense) => nonsense.errno(),
            Self::NoBlock | Self::OutOfReach => Errno::Invalid,
            Self::NotAdded(why) => why.errno(),
        }
    }
}

/// A DIMM that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) dimm: Dimm,
    pub(crate) why: Refused,
}

impl Refusal {
    /// What its group would be called.
    pub(crate) fn name(&self) -> GroupName {
        name(&self.dimm)
    }
}

/// The refused DIMMs, by slot.
#[derive(Debug)]
pub(in crate::sources) struct Refusals(Mutex<BTreeMap<u32, Refusal>>);

impl Refusals {
    pub(in crate::sources) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    pub(in crate::sources) fn note(&self, dimm: Dimm, why: Refused) {
        self.0.lock().insert(dimm.slot, Refusal { dimm, why });
    }

    /// The DIMM of the slot is gone, or was taken after all.
    pub(in crate::sources) fn forget(&self, slot: u32) {
        self.0.lock().remove(&slot);
    }

    /// Those of which `present` says that they are still in their slots. A host may pull a DIMM without asking.
    pub(in crate::sources) fn of(&self, present: &[Dimm]) -> Vec<Refusal> {
        let refusals = self.0.lock();
        let of_dimm = |dimm: &Dimm| refusals.get(&dimm.slot).copied().filter(|refusal| refusal.dimm == *dimm);
        present.iter().filter_map(of_dimm).collect()
    }
}
