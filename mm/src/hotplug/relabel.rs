//! Relabel: blocks that are online go to the other zone of their node, with what they hold.
//!
//! The blocks are isolated in the old zone as if they were to go offline, so that nothing new comes into them, and all that is
//! free in them is seen. Then each goes over under the locks of both zones. What is allocated stays where it is; a free
//! looks up the zone anew. Everything may be in Normal. In Movable nothing may be that cannot move, and what is pinned
//! when the blocks are looked at; a pin taken later is like one taken in Movable.
//!
//! Listeners are not asked: no memory comes or goes.

use super::batch::in_batches;
use super::undo::Undo;
use crate::addr::{Pfn, SectionId, SectionRange};
use crate::alloc::{ahead, caches};
use crate::errno::Errno;
use crate::evacuate::content::{Blocker, Content, Hold};
use crate::evacuate::{budget, content};
use crate::frame::mobility::Mobility;
use crate::frame::page::Owner;
use crate::frame::pageblock::{FRAMES, Pageblock};
use crate::hotplug::{batch, offline};
use crate::inject::{Injected, Point};
use crate::limits::PATIENCE;
use crate::machine::Machine;
use crate::machine::tasks::{Pace, Stop};
use crate::memory::Memory;
use crate::plural::Plural;
use crate::record::journal::Stopwatch;
use crate::section::kind::ZoneKind;
use crate::section::state::BlockState;
use crate::section::word::Section;
use crate::zone::Zone;
use crate::{poison, section_change};

/// Why blocks stay in their zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RelabelError {
    /// There is no such block.
    #[error("there is no block {0}")]
    Absent(SectionId),
    /// The block is not online in the other zone, as those before it are.
    #[error("block {block} is {state}, and not in zone {zone} as the first one")]
    NotThere {
        /// The block.
        block: SectionId,
        /// What it is.
        state: &'static str,
        /// Where it would have to be.
        zone: ZoneKind,
    },
    /// It holds memory that cannot be in Movable.
    #[error("{pfn} in block {} is held by {owner}", pfn.section())]
    Unmovable {
        /// The first such frame.
        pfn: Pfn,
        /// Whose it is.
        owner: Owner,
    },
    /// There is memory in it that is pinned, and could be in Movable otherwise.
    #[error("{pfn} of {owner} in block {} is pinned", pfn.section())]
    Pinned {
        /// The first such frame.
        pfn: Pfn,
        /// Whose it is.
        owner: Owner,
    },
    /// Something in it went on being taken, given back or moved by others.
    #[error("{pfn} in block {} is being taken or given back all the time", pfn.section())]
    InFlight {
        /// The first frame of its pageblock, or the frame itself.
        pfn: Pfn,
    },
    /// Hotplug would not have enough left to go on.
    #[error("hotplug itself would have {} too few", Plural(*short_by, "page"))]
    ReserveShort {
        /// So many frames are missing.
        short_by: u64,
    },
    /// A failure was injected.
    #[error("{0}")]
    Injected(Injected),
    /// It was told to stop.
    #[error("{0}")]
    Stopped(Stop),
}

impl RelabelError {
    /// The errno name.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::Absent(_) => Errno::NoEntry,
            Self::NotThere { .. } => Errno::Invalid,
            Self::Unmovable { .. } | Self::Pinned { .. } | Self::InFlight { .. } => Errno::Busy,
            Self::ReserveShort { .. } => Errno::NoMemory,
            Self::Injected(injected) => injected.errno,
            Self::Stopped(stop) => stop.errno(),
        }
    }
}

/// Takes blocks, the first of which is online in the other zone, to `zone`: all or none.
pub(super) fn relabel<M: Machine>(
    memory: &Memory<M>,
    ranges: &[SectionRange],
    zone: ZoneKind,
    pace: &mut dyn Pace,
    stopwatch: &Stopwatch<'_, M>,
) -> Result<(), RelabelError> {
    check_zone(memory, ranges, zone.other())?;
    stopwatch.enter("isolate");
    let isolated = Undo::new(stopwatch, || {
        for (run, section) in memory.sections.present_runs(ranges) {
            offline::unisolate(memory, run, section);
        }
    });
    for range in ranges {
        offline::isolate(memory, *range, pace).map_err(RelabelError::Stopped)?;
    }
    caches::drain_zones_of(memory, ranges);
    stopwatch.enter("check");

    memory.check_injected(Point::OnlineRelabel).map_err(RelabelError::Injected)?;
    if zone == ZoneKind::Movable {
        check_reserve(memory, ranges)?;
        check_movable(memory, ranges, pace)?;
    }
    stopwatch.enter("relabel");

    // Nothing below can fail.
    isolated.disarm();
    in_batches(ranges, pace, |range| cross(memory, range, zone));
    Ok(())
}

fn check_zone<M: Machine>(memory: &Memory<M>, ranges: &[SectionRange], zone: ZoneKind) -> Result<(), RelabelError> {
    for (run, section) in ranges.iter().flat_map(|range| memory.sections.runs(*range)) {
        let block = run.first();
        let section = section.ok_or(RelabelError::Absent(block))?;
        if section.state != BlockState::Online(zone) {
            return Err(RelabelError::NotThere { block, state: section.state.name(), zone });
        }
    }
    Ok(())
}

