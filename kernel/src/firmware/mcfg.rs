//! The MCFG table: where PCI's configuration space lies in memory (ECAM). PCI Firmware 3.3 §4.1.2.

use super::table::{self, TableProblem, u32_at, u64_at};
use crate::drivers::pci::Ecam;
use alloc::vec::Vec;
use thiserror::Error;

/// Header and eight reserved bytes.
const FIXED_BYTES: usize = 44;
const ENTRY_BYTES: usize = 16;
const BUS_BYTES: u64 = 1 << 20;
/// x86_64 knows at most 52 bits of physical address.
const ADDRESS_LIMIT: u64 = 1 << 52;
/// A damaged table is one piece of news, not thousands.
const ENTRY_LIMIT: usize = 32;

/// What the firmware says of configuration space in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mcfg {
    pub(crate) regions: Vec<Ecam>,
    /// What was wrong with the table, to be logged.
    pub(crate) problems: Vec<McfgProblem>,
}

/// Something in the table that could not be taken as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum McfgProblem {
    #[error("{0}")]
    Table(#[from] TableProblem),
    #[error("segment {segment} has buses {first} to {last}, ignored")]
    NoBus { segment: u16, first: u8, last: u8 },
    #[error("configuration space at {0:#x} reaches beyond any physical address, ignored")]
    BeyondAddresses(u64),
    #[error("more than {ENTRY_LIMIT} entries, the rest is ignored")]
    TooMany,
}

impl Mcfg {
    /// Reads the table, keeping what makes sense.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut mcfg = Self::default();
        let Some(table) = table::open(bytes, b"MCFG", FIXED_BYTES, |problem| mcfg.problems.push(problem.into())) else {
            return mcfg;
        };
        let (entries, _) = table.bytes[FIXED_BYTES..].as_chunks::<ENTRY_BYTES>();
        for (number, entry) in entries.iter().enumerate() {
            if number == ENTRY_LIMIT {
                mcfg.problems.push(McfgProblem::TooMany);
                break;
            }
            match ecam(entry) {
                Ok(region) => mcfg.regions.push(region),
                Err(problem) => mcfg.problems.push(problem),
            }
        }
        mcfg
    }
}

fn ecam(entry: &[u8; ENTRY_BYTES]) -> Result<Ecam, McfgProblem> {
    // The table tells where the space of bus 0 would be.
    let (base, word) = (u64_at(entry, 0).unwrap_or(0), u32_at(entry, 8).unwrap_or(0));
    let [low, high, first_bus, last_bus] = word.to_le_bytes();
    let segment = u16::from_le_bytes([low, high]);
    if last_bus < first_bus {
        return Err(McfgProblem::NoBus { segment, first: first_bus, last: last_bus });
    }
    let end = (u64::from(last_bus) + 1) * BUS_BYTES;
    if base.checked_add(end).is_none_or(|end| end > ADDRESS_LIMIT) {
        return Err(McfgProblem::BeyondAddresses(base));
    }
    Ok(Ecam { start: base + u64::from(first_bus) * BUS_BYTES, segment, first_bus, last_bus })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn entry(base: u64, segment: u16, first: u8, last: u8) -> Vec<u8> {
        let mut entry = base.to_le_bytes().to_vec();
        entry.extend(segment.to_le_bytes());
        entry.extend([first, last, 0, 0, 0, 0]);
        entry
    }

    fn parse(entries: &[Vec<u8>]) -> Mcfg {
        let body: Vec<u8> = [vec![0; 8], entries.concat()].concat();
        Mcfg::parse(&fixtures::table(b"MCFG", 1, &body))
    }

    #[test]
    fn every_q35_has_all_buses_in_memory() {
        for config in fixtures::CONFIGS.iter().filter(|config| config.starts_with("q35")) {
            let mcfg = Mcfg::parse(&fixtures::bytes(config, "mcfg.dat"));
            let all = Ecam { start: 0xb000_0000, segment: 0, first_bus: 0, last_bus: 255 };
            assert_eq!((mcfg.regions, mcfg.problems), (vec![all], vec![]), "{config}");
            assert_eq!(all.len(), 256 << 20);
        }
    }

    #[test]
    fn entries_that_make_no_sense_are_reported_and_left_out() {
        let mcfg = parse(&[entry(0xb000_0000, 0, 9, 8), entry(u64::MAX, 1, 0, 0), entry(0xe000_0000, 2, 16, 31)]);
        assert_eq!(mcfg.regions, [Ecam { start: 0xe100_0000, segment: 2, first_bus: 16, last_bus: 31 }]);
        let backwards = McfgProblem::NoBus { segment: 0, first: 9, last: 8 };
        assert_eq!(mcfg.problems, [backwards, McfgProblem::BeyondAddresses(u64::MAX)]);
        let many = parse(&vec![entry(0xb000_0000, 0, 0, 255); 40]);
        assert_eq!((many.regions.len(), many.problems), (ENTRY_LIMIT, vec![McfgProblem::TooMany]));
    }

    proptest! {
        #[test]
        fn no_damage_stops_the_reader(mutations in fixtures::mutations(8)) {
            for region in Mcfg::parse(&fixtures::mutated("q35-bios-numa", "mcfg.dat", &mutations)).regions {
                prop_assert!(region.start + region.len() <= ADDRESS_LIMIT);
            }
        }
    }
}
