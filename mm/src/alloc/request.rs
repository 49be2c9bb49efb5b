//! What somebody asks of the allocator, and why it may be refused.

use crate::addr::{NodeId, Order};
use crate::cache::Shelf;
use crate::errno::Errno;
use crate::free_area::Mixing;
use crate::inject::Injected;
use crate::page::Owner;
use crate::section::ZoneKind;
use crate::site::Site;
use crate::zone::Origin;

/// Whether the frames could be moved elsewhere later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Mobility {
    /// The kernel points at them.
    Unmovable = 0,
    /// Every reference to them can be found and changed.
    Movable = 1,
}

impl Mobility {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Unmovable, Self::Movable];

    /// The one that it is not.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Unmovable => Self::Movable,
            Self::Movable => Self::Unmovable,
        }
    }
}

/// How much of Normal memory must be left when it is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Urgency {
    /// Whoever takes in bulk, or may lie elsewhere: what is left for the kernel stays as well, which is
    /// [`KERNEL_PAGES`](crate::memory::KERNEL_PAGES) and what operations under way will still take.
    Bulk,
    /// Everybody else: the reserve stays.
    Ordinary,
    /// Hotplug itself, which brings memory, and what it cannot do without: page tables and the kernel heap. It is served
    /// under their locks, so no section is opened for it.
    Hotplug,
}

/// Which nodes may serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// This node, then others by distance: each kind of zone on all of them before the next.
    Near(NodeId),
    /// This node in all its zones, as long as the kernel has enough left on it; then as [`Near`](Self::Near). For what would
    /// have to be reached from there again.
    Home(NodeId),
    /// Each node in all its zones, this one first and then others by distance, as long as the kernel has enough left on it;
    /// then as [`Near`](Self::Near). For whoever says what is near to him.
    Prefer(NodeId),
    /// This node only.
    On(NodeId),
}

impl Place {
    /// The node that is asked first.
    #[must_use]
    #[inline]
    pub const fn node(self) -> NodeId {
        let (Self::Near(node) | Self::Home(node) | Self::Prefer(node) | Self::On(node)) = self;
        node
    }
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
    /// How much must be left.
    pub urgency: Urgency,
    /// Where in the source it is made; kept of unmovable memory.
    pub site: Site,
}

impl Request {
    /// One unmovable frame near node 0, for the caller's call site.
    #[must_use]
    #[track_caller]
    pub const fn kernel(owner: Owner) -> Self {
        Self {
            order: Order::PAGE,
            mobility: Mobility::Unmovable,
            place: Place::Near(NodeId::ZERO),
            owner,
            urgency: Urgency::Ordinary,
            site: Site::here(),
        }
    }

    /// The zones and origins that serve it, in the order in which they are asked.
    #[inline]
    pub(crate) const fn sources(&self) -> &'static [(ZoneKind, Origin)] {
        match (self.mobility, self.owner) {
            (Mobility::Unmovable, _) => &[(ZoneKind::Normal, Origin::Boot), (ZoneKind::Normal, Origin::Added)],
            // They can move, but Movable is for what is not the kernel's, as long as there is something else.
            (Mobility::Movable, Owner::UserTable) => &[
                (ZoneKind::Normal, Origin::Boot),
                (ZoneKind::Normal, Origin::Added),
                (ZoneKind::Movable, Origin::Boot),
                (ZoneKind::Movable, Origin::Added),
            ],
            (Mobility::Movable, _) => &[
                (ZoneKind::Movable, Origin::Added),
                (ZoneKind::Movable, Origin::Boot),
                (ZoneKind::Normal, Origin::Added),
                (ZoneKind::Normal, Origin::Boot),
            ],
        }
    }

    /// Whether pageblocks of the other mobility may serve, in the first round through the sources; in a second one they may.
    #[inline]
    pub(crate) const fn first_mixing(&self) -> Mixing {
        match (self.mobility, self.owner) {
            // For them a pageblock of the kernel's is better than another zone.
            (Mobility::Movable, Owner::UserTable) => Mixing::Allowed,
            _ => Mixing::Never,
        }
    }

    /// Whether it must leave the kernel more of a zone of that kind than the reserve.
    #[inline]
    pub(crate) const fn spares(&self, kind: ZoneKind) -> bool {
        matches!((self.urgency, kind), (Urgency::Bulk, ZoneKind::Normal))
    }

    /// Where caches keep what it asks for. What hotplug itself takes may come from the reserve, which is no cache's.
    #[inline]
    pub(crate) const fn shelf(&self) -> Option<Shelf> {
        match self.urgency {
            Urgency::Bulk | Urgency::Ordinary => Shelf::of(self.order, self.mobility),
            Urgency::Hotplug => None,
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
