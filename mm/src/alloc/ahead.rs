//! Opening sections ahead of need, for those who cannot have one opened when they need it.
//!
//! [`Urgency::Hotplug`](crate::alloc::request::Urgency::Hotplug) is served from what is open, as it asks under the lock of the page
//! tables. So that there is something, whoever is served otherwise leaves the reserve in open boot memory; an offline that takes open
//! boot memory away has more of it opened first; and the keeper sees to it that some is open beyond the reserve.

use crate::alloc::open;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::section::kind::{Origin, ZoneKind};

/// Opens boot memory, as far as there is any, until the reserve lies in what is open and stays.
pub(crate) fn open_reserve<M: Machine>(memory: &Memory<M>) {
    while memory.boot_free.is_reserve_short() && open_normal(memory, Origin::Boot) {}
}

/// Opens the lowest Normal section of an origin; whether there may be more to be had than before.
fn open_normal<M: Machine>(memory: &Memory<M>, origin: Origin) -> bool {
    let has_unopened = |node: &_| memory.zones.cell(*node, ZoneKind::Normal).unopened(origin) > 0;
    memory.nodes().filter(has_unopened).any(|node| open::open_next(memory, node, ZoneKind::Normal, origin))
}
