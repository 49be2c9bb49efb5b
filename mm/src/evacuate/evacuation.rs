//! Emptying blocks: what lies in them moves elsewhere.
//!
//! First everything is looked at: whether something cannot move, and whether there is room for what can. Only then the first
//! page moves. The blocks are isolated all this time, so nothing new comes into them and nothing is moved into them. A block
//! that is pinned meanwhile ends it before the next batch.

use crate::addr::{NodeId, Order, Pfn, SectionRange};
use crate::alloc::request::AllocError;
use crate::alloc::take;
use crate::evacuate::budget::Demand;
use crate::evacuate::content::{Block, Blocker, Content, Hold};
use crate::evacuate::pin::PinWatch;
use crate::evacuate::{budget, content, moving, pin};
use crate::frame::mobility::Mobility;
use crate::frame::page::Owner;
use crate::frame::pageblock::Pageblock;
use crate::frame::pageblock_set::PageblockSet;
use crate::inject::Injected;
use crate::machine::Machine;
use crate::machine::mover::{Move, Stay};
use crate::machine::tasks::{Pace, Stop};
use crate::memory::Memory;
use crate::record::journal::Stopwatch;
use crate::record::promise::Promise;
use crate::section::word::Section;
use heapless::Vec;

/// Single frames that are moved together, with one TLB shootdown for all of them.
pub const MOVED_TOGETHER: usize = 64;

/// Why not everything could be moved out of blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EvacuateError {
    Fixed(Blocker),
    /// Something stayed in flight.
    InFlight(Pfn),
    /// So many frames are missing elsewhere.
    NoDestination {
        short_by: u64,
    },
    /// So many frames of the reserve would have no place.
    ReserveShort {
        short_by: u64,
    },
    Injected(Injected),
    /// Told to stop before anything moved.
    Stopped(Stop),
    /// Told to stop before what this frame holds had moved.
    Unfinished(Stop, Pfn),
}

/// Sections that are being emptied, all of them isolated.
pub(crate) struct Evacuation<'a> {
    ranges: &'a [SectionRange],
    /// Those of their pageblocks that are emptied.
    pieces: PageblockSet,
    /// For what can go to Normal zones only.
    promise: Promise<'a>,
    watch: PinWatch<'a>,
}

impl<'a> Evacuation<'a> {
    /// Looks at everything in those pageblocks of the open sections of `ranges`: whether something stays, and whether there
    /// is room for what moves.
    pub(crate) fn begin<M: Machine>(
        memory: &'a Memory<M>,
        ranges: &'a [SectionRange],
        pieces: PageblockSet,
        pace: &mut dyn Pace,
    ) -> Result<Self, EvacuateError> {
        let watch = pin::watch_pins(memory, ranges, pieces);
        let promise = check_evacuation(memory, ranges, pieces, pace)?;
        Ok(Self { ranges, pieces, promise, watch })
    }

    /// Moves what can be moved now, and returns a frame of what is left that may be moved later; tells the stopwatch what has
    /// moved in any case.
    pub(crate) fn move_some<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        pace: &mut dyn Pace,
        stopwatch: &Stopwatch<'_, M>,
    ) -> Result<Option<Pfn>, EvacuateError> {
        let mut straggler = None;
        for (id, section) in memory.sections.open_sections(self.ranges) {
            let mut batch = Batch::new(memory, section.node, &self.promise);
            let result = batch.empty_section(Pageblock::of_set(id, self.pieces), section, pace, &mut self.watch);
            stopwatch.note_moved(batch.moved);
            straggler = straggler.or(batch.straggler);
            result?;
        }
        Ok(straggler)
    }
}

