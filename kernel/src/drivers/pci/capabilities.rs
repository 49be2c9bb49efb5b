//! The list of a function's capabilities (PCI Local Bus 3.0 §6.7).

use super::{Address, COMMAND, ConfigSpace};
use alloc::vec::Vec;

/// In [`COMMAND`], the upper half: there is a list.
const HAS_LIST: u32 = 1 << 20;
/// Where the list begins, in the lowest byte.
const FIRST: u8 = 0x34;
/// Below this, a function has its header.
const HEADER_BYTES: u8 = 0x40;

/// Something that a function can do beyond what all do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capability {
    pub(crate) id: u8,
    /// The register at which it begins: its number, the place of the next one, and what it says.
    pub(crate) at: u8,
}

impl Capability {
    /// What vendors use as they like.
    pub(crate) const VENDOR: u8 = 0x09;
    /// MSI-X.
    pub(super) const MESSAGES: u8 = 0x11;
}

/// Every capability of a function, in the order of the list; a list that leads back, or into the header, ends there.
pub(crate) fn capabilities(config: &mut impl ConfigSpace, function: Address) -> Vec<Capability> {
    let mut found = Vec::new();
    if config.read(function, COMMAND) & HAS_LIST == 0 {
        return found;
    }
    let mut at = config.read(function, FIRST) as u8 & !3;
    while at >= HEADER_BYTES && found.iter().all(|known: &Capability| known.at != at) {
        let head = config.read(function, at);
        found.push(Capability { id: head as u8, at });
        at = (head >> 8) as u8 & !3;
    }
    found
}