/// What is isolated is not the kernel's any more: the reserve must be whole without it.
fn check_reserve<M: Machine>(memory: &Memory<M>, ranges: &[SectionRange]) -> Result<(), RelabelError> {
    ahead::open_reserve(memory);
    match budget::room(memory).reserve_shortfall(budget::boot_room_in(memory, ranges)) {
        0 => Ok(()),
        short_by => Err(RelabelError::ReserveShort { short_by }),
    }
}

/// Whether nothing lies in the blocks that cannot be in Movable.
fn check_movable<M: Machine>(
    memory: &Memory<M>,
    ranges: &[SectionRange],
    pace: &mut dyn Pace,
) -> Result<(), RelabelError> {
    for (id, section) in ranges.iter().flat_map(|range| memory.sections.iter_range(*range)) {
        if !section.is_open() {
            continue;
        }
        let mut rounds = 0;
        while let Some(pfn) = check_section_movable(memory, id, section)? {
            if rounds == PATIENCE {
                return Err(RelabelError::InFlight { pfn });
            }
            rounds += 1;
            // What was given back meanwhile.
            ranges.iter().for_each(|range| poison::poison_faulty_in(memory, *range));
            caches::drain_zones_of(memory, ranges);
            memory.machine.rest();
            pace.pause().map_err(RelabelError::Stopped)?;
        }
        pace.pause().map_err(RelabelError::Stopped)?;
    }
    Ok(())
}

/// The first frame of a section that is in flight, if there is one.
fn check_section_movable<M: Machine>(
    memory: &Memory<M>,
    id: SectionId,
    section: Section,
) -> Result<Option<Pfn>, RelabelError> {
    let (mut result, mut in_flight) = (Ok(()), None);
    for block in Pageblock::of_section(id) {
        content::look_into(memory, block, section, |content| match content {
            Content::Movable(block) if block.mobility == Mobility::Movable => {}
            Content::Movable(block) => {
                result = result.and(Err(RelabelError::Unmovable { pfn: block.head, owner: block.owner }));
            }
            Content::Fixed(Blocker { pfn, owner, hold: Hold::Pinned, .. }) => {
                result = result.and(Err(RelabelError::Pinned { pfn, owner }));
            }
            Content::Fixed(Blocker { pfn, owner, .. }) => {
                result = result.and(Err(RelabelError::Unmovable { pfn, owner }));
            }
            Content::InFlight(pfn) => in_flight = in_flight.or(Some(pfn)),
        });
        result?;
    }
    Ok(in_flight)
}

/// Takes the first blocks of `range`, which are isolated in the other zone, to zone `to`; the blocks behind those. Cannot
/// fail.
fn cross<M: Machine>(memory: &Memory<M>, range: SectionRange, to: ZoneKind) -> Option<SectionRange> {
    let (run, section) = batch::first_batch(memory, range, Section::is_open);
    section_change::tally(memory, run, section, Some(to));
    while !cross_at_once(memory, run, section, to) {}
    range.behind(run)
}

/// The same for blocks with equal words, unless others come to the old zone or leave it meanwhile.
fn cross_at_once<M: Machine>(memory: &Memory<M>, run: SectionRange, section: Section, to: ZoneKind) -> bool {
    let (span, changes) = batch::span_without(memory, section.node, to.other(), run);
    with_both_zones(memory, section, |[normal, movable]| {
        let (old, new) = if to == ZoneKind::Movable { (normal, movable) } else { (movable, normal) };
        if old.changes() != changes {
            return false;
        }
        let origin = section.origin;
        let relabelled = section_change::cross(memory, [&mut *old, &mut *new], run, section, to, span);
        if section.is_open() {
            let id = run.first();
            old.area_mut(origin).retire(&memory.machine, id);
            Pageblock::of_section(id).for_each(|block| rededicate(memory, block, to));
            new.area_mut(origin).admit(&memory.machine, id);
        } else if section.is_untouched() {
            old.release_claim(run, section);
            new.put_untouched(run, relabelled);
        }
        true
    })
}

/// Works on both zones of a node, under their locks in the order of the zones.
fn with_both_zones<M: Machine, R>(memory: &Memory<M>, section: Section, work: impl FnOnce([&mut Zone; 2]) -> R) -> R {
    memory.with_zone(section.node, ZoneKind::Normal, |normal| {
        memory.with_zone(section.node, ZoneKind::Movable, |movable| work([normal, movable]))
    })
}

/// What a pageblock serves from now on, as if its section had been opened in this zone.
fn rededicate<M: Machine>(memory: &Memory<M>, block: Pageblock, zone: ZoneKind) {
    let descriptor = block.descriptor(&memory.machine);
    let mobility = match zone {
        ZoneKind::Normal if descriptor.managed() < FRAMES && descriptor.is_empty() => Mobility::Unmovable,
        _ => Mobility::Movable,
    };
    block.set(&memory.machine, descriptor.with_mobility(mobility));
}