/// Whether all that is known beforehand lets the blocks be emptied; keeps free what can go to Normal zones only.
fn check_evacuation<'a, M: Machine>(
    memory: &'a Memory<M>,
    ranges: &[SectionRange],
    pieces: PageblockSet,
    pace: &mut dyn Pace,
) -> Result<Promise<'a>, EvacuateError> {
    let mut demand = Demand::default();
    for (id, section) in memory.sections.open_sections(ranges) {
        for pageblock in Pageblock::of_set(id, pieces) {
            let mut found = Ok(());
            content::look_into(memory, pageblock, section, |content| match content {
                Content::Movable(block) => demand.add(block),
                Content::Fixed(blocker) if found.is_ok() => found = Err(EvacuateError::Fixed(blocker)),
                Content::Fixed(_) | Content::InFlight(_) => {}
            });
            found?;
        }
        pace.pause().map_err(EvacuateError::Stopped)?;
    }
    let room = budget::room(memory);
    match (room.shortfall(demand), room.reserve_shortfall(budget::boot_room_in(memory, ranges))) {
        (0, 0) => Ok(Promise::new(&memory.promised, demand.kernel())),
        (0, short_by) => Err(EvacuateError::ReserveShort { short_by }),
        (short_by, _) => Err(EvacuateError::NoDestination { short_by }),
    }
}

/// Frames on their way out of a section.
struct Batch<'a, M: Machine> {
    memory: &'a Memory<M>,
    /// The node that they should stay on if they can.
    home: NodeId,
    /// For what can go to Normal zones only.
    promise: &'a Promise<'a>,
    /// Not moved yet, all of one owner.
    batch: Vec<Move, MOVED_TOGETHER>,
    owner: Owner,
    /// Something that could not be moved this time, and can the next.
    straggler: Option<Pfn>,
    /// Frames that have moved.
    moved: u64,
}

impl<'a, M: Machine> Batch<'a, M> {
    const fn new(memory: &'a Memory<M>, home: NodeId, promise: &'a Promise<'a>) -> Self {
        Self { memory, home, promise, batch: Vec::new(), owner: Owner::None, straggler: None, moved: 0 }
    }

    /// Moves what it can out of pageblocks of a section, unless told to stop.
    fn empty_section(
        &mut self,
        mut pageblocks: impl Iterator<Item = Pageblock>,
        section: Section,
        pace: &mut dyn Pace,
        watch: &mut PinWatch<'_>,
    ) -> Result<(), EvacuateError> {
        pageblocks.try_for_each(|pageblock| self.empty_pageblock(pageblock, section, pace, watch))
    }

    fn empty_pageblock(
        &mut self,
        pageblock: Pageblock,
        section: Section,
        pace: &mut dyn Pace,
        watch: &mut PinWatch<'_>,
    ) -> Result<(), EvacuateError> {
        if content::is_known_empty(self.memory, pageblock, section) {
            return Ok(());
        }
        let mut at = pageblock.first();
        loop {
            let found = self.gather(pageblock, &mut at)?;
            let Some(first) = found.first() else { break };
            pace.pause().map_err(|stop| EvacuateError::Unfinished(stop, first.head))?;
            pin::check_pins(self.memory, watch).map_err(EvacuateError::Fixed)?;
            let mut rest = found.as_slice();
            while let Some((block, behind)) = rest.split_first() {
                if self.send(*block)? {
                    // Its parts are to be moved.
                    at = block.head;
                }
                rest = &behind[self.send_alike(*block, behind)..];
            }
            self.flush()?;
        }
        // Something was in flight, or came while others were moved.
        if !pageblock.descriptor(&self.memory.machine).is_empty() {
            self.straggler.get_or_insert(pageblock.first());
        }
        Ok(())
    }

    /// The next blocks of a pageblock, from `at` on, that can move; `at` is behind them then.
    fn gather(&mut self, pageblock: Pageblock, at: &mut Pfn) -> Result<Vec<Block, MOVED_TOGETHER>, EvacuateError> {
        let mut found = Vec::new();
        while !found.is_full() {
            let Some((content, _)) = content::next_content(self.memory, pageblock, at) else { break };
            match content {
                Content::Movable(block) => found.push(block).expect("it is not full"),
                Content::Fixed(blocker) => return Err(EvacuateError::Fixed(blocker)),
                Content::InFlight(pfn) => {
                    self.straggler.get_or_insert(pfn);
                }
            }
        }
        Ok(found)
    }

