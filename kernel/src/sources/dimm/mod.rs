//! DIMMs: what happens to them becomes verbs of the memory subsystem, and the host hears the truth about the end.
//!
//! Only whole blocks become memory. A DIMM may begin and end anywhere on 2 MiB; what is left at its ends is reported by
//! [`leftovers`] and never touched. The device's lock is held for a look at a slot, never for what follows from it: a
//! reader never waits behind a removal. What acts on a slot takes the slot's turn first: the worker that handles the
//! machine's events, and people who add memory by hand.

mod check;
mod intake;
mod refusal;
mod removal;
mod turns;

pub(crate) use refusal::{Refusal, Refused};

use crate::arch::ports::PortRange;
use crate::drivers::dimm::{self, Answer, Controller, Dimm, DimmSlots, SLOT_LIMIT, SlotEvent};
use crate::firmware::window::Window;
use crate::firmware::{self, events};
use crate::memory;
use crate::sources::added::add;
use crate::sources::blocks::{self, Blocks, KernelBlocks};
use crate::sync::Mutex;
use crate::task;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use check::{Nonsense, check};
use core::sync::atomic::{AtomicU64, Ordering};
use intake::{Intake, Summary, log_refusal};
use mm::addr::{MAX_PHYS_BITS, SectionRange};
use mm::section::group::{Group, GroupKind, GroupName};
use refusal::Refusals;
use thiserror::Error;
use turns::Turns;

/// The target of their lines in the log.
const LOG: &str = "dimm";

/// Taking in more than this takes long enough for the host to be told that it is under way.
const LONG_BYTES: u64 = 1 << 30;

/// No block can lie at or above this address.
const REACH: u64 = 1 << MAX_PHYS_BITS;

/// The slots of this machine; none where there is no controller.
pub(super) static SLOTS: spin::Once<Slots<Controller<PortRange>>> = spin::Once::new();

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

/// Why memory of a DIMM is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Why {
    #[error("not a whole block")]
    PartOfBlock,
    #[error("beyond the addresses that are supported")]
    OutOfReach,
    #[error("not added")]
    NotAdded,
}

/// Takes in the DIMMs that are there already and starts listening for more. The memory subsystem and ACPI's events work.
pub(crate) fn start() {
    let firmware = firmware::get();
    // Without a window nothing can come, and without a count in the firmware's code the window still says that it can.
    let windows = memory::host::windows();
    let unknown = windows.first().map(|_| SLOT_LIMIT);
    let Some(count) = firmware.dimm_slots.or(unknown).filter(|count| *count > 0) else {
        log::info!(target: LOG, "no slots");
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
    let dimms = present();
    let mut leftovers: Vec<Leftover> = dimms.iter().flat_map(|dimm| leftovers_of(dimm, blocks::known)).collect();
    leftovers.sort_unstable_by_key(|leftover| leftover.start);
    leftovers
}

/// The DIMMs that are in their slots and were refused, by slot.
pub(crate) fn refused() -> Vec<Refusal> {
    SLOTS.get().map_or_else(Vec::new, |slots| slots.refusals.of(&present()))
}

fn present() -> Vec<Dimm> {
    SLOTS.get().into_iter().flat_map(|slots| dimm::present(&slots.device)).collect()
}

pub(super) fn name(dimm: &Dimm) -> GroupName {
    GroupName { kind: GroupKind::Dimm, number: dimm.slot as u16 }
}

/// The first address behind a DIMM.
pub(super) fn end(dimm: &Dimm) -> u64 {
    dimm.start.saturating_add(dimm.len)
}

/// The blocks that a DIMM can be.
pub(super) fn usable(dimm: &Dimm, windows: &[Window], groups: &[Group]) -> Result<SectionRange, Refused> {
    match check(dimm, windows, groups) {
        // No window reaches further than addresses do.
        Err(Nonsense::OutsideWindow(_) | Nonsense::OutsideWindows) if end(dimm) > REACH => {
            return Err(Refused::OutOfReach);
        }
        checked => checked.map_err(Refused::Nonsense)?,
    }
    let none = if end(dimm) > REACH { Refused::OutOfReach } else { Refused::NoBlock };
    SectionRange::inside(dimm.start, end(dimm)).ok_or(none)
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
pub(super) struct Slots<S> {
    pub(super) device: Mutex<S>,
    pub(super) turns: Turns,
    pub(super) refusals: Refusals,
}

impl<S> Slots<S> {
    const fn new(device: S) -> Self {
        Self { device: Mutex::new(device), turns: Turns::new(), refusals: Refusals::new() }
    }
}

/// Slots and blocks together, for what acts on both.
pub(super) struct Plug<'a, S: DimmSlots, B: Blocks> {
    pub(super) slots: &'a Slots<S>,
    pub(super) blocks: &'a mut B,
    /// Where memory may come.
    pub(super) windows: &'a [Window],
}

impl<'a, S: DimmSlots, B: Blocks> Plug<'a, S, B> {
    pub(super) fn of_machine(slots: &'a Slots<S>, blocks: &'a mut B) -> Self {
        Self { slots, blocks, windows: memory::host::windows() }
    }

    /// Takes in what is there at boot. Only what was put in behind the firmware's back is answered.
    fn take_in_present(&mut self) {
        let answered = self.handle_events();
        let present: Vec<Dimm> =
            dimm::present(&self.slots.device).filter(|dimm| !answered.contains(&dimm.slot)).collect();
        let mut summary = Summary::default();
        for dimm in present {
            let _turn = self.slots.turns.take(dimm.slot);
            if let Ok(intake) = self.take_in(&dimm) {
                summary.add(intake);
            }
        }
        summary.log();
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
        let answer = match self.take_in(dimm) {
            Ok(intake) => {
                intake.log();
                Answer::Inserted
            }
            Err(_) => Answer::InsertionFailed,
        };
        self.answer(dimm, answer);
    }

    /// Makes memory of a DIMM, or notes and tells why not.
    fn take_in(&mut self, dimm: &Dimm) -> Result<Intake, Refused> {
        let result = self.add_all(dimm);
        match result {
            Ok(_) => self.slots.refusals.forget(dimm.slot),
            Err(why) => {
                self.slots.refusals.note(*dimm, why);
                log_refusal(dimm, why);
            }
        }
        result
    }

    /// What is there already is left as it is.
    fn add_all(&mut self, dimm: &Dimm) -> Result<Intake, Refused> {
        let range = usable(dimm, self.windows, &self.blocks.groups())?;
        let is_known = !self.blocks.known(range).is_empty();
        let added = if is_known { None } else { Some(add(range, dimm.domain, name(dimm), self.blocks)?) };
        Ok(Intake::new(*dimm, added, self.blocks))
    }
}

#[cfg(test)]
mod tests;
