//! The states of a memory block, and how far its struct pages are made.

use crate::addr::Pfn;
use crate::section::kind::ZoneKind;
use crate::section::zone_border::ZoneBorder;

/// The state of a memory block; the zone is where it is, or is going to be, or was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockState {
    /// Known, its memory unused.
    Offline,
    /// On its way into a zone.
    GoingOnline(ZoneKind),
    /// In use.
    Online(ZoneKind),
    /// In use, while a part of it is being withheld from the allocator.
    Shrinking(ZoneKind),
    /// On its way out of a zone.
    GoingOffline(ZoneKind),
    /// Boot memory in use in both zones, for ever: `kernelcore=` and `movablecore=` draw their border through it.
    Mixed(ZoneBorder),
    /// Memory of a device, which is in no zone of the allocator and never goes online.
    Device,
}

impl BlockState {
    /// The zone, unless offline or in both.
    #[must_use]
    pub const fn zone(self) -> Option<ZoneKind> {
        match self {
            Self::Offline | Self::Mixed(_) | Self::Device => None,
            Self::GoingOnline(zone) | Self::Online(zone) | Self::Shrinking(zone) | Self::GoingOffline(zone) => {
                Some(zone)
            }
        }
    }

    /// Whether it is in a zone: online, or not yet gone.
    #[must_use]
    pub const fn is_in_zone(self) -> bool {
        matches!(self, Self::Online(_) | Self::Shrinking(_) | Self::GoingOffline(_) | Self::Mixed(_))
    }

    /// The zone that a frame of such a block is in, is on its way into, or out of.
    #[must_use]
    pub const fn zone_of(self, frame: Pfn) -> Option<ZoneKind> {
        match self {
            Self::Mixed(border) => Some(border.zone_of(frame)),
            _ => self.zone(),
        }
    }

    /// Whether such a block, or a part of it, is in `zone`, or on its way.
    #[must_use]
    pub fn reaches_into(self, zone: ZoneKind) -> bool {
        matches!(self, Self::Mixed(_)) || self.zone() == Some(zone)
    }

    /// Its name, as in Linux's `state` file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::GoingOnline(_) => "going-online",
            Self::Online(_) | Self::Shrinking(_) | Self::Mixed(_) => "online",
            Self::GoingOffline(_) => "going-offline",
            Self::Device => "device",
        }
    }
}

/// How much is known of the frames of a section that is in a zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Openness {
    /// That all that can be handed out is free. Its struct pages are not in use.
    Untouched,
    /// Its struct pages are being made, or taken away; only the task that does that may look at them.
    Changing,
    /// Every frame has its struct page.
    Open,
    /// It cannot have struct pages, so nothing of it is handed out until it is removed, or boot memory comes online again.
    Withheld,
}
