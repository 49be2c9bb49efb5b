//! The border between both zones through a section: `kernelcore=` and `movablecore=` divide boot memory anywhere, not only between
//! sections.

use crate::addr::{Order, PAGES_PER_SECTION, Pfn, PfnRange, SectionId};
use crate::section::kind::ZoneKind;

/// Where in a block Movable begins: behind so many pairs of pageblocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneBorder(pub(super) u8);

impl ZoneBorder {
    /// A border through the block of `frame`, before this frame; `None` if it does not lie between two pairs of pageblocks of the
    /// block.
    pub(crate) fn before(frame: Pfn) -> Option<Self> {
        let pairs = frame.index_in_section() / Order::MAX.pages();
        (pairs > 0 && frame.align_down(Order::MAX) == frame).then_some(Self(pairs as u8))
    }

    /// The zone of a frame of the block.
    #[must_use]
    pub const fn zone_of(self, frame: Pfn) -> ZoneKind {
        if frame.index_in_section() / Order::MAX.pages() < self.0 as u64 { ZoneKind::Normal } else { ZoneKind::Movable }
    }

    /// The frames of block `id` that are in `zone`.
    #[must_use]
    pub const fn part(self, id: SectionId, zone: ZoneKind) -> PfnRange {
        let start = id.pages().start();
        let below = self.0 as u64 * Order::MAX.pages();
        match zone {
            ZoneKind::Normal => PfnRange::new(start, below),
            ZoneKind::Movable => PfnRange::new(start.add(below), PAGES_PER_SECTION - below),
        }
    }
}
