//! Memory errors: a frame in which the hardware has found one is set aside for good.
//!
//! What it holds is moved elsewhere if it can be, and the block manages one frame less from then on, in whatever state it
//! is. Its own struct page remembers it, so there is room for as many as there are frames: struct pages of added sections come
//! and go, but those of one that has a poisoned frame stay, in use or not, until the memory is removed. A poisoned frame does not
//! keep its block from going offline.
//!
//! A block that cannot be moved, or is pinned, is *faulty* instead: it stays with its owner, and when that frees it, it is poisoned
//! before anything else can get it. Linux withholds such pages too, from `free_pages_prepare`. The struct page of a frame says whether
//! it has the error, the word of a section whether it has such frames.

use crate::addr::{NodeId, Order, PAGES_PER_SECTION, Pfn, PfnRange, SectionId, SectionRange};
use crate::alloc::request::{AllocError, Request, Urgency};
use crate::alloc::{caches, lookup, open};
use crate::errno::Errno;
use crate::evacuate::content::{Block, Blocker, Content, Hold};
use crate::evacuate::moving::MoveError;
use crate::evacuate::{content, moving};
use crate::frame::mobility::Mobility;
use crate::frame::page::{Head, Owner, PageState};
use crate::frame::pageblock::Pageblock;
use crate::inject::Injected;
use crate::limits::PATIENCE;
use crate::machine::Machine;
use crate::machine::mover::Stay;
use crate::machine::tasks::{Pace, Stop};
use crate::memory::Memory;
use crate::range_guard;
use crate::section::kind::ZoneKind;
use crate::section::state::BlockState;
use crate::section::word::{Section, head_range, table_range};
use crate::section_change;
use crate::zone::Zone;
use crate::zone::free_area::FreeArea;
use crate::zone::zones::zone_number;
use core::sync::atomic::Ordering;

/// The largest block whose frames with an error go out of use under one hold of the lock: 32 frames.
const AT_ONCE: Order = Order::new(5).expect("in range");

/// Why a frame is not poisoned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PoisonError {
    /// There is no memory.
    #[error("there is no memory at {0}")]
    Absent(Pfn),
    /// It is already.
    #[error("{0} is poisoned already")]
    Already(Pfn),
    /// It lies in a block of which nothing is handed out.
    #[error("block {} is withheld as a whole", .0.section())]
    Withheld(Pfn),
    /// It is nothing that is ever given back, and cannot be replaced.
    #[error("{pfn} is held by {owner} and cannot be replaced")]
    Held {
        /// The frame.
        pfn: Pfn,
        /// Whose it is.
        owner: Owner,
    },
    /// It is in use, and cannot move. It is poisoned when its owner frees it.
    #[error("{pfn} is held by {owner} and cannot be replaced; it goes out of use when it is given back")]
    Used {
        /// The frame.
        pfn: Pfn,
        /// Whose it is.
        owner: Owner,
    },
    /// It is pinned. It is poisoned when its owner frees it, if not before.
    #[error("{0} is pinned; it goes out of use when it is given back")]
    Pinned(Pfn),
    /// It does not stay anybody's for long enough.
    #[error("{0} is just being taken, given back or moved")]
    InFlight(Pfn),
    /// What it holds could not go elsewhere.
    #[error("what {0} holds cannot go elsewhere: {1}")]
    NoDestination(Pfn, AllocError),
    /// A failure of the move was injected.
    #[error("{0}")]
    Injected(Injected),
    /// It was told to stop.
    #[error("{0}")]
    Stopped(Stop),
}

impl PoisonError {
    /// The errno name.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::Absent(_) => Errno::NoDevice,
            Self::Already(_) | Self::Withheld(_) => Errno::Exists,
            Self::Held { .. } | Self::Used { .. } | Self::Pinned(_) | Self::InFlight(_) => Errno::Busy,
            Self::NoDestination(_, error) => error.errno(),
            Self::Injected(injected) => injected.errno,
            Self::Stopped(stop) => stop.errno(),
        }
    }
}

