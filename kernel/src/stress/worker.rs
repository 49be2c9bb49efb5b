//! One worker: it holds some memory with content, and does one thing after the other.

use super::blocks;
use super::dice::Dice;
use super::memory::{Holding, check};
use super::operation::Operation;
use super::trouble::{Refusal, Trouble};
use super::{Run, settings};
use crate::memory::mm;
use crate::pace::SteadyPace;
use crate::{task, time};
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::addr::{PAGES_PER_SECTION, Pfn};
use mm::machine::tasks::{Pace, Stop};
use mm::record::policy::OnlineAs;
use mm::section::kind::Origin;
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;

/// Pieces of memory that a worker holds at most.
pub(super) const HOLDINGS: usize = 64;

/// While little is held, a worker has this part of it.
const LITTLE: usize = 16;

/// Frames looked up by one operation.
const LOOKUPS: usize = 64;

/// An offline gives up after less than this.
const PATIENCE_NS: u64 = 200_000_000;

pub(super) struct Worker {
    pub(super) run: Arc<Run>,
    pub(super) number: u64,
    pub(super) dice: Dice,
    pub(super) holdings: Vec<Holding>,
    /// The last sweep of all content that it took part in.
    sweep: u64,
    /// What part of all that it may hold it holds now.
    pub(super) divisor: usize,
}

/// Why an operation was not done.
pub(super) enum Setback {
    /// There was nothing to do it with.
    Idle,
    Refused(Refusal),
    Trouble(Trouble),
}

impl<R: Into<Refusal>> From<R> for Setback {
    fn from(refusal: R) -> Self {
        Self::Refused(refusal.into())
    }
}

/// Until the run is over, or a deadline.
pub(super) struct WorkPace<'a> {
    run: &'a Run,
    deadline_ns: Option<u64>,
}

impl<'a> WorkPace<'a> {
    pub(super) const fn untimed(run: &'a Run) -> Self {
        Self { run, deadline_ns: None }
    }
}

impl Pace for WorkPace<'_> {
    fn pause(&mut self) -> Result<(), Stop> {
        task::yield_now();
        if !self.run.is_under_way() {
            return Err(Stop::Cancelled);
        }
        match self.deadline_ns {
            Some(deadline) if time::now_ns() > deadline => Err(Stop::Deadline),
            _ => Ok(()),
        }
    }
}

impl Worker {
    pub(super) fn new(run: Arc<Run>, number: u64) -> Self {
        let dice = Dice::new(run.seed, number);
        Self { run, number, dice, holdings: Vec::with_capacity(HOLDINGS), sweep: 0, divisor: 1 }
    }

