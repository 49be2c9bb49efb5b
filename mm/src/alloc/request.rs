//! A request to the allocator, and why it may fail.

use crate::addr::{NodeId, Order};
use crate::errno::Errno;
use crate::frame::mobility::Mobility;
use crate::frame::page::Owner;
use crate::inject::Injected;
use crate::site::Site;

/// How much of Normal memory must be left when it is served: the watermark that it obeys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Urgency {
    /// Bulk users, and those whose memory may lie elsewhere: what is left for the kernel stays as well, which is
    /// [`KERNEL_PAGES`](crate::limits::KERNEL_PAGES) and what operations under way will still take.
    Bulk,
    /// All others: the reserve stays.
    Ordinary,
    /// Hotplug itself, which brings memory, and what it cannot do without: page tables and the kernel heap. It is served
    /// under their locks, so no section is opened for it, but [ahead](crate::Memory::open_ahead).
    Hotplug,
}

/// Which nodes may serve, in which fallback order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// This node, then others by distance: each kind of zone on all of them before the next.
    Near(NodeId),
    /// This node in all its zones, as long as the kernel has enough left on it; then as [`Near`](Self::Near). For what would
    /// have to be reached from there again.
    Home(NodeId),
    /// Each node in all its zones, this one first and then others by distance, as long as the kernel has enough left on it;
    /// then as [`Near`](Self::Near). For users that name the node that is near to them.
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
}

/// Why there are no frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AllocError {
    /// No zone that may serve has a free block of that size.
    #[error("out of memory")]
    OutOfMemory,
    /// A failure was injected.
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