impl<M: Machine> Memory<M> {
    /// Takes a frame out of use until its memory is removed. What it holds moves first, if it can.
    ///
    /// # Errors
    /// See [`PoisonError`]; the frame is in use as before then, if some only for as long as it is held.
    pub fn poison(&self, pfn: Pfn, pace: &mut dyn Pace) -> Result<(), PoisonError> {
        let absent = PoisonError::Absent(pfn);
        let id = SectionId::new(pfn.number() / PAGES_PER_SECTION).ok_or(absent)?;
        let _alone = range_guard::lock_range(self, SectionRange::single(id), pace).map_err(PoisonError::Stopped)?;
        // Memory that the host does not back has no errors.
        let section = self.sections.get(id).filter(|section| section.ready).ok_or(absent)?;
        check_poison(self, id, section, pfn)?;
        let Some(kind) = section.state.zone_of(pfn) else { return poison_offline(self, id, section, pfn) };
        // Its struct page is where it is remembered.
        open::open(self, id);
        if self.sections.get(id).is_some_and(Section::is_withheld) {
            return Err(PoisonError::Withheld(pfn));
        }
        poison_patiently(self, kind, pfn, section.node, pace)?;
        // What was given back with it, and has errors, too.
        poison_faulty_of(self, id);
        Ok(())
    }
}

fn poison_patiently<M: Machine>(
    memory: &Memory<M>,
    kind: ZoneKind,
    pfn: Pfn,
    node: NodeId,
    pace: &mut dyn Pace,
) -> Result<(), PoisonError> {
    for _ in 0..PATIENCE {
        if poison_once(memory, kind, pfn, node)? {
            return Ok(());
        }
        memory.machine.rest();
        pace.pause().map_err(PoisonError::Stopped)?;
    }
    Err(PoisonError::InFlight(pfn))
}

/// Whether a frame of a section, whose word was read under a lock or guard that keeps struct pages, is poisoned.
pub(crate) fn is_poisoned<M: Machine>(memory: &Memory<M>, section: Section, pfn: Pfn) -> bool {
    section.poisoned && memory.machine.page(pfn).head().state == PageState::Poisoned
}

/// Makes sections of `range`, all of them offline, absent that have poisoned frames: the hardware goes, and its errors with it.
pub(crate) fn forget_poison<M: Machine>(memory: &Memory<M>, range: SectionRange) {
    forget_each(memory, range, section_change::forget_poisoned);
}

/// Forgets the errors of sections of `range`, all of them offline, whose memory is given back to the host.
pub(crate) fn forget_errors<M: Machine>(memory: &Memory<M>, range: SectionRange) {
    forget_each(memory, range, section_change::forget_errors);
}

fn forget_each<M: Machine>(memory: &Memory<M>, range: SectionRange, forget: fn(&Memory<M>, SectionId, Section)) {
    let mut is_any = false;
    for (run, section) in memory.sections.runs(range) {
        let Some(section) = section.filter(|section| section.poisoned) else { continue };
        for id in run.iter() {
            forget(memory, id, section);
            // Whoever has seen that it has errors looks at its struct pages.
            memory.machine.wait_for_readers();
            open::unmap_own_memmap(memory, id, section);
        }
        is_any = true;
    }
    if is_any {
        memory.machine.settle_memmaps();
    }
}

/// Poisons what is faulty and was given back.
pub(crate) fn poison_given_back<M: Machine>(memory: &Memory<M>) {
    if memory.faulty_count.load(Ordering::Relaxed) == 0 {
        return;
    }
    for (id, _) in memory.blocks().filter(|(_, section)| section.faulty) {
        if let Some(_alone) = range_guard::try_lock_range(memory, SectionRange::single(id)) {
            poison_faulty_of(memory, id);
        }
    }
}