    /// Works until the run is over, and gives everything back.
    pub(super) fn work(mut self) -> Result<(), Trouble> {
        while self.run.is_under_way() {
            self.step()?;
            task::yield_now();
        }
        while let Some(last) = self.holdings.len().checked_sub(1) {
            self.free(last)?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Trouble> {
        let due = self.run.sweep();
        if self.sweep != due {
            self.sweep = due;
            self.check_all()?;
            // All do so at the same time: where memory is used everywhere, no block can go.
            let is_quiet = Dice::new(self.run.seed, due).once_in(3);
            self.divisor = if is_quiet { LITTLE } else { 1 };
        }
        let operation = if self.is_full() { Operation::Free } else { Operation::choose(&mut self.dice) };
        match self.perform(operation) {
            Ok(()) => self.run.tally.note_done(operation),
            Err(Setback::Idle) => {}
            // It was cut short by the end.
            Err(Setback::Refused(_)) if !self.run.is_under_way() => {}
            Err(Setback::Refused(refusal)) if operation.expects(refusal.errno()) => {
                self.run.tally.note_refused(operation);
            }
            Err(Setback::Refused(refusal)) => {
                let (errno, sentence) = (refusal.errno(), refusal.to_string());
                return Err(Trouble::Unexpected { operation, errno, sentence });
            }
            Err(Setback::Trouble(trouble)) => return Err(trouble),
        }
        Ok(())
    }

    fn perform(&mut self, operation: Operation) -> Result<(), Setback> {
        match operation {
            Operation::Allocate => self.allocate(),
            Operation::Fill => self.fill(),
            Operation::Kfill => self.kfill(),
            Operation::Verify => {
                let index = self.some_holding(|_| true)?;
                check(&mut self.holdings[index], &mut SteadyPace).map_err(Setback::Trouble)
            }
            Operation::Pin => self.pin(),
            Operation::Unpin => {
                let index = self.some_holding(|holding| !holding.pins.is_empty())?;
                Ok(self.unpin(index)?)
            }
            Operation::Free => {
                let index = self.some_holding(|_| true)?;
                self.free(index).map_err(Setback::Trouble)
            }
            Operation::Online => self.online(OnlineAs::ByPolicy),
            Operation::OnlineKernel => self.online(OnlineAs::Zone(ZoneKind::Normal)),
            Operation::OnlineMovable => self.online(OnlineAs::Zone(ZoneKind::Movable)),
            Operation::Offline => self.offline(),
            Operation::Remove => self.remove(),
            Operation::Probe => self.probe(),
            Operation::Settings => {
                settings::change(&mut self.dice);
                Ok(())
            }
            Operation::Page => {
                self.look_around();
                Ok(())
            }
            Operation::Drain => {
                mm().drain_caches();
                Ok(())
            }
        }
    }

    // Blocks.

    fn online(&mut self, how: OnlineAs) -> Result<(), Setback> {
        let any = self.dice.once_in(8);
        let (range, _) =
            blocks::pick(&mut self.dice, |state| any || state == BlockState::Offline).ok_or(Setback::Idle)?;
        Ok(mm().online(&[range], how, &mut self.hurry()).map(drop)?)
    }

    fn offline(&mut self) -> Result<(), Setback> {
        if self.dice.once_in(4) {
            return self.offline_group();
        }
        let any = self.dice.once_in(8);
        let (range, section) =
            blocks::pick(&mut self.dice, |state| any || blocks::is_online(state)).ok_or(Setback::Idle)?;
        // One at a time, so that what was looked at is still so.
        let run = Arc::clone(&self.run);
        let _turn = (section.origin == Origin::Boot).then(|| run.boot_memory.lock());
        if section.origin == Origin::Boot && !blocks::kernel_can_spare(range) {
            return Err(Setback::Idle);
        }
        Ok(mm().offline(&[range], &mut self.hurry())?)
    }

    /// All that is online of a group, so that it can be removed.
    fn offline_group(&mut self) -> Result<(), Setback> {
        let group = self.dice.pick(&blocks::added_groups()).ok_or(Setback::Idle)?;
        let online = blocks::online_parts(group.window);
        if online.is_empty() {
            return Err(Setback::Idle);
        }
        Ok(mm().offline(&online, &mut self.hurry())?)
    }

    fn remove(&mut self) -> Result<(), Setback> {
        let any = self.dice.once_in(8);
        let mut groups = blocks::added_groups();
        groups.retain(|group| any || blocks::is_offline(group.window));
        let group = self.dice.pick(&groups).ok_or(Setback::Idle)?;
        Ok(mm().remove(&[group.name], &mut self.hurry())?)
    }

    fn probe(&mut self) -> Result<(), Setback> {
        let range = blocks::pick_missing(&mut self.dice).ok_or(Setback::Idle)?;
        Ok(blocks::probe(range)?)
    }

    fn look_around(&mut self) {
        for _ in 0..LOOKUPS {
            // Half of them where there is something.
            let block = match blocks::pick(&mut self.dice, |_| true) {
                Some((range, _)) if self.dice.once_in(2) => u64::from(range.first().number()),
                _ => self.dice.below(mm().section_limit()),
            };
            let pfn = Pfn::new(block * PAGES_PER_SECTION + self.dice.below(PAGES_PER_SECTION));
            core::hint::black_box(mm().frame_report(pfn));
        }
    }

    /// Until the run is over.
    pub(super) fn pace(&self) -> WorkPace<'_> {
        WorkPace::untimed(&self.run)
    }

    /// The same, but in a hurry.
    fn hurry(&mut self) -> WorkPace<'_> {
        let deadline_ns = time::now_ns() + self.dice.below(PATIENCE_NS);
        WorkPace { run: &self.run, deadline_ns: Some(deadline_ns) }
    }
}
