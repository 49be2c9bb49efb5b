//! Taking frames and giving them back: which zone serves which request.
//!
//! Unmovable memory comes from Normal zones only, and from boot memory on any node before added memory on any: what came
//! last shall be able to go first. Movable memory prefers Movable zones, then added memory, and boot memory last.

use crate::addr::{NodeId, Order, Pfn, PfnRange, SectionId, SectionRange};
use crate::buddy::mark_allocated;
use crate::errno::Errno;
use crate::inject::{Injected, Point};
use crate::machine::Machine;
use crate::memory::{Memory, RESERVE_PAGES};
use crate::page::{Owner, PageState};
use crate::section::{BlockState, Section, ZoneKind};
use crate::zone::Origin;
use core::sync::atomic::Ordering;

/// Whether the frames could be moved elsewhere later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mobility {
    /// The kernel points at them.
    Unmovable,
    /// Every reference to them can be found and changed.
    Movable,
}

/// Who may use the reserve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Urgency {
    /// Everybody else.
    Ordinary,
    /// Hotplug itself, which brings memory.
    Hotplug,
}

/// Which nodes may serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// This node, then others by distance.
    Near(NodeId),
    /// This node only.
    On(NodeId),
}

/// A request for a block of frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// How many.
    pub order: Order,
    /// Whether they could be moved later.
    pub mobility: Mobility,
    /// From where.
    pub place: Place,
    /// For whom.
    pub owner: Owner,
    /// Whether the reserve may be used.
    pub urgency: Urgency,
}

impl Request {
    /// One unmovable frame near node 0.
    #[must_use]
    pub const fn kernel(owner: Owner) -> Self {
        Self {
            order: Order::PAGE,
            mobility: Mobility::Unmovable,
            place: Place::Near(NodeId::ZERO),
            owner,
            urgency: Urgency::Ordinary,
        }
    }
}

/// Why there are no frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AllocError {
    /// No zone that may serve has a free block of that size.
    #[error("out of memory")]
    OutOfMemory,
    /// Somebody asked for this failure.
    #[error("{0}")]
    Injected(Injected),
}

impl AllocError {
    /// The errno name.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::OutOfMemory => Errno::NoMemory,
            Self::Injected(injected) => injected.errno,
        }
    }
}

impl<M: Machine> Memory<M> {
    /// Takes a block of frames, whose contents are whatever they were.
    ///
    /// # Errors
    /// Nothing free serves the request; an injected failure.
    pub fn allocate(&self, request: &Request) -> Result<Pfn, AllocError> {
        self.pass_allocation(request)?;
        let passes: &[(ZoneKind, Origin)] = match request.mobility {
            Mobility::Unmovable => &[(ZoneKind::Normal, Origin::Boot), (ZoneKind::Normal, Origin::Added)],
            Mobility::Movable => &[
                (ZoneKind::Movable, Origin::Added),
                (ZoneKind::Movable, Origin::Boot),
                (ZoneKind::Normal, Origin::Added),
                (ZoneKind::Normal, Origin::Boot),
            ],
        };
        for (kind, origin) in passes {
            let taken = match request.place {
                Place::On(node) if node.index() >= self.node_limit() => None,
                Place::On(node) => self.take(node, *kind, *origin, request),
                Place::Near(near) => self
                    .distances
                    .nearest(near, self.node_limit())
                    .find_map(|node| self.take(node, *kind, *origin, request)),
            };
            if let Some(head) = taken {
                return Ok(head);
            }
        }
        Err(AllocError::OutOfMemory)
    }

    /// The kernel heap has nobody whom it could tell of a failure, so it is spared the injected ones.
    fn pass_allocation(&self, request: &Request) -> Result<(), AllocError> {
        match request.owner {
            Owner::Heap => Ok(()),
            _ => self.pass(Point::AllocFrames).map_err(AllocError::Injected),
        }
    }

    fn take(&self, node: NodeId, kind: ZoneKind, origin: Origin, request: &Request) -> Option<Pfn> {
        if self.is_kept_for_hotplug(kind, origin, request) {
            return None;
        }
        self.with_zone(node, kind, |zone| {
            let head = zone.take(&self.machine, origin, request.order)?;
            mark_allocated(&self.machine, head, request.order, request.owner);
            Some(head)
        })
    }

    /// Whether the request would eat into the reserve.
    fn is_kept_for_hotplug(&self, kind: ZoneKind, origin: Origin, request: &Request) -> bool {
        kind == ZoneKind::Normal
            && origin == Origin::Boot
            && request.urgency == Urgency::Ordinary
            && self.boot_free.load(Ordering::Relaxed) < request.order.pages() + RESERVE_PAGES
    }

    /// Takes a block of frames inside `range`, lowest first.
    ///
    /// # Errors
    /// No online block of `range` that may serve has a free block of that size; an injected failure.
    pub fn allocate_within(&self, request: &Request, range: SectionRange) -> Result<Pfn, AllocError> {
        self.pass_allocation(request)?;
        self.sections
            .iter_range(range)
            .find_map(|(id, section)| self.take_in_section(request, id, section))
            .ok_or(AllocError::OutOfMemory)
    }

    fn take_in_section(&self, request: &Request, id: SectionId, section: Section) -> Option<Pfn> {
        let BlockState::Online(kind) = section.state else { return None };
        let origin = Origin::of(section);
        let wrong_zone = request.mobility == Mobility::Unmovable && kind == ZoneKind::Movable;
        if wrong_zone || self.is_kept_for_hotplug(kind, origin, request) {
            return None;
        }
        self.with_zone(section.node, kind, |zone| {
            // It may have left the zone before the lock was ours.
            self.sections.get(id).filter(|now| now.state == section.state)?;
            let head = zone.take_within(&self.machine, origin, request.order, id.pages())?;
            mark_allocated(&self.machine, head, request.order, request.owner);
            Some(head)
        })
    }

    /// Gives a block of frames back that [`allocate`](Self::allocate) gave.
    ///
    /// # Panics
    /// The block was not allocated with this order.
    pub fn free(&self, head: Pfn, order: Order) {
        let section = self.sections.populated(head).expect("an allocated frame lies in an online block");
        let kind = section.state.zone().expect("a populated section has a zone");
        self.with_zone(section.node, kind, |zone| {
            let page = self.machine.page(head);
            let found = page.head();
            assert!(
                found.state == PageState::Allocated && found.order == order,
                "freed {head:?} of order {order:?}, which is {found:?}",
            );
            page.set_head(crate::page::Head::TAIL);
            page.set_refs(0);
            // Read again under the lock: an isolation that began since decides where the block goes.
            match self.sections.get(head.section()).map(|section| section.state) {
                Some(BlockState::GoingOffline(_)) => zone.put_isolated(&self.machine, head, order),
                _ => zone.put(&self.machine, Origin::of(section), head, order),
            }
        });
    }

    /// The head of the block that `pfn`, whose memmap is mapped, lies in, and what it is.
    pub(crate) fn containing_block(&self, pfn: Pfn) -> (Pfn, crate::page::Head) {
        let own = self.machine.page(pfn).head();
        if own.state != PageState::Tail {
            return (pfn, own);
        }
        Order::all()
            .skip(1)
            .map(|order| pfn.align_down(order))
            .map(|head| (head, self.machine.page(head).head()))
            .find(|(head, found)| {
                found.state != PageState::Tail && PfnRange::new(*head, crate::zone::stride(*found)).contains(pfn)
            })
            .unwrap_or((pfn, own))
    }
}
