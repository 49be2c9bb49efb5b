//! Memory that is added by hand: only what the machine is known to have, as nothing is ever poked to find out.

use super::added::{Added, NotAdded, add};
use super::blocks::{Blocks, KernelBlocks};
use super::dimm::{Plug, Refused, SLOTS, end, name, usable};
use crate::drivers::dimm::{self, Dimm, DimmSlots};
use crate::task::Cancelled;
use crate::{firmware, memory};
use alloc::vec::Vec;
use mm::Errno;
use mm::addr::{SECTION_SIZE, SectionId, SectionRange};
use mm::hotplug::AddError;
use mm::section::group::{GroupKind, GroupName};
use thiserror::Error;

/// The target of its lines in the log: mostly it is memory of DIMMs.
const LOG: &str = "dimm";

/// Why memory could not be added by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum ProbeError {
    #[error("{0:#x} is not the start of a block of {mib} MiB", mib = SECTION_SIZE >> 20)]
    Unaligned(u64),
    #[error("{0:#x} bytes are not whole blocks of {mib} MiB", mib = SECTION_SIZE >> 20)]
    BadSize(u64),
    #[error("{start:#x} with {len:#x} bytes ends beyond the addresses that are supported")]
    OutOfReach { start: u64, len: u64 },
    #[error("block {0} exists already")]
    Exists(SectionId),
    #[error("the machine is not known to have memory at {0:#x}")]
    Nothing(u64),
    #[error("{name}: {why}")]
    Refused { name: GroupName, why: Refused },
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl ProbeError {
    /// The errno name.
    pub(crate) fn errno(self) -> Errno {
        match self {
            Self::Unaligned(_) | Self::BadSize(_) | Self::OutOfReach { .. } => Errno::Invalid,
            Self::Exists(_) => Errno::Exists,
            Self::Nothing(_) => Errno::NoDevice,
            Self::Refused { why, .. } => why.errno(),
            Self::Cancelled(_) => Errno::Canceled,
        }
    }
}

/// Adds memory by hand that the machine is known to have: a DIMM that is not added, or what `mem=` hid. Without a length,
/// all of it from `start` on.
pub(crate) fn probe(start: u64, len: Option<u64>) -> Result<(), ProbeError> {
    let hidden: Vec<Backed> = memory::host::hidden().iter().map(|range| hidden(*range)).collect();
    let mut blocks = KernelBlocks::new();
    let added = match SLOTS.get() {
        Some(slots) => Plug::of_machine(slots, &mut blocks).probe(&hidden, start, len),
        None => add_by_hand(&hidden, start, len, &mut blocks),
    };
    added.map(|added| added.log(LOG))
}

impl<S: DimmSlots, B: Blocks> Plug<'_, S, B> {
    /// Adds memory of a DIMM by hand, or some that was hidden at boot.
    pub(super) fn probe(&mut self, hidden: &[Backed], start: u64, len: Option<u64>) -> Result<Added, ProbeError> {
        let is_hidden = hidden.iter().any(|range| range.holds(start));
        let dimm = if is_hidden { None } else { self.dimm_at(start)? };
        let Some(dimm) = dimm else { return add_by_hand(hidden, start, len, self.blocks) };
        // What is wrong anyway is told without waiting.
        wanted(&[dimm.into()], start, len, self.blocks)?;
        let _turn = self.slots.turns.take_cancellable(dimm.slot)?;
        // Meanwhile it may have gone.
        if self.slots.device.lock().dimm(dimm.slot) != Some(dimm) {
            return Err(ProbeError::Nothing(start));
        }
        let added = add_by_hand(&[dimm.into()], start, len, self.blocks)?;
        self.slots.refusals.forget(dimm.slot);
        Ok(added)
    }

    /// The DIMM at an address. If two say that they are there, one that can be is preferred.
    fn dimm_at(&self, start: u64) -> Result<Option<Dimm>, ProbeError> {
        let groups = self.blocks.groups();
        let here = dimm::present(&self.slots.device).filter(|dimm| Backed::from(*dimm).holds(start));
        let judged = here.map(|dimm| match usable(&dimm, self.windows, &groups) {
            Ok(_) => Ok(dimm),
            Err(why) => Err(ProbeError::Refused { name: name(&dimm), why }),
        });
        judged.min_by_key(Result::is_err).transpose()
    }
}

/// Memory that the machine is known to have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backed {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) domain: u32,
    /// What all of it together is called.
    pub(super) name: Option<GroupName>,
}

impl From<Dimm> for Backed {
    fn from(dimm: Dimm) -> Self {
        Self { start: dimm.start, end: end(&dimm), domain: dimm.domain, name: Some(name(&dimm)) }
    }
}

impl Backed {
    fn holds(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }
}

fn hidden(range: SectionRange) -> Backed {
    let start = range.first().address();
    let domain = firmware::get().srat.node_of(start).unwrap_or(0);
    Backed { start, end: start + range.size_bytes(), domain, name: None }
}

/// Adds memory by hand, of which `known` is there.
pub(super) fn add_by_hand(
    known: &[Backed],
    start: u64,
    len: Option<u64>,
    blocks: &mut impl Blocks,
) -> Result<Added, ProbeError> {
    let (range, backed) = wanted(known, start, len, blocks)?;
    let is_whole = SectionRange::inside(backed.start, backed.end) == Some(range);
    loop {
        let own_name = backed.name.filter(|_| is_whole);
        let name = own_name.unwrap_or_else(|| free_probe_name(blocks));
        match add(range, backed.domain, name, blocks) {
            // Somebody else added memory by hand at the same time.
            Err(NotAdded::Add(AddError::NameTaken(_))) if own_name.is_none() => {}
            result => return result.map_err(|why| ProbeError::Refused { name, why: why.into() }),
        }
    }
}

/// The blocks that are to be added, and what they are a part of.
fn wanted(
    known: &[Backed],
    start: u64,
    len: Option<u64>,
    blocks: &impl Blocks,
) -> Result<(SectionRange, Backed), ProbeError> {
    if !start.is_multiple_of(SECTION_SIZE) {
        return Err(ProbeError::Unaligned(start));
    }
    let here = known.iter().find(|backed| backed.holds(start));
    let to_end = here.map(|backed| (backed.end - start) / SECTION_SIZE * SECTION_SIZE);
    let len = len.or(to_end.filter(|len| *len > 0)).unwrap_or(SECTION_SIZE);
    if len == 0 || !len.is_multiple_of(SECTION_SIZE) {
        return Err(ProbeError::BadSize(len));
    }
    let range =
        SectionRange::new(start / SECTION_SIZE, len / SECTION_SIZE).ok_or(ProbeError::OutOfReach { start, len })?;
    if let Some(known) = blocks.known(range).first() {
        return Err(ProbeError::Exists(known.first()));
    }
    let backed = here.filter(|backed| start + len <= backed.end).ok_or(ProbeError::Nothing(start))?;
    Ok((range, *backed))
}

fn free_probe_name(blocks: &impl Blocks) -> GroupName {
    let groups = blocks.groups();
    let is_free = |name: &GroupName| groups.iter().all(|group| group.name != *name);
    let mut names = (0..=u16::MAX).map(|number| GroupName { kind: GroupKind::Probe, number });
    names.find(is_free).expect("there are fewer groups than names")
}
