//! Online: blocks enter a zone (step 4), their struct pages are initialised (5) and their frames reach the allocator (6).

use super::{Undo, change_states, hull, is_sorted};
use crate::addr::{Pfn, PfnRange, SectionId, SectionRange};
use crate::errno::Errno;
use crate::inject::{Injected, Point};
use crate::journal::{Op, Stopwatch};
use crate::machine::{Machine, Pace, Stop};
use crate::memory::Memory;
use crate::notifier::{Direction, Veto};
use crate::page::{Head, Owner, PageState};
use crate::policy::OnlineAs;
use crate::section::{BlockState, Section, ZoneKind, head_range};
use crate::zone::Origin;

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

impl OnlineError {
    /// The errno name.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::BadList | Self::NotOffline { .. } => Errno::Invalid,
            Self::Absent(_) => Errno::NoEntry,
            Self::Vetoed(_) => Errno::Busy,
            Self::Injected(injected) => injected.errno,
            Self::Stopped(stop) => stop.errno(),
        }
    }
}

impl<M: Machine> Memory<M> {
    /// Brings all blocks of `ranges`, lowest first and without overlap, online, or none.
    ///
    /// # Errors
    /// See [`OnlineError`]; nothing has changed then.
    pub fn online(&self, ranges: &[SectionRange], how: OnlineAs, pace: &mut dyn Pace) -> Result<(), OnlineError> {
        let hull = hull(ranges).filter(|_| is_sorted(ranges)).ok_or(OnlineError::BadList)?;
        let _order = self.order(pace).map_err(OnlineError::Stopped)?;
        let mut stopwatch = Stopwatch::start(&self.machine);
        let result = self.online_steps(ranges, how, pace, &mut stopwatch);
        self.record_ranges(&stopwatch, Op::Online, ranges, hull, result.map_err(OnlineError::errno));
        result
    }

    fn online_steps(
        &self,
        ranges: &[SectionRange],
        how: OnlineAs,
        pace: &mut dyn Pace,
        stopwatch: &mut Stopwatch<'_, M>,
    ) -> Result<(), OnlineError> {
        self.check_offline(ranges)?;
        self.pass(Point::OnlineBegin).map_err(OnlineError::Injected)?;
        pace.pause().map_err(OnlineError::Stopped)?;
        let going = Undo::new(|| {
            for range in ranges {
                change_states(self, *range, |_| BlockState::Offline);
            }
        });
        self.choose_zones(ranges, how);
        stopwatch.lap("begin");

        self.pass(Point::OnlinePrepare).map_err(OnlineError::Injected)?;
        if let Err((veto, asked)) = self.prepare_all(ranges, Direction::Online) {
            drop(going);
            self.cancelled_all(ranges, Direction::Online, asked);
            return Err(OnlineError::Vetoed(veto));
        }
        stopwatch.lap("prepare");

        // Nothing below can fail.
        going.keep();
        for range in ranges {
            for id in range.iter() {
                self.populate(id);
                // There is no way back any more, so a wish to stop comes too late.
                let _ = pace.pause();
            }
        }
        stopwatch.lap("populate");
        self.committed_all(ranges, Direction::Online);
        stopwatch.lap("committed");
        Ok(())
    }

    fn check_offline(&self, ranges: &[SectionRange]) -> Result<(), OnlineError> {
        for id in ranges.iter().flat_map(|range| range.iter()) {
            let section = self.sections.get(id).ok_or(OnlineError::Absent(id))?;
            if section.state != BlockState::Offline {
                return Err(OnlineError::NotOffline { block: id, state: section.state.name() });
            }
        }
        Ok(())
    }

    /// Every block is told where it goes before any goes, so that blocks of one command see the same world.
    fn choose_zones(&self, ranges: &[SectionRange], how: OnlineAs) {
        let policy = self.policy();
        let mut pending = [0; ZoneKind::ALL.len()];
        for range in ranges {
            for (id, section) in self.sections.iter_range(*range) {
                let zone = match how {
                    OnlineAs::Zone(zone) => zone,
                    OnlineAs::ByPolicy => {
                        let mut around = self.surroundings(id, section);
                        around.machine.movable += pending[ZoneKind::Movable as usize];
                        around.node.movable += pending[ZoneKind::Movable as usize];
                        policy.choose(&around)
                    }
                };
                pending[zone as usize] += u64::from(section.present);
                self.sections.set_state(id, BlockState::GoingOnline(zone));
            }
        }
    }

    /// Steps 4 to 6 for one block that is going online. Cannot fail.
    fn populate(&self, id: SectionId) {
        let section = self.sections.get(id).expect("a block that goes online is present");
        if section.is_boot() {
            return self.hand_over(id, section, |each| self.for_each_returning(id, each));
        }
        self.map_own_memmap(id, section);
        self.initialise(id, section);
        let head = section.head_frames();
        let managed = PfnRange::new(id.pages().start().add(head), id.pages().len() - head);
        self.hand_over(id, section, |each| each(managed));
    }

    /// Steps 4 and 6: the zone spans the block and gets its frames, which `managed` names run by run.
    pub(super) fn hand_over(&self, id: SectionId, section: Section, managed: impl FnOnce(&mut dyn FnMut(PfnRange))) {
        let kind = section.state.zone().expect("a block that goes online has a zone");
        self.with_zone(section.node, kind, |zone| {
            zone.grow(id, section);
            self.sections.set_state(id, BlockState::Online(kind));
            managed(&mut |range| {
                for (head, order) in range.blocks() {
                    zone.put_new(&self.machine, Origin::of(section), head, order);
                }
            });
        });
    }

    /// Step 5: struct pages of an added block.
    fn initialise(&self, id: SectionId, section: Section) {
        self.machine.clear(id.pages());
        let tables = self.group(section.group).map_or(PfnRange::EMPTY, |group| group.tables);
        for pfn in head_range(id, section).iter() {
            let owner = if tables.contains(pfn) { Owner::PageTable } else { Owner::Memmap };
            self.machine.page(pfn).set_head(Head::single(PageState::Memmap, owner));
        }
    }

    /// The frames of a boot block that its offline took out of service.
    fn for_each_returning(&self, id: SectionId, each: &mut dyn FnMut(PfnRange)) {
        let pages = id.pages();
        let mut at = pages.start();
        while at < pages.end() {
            let rest = PfnRange::new(at, pages.end().number() - at.number());
            let is_offline = |pfn: &Pfn| self.machine.page(*pfn).head().state == PageState::Offline;
            let run = PfnRange::new(at, rest.iter().take_while(is_offline).count() as u64);
            self.machine.clear(run);
            if !run.is_empty() {
                each(run);
            }
            at = run.end().add(1);
        }
    }
}
