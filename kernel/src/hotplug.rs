//! Hotplug: what happens to DIMMs becomes verbs of the memory subsystem, and the host hears the truth about the end.
//!
//! Only whole blocks become memory. A DIMM may begin and end anywhere on 2 MiB; what is left at its ends is reported by
//! [`leftovers`] and never touched. The device's lock is held for a look at a slot, never for what follows from it: nobody who
//! only looks waits behind a removal. Whoever acts on what is in a slot has the slot's turn: the worker that handles the
//! machine's events, and people who add memory by hand.
#![deny(unsafe_code)]

mod blocks;
mod check;
mod probe;
mod turns;

pub(crate) use probe::{ProbeError, probe};

use crate::arch::ports::PortRange;
use crate::drivers::dimm::{self, Answer, Controller, Dimm, DimmSlots, Ejected, SLOT_LIMIT, SlotEvent};
use crate::firmware::srat::Window;
use crate::firmware::{self, events};
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
use turns::Turns;

/// Taking in more than this takes long enough for the host to be told that it is under way.
const LONG_BYTES: u64 = 1 << 30;

/// No block can lie at or above this address.
const REACH: u64 = 1 << MAX_PHYS_BITS;

/// The slots of this machine; none where there is no controller.
static SLOTS: spin::Once<Slots<Controller<PortRange>>> = spin::Once::new();

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
    #[error("proximity domain {0} is beyond the nodes known at boot")]
    Domain(u32),
    #[error(transparent)]
    Add(AddError),
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
    let slots = SLOTS.call_once(|| Slots::new(dimm::controller(count)));
    Plug::of_machine(slots, &mut KernelBlocks::new()).take_in_present();
    task::spawn("hotplug", || {
        loop {
            events::MEMORY.wait();
            MACHINE_EVENTS.fetch_add(1, Ordering::Relaxed);
            Plug::of_machine(slots, &mut KernelBlocks::new()).handle_events();
        }
    });
}

/// How often the machine has told of something that happened to its slots.
pub(crate) fn machine_events() -> u64 {
    MACHINE_EVENTS.load(Ordering::Relaxed)
}

/// What DIMMs hold beside blocks, by address.
pub(crate) fn leftovers() -> Vec<Leftover> {
    let dimms: Vec<Dimm> = SLOTS.get().into_iter().flat_map(|slots| dimm::present(&slots.device)).collect();
    let mut leftovers: Vec<Leftover> = dimms.iter().flat_map(|dimm| leftovers_of(dimm, blocks::known)).collect();
    leftovers.sort_unstable_by_key(|leftover| leftover.start);
    leftovers
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

/// The slots of a machine.
struct Slots<S> {
    device: Mutex<S>,
    turns: Turns,
}

impl<S> Slots<S> {
    const fn new(device: S) -> Self {
        Self { device: Mutex::new(device), turns: Turns::new() }
    }
}

/// Slots and blocks together, for whoever acts on both.
struct Plug<'a, S: DimmSlots, B: Blocks> {
    slots: &'a Slots<S>,
    blocks: &'a mut B,
    /// Where the firmware says that memory may come.
    window: Option<Window>,
}

impl<'a, S: DimmSlots, B: Blocks> Plug<'a, S, B> {
    fn of_machine(slots: &'a Slots<S>, blocks: &'a mut B) -> Self {
        Self { slots, blocks, window: firmware::get().srat.window() }
    }

    /// Takes in what is there at boot. Only what was put in behind the firmware's back is answered.
    fn take_in_present(&mut self) {
        let answered = self.handle_events();
        let present: Vec<Dimm> =
            dimm::present(&self.slots.device).filter(|dimm| !answered.contains(&dimm.slot)).collect();
        for dimm in present {
            let _turn = self.slots.turns.take(dimm.slot);
            self.take_in(&dimm);
        }
    }

    /// Handles all events and says which slots had one.
    fn handle_events(&mut self) -> BTreeSet<u32> {
        let mut seen = BTreeSet::new();
        let slots = self.slots;
        dimm::drain(&slots.device, |event| {
            let slot = event.dimm().slot;
            let _turn = slots.turns.take(slot);
            seen.insert(slot);
            match event {
                SlotEvent::Inserted(dimm) => self.inserted(&dimm),
                SlotEvent::RemovalRequested(dimm) => self.removal_requested(&dimm),
            }
        });
        seen
    }

    fn answer(&self, dimm: &Dimm, answer: Answer) {
        self.slots.device.lock().answer(dimm.slot, answer);
    }

    fn inserted(&mut self, dimm: &Dimm) {
        if dimm.len > LONG_BYTES {
            self.answer(dimm, Answer::InsertionInProgress);
        }
        let answer = if self.take_in(dimm) > 0 { Answer::Inserted } else { Answer::InsertionFailed };
        self.answer(dimm, answer);
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
        if let Err(nonsense) = check(dimm, self.window, &self.blocks.groups()) {
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
        self.answer(dimm, Answer::EjectionInProgress);
        let answer = match self.give_up(dimm) {
            Ok(()) => match self.slots.device.lock().eject(dimm.slot) {
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
        self.answer(dimm, answer);
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