    /// Has a block moved with the next batch, or at once if it is large; whether it was split, so that its parts are to be moved.
    fn send(&mut self, block: Block) -> Result<bool, EvacuateError> {
        if block.owner != self.owner || block.order > Order::PAGE {
            self.flush()?;
        }
        self.owner = block.owner;
        match moving::take_destination(self.memory, &moving::destination_request(self.memory, block, self.home)) {
            Ok(to) => {
                let wanted = Move { from: block.head, to, order: block.order, outcome: Ok(()) };
                assert!(self.batch.push(wanted).is_ok(), "there are no more blocks than places for them");
                Ok(false)
            }
            Err(AllocError::OutOfMemory) if block.order == Order::PAGEBLOCK => self.split(block.head),
            Err(AllocError::OutOfMemory) => {
                self.flush()?;
                Err(EvacuateError::NoDestination { short_by: block.order.pages() })
            }
            Err(AllocError::Injected(injected)) => {
                self.flush()?;
                Err(EvacuateError::Injected(injected))
            }
        }
    }

    /// Has the first of the blocks behind one that was sent moved with it, as far as they are like it and there are places for them at
    /// hand where it goes; how many.
    fn send_alike(&mut self, sent: Block, behind: &[Block]) -> usize {
        let alike = behind.iter().take_while(|block| block.is_single_like(sent)).count();
        let Some(Move { to, .. }) = self.batch.last().copied().filter(|_| alike > 0) else { return 0 };
        let request = moving::destination_request(self.memory, sent, self.home);
        let mut froms = behind[..alike].iter().map(|block| block.head);
        moving::take_more_destinations(self.memory, &request, to, alike, |to| {
            let from = froms.next().expect("no more places are taken than there are blocks");
            let wanted = Move { from, to, order: Order::PAGE, outcome: Ok(()) };
            assert!(self.batch.push(wanted).is_ok(), "there are no more blocks than places for them");
        });
        alike - froms.len()
    }

    fn split(&mut self, head: Pfn) -> Result<bool, EvacuateError> {
        match self.memory.machine.split(head) {
            Ok(()) => Ok(true),
            Err(stay) => self.note_stay(head, Order::PAGEBLOCK, stay).map(|()| false),
        }
    }

    /// Moves the batch. Whatever becomes of one block, all others are moved, and no place is left unused.
    fn flush(&mut self) -> Result<(), EvacuateError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        moving::migrate(self.memory, &mut self.batch);
        let batch = core::mem::take(&mut self.batch);
        let moved = batch.iter().filter(|done| done.outcome.is_ok());
        self.moved += moved.clone().map(|done| done.order.pages()).sum::<u64>();
        let of_kernel =
            |done: &&Move| self.memory.machine.page(done.from).served(done.order) == Some(Mobility::Unmovable);
        self.promise.use_up(moved.clone().filter(of_kernel).map(|done| done.order.pages()).sum());
        take::free_together(self.memory, moved.map(|done| (done.from, done.order)));
        let mut result = Ok(());
        for Move { from, to, order, outcome } in batch {
            if let Err(stay) = outcome {
                self.memory.free(to, order);
                result = result.and(self.note_stay(from, order, stay));
            }
        }
        result
    }

    fn note_stay(&mut self, pfn: Pfn, order: Order, stay: Stay) -> Result<(), EvacuateError> {
        match stay {
            Stay::InFlight => {
                self.straggler.get_or_insert(pfn);
                Ok(())
            }
            Stay::NoTable => Err(EvacuateError::NoDestination { short_by: 1 }),
            Stay::Injected(injected) => Err(EvacuateError::Injected(injected)),
            Stay::Pinned => {
                Err(EvacuateError::Fixed(content::blocker(self.memory, pfn, order, Hold::Pinned, self.owner)))
            }
        }
    }
}
