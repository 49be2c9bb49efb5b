//! The per-CPU caches as a whole: emptied, and counted.

use crate::addr::SectionRange;
use crate::frame::page::Head;
use crate::machine::Machine;
use crate::memory::{self, Memory};
use crate::section::kind::Origin;
use crate::zone::cache::{FreeStack, SizeClass};
use crate::zone::zones::zone_number;

impl<M: Machine> Memory<M> {
    /// Empties the caches of every CPU.
    pub fn drain_caches(&self) {
        for zone in 0..self.zones.count() {
            drain_zone(self, zone);
        }
    }
}

/// Gives `count` blocks of a stack back to the zone.
#[inline(never)]
pub(crate) fn spill<M: Machine>(
    memory: &Memory<M>,
    zone: usize,
    origin: Origin,
    class: SizeClass,
    stack: &mut FreeStack,
    count: u64,
) {
    memory::change_zone(memory, zone, |zone| {
        for _ in 0..count {
            let Some((head, page)) = stack.pop(&memory.machine) else { break };
            page.set_head(Head::TAIL);
            zone.area_mut(origin).put(&memory.machine, head, class.order());
        }
    });
}

/// Empties what the caches of all CPUs hold of one zone.
pub(crate) fn drain_zone<M: Machine>(memory: &Memory<M>, zone: usize) {
    for cpu in 0..memory.caches.cpu_limit() {
        let cache = memory.caches.of(cpu, zone);
        if cache.lock().pages() == 0 {
            continue;
        }
        // One stack after the other, so that the CPU need not wait long; each as a whole, as what lies deepest is oldest.
        for (origin, class) in Origin::ALL.into_iter().flat_map(|origin| SizeClass::ALL.map(|class| (origin, class))) {
            let mut cache = cache.lock();
            let stack = cache.stack(origin, class);
            let count = stack.len();
            if count > 0 {
                spill(memory, zone, origin, class, stack, count);
            }
        }
    }
}

/// Frames of a zone in the caches of all CPUs.
pub(crate) fn cached_pages<M: Machine>(memory: &Memory<M>, zone: usize) -> u64 {
    cached_pages_by_origin(memory, zone).into_iter().sum()
}

/// The same, in the order of [`Origin::ALL`].
pub(crate) fn cached_pages_by_origin<M: Machine>(memory: &Memory<M>, zone: usize) -> [u64; Origin::ALL.len()] {
    let mut pages = [0; Origin::ALL.len()];
    for cpu in 0..memory.caches.cpu_limit() {
        let cache = memory.caches.of(cpu, zone).lock();
        for (sum, origin) in pages.iter_mut().zip(Origin::ALL) {
            *sum += cache.pages_of(origin);
        }
    }
    pages
}

/// Nothing new of isolated blocks gets into a cache; what is there is a free frame out of sight.
pub(crate) fn drain_zones_of<M: Machine>(memory: &Memory<M>, ranges: &[SectionRange]) {
    let mut drained = None;
    for range in ranges {
        for (_, section) in memory.sections.runs(*range) {
            let Some(section) = section.filter(|section| section.is_open()) else { continue };
            let zone = section.state.zone().map(|kind| zone_number(section.node, kind));
            if let Some(number) = zone.filter(|_| zone != drained) {
                drain_zone(memory, number);
                drained = zone;
            }
        }
    }
}
