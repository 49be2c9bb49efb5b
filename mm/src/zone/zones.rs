//! All zones of a machine and the caches of all its CPUs, by node, kind and number.

use crate::addr::NodeId;
use crate::section::kind::{Origin, ZoneKind};
use crate::zone::cache::{Cache, CacheCell};
use crate::zone::{Zone, ZoneCell};
use core::sync::atomic::{AtomicU64, Ordering};
use lock_api::{Mutex, MutexGuard, RawMutex};

/// The zones of a machine: [`ZoneKind::ALL`] of them for each node, a node's behind one another.
pub(crate) struct Zones<S: 'static> {
    cells: &'static [ZoneCell<S>],
    /// Frames that all zones of a kind manage, by origin, so that nobody looks where there can be nothing.
    managed: [[AtomicU64; Origin::ALL.len()]; ZoneKind::ALL.len()],
}

impl<S: RawMutex> Zones<S> {
    pub(crate) const fn new(cells: &'static [ZoneCell<S>]) -> Self {
        Self { cells, managed: [const { [const { AtomicU64::new(0) }; Origin::ALL.len()] }; ZoneKind::ALL.len()] }
    }

    /// How many nodes there can be.
    pub(crate) const fn node_limit(&self) -> usize {
        self.count() / ZoneKind::ALL.len()
    }

    /// How many zones there are, populated or not.
    pub(crate) const fn count(&self) -> usize {
        self.cells.len()
    }

    pub(crate) const fn by_number(&self, number: usize) -> &'static ZoneCell<S> {
        &self.cells[number]
    }

    pub(crate) const fn cell(&self, node: NodeId, kind: ZoneKind) -> &'static ZoneCell<S> {
        self.by_number(zone_number(node, kind))
    }

    /// To read a zone.
    pub(crate) fn lock(&self, node: NodeId, kind: ZoneKind) -> MutexGuard<'static, S, Zone> {
        self.cell(node, kind).lock()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (NodeId, ZoneKind)> + use<S> {
        NodeId::all().take(self.node_limit()).flat_map(|node| ZoneKind::ALL.map(|kind| (node, kind)))
    }

    /// Where frames of one origin are counted that all zones of a kind manage; changed under the lock of the zone.
    pub(crate) const fn managed_of(&self, kind: ZoneKind, origin: Origin) -> &AtomicU64 {
        &self.managed[kind as usize][origin as usize]
    }

    /// Frames of one origin that all zones of a kind manage.
    pub(crate) fn managed(&self, kind: ZoneKind, origin: Origin) -> u64 {
        self.managed_of(kind, origin).load(Ordering::Relaxed)
    }

    /// Every zone that spans anything.
    pub(crate) fn populated(&self) -> impl Iterator<Item = (NodeId, ZoneKind)> + '_ {
        self.all().filter(|(node, kind)| self.lock(*node, *kind).span().is_some())
    }
}

/// The per-CPU caches of a machine: those of one zone for all CPUs, then those of the next.
pub(crate) struct Caches<S: 'static> {
    cells: &'static [CacheCell<S>],
    cpu_limit: usize,
}

impl<S: RawMutex> Caches<S> {
    pub(crate) const fn new(cells: &'static [CacheCell<S>], zones: usize) -> Self {
        Self { cells, cpu_limit: cells.len() / zones }
    }

    /// How many CPUs there are caches for.
    pub(crate) const fn cpu_limit(&self) -> usize {
        self.cpu_limit
    }

    pub(crate) const fn of(&self, cpu: usize, zone: usize) -> &'static Mutex<S, Cache> {
        &self.cells[zone * self.cpu_limit + cpu].0
    }

    /// What a CPU keeps of a zone, if there is such a zone.
    #[inline]
    pub(crate) fn find(&self, cpu: usize, zone: usize) -> Option<&'static Mutex<S, Cache>> {
        // A number too large finds nothing.
        let index = zone.wrapping_mul(self.cpu_limit).wrapping_add(cpu);
        self.cells.get(index).map(|cell| &cell.0)
    }
}

/// What a zone of that place among all is.
#[inline]
pub(crate) const fn kind_of_zone(number: usize) -> ZoneKind {
    ZoneKind::ALL[number % ZoneKind::ALL.len()]
}

/// The place of a zone among all.
pub(crate) const fn zone_number(node: NodeId, kind: ZoneKind) -> usize {
    node.index() * ZoneKind::ALL.len() + kind as usize
}
