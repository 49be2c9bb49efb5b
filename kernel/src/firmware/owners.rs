//! Whose memory is whose: ranges that claim addresses for nodes, and the map of owners that comes of them.
//!
//! Firmware that is wrong about a range is mostly wrong about where it ends, or spans more with it than it should. So of
//! the claims to one address that of the smallest range is believed: it is the most precise one, and whoever claimed more
//! loses only that part. The order in which the claims were made has no say.

use alloc::vec::Vec;

/// The node of one range of physical addresses, whole pages, not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryAffinity {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) domain: u32,
    /// Memory may come and go here; whether it is there now is not said.
    pub(crate) hotpluggable: bool,
    pub(crate) nonvolatile: bool,
}

impl MemoryAffinity {
    /// The first address behind the range.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len
    }

    /// Whether the address lies in the range.
    pub(crate) fn contains(&self, address: u64) -> bool {
        (self.start..self.end()).contains(&address)
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// The part of it between two addresses.
    fn between(&self, start: u64, end: u64) -> Self {
        let start = self.start.max(start);
        Self { start, len: self.end().min(end) - start, ..*self }
    }

    /// The lower one is believed. What lies there now counts before what may come there, whatever their sizes; what is
    /// behind the size only makes the order one of all ranges.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        (self.hotpluggable, self.len, self.start, self.domain, self.nonvolatile)
    }
}

/// Ranges that do not overlap, lowest first: the owner of every address that has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owners(Vec<MemoryAffinity>);

impl Owners {
    /// Cuts from every claim what belongs to a better one.
    pub(crate) fn new(mut claims: Vec<MemoryAffinity>) -> Self {
        claims.sort_unstable_by_key(MemoryAffinity::rank);
        let mut edges: Vec<u64> = claims.iter().flat_map(|claim| [claim.start, claim.end()]).collect();
        edges.sort_unstable();
        edges.dedup();
        let mut parts: Vec<MemoryAffinity> = Vec::new();
        let mut last_best = None;
        for edge in edges.windows(2) {
            let best = claims.iter().position(|claim| claim.contains(edge[0]));
            match parts.last_mut() {
                Some(last) if best.is_some() && best == last_best => last.len = edge[1] - last.start,
                _ => parts.extend(best.map(|best| claims[best].between(edge[0], edge[1]))),
            }
            last_best = best;
        }
        Self(parts)
    }

    /// All of them, lowest first.
    pub(crate) fn parts(&self) -> &[MemoryAffinity] {
        &self.0
    }

    /// What somebody owns between two addresses, lowest first.
    pub(crate) fn between(&self, start: u64, end: u64) -> impl Iterator<Item = MemoryAffinity> {
        let first = self.0.partition_point(|part| part.end() <= start);
        let parts = self.0[first..].iter().take_while(move |part| part.start < end);
        parts.map(move |part| part.between(start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn claim(start: u64, end: u64, domain: u32) -> MemoryAffinity {
        MemoryAffinity { start, len: end - start, domain, hotpluggable: false, nonvolatile: false }
    }

    fn may_come(start: u64, end: u64, domain: u32) -> MemoryAffinity {
        MemoryAffinity { hotpluggable: true, ..claim(start, end, domain) }
    }

    /// Start, end and node of what becomes of the claims, whatever their order.
    #[track_caller]
    fn owners(claims: &[MemoryAffinity]) -> Vec<(u64, u64, u32)> {
        let owners = Owners::new(claims.to_vec());
        let reversed = claims.iter().rev().copied().collect();
        assert_eq!(Owners::new(reversed), owners);
        owners.parts().iter().map(|part| (part.start, part.end(), part.domain)).collect()
    }

    #[test]
    fn of_two_claims_the_smaller_one_is_believed_and_the_other_keeps_the_rest() {
        assert_eq!(owners(&[claim(0, 11, 0), claim(10, 20, 1)]), [(0, 10, 0), (10, 20, 1)]);
        assert_eq!(owners(&[claim(0, 10, 0), claim(9, 20, 1)]), [(0, 10, 0), (10, 20, 1)]);
        assert_eq!(owners(&[claim(0, 30, 0), claim(10, 20, 1)]), [(0, 10, 0), (10, 20, 1), (20, 30, 0)]);
        assert_eq!(owners(&[claim(0, 10, 1), claim(0, 10, 0)]), [(0, 10, 0)]);
    }

    #[test]
    fn what_is_there_counts_before_what_may_come() {
        assert_eq!(owners(&[claim(0, 30, 0), may_come(10, 20, 1)]), [(0, 30, 0)]);
        assert_eq!(owners(&[may_come(0, 30, 1), claim(10, 20, 0)]), [(0, 10, 1), (10, 20, 0), (20, 30, 1)]);
    }

    #[test]
    fn neighbours_stay_what_they_are_and_gaps_have_no_owner() {
        assert_eq!(
            owners(&[claim(0, 10, 0), claim(10, 20, 0), claim(30, 40, 0)]),
            [(0, 10, 0), (10, 20, 0), (30, 40, 0)]
        );
        assert_eq!(owners(&[]), []);
    }

    #[test]
    fn what_lies_between_two_addresses_is_cut_at_both() {
        let owners = Owners::new(vec![claim(0, 10, 0), claim(10, 20, 1), claim(30, 40, 2)]);
        let between = |start, end| owners.between(start, end).collect::<Vec<_>>();
        assert_eq!(between(5, 35), [claim(5, 10, 0), claim(10, 20, 1), claim(30, 35, 2)]);
        assert_eq!(between(20, 30), []);
        assert_eq!(between(12, 13), [claim(12, 13, 1)]);
        assert_eq!(between(40, u64::MAX), []);
    }
}
