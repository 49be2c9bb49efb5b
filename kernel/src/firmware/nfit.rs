//! The NVDIMM Firmware Interface Table: where persistent memory lies. ACPI 6.5 §5.2.25.
//!
//! Of its structures only system physical address (SPA) ranges are read; the others are about interleaving and drivers of
//! single devices. It tells what was there at boot.

use super::table::{self, TableProblem, u64_at};
use alloc::vec::Vec;
use thiserror::Error;

/// Header and four reserved bytes.
const FIXED_BYTES: usize = 40;
/// Type and length of a structure.
const STRUCTURE_HEADER_BYTES: usize = 4;
const TYPE_SPA_RANGE: u16 = 0;
const SPA_RANGE_BYTES: usize = 56;
/// The kind of a range that is byte-addressable persistent memory.
const PERSISTENT: [u8; 16] =
    [0x79, 0xd3, 0xf0, 0x66, 0xf3, 0xb4, 0x74, 0x40, 0xac, 0x43, 0x0d, 0x33, 0x18, 0xb7, 0x8c, 0xdb];
/// x86_64 knows at most 52 bits of physical address.
const ADDRESS_LIMIT: u64 = 1 << 52;
/// QEMU has no more slots than this.
const RANGE_LIMIT: usize = 256;
/// A damaged table is one piece of news, not thousands.
const PROBLEM_LIMIT: usize = 32;

/// What the firmware says of persistent memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nfit {
    /// In the order of the table.
    pub(crate) ranges: Vec<SpaRange>,
    /// What was wrong with the table, to be logged.
    pub(crate) problems: Vec<NfitProblem>,
}

/// A range of persistent memory, not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpaRange {
    pub(crate) start: u64,
    pub(crate) len: u64,
}

/// Something in the table that could not be taken as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum NfitProblem {
    #[error("{0}")]
    Table(#[from] TableProblem),
    #[error("structure at byte {offset} says it is {len} bytes long; the rest of the table is ignored")]
    NoProgress { offset: usize, len: usize },
    #[error("structure at byte {offset} of {len} bytes reaches past the table's end; the rest is ignored")]
    PastEnd { offset: usize, len: usize },
    #[error("range at byte {offset} has {len} bytes instead of {SPA_RANGE_BYTES}, ignored")]
    ShortRange { offset: usize, len: usize },
    #[error("persistent memory at {start:#x} has no length, ignored")]
    Empty { start: u64 },
    #[error("persistent memory at {start:#x} with {len:#x} bytes reaches beyond any physical address, ignored")]
    BeyondAddresses { start: u64, len: u64 },
    #[error("more than {RANGE_LIMIT} ranges, the rest is ignored")]
    TooManyRanges,
    #[error("more is wrong with this table")]
    More,
}

impl Nfit {
    /// Reads the table, keeping what makes sense.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut nfit = Self::default();
        let Some(table) = table::open(bytes, b"NFIT", FIXED_BYTES, |problem| nfit.problem(problem.into())) else {
            return nfit;
        };
        let mut offset = FIXED_BYTES;
        while offset < table.bytes.len() {
            let rest = &table.bytes[offset..];
            let Some(&[type_low, type_high, len_low, len_high]) = rest.first_chunk() else {
                nfit.problem(NfitProblem::PastEnd { offset, len: STRUCTURE_HEADER_BYTES });
                break;
            };
            let len = usize::from(u16::from_le_bytes([len_low, len_high]));
            if len < STRUCTURE_HEADER_BYTES {
                nfit.problem(NfitProblem::NoProgress { offset, len });
                break;
            }
            let Some(structure) = rest.get(..len) else {
                nfit.problem(NfitProblem::PastEnd { offset, len });
                break;
            };
            if u16::from_le_bytes([type_low, type_high]) == TYPE_SPA_RANGE {
                match spa_range(structure, offset) {
                    Ok(Some(_)) if nfit.ranges.len() == RANGE_LIMIT => {
                        nfit.problem(NfitProblem::TooManyRanges);
                        break;
                    }
                    Ok(range) => nfit.ranges.extend(range),
                    Err(problem) => nfit.problem(problem),
                }
            }
            offset += len;
        }
        nfit
    }

    fn problem(&mut self, problem: NfitProblem) {
        if self.problems.len() < PROBLEM_LIMIT {
            self.problems.push(problem);
        } else if self.problems.len() == PROBLEM_LIMIT {
            self.problems.push(NfitProblem::More);
        }
    }
}

