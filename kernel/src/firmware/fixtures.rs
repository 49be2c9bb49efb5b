//! Tables that real firmware made, for the tests of this folder, and ways to damage them.

use proptest::prelude::*;
use std::path::PathBuf;

/// Every configuration that has tables.
pub(crate) const CONFIGS: [&str; 18] = [
    "pc-bios-numa",
    "pc-bios-numa-dimm",
    "pc-bios-numa-dist",
    "pc-bios-numa-nvdimm",
    "pc-bios-numa-vmem",
    "pc-bios-plain",
    "pc-ovmf-numa",
    "pc-ovmf-numa-nvdimm",
    "q35-bios-cxl",
    "q35-bios-hmat",
    "q35-bios-numa",
    "q35-bios-numa-dimm",
    "q35-bios-numa-dist",
    "q35-bios-numa-nvdimm",
    "q35-bios-numa-vmem",
    "q35-bios-plain",
    "q35-ovmf-numa",
    "q35-ovmf-numa-nvdimm",
];

/// The bytes of one file of a configuration.
pub(crate) fn bytes(config: &str, file: &str) -> Vec<u8> {
    let path = path(config, file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where a file of a configuration lies.
pub(crate) fn path(config: &str, file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "tests", "fixtures", "acpi", config, file].iter().collect()
}

/// A table made up for a test, with the right length and checksum.
pub(crate) fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table = signature.to_vec();
    table.extend_from_slice(&(36 + body.len() as u32).to_le_bytes());
    table.push(revision);
    table.resize(36, 0);
    table.extend_from_slice(body);
    seal(&mut table);
    table
}

/// Makes the checksum right.
pub(crate) fn seal(table: &mut [u8]) {
    table[9] = 0;
    table[9] = super::table::checksum(table).wrapping_neg();
}

/// Damage: bytes to change (at a place modulo the length) and where to cut, if at all.
pub(crate) type Mutations = (Vec<(usize, u8)>, Option<usize>);

/// Any damage of up to `most` bytes.
pub(crate) fn mutations(most: usize) -> impl Strategy<Value = Mutations> {
    let interesting = prop_oneof![Just(0u8), Just(1), Just(2), Just(0x7f), Just(0xff), any::<u8>()];
    let changes = prop::collection::vec((any::<usize>(), interesting), 0..most);
    (changes, prop::option::of(any::<usize>()))
}

/// A fixture with that damage.
pub(crate) fn mutated(config: &str, file: &str, mutations: &Mutations) -> Vec<u8> {
    let mut table = bytes(config, file);
    damage(&mut table, mutations);
    table
}

/// Does that damage.
pub(crate) fn damage(table: &mut Vec<u8>, (changes, cut): &Mutations) {
    let len = table.len();
    for (place, value) in changes {
        table[place % len] = *value;
    }
    if let Some(cut) = cut {
        table.truncate(cut % (len + 1));
    }
}
