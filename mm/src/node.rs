//! Nodes: how far they are from each other, and in which order they stand in for one another.

use crate::addr::NodeId;

/// Distances between nodes, as the SLIT tells them (ACPI 6.5, 5.2.17): 10 is local, 255 unreachable.
#[derive(Clone, Copy, Debug)]
pub struct Distances {
    count: usize,
    matrix: &'static [u8],
}

impl Distances {
    const LOCAL: u8 = 10;
    const REMOTE: u8 = 20;

    /// Every other node is equally far.
    pub const UNKNOWN: Self = Self { count: 0, matrix: &[] };

    /// A square matrix of `count` rows. `None` if it does not have `count * count` entries.
    #[must_use]
    pub fn new(count: usize, matrix: &'static [u8]) -> Option<Self> {
        (count.checked_mul(count) == Some(matrix.len())).then_some(Self { count, matrix })
    }

    /// How far `to` is from `from`.
    #[must_use]
    pub fn between(&self, from: NodeId, to: NodeId) -> u8 {
        if from.index() < self.count && to.index() < self.count {
            self.matrix[from.index() * self.count + to.index()]
        } else if from == to {
            Self::LOCAL
        } else {
            Self::REMOTE
        }
    }

    /// The first `limit` nodes, nearest to `from` first, lower numbers first among equals.
    pub(crate) fn nearest(self, from: NodeId, limit: usize) -> impl Iterator<Item = NodeId> {
        // The node itself leads whatever the table says of it, and needs no search.
        let key = move |node: NodeId| (node != from, self.between(from, node), node);
        let mut last = None;
        core::iter::from_fn(move || {
            let next = if last.is_none() && from.index() < limit {
                from
            } else {
                NodeId::all()
                    .take(limit)
                    .filter(|node| last.is_none_or(|last| key(*node) > key(last)))
                    .min_by_key(|node| key(*node))?
            };
            last = Some(next);
            Some(next)
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn nodes_stand_in_for_each_other_by_distance() {
        let distances = Distances::new(3, &[10, 40, 20, 40, 10, 30, 20, 30, 10]).expect("square");
        let order = |n| {
            let from = NodeId::new(n).expect("in reach");
            distances.nearest(from, 4).map(NodeId::number).collect::<Vec<_>>()
        };
        assert_eq!(order(0), [0, 2, 3, 1]);
        assert_eq!(order(1), [1, 3, 2, 0]);
        assert_eq!(order(3), [3, 0, 1, 2]);
    }

    #[test]
    fn a_matrix_that_is_not_square_is_refused() {
        assert!(Distances::new(2, &[10, 20, 20]).is_none());
    }
}
