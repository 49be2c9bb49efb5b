//! Hotplug: what happens to DIMMs becomes verbs of the memory subsystem, and the host hears the truth about the end.
//!
//! Only whole blocks become memory. A DIMM may begin and end anywhere on 2 MiB; what is left at its ends is reported by
//! [`leftovers`] and never touched. One lock orders everything that looks at a slot and acts on it: the worker that handles
//! the machine's events, and people who add memory by hand.
#![deny(unsafe_code)]

mod blocks;
mod check;
mod probe;

pub(crate) use probe::{ProbeError, probe};

use crate::arch::ports::PortRange;
use crate::drivers::dimm::{self, Answer, Controller, Dimm, DimmSlots, Ejected, SLOT_LIMIT, SlotEvent};
use crate::firmware::window::Window;
use crate::firmware::{self, events};
use crate::memory;
use crate::sync::Mutex;
use crate::task;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use blocks::{Blocks, KernelBlocks};
use check::{check, foreign_group};
use core::sync::atomic::{AtomicU64, Ordering};
use mm::Errno;
use mm::addr::{MAX_PHYS_BITS, NodeId, SectionRange};
use mm::group::{GroupKind, GroupName};
use mm::hotplug::{AddError, AddRequest, OfflineError, UnplugError};
use mm::policy::AutoOnline;
use thiserror::Error;

/// Taking in more than this takes long enough for the host to be told that it is under way.
const LONG_BYTES: u64 = 1 << 30;

/// No block can lie at or above this address.
const REACH: u64 = 1 << MAX_PHYS_BITS;

/// The slots of this machine; none where there is no controller.
static SLOTS: Mutex<Option<Controller<PortRange>>> = Mutex::new(None);

static MACHINE_EVENTS: AtomicU64 = AtomicU64::new(0);

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

/// Why memory that is there does not become blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refused {
    #[error("proximity domain {domain} is no node: their numbers end at {}", NodeId::LIMIT - 1)]
    Domain { domain: u32 },
    #[error(transparent)]
    Add(AddError),
}

/// Takes in the DIMMs that are there already and starts listening for more. The memory subsystem and ACPI's events work.
pub(crate) fn start() {
    let firmware = firmware::get();
    // Without a window nothing can come, and without a count in the firmware's code the window still says that it can.
    let windows = memory::windows();
    let unknown = windows.first().map(|_| SLOT_LIMIT);
    let Some(count) = firmware.dimm_slots.or(unknown).filter(|count| *count > 0) else {
        log::info!(target: "dimm", "no slots");
        return;
    };
    let mut slots = dimm::controller(count);
    let mut blocks = KernelBlocks::new();
    Plug { slots: &mut slots, blocks: &mut blocks, windows }.take_in_present();
    *SLOTS.lock() = Some(slots);
    task::spawn("hotplug", || {
        loop {
            events::MEMORY.wait();
            handle_events();
        }
    });
}

/// How often the machine has told of something that happened to its slots.
pub(crate) fn machine_events() -> u64 {
    MACHINE_EVENTS.load(Ordering::Relaxed)
}

fn handle_events() {
    MACHINE_EVENTS.fetch_add(1, Ordering::Relaxed);
    if let Some(slots) = SLOTS.lock().as_mut() {
        Plug { slots, blocks: &mut KernelBlocks::new(), windows: memory::windows() }.handle_events();
    }
}

/// What DIMMs hold beside blocks, by address.
pub(crate) fn leftovers() -> Vec<Leftover> {
    let dimms: Vec<Dimm> = SLOTS.lock().iter_mut().flat_map(dimm::present).collect();
    let mut leftovers: Vec<Leftover> = dimms.iter().flat_map(|dimm| leftovers_of(dimm, blocks::known)).collect();
    leftovers.sort_unstable_by_key(|leftover| leftover.start);
    leftovers
}

