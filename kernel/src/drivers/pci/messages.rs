//! Interrupts by messages: MSI-X (PCI Local Bus 3.0 §6.8.2), of whose table the first entry is used.

use super::{Capability, ConfigSpace, Function, bar, capabilities};

/// In the capability's first register, the upper half: the function sends messages, and no line of its own.
const ENABLE: u32 = 1 << 31;
/// There, too: none of them.
const MASK_ALL: u32 = 1 << 30;
const TABLE: u8 = 4;
/// What of [`TABLE`] is the number of a BAR.
const BAR: u32 = 7;

/// Of an entry.
const ENTRY_BYTES: u64 = 16;

/// A function's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Messages {
    capability: Capability,
    /// The address of the table's first entry: address, its upper half, data, and whether it is masked.
    pub(crate) entry: u64,
}

impl Messages {
    /// The messages that a function can send, if it decodes what its table lies in.
    pub(super) fn of(config: &mut impl ConfigSpace, function: &Function) -> Option<Self> {
        let mut all = capabilities(config, function.address).into_iter();
        let capability = all.find(|capability| capability.id == Capability::MESSAGES)?;
        let place = config.read(function.address, capability.at.checked_add(TABLE)?);
        let (offset, range) = (u64::from(place & !BAR), bar(config, function, (place & BAR) as u8)?);
        (offset + ENTRY_BYTES <= range.len).then(|| Self { capability, entry: range.start + offset })
    }

    /// Lets the function send those whose entries are not masked.
    pub(super) fn switch_on(&self, config: &mut impl ConfigSpace, function: &Function) {
        let control = config.read(function.address, self.capability.at);
        config.write(function.address, self.capability.at, control & !MASK_ALL | ENABLE);
    }
}
