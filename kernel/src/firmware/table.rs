//! What every ACPI table begins with, and reading little-endian fields out of bytes that nobody has checked.

use mm::plural::Plural;
use thiserror::Error;

/// Length of the header that every table begins with.
pub(crate) const HEADER_BYTES: usize = 36;

/// No table we read is longer than this; one that says so is damaged.
pub(crate) const LONGEST_TABLE_BYTES: usize = 1 << 20;

/// What is wrong with a table as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum TableProblem {
    /// Not even a header.
    #[error("only {}, too short for a table header", Plural(*present as u64, "byte"))]
    NoHeader { present: usize },
    /// Some other table.
    #[error("wrong signature {:?}", SignatureText(*found))]
    Signature { found: [u8; 4] },
    /// The length in the header is more than there is.
    #[error("length field says {}, but {present} are there", Plural(*said as u64, "byte"))]
    Truncated { said: usize, present: usize },
    /// The length in the header does not even cover the table's fixed fields.
    #[error("length field says {}, but the fixed part alone has {needed}", Plural(*said as u64, "byte"))]
    TooShort { said: usize, needed: usize },
    /// The bytes do not add up to zero. The content is used all the same.
    #[error("checksum is off by {sum:#04x}")]
    Checksum { sum: u8 },
}

struct SignatureText([u8; 4]);

impl core::fmt::Debug for SignatureText {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(out, "\"{}\"", self.0.escape_ascii())
    }
}

/// A table's revision and bytes, cut to the length that it says and that is really there.
pub(crate) struct Table<'a> {
    pub(crate) revision: u8,
    pub(crate) bytes: &'a [u8],
}

/// Checks the header of a table whose fixed part has `fixed` bytes; `report` hears what is wrong with it. `None` if
/// nothing in it can be used.
pub(crate) fn open<'a>(
    bytes: &'a [u8],
    signature: &[u8; 4],
    fixed: usize,
    mut report: impl FnMut(TableProblem),
) -> Option<Table<'a>> {
    let present = bytes.len();
    if present < HEADER_BYTES {
        report(TableProblem::NoHeader { present });
        return None;
    }
    let found = [bytes[0], bytes[1], bytes[2], bytes[3]];
    if found != *signature {
        report(TableProblem::Signature { found });
        return None;
    }
    let said = u32_at(bytes, 4)? as usize;
    if said < fixed {
        report(TableProblem::TooShort { said, needed: fixed });
        return None;
    }
    if said > present {
        report(TableProblem::Truncated { said, present });
        if present < fixed {
            return None;
        }
    }
    let bytes = &bytes[..said.min(present)];
    let sum = checksum(bytes);
    if said <= present && sum != 0 {
        report(TableProblem::Checksum { sum });
    }
    Some(Table { revision: bytes[8], bytes })
}

/// The sum of all bytes, which is zero for a table that is as it was written.
pub(crate) fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let field = bytes.get(offset..offset.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}
