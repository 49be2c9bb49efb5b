//! Emptying blocks: what lies in them moves elsewhere.
//!
//! First everything is looked at: whether something cannot move, and whether there is room for what can. Only then the first
//! page moves. The blocks are isolated all this time, so nothing new comes into them and nothing is moved into them. What somebody
//! pins meanwhile ends it before the next batch.

use crate::addr::{NodeId, Order, Pfn, SectionId, SectionRange};
use crate::alloc::request::{AllocError, Place, Request, Urgency};
use crate::evacuate::budget::Need;
use crate::evacuate::content::{Block, Blocker, Content, Hold};
use crate::evacuate::pin::PinWatch;
use crate::frame::mobility::Mobility;
use crate::frame::page::Owner;
use crate::frame::pageblock::Pageblock;
use crate::inject::{Injected, Point};
use crate::machine::Machine;
use crate::machine::mover::{Move, Stay};
use crate::machine::tasks::{Pace, Stop};
use crate::memory::Memory;
use crate::record::journal::Stopwatch;
use crate::record::promise::Promise;
use crate::section::word::Section;
use crate::site::Site;
use heapless::Vec;

/// Single frames that are moved together, so that translations are forgotten once for all of them.
pub const MOVED_TOGETHER: usize = 64;

/// How often frames in flight are waited for; each time is some milliseconds.
pub(crate) const PATIENCE: u32 = 100;

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

/// Why one block could not be moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MoveError {
    /// There is no place for it.
    #[error("{0}")]
    NoDestination(AllocError),
    /// It stays where it is.
    #[error("{0}")]
    Stay(Stay),
}

/// Frames on their way out of blocks that are being emptied.
struct Evacuation<'a, M: Machine> {
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

impl<M: Machine> Memory<M> {
    /// Moves everything out of the open blocks of `ranges`, which are isolated, or says what is in the way; tells the stopwatch what
    /// has moved in any case.
    pub(crate) fn evacuate(
        &self,
        ranges: &[SectionRange],
        pace: &mut dyn Pace,
        stopwatch: &Stopwatch<'_, M>,
    ) -> Result<(), EvacuateError> {
        if ranges.is_empty() {
            // Nobody has touched any of it, so none is boot memory, which the reserve is in.
            return Ok(());
        }
        let mut watch = self.watch_pins(ranges);
        let promise = self.check_evacuation(ranges, pace)?;
        stopwatch.enter("move");
        for _ in 0..PATIENCE {
            // What was given back meanwhile, or let go of.
            ranges.iter().for_each(|range| self.poison_faulty_in(*range));
            let straggler = self.evacuate_once(ranges, &promise, pace, &mut watch, stopwatch)?;
            let Some(straggler) = straggler else { return Ok(()) };
            self.drain_zones_of(ranges);
            self.machine.wait(&mut || false);
            pace.pause().map_err(|stop| EvacuateError::Unfinished(stop, straggler))?;
        }
        let straggler = self.evacuate_once(ranges, &promise, pace, &mut watch, stopwatch)?;
        straggler.map_or(Ok(()), |straggler| Err(EvacuateError::InFlight(straggler)))
    }

