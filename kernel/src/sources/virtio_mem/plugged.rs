//! Which pieces of which units are plugged, found without a walk over all of them.

use super::region::{Region, Run, runs};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use mm::addr::SectionId;

/// The units that are known, by their first blocks.
pub(super) struct Plugged {
    region: Region,
    /// Of each, which pieces are plugged: a bit for each.
    units: BTreeMap<SectionId, u64>,
    /// Those of which not all are.
    partial: BTreeSet<SectionId>,
    /// Pieces of all.
    count: u64,
    /// All units below this one, counted from the first, are known.
    known_below: usize,
}

impl Plugged {
    pub(super) const fn new(region: Region) -> Self {
        Self { region, units: BTreeMap::new(), partial: BTreeSet::new(), count: 0, known_below: 0 }
    }

    /// How many pieces there are.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// The pieces of a unit, if it is known.
    pub(super) fn pieces(&self, id: SectionId) -> Option<u64> {
        self.units.get(&id).copied()
    }

    /// Every unit, highest first.
    pub(super) fn highest_first(&self) -> Vec<SectionId> {
        self.units.keys().rev().copied().collect()
    }

    /// Pieces have come, and with the first of them their unit.
    pub(super) fn add(&mut self, run: Run) {
        let pieces = self.pieces(run.id).unwrap_or(0) | run.bits();
        self.set(run.id, pieces);
        self.count += run.count;
    }

    /// Pieces have gone; the first of their unit has not.
    pub(super) fn take(&mut self, run: Run) {
        let pieces = self.pieces(run.id).unwrap_or(0) & !run.bits();
        self.set(run.id, pieces);
        self.count -= run.count;
    }

    /// A unit has gone.
    pub(super) fn remove(&mut self, id: SectionId) {
        let pieces = self.units.remove(&id).unwrap_or(0);
        self.partial.remove(&id);
        self.count -= u64::from(pieces.count_ones());
        self.known_below = self.known_below.min(self.index_of(id));
    }

    /// Pieces that are vacant: of units that are known in part, lowest first, and then of the lowest that is not known.
    pub(super) fn vacant(&mut self) -> impl Iterator<Item = Run> {
        let all = Run { id: self.region.window.first(), first: 0, count: self.region.per_unit() }.bits();
        while let Some(id) = self.region.unit_at(self.known_below)
            && self.units.contains_key(&id)
        {
            self.known_below += 1;
        }
        let new = self.region.unit_at(self.known_below).map(|id| (id, all));
        let units = &self.units;
        let begun = self.partial.iter().map(move |id| (*id, all & !units[id]));
        begun.chain(new).flat_map(|(id, bits)| runs(id, bits))
    }

    fn set(&mut self, id: SectionId, pieces: u64) {
        self.units.insert(id, pieces);
        match u64::from(pieces.count_ones()) == self.region.per_unit() {
            true => self.partial.remove(&id),
            false => self.partial.insert(id),
        };
    }

    fn index_of(&self, id: SectionId) -> usize {
        (id.index() - self.region.window.first().index()) / self.region.unit_blocks() as usize
    }
}
