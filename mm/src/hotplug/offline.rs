//! Offline: the reverse of online. What is in use must first go elsewhere; where it cannot, everything stays as it was.

use super::listeners::Asked;
use super::{Undo, change_states, hull, is_sorted};
use crate::addr::{Pfn, PfnRange, SectionId, SectionRange};
use crate::errno::Errno;
use crate::evacuate::{Blocker, first_blocker};
use crate::inject::{Injected, Point};
use crate::journal::{Op, Stopwatch};
use crate::machine::{Machine, Pace, Stop};
use crate::memory::Memory;
use crate::notifier::{Direction, Veto};
use crate::page::{Head, Owner, PageState};
use crate::section::{BlockState, Section};
use crate::zone::{Origin, Zone, for_each_head};

/// Why blocks could not be taken offline.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OfflineError {
    /// No block was named, or not in order.
    #[error("no blocks, or not in order")]
    BadList,
    /// There is no such block.
    #[error("there is no block {0}")]
    Absent(SectionId),
    /// The block is not online.
    #[error("block {block} is {state} already")]
    NotOnline {
        /// The block.
        block: SectionId,
        /// What it is.
        state: &'static str,
    },
    /// Somebody holds memory in it that cannot go elsewhere.
    #[error("{pfn} in block {} is held by {owner}", pfn.section())]
    Unmovable {
        /// The first such frame.
        pfn: Pfn,
        /// Whose it is.
        owner: Owner,
    },
    /// A listener refused.
    #[error("{0}")]
    Vetoed(Veto),
    /// Somebody asked for this failure.
    #[error("{0}")]
    Injected(Injected),
    /// It was told to stop.
    #[error("{0}")]
    Stopped(Stop),
}

impl OfflineError {
    /// The errno name.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::BadList | Self::NotOnline { .. } => Errno::Invalid,
            Self::Absent(_) => Errno::NoEntry,
            Self::Unmovable { .. } | Self::Vetoed(_) => Errno::Busy,
            Self::Injected(injected) => injected.errno,
            Self::Stopped(stop) => stop.errno(),
        }
    }
}

/// Frames that are taken off the lists, put back or looked at under one hold of the zone's lock: a block of the largest
/// order, so that none is cut.
const BATCH: u64 = crate::addr::Order::MAX.pages();

impl<M: Machine> Memory<M> {
    /// Takes all blocks of `ranges`, lowest first and without overlap, offline, or none.
    ///
    /// # Errors
    /// See [`OfflineError`]; nothing has changed then.
    pub fn offline(&self, ranges: &[SectionRange], pace: &mut dyn Pace) -> Result<(), OfflineError> {
        let _order = self.order(pace).map_err(OfflineError::Stopped)?;
        self.offline_locked(ranges, pace)
    }

    /// The same, for a caller that holds the hotplug lock.
    pub(super) fn offline_locked(&self, ranges: &[SectionRange], pace: &mut dyn Pace) -> Result<(), OfflineError> {
        let hull = hull(ranges).filter(|_| is_sorted(ranges)).ok_or(OfflineError::BadList)?;
        let mut stopwatch = Stopwatch::start(&self.machine);
        let result = self.offline_steps(ranges, pace, &mut stopwatch);
        self.record_ranges(&stopwatch, Op::Offline, ranges, hull, result.map_err(OfflineError::errno));
        result
    }

    fn offline_steps(
        &self,
        ranges: &[SectionRange],
        pace: &mut dyn Pace,
        stopwatch: &mut Stopwatch<'_, M>,
    ) -> Result<(), OfflineError> {
        self.check_online(ranges)?;
        self.pass(Point::OfflineBegin).map_err(OfflineError::Injected)?;
        let isolated = Undo::new(|| {
            for range in ranges {
                self.unisolate(*range);
            }
        });
        for range in ranges {
            change_states(self, *range, |state| match state {
                BlockState::Online(zone) => BlockState::GoingOffline(zone),
                other => other,
            });
        }
        stopwatch.lap("begin");

        self.pass(Point::OfflineIsolate).map_err(OfflineError::Injected)?;
        for range in ranges {
            self.isolate(*range, pace)?;
        }
        stopwatch.lap("isolate");

        self.pass(Point::OfflinePrepare).map_err(OfflineError::Injected)?;
        if let Err((veto, asked)) = self.prepare_all(ranges, Direction::Offline) {
            drop(isolated);
            self.cancelled_all(ranges, Direction::Offline, asked);
            return Err(OfflineError::Vetoed(veto));
        }
        stopwatch.lap("prepare");

        if let Err(error) = self.evacuate(ranges, pace) {
            // The memory is available again before anybody hears that the change is off, as Linux documents.
            drop(isolated);
            self.cancelled_all(ranges, Direction::Offline, Asked::Everybody);
            return Err(error);
        }
        stopwatch.lap("evacuate");

        // Nothing below can fail.
        isolated.keep();
        for id in ranges.iter().flat_map(|range| range.iter()) {
            self.withdraw(id);
            // There is no way back any more, so a wish to stop comes too late.
            let _ = pace.pause();
        }
        stopwatch.lap("withdraw");
        self.committed_all(ranges, Direction::Offline);
        stopwatch.lap("committed");
        Ok(())
    }

