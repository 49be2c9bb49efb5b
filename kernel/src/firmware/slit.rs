//! The System Locality Information Table: how far nodes are from each other. ACPI 6.5 §5.2.17.

use alloc::vec::Vec;
use thiserror::Error;

use super::srat::DOMAIN_LIMIT;
use super::table::{self, TableProblem, u64_at};

/// From a node to itself; the unit of every other distance.
pub(crate) const LOCAL_DISTANCE: u8 = 10;
/// Taken where the firmware says nothing that makes sense.
pub(crate) const REMOTE_DISTANCE: u8 = 20;

const FIXED_BYTES: usize = 44;
const PROBLEM_LIMIT: usize = 32;

/// The distances between nodes, a square matrix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slit {
    /// How many nodes the matrix covers; 0 if nothing in the table could be used.
    nodes: usize,
    distances: Vec<u8>,
    /// What was wrong with the table, to be logged.
    pub(crate) problems: Vec<SlitProblem>,
}

/// Something in the table that could not be taken as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum SlitProblem {
    #[error("{0}")]
    Table(#[from] TableProblem),
    #[error("{count} localities, but node ids end at {}; the table is ignored", DOMAIN_LIMIT - 1)]
    TooMany { count: u64 },
    #[error("localities: {count}, which need {needed} bytes, but {present} are there; the table is ignored")]
    Incomplete { count: u64, needed: usize, present: usize },
    #[error("node {node} is {said} from itself instead of {LOCAL_DISTANCE}")]
    NotLocal { node: usize, said: u8 },
    #[error("node {from} is only {said} from node {to}; taken as {REMOTE_DISTANCE}")]
    NearerThanLocal { from: usize, to: usize, said: u8 },
}

impl Slit {
    /// Reads the table; what makes no sense is replaced by a default and reported.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut slit = Self::default();
        let Some(table) = table::open(bytes, b"SLIT", FIXED_BYTES, |problem| slit.problem(problem.into())) else {
            return slit;
        };
        let count = u64_at(table.bytes, 36).unwrap_or(0);
        if count > u64::from(DOMAIN_LIMIT) {
            slit.problem(SlitProblem::TooMany { count });
            return slit;
        }
        let nodes = count as usize;
        let needed = FIXED_BYTES + nodes * nodes;
        let Some(matrix) = table.bytes.get(FIXED_BYTES..needed) else {
            slit.problem(SlitProblem::Incomplete { count, needed, present: table.bytes.len() });
            return slit;
        };
        slit.nodes = nodes;
        slit.distances = matrix.to_vec();
        slit.check_distances();
        slit
    }

    /// How many nodes there are at least; 0 if nothing in the table could be used.
    pub(crate) fn node_count(&self) -> u32 {
        self.nodes as u32
    }

    /// How far memory of node `to` is from node `from`.
    pub(crate) fn distance(&self, from: u32, to: u32) -> u8 {
        let (row, column) = (from as usize, to as usize);
        match (from == to, row < self.nodes && column < self.nodes) {
            (_, true) => self.distances[row * self.nodes + column],
            (true, false) => LOCAL_DISTANCE,
            (false, false) => REMOTE_DISTANCE,
        }
    }

    fn check_distances(&mut self) {
        for from in 0..self.nodes {
            for to in 0..self.nodes {
                let index = from * self.nodes + to;
                let said = self.distances[index];
                if from == to && said != LOCAL_DISTANCE {
                    self.problem(SlitProblem::NotLocal { node: from, said });
                    self.distances[index] = LOCAL_DISTANCE;
                } else if from != to && said < LOCAL_DISTANCE {
                    self.problem(SlitProblem::NearerThanLocal { from, to, said });
                    self.distances[index] = REMOTE_DISTANCE;
                }
            }
        }
    }

    fn problem(&mut self, problem: SlitProblem) {
        if self.problems.len() < PROBLEM_LIMIT {
            self.problems.push(problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firmware::fixtures;

    fn table(count: u64, matrix: &[u8]) -> Vec<u8> {
        let mut body = count.to_le_bytes().to_vec();
        body.extend_from_slice(matrix);
        fixtures::table(b"SLIT", 1, &body)
    }

    #[test]
    fn every_fixture_with_distances_says_10_and_21() {
        for config in ["pc-bios-numa-dist", "q35-bios-numa-dist", "q35-bios-hmat"] {
            let slit = Slit::parse(&fixtures::bytes(config, "slit.dat"));
            assert_eq!(slit.problems, [], "{config}");
            assert_eq!(slit.nodes, 2, "{config}");
            let rows: Vec<u8> = (0..4).map(|cell| slit.distance(cell / 2, cell % 2)).collect();
            assert_eq!(rows, [10, 21, 21, 10], "{config}");
        }
    }

    #[test]
    fn a_distance_is_read_row_by_row() {
        let slit = Slit::parse(&table(3, &[10, 11, 12, 21, 10, 22, 31, 32, 10]));
        assert_eq!((slit.distance(0, 2), slit.distance(2, 0), slit.distance(1, 2)), (12, 31, 22));
    }

    #[test]
    fn nodes_beyond_the_matrix_are_remote_and_local_to_themselves() {
        let slit = Slit::parse(&table(1, &[10]));
        assert_eq!((slit.distance(0, 5), slit.distance(5, 0), slit.distance(7, 7)), (20, 20, 10));
    }

    #[test]
    fn a_matrix_cut_short_is_ignored_and_said() {
        let slit = Slit::parse(&table(2, &[10, 21, 21]));
        assert_eq!(slit.nodes, 0);
        assert_eq!(slit.problems, [SlitProblem::Incomplete { count: 2, needed: 48, present: 47 }]);
    }

    #[test]
    fn an_absurd_count_is_refused_without_multiplying_it() {
        for count in [129, u64::from(u32::MAX), u64::MAX] {
            let slit = Slit::parse(&table(count, &[10; 64]));
            assert_eq!((slit.nodes, &slit.problems[..]), (0, &[SlitProblem::TooMany { count }][..]));
        }
    }

    #[test]
    fn senseless_distances_are_replaced() {
        let slit = Slit::parse(&table(2, &[0, 9, 255, 10]));
        assert_eq!((slit.distance(0, 0), slit.distance(0, 1), slit.distance(1, 0)), (10, 20, 255));
        assert_eq!(slit.problems.len(), 2);
    }

    #[test]
    fn a_table_of_a_header_only_is_refused() {
        let slit = Slit::parse(&fixtures::table(b"SLIT", 1, &[]));
        assert_eq!(slit.problems, [SlitProblem::Table(TableProblem::TooShort { said: 36, needed: 44 })]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(flips in fixtures::mutations(60)) {
            let slit = Slit::parse(&fixtures::mutated("q35-bios-numa-dist", "slit.dat", &flips));
            for cell in 0..16 {
                slit.distance(cell / 4, cell % 4);
            }
        }
    }
}
