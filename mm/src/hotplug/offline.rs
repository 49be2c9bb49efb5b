//! Offline: the reverse of online. What is in use must first go elsewhere; where it cannot, everything stays as it was.

use super::listeners::Asked;
use super::{Undo, hull, is_sorted};
use crate::addr::{Pfn, SectionId, SectionRange};
use crate::errno::Errno;
use crate::evacuate::{Blocker, first_blocker};
use crate::inject::{Injected, Point};
use crate::journal::{Op, Stopwatch};
use crate::machine::{Machine, Pace, Stop};
use crate::memory::{Memory, zone_number};
use crate::notifier::{Direction, Veto};
use crate::page::Owner;
use crate::section::{BlockState, Openness, Section};
use crate::zone::Origin;

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
        stopwatch.lap("begin");

        let isolated = Undo::new(|| {
            for id in ranges.iter().flat_map(|range| range.iter()) {
                self.unisolate(id);
            }
        });
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

    /// Puts what is free in the blocks out of reach, and what will be freed in them too.
    fn isolate(&self, range: SectionRange, pace: &mut dyn Pace) -> Result<(), OfflineError> {
        for id in range.iter() {
            pace.pause().map_err(OfflineError::Stopped)?;
            while !self.isolate_one(id)? {
                pace.pause().map_err(OfflineError::Stopped)?;
            }
        }
        // From here on nothing new of these blocks gets into a cache; what is there is a free frame out of sight.
        let mut drained = None;
        for (_, section) in self.sections.iter_range(range).filter(|(_, section)| section.is_open()) {
            let zone = section.state.zone().map(|kind| zone_number(section.node, kind));
            if let Some(number) = zone.filter(|_| zone != drained) {
                self.drain_zone(number);
                drained = zone;
            }
        }
        Ok(())
    }

    /// Isolates a block, unless somebody is just opening or closing it; says whether it did.
    fn isolate_one(&self, id: SectionId) -> Result<bool, OfflineError> {
        let section = self.sections.get(id).ok_or(OfflineError::Absent(id))?;
        let kind = section.state.zone().ok_or(OfflineError::Absent(id))?;
        Ok(self.with_zone(section.node, kind, |zone| {
            let section = self.sections.get(id).expect("the block stays while the hotplug lock is held");
            match section.openness {
                Openness::Changing => return false,
                Openness::Untouched => zone.claim_untouched(section),
                Openness::Open => zone.area_mut(Origin::of(section)).isolate(&self.machine, id),
            }
            self.sections.set(id, Section { state: BlockState::GoingOffline(kind), ..section });
            true
        }))
    }

    /// Undoes [`isolate_one`](Self::isolate_one) where it was done.
    fn unisolate(&self, id: SectionId) {
        let Some(section) = self.sections.get(id) else { return };
        let BlockState::GoingOffline(kind) = section.state else { return };
        self.with_zone(section.node, kind, |zone| {
            self.sections.set(id, Section { state: BlockState::Online(kind), ..section });
            if section.is_open() {
                zone.area_mut(Origin::of(section)).admit(&self.machine, id);
            } else {
                zone.release_claim(section);
                zone.put_untouched(id, section);
            }
        });
    }

    /// Empties the blocks, or says what is in the way. Moving pages elsewhere will happen here.
    fn evacuate(&self, ranges: &[SectionRange], pace: &mut dyn Pace) -> Result<(), OfflineError> {
        self.pass(Point::OfflineEvacuate).map_err(OfflineError::Injected)?;
        for (id, section) in ranges.iter().flat_map(|range| self.sections.iter_range(*range)) {
            pace.pause().map_err(OfflineError::Stopped)?;
            if !section.is_open() {
                continue;
            }
            let kind = section.state.zone().ok_or(OfflineError::Absent(id))?;
            let found = self.with_zone(section.node, kind, |_| first_blocker(&self.machine, id, section.is_boot()));
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
        self.with_zone(section.node, kind, |zone| {
            if section.is_open() {
                zone.area_mut(Origin::of(section)).retire(&self.machine, id);
            } else {
                zone.release_claim(section);
            }
            let (first, last) = zone.span().expect("a zone with a section has a span");
            let count = u64::from(last.number() - first.number()) + 1;
            let span = SectionRange::new(u64::from(first.number()), count).expect("its sections exist");
            let remaining = self.sections_of(section.node, kind, span).filter(|other| *other != id);
            zone.shrink(id, section, remaining);
            self.sections.set(id, Section { state: BlockState::Offline, openness: Openness::Untouched, ..section });
        });
        // The struct pages of a boot block stay, and tell which of its frames are to come back.
        if section.is_open() {
            self.unmap_own_memmap(id, section);
        }
    }
}
