//! Moving single blocks elsewhere.

use crate::addr::{NodeId, Pfn};
use crate::alloc::request::{AllocError, Place, Request, Urgency};
use crate::alloc::{lookup, take};
use crate::evacuate::content::Block;
use crate::frame::mobility::Mobility;
use crate::inject::Point;
use crate::machine::Machine;
use crate::machine::mover::{Move, Stay};
use crate::memory::Memory;
use crate::site::Site;

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

impl<M: Machine> Memory<M> {
    /// Moves an allocated block of a movable owner to a place that serves `request`, and gives its old place back. The caller
    /// makes sure that the block stays where it is otherwise, or takes into account that it may not be there any more.
    ///
    /// # Errors
    /// It stays where it is.
    pub fn move_block(&self, head: Pfn, request: &Request) -> Result<Pfn, MoveError> {
        let to = move_away(self, head, request)?;
        self.free(head, request.order);
        Ok(to)
    }
}

/// Moves a block as [`Memory::move_block`] does, but the old place stays allocated and is nobody's.
pub(crate) fn move_away<M: Machine>(memory: &Memory<M>, head: Pfn, request: &Request) -> Result<Pfn, MoveError> {
    let to = take_destination(memory, request).map_err(MoveError::NoDestination)?;
    let mut moves = [Move { from: head, to, order: request.order, outcome: Ok(()) }];
    migrate(memory, &mut moves);
    moves[0].outcome.map(|()| to).map_err(|stay| {
        memory.free(to, request.order);
        MoveError::Stay(stay)
    })
}

/// Moves blocks; for their holders nothing has happened to them.
pub(super) fn migrate<M: Machine>(memory: &Memory<M>, moves: &mut [Move]) {
    memory.machine.migrate(moves);
    for Move { from, to, .. } in moves.iter().filter(|done| done.outcome.is_ok()) {
        memory.machine.page(*to).inherit_age(memory.machine.page(*from));
    }
}

/// For a place to move a block to. Kernel memory keeps the call site that took it.
pub(crate) fn destination_request<M: Machine>(memory: &Memory<M>, block: Block, home: NodeId) -> Request {
    let (site, _) = lookup::provenance(memory, memory.machine.page(block.head), block.order);
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

/// Takes up to `most` more places for the same request, of what is at hand where `last` was found for it.
pub(super) fn take_more_destinations<M: Machine>(
    memory: &Memory<M>,
    request: &Request,
    last: Pfn,
    most: usize,
    each: impl FnMut(Pfn),
) {
    // Where a failure is injected, each place is a step of its own.
    if !memory.points.is_armed(Point::MigrateDestination) {
        take::take_more_at_hand(memory, request, last, most, each);
    }
}

pub(super) fn take_destination<M: Machine>(memory: &Memory<M>, request: &Request) -> Result<Pfn, AllocError> {
    memory.check_injected(Point::MigrateDestination).map_err(AllocError::Injected)?;
    memory.allocate(request)
}
