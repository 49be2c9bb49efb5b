//! Device memory: it has struct pages and a device, and never goes online.
//!
//! [`attach`](Memory::attach) is the one way in for all of it: persistent memory, and memory that no CPU may touch, which is in no
//! direct map. The sections are in no zone of the allocator, nothing of them counts as RAM, and their frames are handed out by
//! their device alone, which [takes](Memory::take_device_frame) and gives back each. Struct pages are made at once, in bounded steps.

use super::add::{self, AddError};
use super::remove::RemoveError;
use super::steps::{self, Points, Unit};
use super::undo::Undo;
use crate::addr::{Order, PAGES_PER_SECTION, Pfn, PfnRange, SectionId, SectionRange};
use crate::frame::page::{Head, MEMMAP_PAGES, Owner, PageState, Terms};
use crate::inject::Point;
use crate::machine::Machine;
use crate::machine::tasks::Pace;
use crate::memory::Memory;
use crate::range_guard;
use crate::record::journal::{Op, Stopwatch};
use crate::section::group::{Group, GroupId, Ready};
use crate::section::kind::MemmapPlace;
use crate::section::state::BlockState;
use core::cell::Cell;

/// Struct pages that are made, or looked at, between two pauses.
const AT_ONCE: u64 = 4096;

impl<M: Machine> Memory<M> {
    /// Makes whole units of a group's window known as device memory: in the direct map, if its terms say so, and with struct pages,
    /// at the head of each section or in frames of the system.
    ///
    /// # Errors
    /// See [`AddError`]; nothing has changed then.
    ///
    /// # Panics
    /// The memory of the group is not always accessible.
    pub fn attach(&self, id: GroupId, range: SectionRange, pace: &mut dyn Pace) -> Result<(), AddError> {
        let _alone = range_guard::lock_range(self, range, pace).map_err(AddError::Stopped)?;
        let group = add::check_range(self, id, range)?;
        assert!(group.terms.ready == Ready::AtAdd, "device memory is accessible, or is not by CPUs at all");
        let stopwatch = Stopwatch::start(&self.machine, "check");
        let result = attach_steps(self, id, &group, range, pace, &stopwatch);
        self.journal.lock().record(stopwatch.event(Op::Add, range, result.map_err(AddError::errno)));
        result
    }

    /// Forgets whole units of device memory, none of whose frames is taken. Its device takes none meanwhile.
    ///
    /// # Errors
    /// See [`RemoveError`]; nothing has changed then.
    pub fn detach(&self, id: GroupId, range: SectionRange, pace: &mut dyn Pace) -> Result<(), RemoveError> {
        let _alone = range_guard::lock_range(self, range, pace).map_err(RemoveError::Stopped)?;
        let group = self.group(id).ok_or(RemoveError::Absent)?;
        let unit = group.terms.unit;
        if !range.is_whole(unit) {
            return Err(RemoveError::BadUnit { unit });
        }
        let stopwatch = Stopwatch::start(&self.machine, "check");
        let result = check_detachable(self, id, range, pace);
        if result.is_ok() {
            detach_steps(self, &group, range, &stopwatch);
        }
        self.journal.lock().record(stopwatch.event(Op::Remove, range, result.map_err(RemoveError::errno)));
        result
    }

    /// Takes a frame of device memory, for the use of its device; returns whether it was there and not taken already. Only
    /// the device calls this, for a frame at a time.
    #[must_use]
    pub fn take_device_frame(&self, pfn: Pfn) -> bool {
        let is_idle = is_device_frame(self, pfn) && self.machine.page(pfn).head() == Head::TAIL;
        if is_idle {
            self.machine.page(pfn).hand_out(Order::PAGE, Owner::Device, Terms::MOVABLE);
        }
        is_idle
    }

    /// Gives a frame back that [`take_device_frame`](Self::take_device_frame) took; returns whether there was no other reference to it. It
    /// stays taken otherwise.
    ///
    /// # Panics
    /// It is not taken.
    #[must_use]
    pub fn give_device_frame(&self, pfn: Pfn) -> bool {
        let taken = Head { state: PageState::Allocated, order: Order::PAGE, owner: Owner::Device };
        assert!(
            is_device_frame(self, pfn) && self.machine.page(pfn).head() == taken,
            "{pfn:?} is no frame taken of a device"
        );
        let is_free = self.machine.page(pfn).freeze();
        if is_free {
            self.machine.page(pfn).set_head(Head::TAIL);
        }
        is_free
    }
}

fn is_device_frame<M: Machine>(memory: &Memory<M>, pfn: Pfn) -> bool {
    SectionId::new(pfn.number() / PAGES_PER_SECTION)
        .and_then(|id| memory.section(id))
        .is_some_and(|section| section.state == BlockState::Device)
}

