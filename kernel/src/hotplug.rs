//! Hotplug: what happens to DIMMs becomes verbs of the memory subsystem, and the host hears the truth about the end.
//!
//! Only whole blocks become memory. A DIMM may begin and end anywhere on 2 MiB; what is left at its ends is reported by
//! [`leftovers`] and never touched. One lock orders everything that looks at a slot and acts on it: the worker that handles
//! the machine's events, and people who add memory by hand.
#![deny(unsafe_code)]

mod blocks;

use crate::arch::ports::PortRange;
use crate::drivers::dimm::{self, Answer, Controller, Dimm, DimmSlots, Ejected, SLOT_LIMIT, SlotEvent};
use crate::firmware::{self, events};
use crate::sync::Mutex;
use crate::{memory, task};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use blocks::{Blocks, KernelBlocks};
use mm::Errno;
use mm::addr::{MAX_PHYS_BITS, NodeId, SECTION_SIZE, SectionId, SectionRange};
use mm::group::{GroupKind, GroupName};
use mm::hotplug::{AddError, AddRequest, UnplugError};
use mm::policy::AutoOnline;
use thiserror::Error;

/// Taking in more than this takes long enough for the host to be told that it is under way.
const LONG_BYTES: u64 = 1 << 30;

/// No block can lie at or above this address.
const REACH: u64 = 1 << MAX_PHYS_BITS;

/// The slots of this machine; none where there is no controller.
static SLOTS: Mutex<Option<Controller<PortRange>>> = Mutex::new(None);

/// Memory of a DIMM that is in its slot and not part of any block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leftover {
    /// The DIMM.
    pub(crate) name: GroupName,
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) why: Why,
}

/// Why memory of a DIMM is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Why {
    #[error("not a whole block")]
    PartOfBlock,
    #[error("beyond the addresses that can be held")]
    OutOfReach,
    #[error("not added")]
    NotAdded,
}

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

/// Why memory that is there does not become blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refused {
    #[error("proximity domain {0} is beyond the nodes known at boot")]
    Domain(u32),
    #[error(transparent)]
    Add(AddError),
}

impl ProbeError {
    /// The errno name.
    pub(crate) fn errno(self) -> Errno {
        match self {
            Self::Unaligned(_) | Self::BadSize(_) | Self::OutOfReach { .. } => Errno::Invalid,
            Self::Exists(_) => Errno::Exists,
            Self::Nothing(_) => Errno::NoDevice,
            Self::Refused(Refused::Domain(_)) => Errno::Invalid,
            Self::Refused(Refused::Add(error)) => error.errno(),
        }
    }
}

/// Takes in the DIMMs that are there already and starts listening for more. The memory subsystem and ACPI's events work.
pub(crate) fn start() {
    let firmware = firmware::get();
    // Without a window nothing can come, and without a count in the firmware's code the window still says that it can.
    let unknown = firmware.srat.window().map(|_| SLOT_LIMIT);
    let Some(count) = firmware.dimm_slots.or(unknown).filter(|count| *count > 0) else {
        log::info!(target: "dimm", "no slots");
        return;
    };
    let mut slots = dimm::controller(count);
    let mut blocks = KernelBlocks::boot();
    Plug { slots: &mut slots, blocks: &mut blocks }.take_in_present();
    *SLOTS.lock() = Some(slots);
    task::spawn("hotplug", || {
        loop {
            events::MEMORY.wait();
            handle_events();
        }
    });
}

fn handle_events() {
    if let Some(slots) = SLOTS.lock().as_mut() {
        Plug { slots, blocks: &mut KernelBlocks::task() }.handle_events();
    }
}

/// Adds memory by hand that the machine is known to have: a DIMM that is not added, or what `mem=` hid. Without a length,
/// all of it from `start` on.
pub(crate) fn probe(start: u64, len: Option<u64>) -> Result<(), ProbeError> {
    let mut known: Vec<Backed> = memory::hidden().iter().map(|range| hidden(*range)).collect();
    let mut slots = SLOTS.lock();
    known.extend(slots.iter_mut().flat_map(dimm::present).map(Backed::from));
    add_by_hand(&known, start, len, &mut KernelBlocks::task())
}

