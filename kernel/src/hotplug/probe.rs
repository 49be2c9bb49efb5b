//! Memory that is added by hand: only what the machine is known to have, as nothing is ever poked to find out.

use super::blocks::{Blocks, KernelBlocks};
use super::check::check;
use super::{Refused, SLOTS, add, end, name};
use crate::drivers::dimm::{self, Dimm};
use crate::{firmware, memory};
use alloc::vec::Vec;
use mm::Errno;
use mm::addr::{SECTION_SIZE, SectionId, SectionRange};
use mm::group::{GroupKind, GroupName};
use thiserror::Error;

/// Why memory could not be added by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum ProbeError {
    #[error("{0:#x} is not the start of a block of {mib} MiB", mib = SECTION_SIZE >> 20)]
    Unaligned(u64),
    #[error("{0:#x} bytes are not whole blocks of {mib} MiB", mib = SECTION_SIZE >> 20)]
    BadSize(u64),
    #[error("{start:#x} with {len:#x} bytes ends beyond the addresses that can be held")]
    OutOfReach { start: u64, len: u64 },
    #[error("block {0} exists already")]
    Exists(SectionId),
    #[error("the machine is not known to have memory at {0:#x}")]
    Nothing(u64),
    #[error(transparent)]
    Refused(Refused),
}

impl ProbeError {
    /// The errno name.
    pub(crate) fn errno(self) -> Errno {
        match self {
            Self::Unaligned(_) | Self::BadSize(_) | Self::OutOfReach { .. } => Errno::Invalid,
            Self::Exists(_) => Errno::Exists,
            Self::Nothing(_) => Errno::NoDevice,
            Self::Refused(Refused::Domain { .. }) => Errno::Invalid,
            Self::Refused(Refused::Add(error)) => error.errno(),
        }
    }
}

/// Adds memory by hand that the machine is known to have: a DIMM that is not added, or what `mem=` hid. Without a length,
/// all of it from `start` on.
pub(crate) fn probe(start: u64, len: Option<u64>) -> Result<(), ProbeError> {
    let mut known: Vec<Backed> = memory::hidden().iter().map(|range| hidden(*range)).collect();
    let mut slots = SLOTS.lock();
    let mut blocks = KernelBlocks::new();
    let (windows, groups) = (memory::windows(), blocks.groups());
    let dimms = slots.iter_mut().flat_map(dimm::present).filter(|dimm| check(dimm, windows, &groups).is_ok());
    known.extend(dimms.map(Backed::from));
    add_by_hand(&known, start, len, &mut blocks)
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

fn hidden(range: SectionRange) -> Backed {
    let start = range.first().address();
    let domain = firmware::get().srat.node_of(start).unwrap_or(0);
    Backed { start, end: start + range.size_bytes(), domain, name: None }
}

pub(super) fn add_by_hand(
    known: &[Backed],
    start: u64,
    len: Option<u64>,
    blocks: &mut impl Blocks,
) -> Result<(), ProbeError> {
    if !start.is_multiple_of(SECTION_SIZE) {
        return Err(ProbeError::Unaligned(start));
    }
    let here = known.iter().find(|backed| (backed.start..backed.end).contains(&start));
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
    let is_whole = SectionRange::inside(backed.start, backed.end) == Some(range);
    let name = backed.name.filter(|_| is_whole).unwrap_or_else(|| free_probe_name(blocks));
    add(range, backed.domain, name, blocks).map_err(ProbeError::Refused)
}

fn free_probe_name(blocks: &impl Blocks) -> GroupName {
    let groups = blocks.groups();
    let is_free = |name: &GroupName| groups.iter().all(|group| group.name != *name);
    let mut names = (0..=u16::MAX).map(|number| GroupName { kind: GroupKind::Probe, number });
    names.find(is_free).expect("there are fewer groups than names")
}
