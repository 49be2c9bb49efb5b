//! The keeper: background work that allocating and freeing leave to be done.

use crate::addr::Order;
use crate::alloc::{open, watermark};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::poison;
use crate::section::kind::ZoneKind;

impl<M: Machine> Memory<M> {
    /// Does a bounded part of the background work that allocating and freeing defer: takes faulty frames that were given back
    /// out of use, closes sections that hold nothing, the one that has been empty for longest first, and opens a section
    /// before the kernel itself runs out of open memory.
    ///
    /// To be called after [`wake_keeper`](crate::machine::Machine::wake_keeper), from a task, with no lock held. Asks to be
    /// called again if there is more.
    pub fn housekeep(&self) {
        poison::poison_given_back(self);
        for node in self.nodes() {
            for kind in ZoneKind::ALL {
                open::close_spare(self, node, kind);
                if kind == ZoneKind::Normal
                    && watermark::is_boot_memory_short(self)
                    && let Some(origin) = self.zones.cell(node, kind).closed_up()
                {
                    open::open_lowest(self, node, kind, origin, Order::PAGE);
                }
            }
        }
    }
}
