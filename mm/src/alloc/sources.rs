//! Policy as data, the fallback lists: which zones serve which request, in what order, when a pageblock of the other migrate
//! type may serve, and down to which watermark.

use crate::alloc::request::{Request, Urgency};
use crate::frame::mobility::Mobility;
use crate::frame::page::Owner;
use crate::section::kind::{Origin, ZoneKind};
use crate::zone::cache::SizeClass;
use crate::zone::free_area::Mixing;

impl Request {
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
    pub(crate) const fn size_class(&self) -> Option<SizeClass> {
        match self.urgency {
            Urgency::Bulk | Urgency::Ordinary => SizeClass::of(self.order, self.mobility),
            Urgency::Hotplug => None,
        }
    }
}