/// Poisons what is faulty in `range`, which is locked, and is not held any more, or not so that it has to stay.
pub(crate) fn poison_faulty_in<M: Machine>(memory: &Memory<M>, range: SectionRange) {
    // A frame becomes faulty under the lock of its range, so those that matter here have been counted.
    if memory.faulty_count.load(Ordering::Relaxed) > 0 {
        range.iter().for_each(|id| poison_faulty_of(memory, id));
    }
}

fn poison_faulty_of<M: Machine>(memory: &Memory<M>, id: SectionId) {
    if memory.sections.get(id).is_some_and(|section| section.faulty) {
        with_errors(memory, id.pages()).for_each(|pfn| poison_faulty(memory, pfn));
        settle_faulty(memory, id);
    }
}

/// The frames of `range`, all of it in an open section, that have an error and are still held, or were a moment ago.
pub(crate) fn with_errors<M: Machine>(memory: &Memory<M>, range: PfnRange) -> impl Iterator<Item = Pfn> + '_ {
    range.iter().filter(|pfn| memory.machine.page(*pfn).has_error())
}

/// Has a section, whose range is locked, not count as faulty any more if no frame of it is.
fn settle_faulty<M: Machine>(memory: &Memory<M>, id: SectionId) {
    let first = id.pages().start();
    let Some(section) = memory.sections.open(first).filter(|section| section.faulty) else { return };
    let Some(kind) = section.state.zone_of(first) else { return };
    if with_errors(memory, id.pages()).next().is_none() {
        memory.with_zone(section.node, kind, |_| section_change::set_faulty(memory, id, section, false));
    }
}

fn poison_faulty<M: Machine>(memory: &Memory<M>, pfn: Pfn) {
    let Some(section) = memory.sections.open(pfn) else { return };
    let Some(kind) = section.state.zone_of(pfn) else { return };
    let is_held_as_before = matches!(content_at(memory, pfn), Content::Fixed(_));
    if !is_held_as_before {
        // Otherwise it goes on being faulty.
        let _ = poison_once(memory, kind, pfn, section.node);
    }
}

/// What lies at an allocated frame.
fn content_at<M: Machine>(memory: &Memory<M>, pfn: Pfn) -> Content {
    let (head, found) = lookup::containing_block(memory, pfn);
    content::content_of_any(memory, head, memory.machine.page(head), found)
}

fn check_poison<M: Machine>(memory: &Memory<M>, id: SectionId, section: Section, pfn: Pfn) -> Result<(), PoisonError> {
    if is_poisoned(memory, section, pfn) {
        return Err(PoisonError::Already(pfn));
    }
    if section.state == BlockState::Device {
        return Err(PoisonError::Held { pfn, owner: Owner::Device });
    }
    if section.is_withheld() || memory.sections.withheld(id).contains(Pageblock::of(pfn).index()) {
        return Err(PoisonError::Withheld(pfn));
    }
    if head_range(id, section).contains(pfn) {
        let is_table = table_range(id, section).contains(pfn);
        return Err(PoisonError::Held { pfn, owner: if is_table { Owner::PageTable } else { Owner::Memmap } });
    }
    Ok(())
}

/// Poisons a frame of a block that is in a zone; whether it did, or it is to be tried again.
fn poison_once<M: Machine>(memory: &Memory<M>, kind: ZoneKind, pfn: Pfn, node: NodeId) -> Result<bool, PoisonError> {
    Ok(poison_free(memory, kind, pfn, node, None) || poison_used(memory, kind, pfn, node)?)
}

/// Poisons a frame of an offline block.
fn poison_offline<M: Machine>(
    memory: &Memory<M>,
    id: SectionId,
    section: Section,
    pfn: Pfn,
) -> Result<(), PoisonError> {
    if section.has_struct_pages() {
        check_head(pfn, memory.machine.page(pfn).head())?;
    } else if let Err(why) = open::make_struct_pages(memory, id, section) {
        section_change::withhold_offline(memory, id, section);
        memory.machine.note_withheld(id, why);
        return Err(PoisonError::Withheld(pfn));
    }
    mark_poisoned(memory, pfn);
    section_change::lose_frame(memory, None, id, section);
    Ok(())
}

