//! Opening sections ahead of need, for those who cannot have one opened when they need it.
//!
//! [`Urgency::Hotplug`](crate::alloc::request::Urgency::Hotplug) is served from what is open, as it asks under the lock of the page
//! tables. So that there is something, whoever is served otherwise leaves the reserve in open boot memory; an offline that takes open
//! boot memory away has more of it opened first; and the keeper sees to it that some is open beyond the reserve. The heap, which may
//! want more at once than that, grows under its own lock alone, and has a section opened when nothing open is left.

use crate::alloc::{open, watermark};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::section::kind::{Origin, ZoneKind};

impl<M: Machine> Memory<M> {
    /// Opens a section for unmovable memory, if so many frames can be had of what is free; whether there may be more open than before.
    /// Waits for nobody, so the caller may hold any lock but those of page tables and of anything here.
    pub fn open_ahead(&self, pages: u64) -> bool {
        watermark::kernel_free(self) >= pages && Origin::ALL.into_iter().any(|origin| open_normal(self, origin))
    }
}

/// Opens boot memory, as far as there is any, until the reserve lies in what is open and stays.
pub(crate) fn open_reserve<M: Machine>(memory: &Memory<M>) {
    while memory.boot_free.is_reserve_short() && open_normal(memory, Origin::Boot) {}
}

/// Opens the lowest Normal section of an origin; whether there may be more to be had than before.
fn open_normal<M: Machine>(memory: &Memory<M>, origin: Origin) -> bool {
    let has_unopened = |node: &_| memory.zones.cell(*node, ZoneKind::Normal).unopened(origin) > 0;
    memory.nodes().filter(has_unopened).any(|node| open::open_next(memory, node, ZoneKind::Normal, origin))
}
