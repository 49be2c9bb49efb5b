//! The keeper: background work that allocating and freeing leave to be done.

use crate::addr::Order;
use crate::alloc::{open, watermark};
use crate::limits::AHEAD_PAGES;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::poison;
use crate::section::kind::{Origin, ZoneKind};

impl<M: Machine> Memory<M> {
    /// Does a bounded part of the background work that allocating and freeing defer: takes faulty frames that were given back
    /// out of use, closes added sections that hold nothing, the one that has been empty for longest first, and opens a
    /// section before the kernel itself runs out of open memory.
    ///
    /// To be called after [`wake_keeper`](crate::machine::Machine::wake_keeper), from a task, with no lock held. Asks to be
    /// called again if there is more.
    pub fn housekeep(&self) {
        poison::poison_given_back(self);
        for node in self.nodes() {
            for kind in ZoneKind::ALL {
                open::close_spare(self, node, kind);
                let cell = self.zones.cell(node, kind);
                if kind == ZoneKind::Normal
                    && cell.has_unopened()
                    && cell.open_free(Origin::Added) < AHEAD_PAGES
                    && watermark::is_boot_memory_short(self)
                {
                    open::open_lowest(self, node, kind, Order::PAGE);
                }
            }
        }
    }
}