/// Poisons a frame of an open section that is free; whether it did. If there is something to be given `back` that
/// it lies in, nobody takes it in between, or what else of that is faulty.
fn poison_free<M: Machine>(memory: &Memory<M>, kind: ZoneKind, pfn: Pfn, node: NodeId, back: Option<Block>) -> bool {
    memory.with_zone(node, kind, |zone| {
        let Some(section) = memory.sections.open(pfn) else { return false };
        if let Some(block) = back {
            let (head, order) = cut_down(memory, zone.area_mut(section.origin), block, pfn);
            give_back(memory, zone.area_mut(section.origin), head, order);
            let others = with_errors(memory, PfnRange::new(head, order.pages())).filter(|other| *other != pfn);
            others.for_each(|other| lose(memory, zone, kind, other));
        }
        let is_free = Pageblock::of(pfn).is_free(&memory.machine, pfn);
        if is_free {
            lose(memory, zone, kind, pfn);
        }
        is_free
    })
}

/// Halves a block that nobody holds until what is left around `pfn` can be looked after under one hold of the lock. Halves with
/// errors are abandoned, the others given back.
fn cut_down<M: Machine>(memory: &Memory<M>, area: &mut FreeArea, block: Block, pfn: Pfn) -> (Pfn, Order) {
    let Block { mut head, mut order, .. } = block;
    while let Some(half) = order.smaller().filter(|half| *half >= AT_ONCE) {
        if order == Order::PAGEBLOCK {
            Pageblock::of(head).mark_all_used(&memory.machine);
        }
        let (low, high) = (head, head.add(half.pages()));
        let (kept, other) = if pfn < high { (low, high) } else { (high, low) };
        if with_errors(memory, PfnRange::new(other, half.pages())).next().is_some() {
            memory.machine.page(other).abandon(half);
        } else {
            give_back(memory, area, other, half);
        }
        (head, order) = (kept, half);
    }
    (head, order)
}

fn give_back<M: Machine>(memory: &Memory<M>, area: &mut FreeArea, head: Pfn, order: Order) {
    memory.machine.page(head).disband();
    area.put(&memory.machine, head, order);
}

/// Takes a free frame of an open section from its zone.
fn lose<M: Machine>(memory: &Memory<M>, zone: &mut Zone, kind: ZoneKind, pfn: Pfn) {
    let section = memory.sections.get(pfn.section()).expect("a block that is locked stays");
    let origin = section.origin;
    zone.area_mut(origin).lose_frame(&memory.machine, Pageblock::of(pfn));
    memory.faulty_count.fetch_sub(u64::from(memory.machine.page(pfn).has_error()), Ordering::Relaxed);
    mark_poisoned(memory, pfn);
    section_change::lose_frame(memory, Some((zone, kind)), pfn.section(), section);
}

