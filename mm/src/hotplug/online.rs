//! Online: blocks enter a zone (step 4) and their frames reach the allocator (6).
//!
//! Struct pages are initialised (5) when the frames are needed: an added block comes online untouched.

use super::batch::{hull, in_batches, is_sorted};
use super::relabel::RelabelError;
use super::steps::{self, Points, ReadyError};
use super::undo::Undo;
use crate::addr::{SectionId, SectionRange};
use crate::errno::Errno;
use crate::hotplug::zone_choice::{Remark, ZoneChooser};
use crate::hotplug::{batch, listeners, relabel, zone_choice};
use crate::inject::{Injected, Point};
use crate::machine::Machine;
use crate::machine::backing::BackingError;
use crate::machine::tasks::{Pace, Stop};
use crate::machine::trial::BadMemory;
use crate::memory::Memory;
use crate::record::journal::{Op, Stopwatch};
use crate::record::notifier::{Direction, Veto};
use crate::record::policy::OnlineAs;
use crate::section::kind::ZoneKind;
use crate::section::state::BlockState;
use crate::section::word::Section;
use crate::{range_guard, section_change};

/// Why blocks could not be brought online.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OnlineError {
    /// No block was named, or not in order.
    #[error("no blocks, or not in order")]
    BadList,
    /// There is no such block.
    #[error("there is no block {0}")]
    Absent(SectionId),
    /// The block is not offline.
    #[error("block {block} is {state} already")]
    NotOffline {
        /// The block.
        block: SectionId,
        /// What it is.
        state: &'static str,
    },
    /// It is memory of a device.
    #[error("block {0} is device memory, which never goes online")]
    Device(SectionId),
    /// It is online in the other zone, and stays there.
    #[error(transparent)]
    Relabel(RelabelError),
    /// The host does not make it accessible.
    #[error("{0}")]
    Backing(BackingError),
    /// Page tables or struct pages of standby memory found no room.
    #[error("no memory for the struct pages and page tables of the blocks")]
    NoMemory,
    /// Standby memory cannot be trusted with anything.
    #[error("{0}")]
    BadMemory(BadMemory),
    /// A listener refused.
    #[error("{0}")]
    Vetoed(Veto),
    /// A failure was injected.
    #[error("{0}")]
    Injected(Injected),
    /// It was told to stop.
    #[error("{0}")]
    Stopped(Stop),
}

impl OnlineError {
    /// The errno name.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::BadList | Self::NotOffline { .. } | Self::Device(_) => Errno::Invalid,
            Self::Absent(_) => Errno::NoEntry,
            Self::Relabel(error) => error.errno(),
            Self::Backing(error) => error.errno(),
            Self::NoMemory => Errno::NoMemory,
            Self::BadMemory(_) => Errno::Io,
            Self::Vetoed(_) => Errno::Busy,
            Self::Injected(injected) => injected.errno,
            Self::Stopped(stop) => stop.errno(),
        }
    }
}

impl From<ReadyError> for OnlineError {
    fn from(error: ReadyError) -> Self {
        match error {
            ReadyError::NoMemory => Self::NoMemory,
            ReadyError::BadMemory(bad) => Self::BadMemory(bad),
            ReadyError::Backing(why) => Self::Backing(why),
            ReadyError::Injected(injected) => Self::Injected(injected),
            ReadyError::Stopped(stop) => Self::Stopped(stop),
        }
    }
}

const POINTS: Points =
    Points { map: Point::StandbyMap, trial: Some(Point::StandbyTrial), memmap: Point::StandbyMemmap };

impl From<Veto> for OnlineError {
    fn from(veto: Veto) -> Self {
        Self::Vetoed(veto)
    }
}

impl<M: Machine> Memory<M> {
    /// Brings all blocks of `ranges`, lowest first and without overlap, online, or none; returns what an administrator should know of
    /// the zones that they are in now. Blocks that are online go from the other zone to the one that is named.
    ///
    /// # Errors
    /// See [`OnlineError`]; nothing has changed then.
    pub fn online(
        &self,
        ranges: &[SectionRange],
        how: OnlineAs,
        pace: &mut dyn Pace,
    ) -> Result<Option<Remark>, OnlineError> {
        let hull = hull(ranges).filter(|_| is_sorted(ranges)).ok_or(OnlineError::BadList)?;
        let alone = range_guard::lock_units(self, hull, pace).map_err(OnlineError::Stopped)?;
        let stopwatch = Stopwatch::start(&self.machine, "begin");
        let result = match relabel_to(self, ranges, how) {
            Some(zone) => {
                relabel::relabel(self, ranges, zone, pace, &stopwatch).map(|()| None).map_err(OnlineError::Relabel)
            }
            None => online_steps(self, ranges, how, pace, &stopwatch),
        };
        batch::record_ranges(self, &stopwatch, Op::Online, ranges, hull, result.map(drop).map_err(OnlineError::errno));
        drop(alone);
        let remark = result?;
        // A warning holds nobody up: the blocks are in use by now, and others may have them.
        let is_wish = how == OnlineAs::Zone(ZoneKind::Movable);
        Ok(if is_wish {
            self.section(hull.first()).and_then(|section| zone_choice::excess(self, section))
        } else {
            remark
        })
    }
}