fn attach_steps<M: Machine>(
    memory: &Memory<M>,
    id: GroupId,
    group: &Group,
    range: SectionRange,
    pace: &mut dyn Pace,
    stopwatch: &Stopwatch<'_, M>,
) -> Result<(), AddError> {
    let units = || steps::units_to_add(group, range);
    let is_own = group.terms.memmap == MemmapPlace::Head;
    let points = Points { trial: add::POINTS.trial.filter(|_| is_own), ..add::POINTS };
    steps::map(memory, units, points, pace, stopwatch)?;
    let mapped = Undo::new(stopwatch, || units().for_each(|unit| steps::make_unready(memory, unit)));

    let made_count = Cell::new(0);
    let made = Undo::new(stopwatch, || {
        let made = || units().flat_map(sections).take(made_count.get());
        made().for_each(|(section, unit)| unmap_own_memmap(memory, section, unit));
        memory.machine.settle_memmaps();
    });
    for (section, unit) in units().flat_map(sections) {
        memory.check_injected(Point::DeviceMemmap).map_err(AddError::Injected)?;
        map_own_memmap(memory, section, unit)?;
        made_count.set(made_count.get() + 1);
        make_struct_pages(memory, section, unit, pace)?;
    }
    stopwatch.enter("publish");

    // Nothing below can fail.
    made.disarm();
    mapped.disarm();
    steps::know_device(memory, id, group, range);
    Ok(())
}

/// The sections of a unit, each with it.
fn sections(unit: Unit) -> impl Iterator<Item = (SectionId, Unit)> {
    unit.range.iter().map(move |id| (id, unit))
}

/// The frames at the head of a section that hold its tables and struct pages.
fn own_frames<M: Machine>(memory: &Memory<M>, id: SectionId, unit: Unit) -> [(PfnRange, Owner); 2] {
    match steps::altmap(memory, unit.range, unit.terms) {
        Some(altmap) => {
            let memmap = altmap.memmap(id);
            let start = id.pages().start();
            let tables = PfnRange::new(start, memmap.start().number() - start.number());
            [(tables, Owner::PageTable), (memmap, Owner::Memmap)]
        }
        None => [(PfnRange::EMPTY, Owner::PageTable), (PfnRange::EMPTY, Owner::Memmap)],
    }
}

fn map_own_memmap<M: Machine>(memory: &Memory<M>, id: SectionId, unit: Unit) -> Result<(), AddError> {
    let [_, (backing, _)] = own_frames(memory, id, unit);
    if backing.len() == MEMMAP_PAGES {
        memory.machine.try_frames(backing).map_err(AddError::BadMemory)?;
        memory.machine.map_memmap(id, backing).map_err(AddError::BadMemory)?;
    }
    Ok(())
}

fn unmap_own_memmap<M: Machine>(memory: &Memory<M>, id: SectionId, unit: Unit) {
    if unit.terms.memmap == MemmapPlace::Head {
        memory.machine.unmap_memmap(id);
    }
}

/// Step 5, at once: no frame is taken but those that hold tables and struct pages.
fn make_struct_pages<M: Machine>(
    memory: &Memory<M>,
    id: SectionId,
    unit: Unit,
    pace: &mut dyn Pace,
) -> Result<(), AddError> {
    for part in parts(id) {
        memory.machine.clear(part);
        pace.pause().map_err(AddError::Stopped)?;
    }
    for (frames, owner) in own_frames(memory, id, unit) {
        frames.iter().for_each(|pfn| memory.machine.page(pfn).set_head(Head::single(PageState::Memmap, owner)));
    }
    Ok(())
}

fn parts(id: SectionId) -> impl Iterator<Item = PfnRange> {
    (0..PAGES_PER_SECTION / AT_ONCE).map(move |n| PfnRange::new(id.pages().start().add(n * AT_ONCE), AT_ONCE))
}

fn check_detachable<M: Machine>(
    memory: &Memory<M>,
    group: GroupId,
    range: SectionRange,
    pace: &mut dyn Pace,
) -> Result<(), RemoveError> {
    for id in range.iter() {
        let section = memory.section(id).filter(|section| section.group == group).ok_or(RemoveError::NoBlock(id))?;
        if section.state != BlockState::Device {
            return Err(RemoveError::NotOffline(id));
        }
    }
    memory.check_injected(Point::RemoveBegin).map_err(RemoveError::Injected)?;
    for part in range.iter().flat_map(parts) {
        let taken = part.iter().find(|pfn| memory.machine.page(*pfn).head().state == PageState::Allocated);
        taken.map_or(Ok(()), |pfn| Err(RemoveError::InUse(pfn)))?;
        pace.pause().map_err(RemoveError::Stopped)?;
    }
    Ok(())
}

/// Cannot fail.
fn detach_steps<M: Machine>(memory: &Memory<M>, group: &Group, range: SectionRange, stopwatch: &Stopwatch<'_, M>) {
    stopwatch.enter("withdraw");
    steps::forget_device(memory, range);
    // Whoever has seen that it is there looks at its struct pages.
    memory.machine.wait_for_readers();
    stopwatch.enter("unmap");
    for unit in steps::units_to_add(group, range) {
        unit.range.iter().for_each(|section| unmap_own_memmap(memory, section, unit));
    }
    memory.machine.settle_memmaps();
    steps::units_to_add(group, range).for_each(|unit| steps::make_unready(memory, unit));
}