/// The range, if it is persistent memory.
fn spa_range(structure: &[u8], offset: usize) -> Result<Option<SpaRange>, NfitProblem> {
    let short = NfitProblem::ShortRange { offset, len: structure.len() };
    let structure = structure.get(..SPA_RANGE_BYTES).ok_or(short)?;
    if structure[16..32] != PERSISTENT {
        return Ok(None);
    }
    let (start, len) = u64_at(structure, 32).zip(u64_at(structure, 40)).ok_or(short)?;
    if len == 0 {
        return Err(NfitProblem::Empty { start });
    }
    if start.checked_add(len).is_none_or(|end| end > ADDRESS_LIMIT) {
        return Err(NfitProblem::BeyondAddresses { start, len });
    }
    Ok(Some(SpaRange { start, len }))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const WITH_NVDIMM: [&str; 4] =
        ["pc-bios-numa-nvdimm", "pc-ovmf-numa-nvdimm", "q35-bios-numa-nvdimm", "q35-ovmf-numa-nvdimm"];

    fn range(kind: [u8; 16], start: u64, len: u64) -> Vec<u8> {
        let mut range = vec![0; SPA_RANGE_BYTES];
        range[2] = SPA_RANGE_BYTES as u8;
        range[16..32].copy_from_slice(&kind);
        range[32..40].copy_from_slice(&start.to_le_bytes());
        range[40..48].copy_from_slice(&len.to_le_bytes());
        range
    }

    fn parse(structures: &[Vec<u8>]) -> Nfit {
        let body: Vec<u8> = [vec![0; 4], structures.concat()].concat();
        Nfit::parse(&fixtures::table(b"NFIT", 1, &body))
    }

    #[test]
    fn every_fixture_with_an_nvdimm_names_its_range() {
        for config in WITH_NVDIMM {
            let nfit = Nfit::parse(&fixtures::bytes(config, "nfit.dat"));
            let only = SpaRange { start: 0x1_1000_0000, len: 256 << 20 };
            assert_eq!((nfit.ranges, nfit.problems), (vec![only], vec![]), "{config}");
        }
    }

    #[test]
    fn other_structures_and_other_kinds_of_ranges_are_skipped() {
        let other = vec![9, 0, 6, 0, 0xff, 0xff];
        let nfit = parse(&[other, range([7; 16], 0, 0), range(PERSISTENT, 1 << 32, 1 << 21)]);
        assert_eq!((nfit.ranges, nfit.problems), (vec![SpaRange { start: 1 << 32, len: 1 << 21 }], vec![]));
    }

    #[test]
    fn ranges_that_make_no_sense_are_reported_and_left_out() {
        let short = vec![0, 0, 55, 0].into_iter().chain([0; 51]).collect();
        let nfit = parse(&[
            range(PERSISTENT, 4096, 0),
            range(PERSISTENT, u64::MAX, 2),
            range(PERSISTENT, (1 << 52) - 1, 2),
            short,
            range(PERSISTENT, (1 << 52) - 2, 2),
        ]);
        assert_eq!(nfit.ranges, [SpaRange { start: (1 << 52) - 2, len: 2 }]);
        assert_eq!(
            nfit.problems,
            [
                NfitProblem::Empty { start: 4096 },
                NfitProblem::BeyondAddresses { start: u64::MAX, len: 2 },
                NfitProblem::BeyondAddresses { start: (1 << 52) - 1, len: 2 },
                NfitProblem::ShortRange { offset: 208, len: 55 },
            ]
        );
    }

    #[test]
    fn lengths_that_lead_nowhere_end_the_table() {
        let good = range(PERSISTENT, 1 << 32, 1 << 21);
        for (tail, problem) in [
            (vec![0, 0, 0, 0], NfitProblem::NoProgress { offset: 96, len: 0 }),
            (vec![0, 0, 3, 0], NfitProblem::NoProgress { offset: 96, len: 3 }),
            (vec![0, 0, 0xff, 0xff], NfitProblem::PastEnd { offset: 96, len: 0xffff }),
            (vec![0, 0], NfitProblem::PastEnd { offset: 96, len: 4 }),
        ] {
            let nfit = parse(&[good.clone(), tail]);
            assert_eq!((nfit.ranges.len(), nfit.problems), (1, vec![problem]));
        }
        let many = parse(&vec![good; RANGE_LIMIT + 1]);
        assert_eq!((many.ranges.len(), many.problems), (RANGE_LIMIT, vec![NfitProblem::TooManyRanges]));
        let empty = parse(&vec![range(PERSISTENT, 0, 0); 100]);
        assert_eq!((empty.problems.len(), empty.problems.last()), (PROBLEM_LIMIT + 1, Some(&NfitProblem::More)));
    }

    proptest! {
        #[test]
        fn no_damage_stops_the_reader(mutations in fixtures::mutations(8)) {
            for range in Nfit::parse(&fixtures::mutated("q35-bios-numa-nvdimm", "nfit.dat", &mutations)).ranges {
                prop_assert!(range.len > 0 && range.start + range.len <= ADDRESS_LIMIT);
            }
        }
    }
}