/// The zone that blocks are to go to which are online in the other, by the first of them.
fn relabel_to<M: Machine>(memory: &Memory<M>, ranges: &[SectionRange], how: OnlineAs) -> Option<ZoneKind> {
    let OnlineAs::Zone(zone) = how else { return None };
    let first = memory.section(ranges.first()?.first())?;
    (first.state == BlockState::Online(zone.other())).then_some(zone)
}

fn online_steps<M: Machine>(
    memory: &Memory<M>,
    ranges: &[SectionRange],
    how: OnlineAs,
    pace: &mut dyn Pace,
    stopwatch: &Stopwatch<'_, M>,
) -> Result<Option<Remark>, OnlineError> {
    let is_ready = check_offline(memory, ranges)?;
    memory.check_injected(Point::OnlineBegin).map_err(OnlineError::Injected)?;
    pace.pause().map_err(OnlineError::Stopped)?;
    let readied = match is_ready {
        true => None,
        false => Some(make_ready(memory, ranges, pace, stopwatch)?),
    };
    let going = Undo::new(stopwatch, || {
        for (run, section) in memory.sections.present_runs(ranges) {
            section_change::cancel_online(memory, run, section);
        }
    });
    let remark = choose_zones(memory, ranges, how);
    stopwatch.enter("prepare");

    memory.check_injected(Point::OnlinePrepare).map_err(OnlineError::Injected)?;
    let begun = (going, readied);
    let (going, readied) =
        listeners::with_consent(memory, ranges, Direction::Online, begun, || Ok::<_, OnlineError>(()))?;
    stopwatch.enter("populate");

    // Nothing below can fail.
    going.disarm();
    readied.into_iter().for_each(Undo::disarm);
    in_batches(ranges, pace, |range| steps::enter(memory, range));
    stopwatch.enter("committed");
    listeners::committed_all(memory, ranges, Direction::Online);
    Ok(remark)
}

/// Makes standby memory accessible and maps it, or what of it is not yet; a unit serves until the last of its blocks is offline.
fn make_ready<'a, M: Machine>(
    memory: &'a Memory<M>,
    ranges: &'a [SectionRange],
    pace: &mut dyn Pace,
    stopwatch: &'a Stopwatch<'_, M>,
) -> Result<Undo<'a, M, impl FnMut()>, OnlineError> {
    steps::make_ready(memory, || steps::unready_units(memory, ranges), POINTS, pace, stopwatch)?;
    steps::note_ready(memory, ranges);
    Ok(Undo::new(stopwatch, || steps::make_empty_units_unready(memory, ranges)))
}

/// Whether all blocks are ready to go online, which are offline.
fn check_offline<M: Machine>(memory: &Memory<M>, ranges: &[SectionRange]) -> Result<bool, OnlineError> {
    let mut is_ready = true;
    for range in ranges {
        for (run, section) in memory.sections.runs(*range) {
            let block = run.first();
            let section = section.ok_or(OnlineError::Absent(block))?;
            if section.state == BlockState::Device {
                return Err(OnlineError::Device(block));
            }
            if section.state != BlockState::Offline {
                return Err(OnlineError::NotOffline { block, state: section.state.name() });
            }
            is_ready &= section.ready;
        }
    }
    Ok(is_ready)
}

/// Every block is told where it goes before any goes, so that blocks of one command see the same world. Says why some do not
/// go where the policy would have them.
fn choose_zones<M: Machine>(memory: &Memory<M>, ranges: &[SectionRange], how: OnlineAs) -> Option<Remark> {
    match how {
        OnlineAs::Zone(zone) => {
            memory
                .sections
                .present_runs(ranges)
                .for_each(|(run, section)| section_change::begin_online(memory, run, section, zone));
            None
        }
        OnlineAs::ByPolicy => {
            // What one command takes of the ratio is nothing that another one sees to be free.
            let _alone = memory.choice.lock();
            let mut known = None;
            let mut remark = None;
            for (run, section) in memory.sections.present_runs(ranges) {
                // What follows within a device was sent by the same chooser.
                let chooser = known.take().filter(|chooser: &ZoneChooser| chooser.is_about(section));
                let mut chooser = chooser.unwrap_or_else(|| memory.zone_chooser(section));
                let refused = send_by_policy(memory, run, section, &mut chooser);
                remark = remark.or(refused);
                known = Some(chooser);
            }
            remark
        }
    }
}

/// Sends blocks with equal words where the policy says; why some do not go where it would have them.
fn send_by_policy<M: Machine>(
    memory: &Memory<M>,
    run: SectionRange,
    section: Section,
    chooser: &mut ZoneChooser,
) -> Option<Remark> {
    let mut remark = None;
    let mut rest = Some(run);
    while let Some(run) = rest {
        let choice = chooser.choose(run.first(), section);
        let is_next = |id: &SectionId| {
            let is_same = chooser.choose(*id, section) == choice;
            if is_same {
                chooser.expect(choice.zone, section);
            }
            is_same
        };
        let part = run.first_part(run.iter().take_while(is_next).count() as u64);
        section_change::begin_online(memory, part, section, choice.zone);
        remark = remark.or(choice.remark);
        rest = run.behind(part);
    }
    remark
}