/// What DIMMs hold beside blocks, by address.
pub(crate) fn leftovers() -> Vec<Leftover> {
    let dimms: Vec<Dimm> = SLOTS.lock().iter_mut().flat_map(dimm::present).collect();
    let mut leftovers: Vec<Leftover> =
        dimms.iter().flat_map(|dimm| leftovers_of(dimm, |id| memory::mm().section(id).is_some())).collect();
    leftovers.sort_unstable_by_key(|leftover| leftover.start);
    leftovers
}

/// Memory that the machine is known to have.
#[derive(Clone, Copy, Debug)]
struct Backed {
    start: u64,
    end: u64,
    domain: u32,
    /// What all of it together is called.
    name: Option<GroupName>,
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

fn add_by_hand(known: &[Backed], start: u64, len: Option<u64>, blocks: &mut impl Blocks) -> Result<(), ProbeError> {
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
    if let Some(id) = range.iter().find(|id| blocks.exists(*id)) {
        return Err(ProbeError::Exists(id));
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

/// Adds blocks and does with them what the policy says. They stay when going online fails.
fn add(range: SectionRange, domain: u32, name: GroupName, blocks: &mut impl Blocks) -> Result<(), Refused> {
    let node = NodeId::new(domain).ok_or(Refused::Domain(domain))?;
    blocks.add(&AddRequest { range, node, name }).map_err(Refused::Add)?;
    match range.count() {
        1 => log::info!(target: "dimm", "{name}: block {} added on node {node}", range.first()),
        _ => log::info!(target: "dimm", "{name}: blocks {}-{} added on node {node}", range.first(), range.last()),
    }
    if let AutoOnline::As(how) = blocks.auto_online() {
        match blocks.online(range, how) {
            Ok(()) => log::info!(target: "dimm", "{name}: online"),
            Err(error) => log::warn!(target: "dimm", "{name}: stays offline: {error}"),
        }
    }
    Ok(())
}

fn name(dimm: &Dimm) -> GroupName {
    GroupName { kind: GroupKind::Dimm, number: dimm.slot as u16 }
}

/// The first address behind a DIMM.
fn end(dimm: &Dimm) -> u64 {
    dimm.start.saturating_add(dimm.len)
}

fn leftovers_of(dimm: &Dimm, exists: impl Fn(SectionId) -> bool) -> Vec<Leftover> {
    let mut parts = Vec::new();
    let mut part = |start: u64, end: u64, why: Why| {
        if start < end {
            parts.push(Leftover { name: name(dimm), start, len: end - start, why });
        }
    };
    let Some(whole) = SectionRange::inside(dimm.start, end(dimm)) else {
        let why = if end(dimm) > REACH { Why::OutOfReach } else { Why::PartOfBlock };
        part(dimm.start, end(dimm), why);
        return parts;
    };
    let blocks_end = whole.first().address() + whole.size_bytes();
    part(dimm.start, whole.first().address(), Why::PartOfBlock);
    let mut absent_since = None;
    for id in whole.iter() {
        if exists(id) {
            part(absent_since.take().unwrap_or(id.address()), id.address(), Why::NotAdded);
        } else {
            absent_since.get_or_insert(id.address());
        }
    }
    part(absent_since.unwrap_or(blocks_end), blocks_end, Why::NotAdded);
    part(blocks_end, end(dimm), Why::PartOfBlock);
    parts
}

/// Slots and blocks together, while somebody acts on both.
struct Plug<'a, S: DimmSlots, B: Blocks> {
    slots: &'a mut S,
    blocks: &'a mut B,
}

impl<S: DimmSlots, B: Blocks> Plug<'_, S, B> {
    /// Takes in what is there at boot. Only what was put in behind the firmware's back is answered.
    fn take_in_present(&mut self) {
        let answered = self.handle_events();
        let present: Vec<Dimm> = dimm::present(self.slots).filter(|dimm| !answered.contains(&dimm.slot)).collect();
        for dimm in present {
            self.take_in(&dimm);
        }
    }

    /// Handles all events and says which slots had one.
    fn handle_events(&mut self) -> BTreeSet<u32> {
        let mut seen = BTreeSet::new();
        dimm::drain(self.slots, |slots, event| {
            let mut plug = Plug { slots, blocks: &mut *self.blocks };
            match event {
                SlotEvent::Inserted(dimm) => {
                    seen.insert(dimm.slot);
                    plug.inserted(&dimm);
                }
                SlotEvent::RemovalRequested(dimm) => {
                    seen.insert(dimm.slot);
                    plug.removal_requested(&dimm);
                }
            }
        });
        seen
    }

    fn inserted(&mut self, dimm: &Dimm) {
        if dimm.len > LONG_BYTES {
            self.slots.answer(dimm.slot, Answer::InsertionInProgress);
        }
        let answer = if self.take_in(dimm) > 0 { Answer::Inserted } else { Answer::InsertionFailed };
        self.slots.answer(dimm.slot, answer);
    }

    /// Makes memory of a DIMM; says how many of its blocks are known then.
    fn take_in(&mut self, dimm: &Dimm) -> u64 {
        let name = name(dimm);
        log::info!(
            target: "dimm",
            "{name}: {} MiB at {:#x}, node {}",
            dimm.len >> 20,
            dimm.start,
            dimm.domain
        );
        if let Some(range) = SectionRange::inside(dimm.start, end(dimm))
            && !range.iter().any(|id| self.blocks.exists(id))
            && let Err(error) = add(range, dimm.domain, name, self.blocks)
        {
            log::warn!(target: "dimm", "{name}: not added: {error}");
        }
        let blocks = &*self.blocks;
        for leftover in leftovers_of(dimm, |id| blocks.exists(id)) {
            let Leftover { start, len, why, .. } = leftover;
            let (last, mib) = (start + (len - 1), len >> 20);
            log::warn!(target: "dimm", "{name}: {mib} MiB at {start:#x}-{last:#x} are left alone: {why}");
        }
        SectionRange::inside(dimm.start, end(dimm))
            .map_or(0, |range| range.iter().filter(|id| blocks.exists(*id)).count() as u64)
    }

    fn removal_requested(&mut self, dimm: &Dimm) {
        let name = name(dimm);
        log::info!(target: "dimm", "{name}: the host wants it back");
        self.slots.answer(dimm.slot, Answer::EjectionInProgress);
        let answer = match self.give_up(dimm) {
            Ok(()) => match self.slots.eject(dimm.slot) {
                Ejected::Gone => {
                    log::info!(target: "dimm", "{name}: ejected");
                    Answer::Ejected
                }
                Ejected::StillThere => {
                    log::error!(target: "dimm", "{name}: the machine keeps it; its memory stays unused");
                    Answer::EjectionFailed
                }
            },
            Err(error) => {
                log::warn!(target: "dimm", "{name}: stays: {error}");
                refusal(error.errno())
            }
        };
        self.slots.answer(dimm.slot, answer);
    }

    /// Takes all memory of a DIMM out of use, or nothing.
    fn give_up(&mut self, dimm: &Dimm) -> Result<(), UnplugError> {
        let lies_inside = |range: SectionRange| {
            let start = range.first().address();
            dimm.start <= start && start + range.size_bytes() <= end(dimm)
        };
        let names: Vec<GroupName> =
            self.blocks.groups().iter().filter(|group| lies_inside(group.range)).map(|group| group.name).collect();
        self.blocks.unplug(&names)
    }
}

/// What stands in the way may go away by itself, or not.
fn refusal(errno: Errno) -> Answer {
    match errno {
        Errno::Busy | Errno::Again | Errno::TimedOut | Errno::Canceled => Answer::EjectionRefused,
        _ => Answer::EjectionFailed,
    }
}

#[cfg(test)]
#[path = "hotplug/tests.rs"]
mod tests;