/// Poisons a frame of an open section that is not free; whether it did, or it is to be tried again.
fn poison_used<M: Machine>(memory: &Memory<M>, kind: ZoneKind, pfn: Pfn, node: NodeId) -> Result<bool, PoisonError> {
    // Whoever closed it would have locked its range, so its struct pages stay.
    if memory.sections.open(pfn).is_none() {
        return Ok(false);
    }
    let (head, found) = lookup::containing_block(memory, pfn);
    check_head(pfn, found)?;
    if found.state != PageState::Allocated {
        caches::drain_zone(memory, zone_number(node, kind));
        return Ok(poison_free(memory, kind, pfn, node, None));
    }
    if memory.machine.page(head).is_abandoned() {
        let block = Block { head, order: found.order, owner: found.owner, mobility: Mobility::Unmovable };
        return Ok(poison_free(memory, kind, pfn, node, Some(block)));
    }
    let block = match content::content_of_any(memory, head, memory.machine.page(head), found) {
        Content::Movable(block) => block,
        Content::InFlight(_) => return Ok(false),
        Content::Fixed(Blocker { hold, owner, .. }) => {
            let held = if hold == Hold::Pinned { PoisonError::Pinned(pfn) } else { PoisonError::Used { pfn, owner } };
            let is_held =
                become_faulty(memory, kind, pfn, node) && matches!(content_at(memory, pfn), Content::Fixed(_));
            return if is_held { Err(held) } else { Ok(false) };
        }
    };
    // Of a large page only one frame has to go, if it can be split.
    if block.order == Order::PAGEBLOCK && memory.machine.split(head).is_ok() {
        return poison_used(memory, kind, pfn, node);
    }
    // It is one, and nobody's choice.
    let request = Request { urgency: Urgency::Ordinary, ..moving::destination_request(memory, block, node) };
    match moving::move_away(memory, head, &request) {
        Ok(_) => Ok(poison_free(memory, kind, pfn, node, Some(block))),
        // Then that is found the next time.
        Err(MoveError::Stay(Stay::InFlight | Stay::Pinned)) => Ok(false),
        Err(MoveError::Stay(Stay::Injected(injected))) => Err(PoisonError::Injected(injected)),
        Err(MoveError::Stay(Stay::NoTable)) => Err(PoisonError::NoDestination(pfn, AllocError::OutOfMemory)),
        Err(MoveError::NoDestination(error)) => Err(PoisonError::NoDestination(pfn, error)),
    }
}

/// Sees to it that a frame of an allocated block goes out of use when that is given back; not if it just was.
fn become_faulty<M: Machine>(memory: &Memory<M>, kind: ZoneKind, pfn: Pfn, node: NodeId) -> bool {
    let page = memory.machine.page(pfn);
    if !page.has_error() {
        let is_marked = memory.with_zone(node, kind, |_| mark_faulty(memory, pfn));
        if !is_marked {
            return false;
        }
        // Whoever was giving it back meanwhile, and has not seen the mark, has put it into his cache by now.
        caches::drain_zone(memory, zone_number(node, kind));
    }
    // Whoever splits the block holds this lock, too.
    let is_faulty = memory.with_zone(node, kind, |_| {
        let is_faulty = memory.machine.page(lookup::containing_block(memory, pfn).0).is_faulty();
        if !is_faulty {
            page.forget_error();
            memory.faulty_count.fetch_sub(1, Ordering::Relaxed);
        }
        is_faulty
    });
    if !is_faulty {
        settle_faulty(memory, pfn.section());
    }
    is_faulty
}

/// Marks a frame of an allocated block, the block and its section, under the lock of the zone; whether there is such a block.
fn mark_faulty<M: Machine>(memory: &Memory<M>, pfn: Pfn) -> bool {
    let (head, found) = lookup::containing_block(memory, pfn);
    if found.state != PageState::Allocated {
        return false;
    }
    let id = pfn.section();
    let section = memory.sections.get(id).expect("a block that is locked stays");
    memory.faulty_count.fetch_add(1, Ordering::Relaxed);
    section_change::set_faulty(memory, id, section, true);
    memory.machine.page(pfn).set_error();
    memory.machine.page(head).mark_faulty(found.order);
    true
}

/// Has the struct page of a poisoned frame say so, and the bits of its pageblock.
fn mark_poisoned<M: Machine>(memory: &Memory<M>, pfn: Pfn) {
    memory.machine.page(pfn).set_head(Head::single(PageState::Poisoned, Owner::None));
    Pageblock::of(pfn).reserve(&memory.machine, PfnRange::new(pfn, 1));
}

/// Whether what a struct page says of a frame leaves a way to poison it.
fn check_head(pfn: Pfn, head: Head) -> Result<(), PoisonError> {
    match head.state {
        PageState::Absent => Err(PoisonError::Absent(pfn)),
        PageState::Memmap | PageState::Reserved => Err(PoisonError::Held { pfn, owner: head.owner }),
        PageState::Tail | PageState::Cached | PageState::Allocated | PageState::Poisoned => Ok(()),
    }
}
