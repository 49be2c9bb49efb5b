//! Names of functions, from the symbol table that the host tool puts behind the image.
//!
//! Little endian: the magic, the number of entries, the length of the strings; then the entries, sorted by address; then
//! the names, each ended by a zero byte. The table is checked once, as a whole; a bad one is ignored.
#![deny(unsafe_code)]

use crate::entry;
use spin::Once;
use thiserror::Error;

/// Entries count from here.
const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;

const MAGIC: [u8; 8] = *b"ALTMSYM1";
const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 12;

static TABLE: Once<SymbolTable<'static>> = Once::new();

/// A place inside a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Symbol<'a> {
    pub(crate) name: &'a str,
    /// Bytes from the function's start.
    pub(crate) offset: u64,
}

/// Why a table is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
enum TableError {
    #[error("the magic number is missing")]
    Magic,
    #[error("it is shorter than it says")]
    Truncated,
    #[error("entry {0} is out of order")]
    Order(usize),
    #[error("entry {0} has no name")]
    Name(usize),
}

/// Looks at the table.
pub(crate) fn init() {
    match SymbolTable::parse(entry::symbol_table()) {
        Ok(table) => {
            TABLE.call_once(|| table);
        }
        Err(error) => log::warn!(target: "boot", "symbol table ignored: {error}"),
    }
}

/// The function that an address lies in.
pub(crate) fn lookup(address: u64) -> Option<Symbol<'static>> {
    TABLE.get()?.lookup(address)
}

struct SymbolTable<'a> {
    entries: &'a [[u8; ENTRY_BYTES]],
    strings: &'a [u8],
}

struct Entry {
    start: u32,
    bytes: u32,
    name: u32,
}

impl<'a> SymbolTable<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, TableError> {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(TableError::Truncated)?;
        if header[..MAGIC.len()] != MAGIC {
            return Err(TableError::Magic);
        }
        let entry_bytes = (word(header, 8) as usize).checked_mul(ENTRY_BYTES).ok_or(TableError::Truncated)?;
        let (entries, rest) = rest.split_at_checked(entry_bytes).ok_or(TableError::Truncated)?;
        let strings = rest.get(..word(header, 12) as usize).ok_or(TableError::Truncated)?;
        let table = Self { entries: entries.as_chunks().0, strings };
        table.check()?;
        Ok(table)
    }

    fn check(&self) -> Result<(), TableError> {
        let mut previous = 0;
        for (index, bytes) in self.entries.iter().enumerate() {
            let entry = Entry::read(bytes);
            if entry.start < previous {
                return Err(TableError::Order(index));
            }
            previous = entry.start;
            self.name(&entry).ok_or(TableError::Name(index))?;
        }
        Ok(())
    }

    fn lookup(&self, address: u64) -> Option<Symbol<'a>> {
        let wanted = u32::try_from(address.checked_sub(IMAGE_BASE)?).ok()?;
        let after = self.entries.partition_point(|bytes| Entry::read(bytes).start <= wanted);
        let entry = Entry::read(self.entries.get(after.checked_sub(1)?)?);
        let offset = wanted - entry.start;
        (offset < entry.bytes).then(|| Some(Symbol { name: self.name(&entry)?, offset: offset.into() }))?
    }

    fn name(&self, entry: &Entry) -> Option<&'a str> {
        let text = self.strings.get(entry.name as usize..)?;
        let end = text.iter().position(|&byte| byte == 0)?;
        core::str::from_utf8(&text[..end]).ok()
    }
}

impl Entry {
    fn read(bytes: &[u8; ENTRY_BYTES]) -> Self {
        Self { start: word(bytes, 0), bytes: word(bytes, 4), name: word(bytes, 8) }
    }
}

/// The 32-bit word at an offset that lies inside.
fn word(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes([bytes[offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn table(entries: &[(u32, u32, u32)], strings: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend((entries.len() as u32).to_le_bytes());
        bytes.extend((strings.len() as u32).to_le_bytes());
        for (start, size, name) in entries {
            for word in [start, size, name] {
                bytes.extend(word.to_le_bytes());
            }
        }
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn an_address_inside_a_function_has_its_name() {
        let bytes = table(&[(0x10, 8, 0), (0x20, 8, 2)], b"a\0bc\0");
        let table = SymbolTable::parse(&bytes).expect("well formed");
        assert_eq!(table.lookup(IMAGE_BASE + 0x22), Some(Symbol { name: "bc", offset: 2 }));
        assert_eq!(table.lookup(IMAGE_BASE + 0x10), Some(Symbol { name: "a", offset: 0 }));
    }

    #[test]
    fn an_address_between_functions_has_none() {
        let bytes = table(&[(0x10, 8, 0), (0x20, 8, 2)], b"a\0bc\0");
        let table = SymbolTable::parse(&bytes).expect("well formed");
        for address in [0, IMAGE_BASE, IMAGE_BASE + 0x18, IMAGE_BASE + 0x28, u64::MAX] {
            assert_eq!(table.lookup(address), None);
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = table(&[(0x10, 8, 0), (0x20, 8, 2)], b"a\0bc\0");
        for length in 0..bytes.len() {
            assert!(SymbolTable::parse(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_table_out_of_order_is_refused() {
        let bytes = table(&[(0x20, 8, 0), (0x10, 8, 0)], b"a\0");
        assert_eq!(SymbolTable::parse(&bytes).err(), Some(TableError::Order(1)));
    }

    #[test]
    fn a_name_outside_the_strings_is_refused() {
        for name in [2, 3, u32::MAX] {
            let bytes = table(&[(0x20, 8, name)], b"a\0b");
            assert_eq!(SymbolTable::parse(&bytes).err(), Some(TableError::Name(0)));
        }
    }

    #[test]
    fn an_absurd_count_is_refused() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([0xff; 8]);
        assert_eq!(SymbolTable::parse(&bytes).err(), Some(TableError::Truncated));
    }
}