/// Adds blocks and does with them what the policy says. They stay when going online fails.
fn add(range: SectionRange, domain: u32, name: GroupName, blocks: &mut impl Blocks) -> Result<(), Refused> {
    let node = NodeId::new(domain).ok_or(Refused::Domain { domain })?;
    blocks.add(&AddRequest { range, node, name }).map_err(Refused::Add)?;
    match range.count() {
        1 => log::info!(target: "dimm", "{name}: block {} added on node {node}", range.first()),
        _ => log::info!(target: "dimm", "{name}: blocks {}-{} added on node {node}", range.first(), range.last()),
    }
    if let AutoOnline::As(how) = blocks.auto_online() {
        match blocks.online(range, how) {
            Ok(None) => log::info!(target: "dimm", "{name}: online"),
            Ok(Some(remark)) => log::warn!(target: "dimm", "{name}: online; {remark}"),
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

/// `known` says which blocks of a range exist.
fn leftovers_of(dimm: &Dimm, known: impl Fn(SectionRange) -> Vec<SectionRange>) -> Vec<Leftover> {
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
    let (blocks_start, blocks_end) = bounds(whole);
    part(dimm.start, blocks_start, Why::PartOfBlock);
    let mut absent_from = blocks_start;
    for (start, end) in known(whole).into_iter().map(bounds) {
        part(absent_from, start, Why::NotAdded);
        absent_from = end;
    }
    part(absent_from, blocks_end, Why::NotAdded);
    part(blocks_end, end(dimm), Why::PartOfBlock);
    parts
}

/// The first address of a range, and the first one behind it.
fn bounds(range: SectionRange) -> (u64, u64) {
    let start = range.first().address();
    (start, start + range.size_bytes())
}

/// Slots and blocks together, while somebody acts on both.
struct Plug<'a, S: DimmSlots, B: Blocks> {
    slots: &'a mut S,
    blocks: &'a mut B,
    /// Where memory may come.
    windows: &'a [Window],
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
            let mut plug = Plug { slots, blocks: &mut *self.blocks, windows: self.windows };
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
        if let Err(nonsense) = check(dimm, self.windows, &self.blocks.groups()) {
            log::warn!(target: "dimm", "{name}: not added: {nonsense}");
            return 0;
        }
        if let Some(range) = SectionRange::inside(dimm.start, end(dimm))
            && self.blocks.known(range).is_empty()
            && let Err(error) = add(range, dimm.domain, name, self.blocks)
        {
            log::warn!(target: "dimm", "{name}: not added: {error}");
        }
        let blocks = &*self.blocks;
        for leftover in leftovers_of(dimm, |range| blocks.known(range)) {
            let Leftover { start, len, why, .. } = leftover;
            let (last, mib) = (start + (len - 1), len >> 20);
            log::warn!(target: "dimm", "{name}: {mib} MiB at {start:#x}-{last:#x} are left alone: {why}");
        }
        SectionRange::inside(dimm.start, end(dimm))
            .map_or(0, |range| blocks.known(range).into_iter().map(SectionRange::count).sum())
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
                error.answer()
            }
        };
        self.slots.answer(dimm.slot, answer);
    }

    /// Takes all memory of a DIMM out of use, or nothing.
    fn give_up(&mut self, dimm: &Dimm) -> Result<(), Stays> {
        let groups = self.blocks.groups();
        if let Some(name) = foreign_group(dimm, &groups) {
            return Err(Stays::Taken(name));
        }
        let lies_inside = |range: SectionRange| {
            let (start, after) = bounds(range);
            dimm.start <= start && after <= end(dimm)
        };
        let names: Vec<GroupName> =
            groups.iter().filter(|group| lies_inside(group.range)).map(|group| group.name).collect();
        self.blocks.unplug(&names).map_err(Stays::Unplug)
    }
}

/// Why a DIMM is not given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
enum Stays {
    #[error("its addresses are those of {0}")]
    Taken(GroupName),
    #[error(transparent)]
    Unplug(UnplugError),
}

impl Stays {
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

#[cfg(test)]
#[path = "hotplug/tests.rs"]
mod tests;
