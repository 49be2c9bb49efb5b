//! What a worker does with memory: it takes some in every way there is, pins parts of it, and looks whether it is as written.

use super::blocks;
use super::operation::Operation;
use super::trouble::Trouble;
use super::worker::{HOLDINGS, Setback, WorkPace, Worker};
use crate::fill::{CheckError, Fill, PinFailure, Source, Taken};
use crate::memory::FrameList;
use crate::pace::SteadyPace;
use crate::vm::{PageSize, PinMode, Placement};
use alloc::vec;
use alloc::vec::Vec;
use mm::addr::{Order, PAGE_SIZE, SectionRange};
use mm::machine::tasks::Pace;

/// A fill has less than 2 to the power of this many pages.
const FILL_ORDERS: u64 = 11;

/// One in so many workers has a fill that tasks of its own keep changing, so that there are tasks left for everybody.
const WORKERS_PER_WRITER: u64 = 4;

/// Memory with content.
pub(super) struct Holding {
    /// How it was taken.
    pub(super) operation: Operation,
    pub(super) fill: Fill,
    has_writers: bool,
    /// Pages that are pinned, or all of them.
    pub(super) pins: Vec<Option<u64>>,
}

impl Worker {
    pub(super) fn is_full(&self) -> bool {
        let held: u64 = self.holdings.iter().map(|holding| holding.fill.size_bytes()).sum();
        self.holdings.len() >= HOLDINGS / self.divisor || held >= self.run.share / self.divisor as u64
    }

    pub(super) fn some_holding(&mut self, wanted: impl Fn(&Holding) -> bool) -> Result<usize, Setback> {
        let fitting = self.holdings.iter().enumerate().filter(|(_, holding)| wanted(holding)).map(|(index, _)| index);
        let fitting: heapless::Vec<usize, HOLDINGS> = fitting.collect();
        self.dice.pick(&fitting).ok_or(Setback::Idle)
    }

    /// One block of frames of any order.
    pub(super) fn allocate(&mut self) -> Result<(), Setback> {
        let order = Order::new(self.dice.below(Order::COUNT as u64) as u8).expect("there are so many orders");
        let mut frames = FrameList::new();
        frames.push(Source { blocks: self.some_blocks() }.take_one(order)?);
        let fill = Fill::kernel(self.id(), frames, &mut self.pace())?;
        self.hold(Operation::Allocate, fill, false);
        Ok(())
    }

    /// Pages as they come.
    pub(super) fn kfill(&mut self) -> Result<(), Setback> {
        let pages = self.some_pages();
        let frames = Source { blocks: self.some_blocks() }.take(pages, &mut self.pace())?;
        let fill = Fill::kernel(self.id(), frames, &mut self.pace())?;
        self.hold(Operation::Kfill, fill, false);
        Ok(())
    }

    /// An address space.
    pub(super) fn fill(&mut self) -> Result<(), Setback> {
        let pages = self.some_pages();
        let (page, pages) = match self.dice.once_in(4) {
            true => (PageSize::Huge, pages.next_multiple_of(Order::PAGEBLOCK.pages())),
            false => (PageSize::Small, pages),
        };
        let placement = Placement { node: None, blocks: self.some_blocks(), page };
        let may_write =
            self.number.is_multiple_of(WORKERS_PER_WRITER) && !self.holdings.iter().any(|holding| holding.has_writers);
        let writers = if may_write { 1 + self.dice.below(2) } else { 0 };
        let taken = Taken::new(pages, placement, &mut self.pace())?;
        let fill = Fill::anonymous(self.id(), taken, writers, &mut self.pace())?;
        self.hold(Operation::Fill, fill, writers > 0);
        Ok(())
    }

    /// Small numbers are as likely as large ones.
    fn some_pages(&mut self) -> u64 {
        let limit = 1 << self.dice.below(FILL_ORDERS);
        1 + self.dice.below(limit)
    }

    /// Anywhere, or inside a few blocks.
    fn some_blocks(&mut self) -> Option<Vec<SectionRange>> {
        let inside = self.dice.once_in(4);
        let blocks = if inside { blocks::pick(&mut self.dice, blocks::is_online) } else { None };
        blocks.map(|(range, _)| vec![range])
    }

    /// Short enough to be read where it names a task.
    fn id(&mut self) -> u64 {
        self.dice.below(1 << 32)
    }

    fn hold(&mut self, operation: Operation, fill: Fill, has_writers: bool) {
        self.holdings.push(Holding { operation, fill, has_writers, pins: Vec::new() });
    }

    pub(super) fn pin(&mut self) -> Result<(), Setback> {
        let index = self.some_holding(|holding| holding.operation == Operation::Fill)?;
        let how = if self.dice.once_in(4) { PinMode::Stay } else { PinMode::Move };
        let pages = self.holdings[index].fill.size_bytes() / PAGE_SIZE;
        let page = if self.dice.once_in(8) { None } else { Some(self.dice.below(pages)) };
        self.holdings[index].fill.pin(page, how, &mut self.pace())?;
        self.holdings[index].pins.push(page);
        Ok(())
    }

    pub(super) fn unpin(&mut self, index: usize) -> Result<(), PinFailure> {
        let Holding { fill, pins, .. } = &mut self.holdings[index];
        pins.pop().map_or(Ok(()), |page| fill.unpin(page).map(drop))
    }

    pub(super) fn free(&mut self, index: usize) -> Result<(), Trouble> {
        let mut holding = self.holdings.swap_remove(index);
        check(&mut holding, &mut SteadyPace)
    }

    pub(super) fn check_all(&mut self) -> Result<(), Trouble> {
        for holding in &mut self.holdings {
            check(holding, &mut WorkPace::untimed(&self.run))?;
            self.run.note_checked(holding.fill.size_bytes());
        }
        Ok(())
    }
}

pub(super) fn check(holding: &mut Holding, pace: &mut dyn Pace) -> Result<(), Trouble> {
    match holding.fill.check(pace) {
        Err(CheckError::Wrong { page, address }) => {
            Err(Trouble::Content { operation: holding.operation, page, address })
        }
        // It is checked again when it is freed.
        Ok(()) | Err(CheckError::Stopped(_)) => Ok(()),
    }
}