    fn check_online(&self, ranges: &[SectionRange]) -> Result<(), OfflineError> {
        for id in ranges.iter().flat_map(|range| range.iter()) {
            let section = self.sections.get(id).ok_or(OfflineError::Absent(id))?;
            if !matches!(section.state, BlockState::Online(_)) {
                return Err(OfflineError::NotOnline { block: id, state: section.state.name() });
            }
        }
        Ok(())
    }

    fn isolate(&self, range: SectionRange, pace: &mut dyn Pace) -> Result<(), OfflineError> {
        for (id, section) in self.sections.iter_range(range) {
            pace.pause().map_err(OfflineError::Stopped)?;
            self.in_batches(id, section, |zone, origin, batch| zone.isolate(&self.machine, origin, batch));
        }
        Ok(())
    }

    fn unisolate(&self, range: SectionRange) {
        for (id, section) in self.sections.iter_range(range) {
            // First the state, so that what is freed from now on goes to the lists and merges.
            if let BlockState::GoingOffline(kind) = section.state {
                self.with_zone(section.node, kind, |_| self.sections.set_state(id, BlockState::Online(kind)));
            }
            self.in_batches(id, section, |zone, origin, batch| zone.unisolate(&self.machine, origin, batch));
        }
    }

    fn in_batches(&self, id: SectionId, section: Section, mut work: impl FnMut(&mut Zone, Origin, PfnRange)) {
        let kind = section.state.zone().expect("a populated section has a zone");
        for index in 0..id.pages().len() / BATCH {
            let batch = PfnRange::new(id.pages().start().add(index * BATCH), BATCH);
            self.with_zone(section.node, kind, |zone| work(zone, Origin::of(section), batch));
        }
    }

    /// Empties the blocks, or says what is in the way. Moving pages elsewhere will happen here.
    fn evacuate(&self, ranges: &[SectionRange], pace: &mut dyn Pace) -> Result<(), OfflineError> {
        self.pass(Point::OfflineEvacuate).map_err(OfflineError::Injected)?;
        for id in ranges.iter().flat_map(|range| range.iter()) {
            pace.pause().map_err(OfflineError::Stopped)?;
            let section = self.sections.get(id).ok_or(OfflineError::Absent(id))?;
            let mut found = None;
            self.in_batches(id, section, |_, _, batch| found = found.or_else(|| first_blocker(&self.machine, batch)));
            if let Some(Blocker { pfn, owner }) = found {
                return Err(OfflineError::Unmovable { pfn, owner });
            }
        }
        Ok(())
    }

    /// Takes an empty, isolated block out of its zone. Cannot fail.
    fn withdraw(&self, id: SectionId) {
        let section = self.sections.get(id).expect("a block that goes offline is present");
        let kind = section.state.zone().expect("a block that goes offline has a zone");
        self.in_batches(id, section, |zone, _, batch| zone.retire(&self.machine, batch));
        if section.is_boot() {
            self.mark_offline(id);
        }
        let mut zone = self.zone(section.node, kind);
        let (first, last) = zone.span().expect("a zone with a section has a span");
        let count = u64::from(last.number() - first.number()) + 1;
        let span = SectionRange::new(u64::from(first.number()), count).expect("its sections exist");
        let remaining = self.sections_of(section.node, kind, span).filter(|other| *other != id);
        zone.shrink(id, section, remaining);
        drop(zone);
        self.sections.set_state(id, BlockState::Offline);
        self.unmap_own_memmap(id, section);
    }

    /// The struct pages of a boot block stay, and remember which frames are to come back.
    fn mark_offline(&self, id: SectionId) {
        for_each_head(&self.machine, id.pages(), |head, found| {
            if found.state == PageState::Isolated {
                for pfn in PfnRange::new(head, found.order.pages()).iter().rev() {
                    self.machine.page(pfn).set_head(Head::single(PageState::Offline, Owner::None));
                }
            }
        });
    }
}