    /// Whether all that is known beforehand lets the blocks be emptied; keeps free what can go to Normal zones only.
    fn check_evacuation(&self, ranges: &[SectionRange], pace: &mut dyn Pace) -> Result<Promise<'_>, EvacuateError> {
        let mut need = Need::default();
        for (id, section) in self.open_sections(ranges) {
            for block in Pageblock::of_section(id) {
                let mut found = Ok(());
                self.look_into(block, section, |content| match content {
                    Content::Movable(block) => need.add(block),
                    Content::Fixed(blocker) if found.is_ok() => found = Err(EvacuateError::Fixed(blocker)),
                    Content::Fixed(_) | Content::InFlight(_) => {}
                });
                found?;
            }
            pace.pause().map_err(EvacuateError::Stopped)?;
        }
        let room = self.room();
        match (room.lack(need), room.reserve_lack(self.boot_room_in(ranges))) {
            (0, 0) => Ok(Promise::new(&self.promised, need.kernel())),
            (0, short_by) => Err(EvacuateError::ReserveShort { short_by }),
            (short_by, _) => Err(EvacuateError::NoDestination { short_by }),
        }
    }

    /// Moves what can be moved now; says if something is left that may be moved later.
    fn evacuate_once(
        &self,
        ranges: &[SectionRange],
        promise: &Promise<'_>,
        pace: &mut dyn Pace,
        watch: &mut PinWatch<'_>,
        stopwatch: &Stopwatch<'_, M>,
    ) -> Result<Option<Pfn>, EvacuateError> {
        let mut straggler = None;
        for (id, section) in self.open_sections(ranges) {
            let mut evacuation = Evacuation::new(self, section.node, promise);
            let result = evacuation.empty(id, section, pace, watch);
            stopwatch.note_moved(evacuation.moved);
            straggler = straggler.or(evacuation.straggler);
            result?;
        }
        Ok(straggler)
    }

    pub(crate) fn open_sections<'a>(
        &'a self,
        ranges: &'a [SectionRange],
    ) -> impl Iterator<Item = (SectionId, Section)> + 'a {
        let sections = ranges.iter().flat_map(|range| self.sections.iter_range(*range));
        sections.filter(|(_, section)| section.is_open())
    }

    /// Moves an allocated block of a movable owner to a place that serves `request`, and gives its old place back. The caller
    /// makes sure that the block stays where it is otherwise, or takes into account that it may not be there any more.
    ///
    /// # Errors
    /// It stays where it is.
    pub fn move_block(&self, head: Pfn, request: &Request) -> Result<Pfn, MoveError> {
        let to = self.move_away(head, request)?;
        self.free(head, request.order);
        Ok(to)
    }

    /// The same, but the old place stays allocated and is nobody's.
    pub(crate) fn move_away(&self, head: Pfn, request: &Request) -> Result<Pfn, MoveError> {
        let to = self.take_destination(request).map_err(MoveError::NoDestination)?;
        let mut moves = [Move { from: head, to, order: request.order, outcome: Ok(()) }];
        self.migrate(&mut moves);
        moves[0].outcome.map(|()| to).map_err(|stay| {
            self.free(to, request.order);
            MoveError::Stay(stay)
        })
    }

    /// Moves blocks; for their holders nothing has happened to them.
    fn migrate(&self, moves: &mut [Move]) {
        self.machine.migrate(moves);
        for Move { from, to, .. } in moves.iter().filter(|done| done.outcome.is_ok()) {
            self.machine.page(*to).succeed(self.machine.page(*from));
        }
    }

    /// For a place to move a block to. Kernel memory keeps the call site that took it.
    pub(crate) fn destination_request(&self, block: Block, home: NodeId) -> Request {
        let (site, _) = self.provenance(self.machine.page(block.head), block.order);
        Request {
            order: block.order,
            mobility: block.mobility,
            place: Place::Home(home),
            owner: block.owner,
            urgency: match block.mobility {
                Mobility::Movable => Urgency::Bulk,
                Mobility::Unmovable => Urgency::Ordinary,
            },
            site: site.unwrap_or_else(Site::here),
        }
    }

    fn take_destination(&self, request: &Request) -> Result<Pfn, AllocError> {
        self.pass(Point::MigrateDestination).map_err(AllocError::Injected)?;
        self.allocate(request)
    }
}

impl<'a, M: Machine> Evacuation<'a, M> {
    const fn new(memory: &'a Memory<M>, home: NodeId, promise: &'a Promise<'a>) -> Self {
        Self { memory, home, promise, batch: Vec::new(), owner: Owner::None, straggler: None, moved: 0 }
    }

    /// Moves what it can out of a section, unless told to stop.
    fn empty(
        &mut self,
        id: SectionId,
        section: Section,
        pace: &mut dyn Pace,
        watch: &mut PinWatch<'_>,
    ) -> Result<(), EvacuateError> {
        Pageblock::of_section(id).try_for_each(|block| self.empty_block(block, section, pace, watch))
    }

    fn empty_block(
        &mut self,
        block: Pageblock,
        section: Section,
        pace: &mut dyn Pace,
        watch: &mut PinWatch<'_>,
    ) -> Result<(), EvacuateError> {
        if self.memory.is_known_empty(block, section) {
            return Ok(());
        }
        let mut at = block.first();
        loop {
            let found = self.gather(block, &mut at)?;
            let Some(first) = found.first() else { break };
            pace.pause().map_err(|stop| EvacuateError::Unfinished(stop, first.head))?;
            self.memory.check_pins(watch).map_err(EvacuateError::Fixed)?;
            for block in &found {
                if self.send(*block)? {
                    // Its parts are to be moved.
                    at = block.head;
                }
            }
            self.flush()?;
        }
        // Something was in flight, or came while others were moved.
        if !block.descriptor(&self.memory.machine).is_empty() {
            self.straggler.get_or_insert(block.first());
        }
        Ok(())
    }

    /// The next blocks of a pageblock, from `at` on, that can move; `at` is behind them then.
    fn gather(&mut self, block: Pageblock, at: &mut Pfn) -> Result<Vec<Block, MOVED_TOGETHER>, EvacuateError> {
        let mut found = Vec::new();
        while !found.is_full() {
            let Some((content, _)) = self.memory.next_content(block, at) else { break };
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
        match self.memory.take_destination(&self.memory.destination_request(block, self.home)) {
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
        self.memory.migrate(&mut self.batch);
        let batch = core::mem::take(&mut self.batch);
        let moved = batch.iter().filter(|done| done.outcome.is_ok());
        self.moved += moved.clone().map(|done| done.order.pages()).sum::<u64>();
        let of_kernel =
            |done: &&Move| self.memory.machine.page(done.from).served(done.order) == Some(Mobility::Unmovable);
        self.promise.use_up(moved.clone().filter(of_kernel).map(|done| done.order.pages()).sum());
        self.memory.free_together(moved.map(|done| (done.from, done.order)));
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
            Stay::Pinned => Err(EvacuateError::Fixed(self.memory.blocker(pfn, order, Hold::Pinned, self.owner))),
        }
    }
}
