//! The symbol table for the kernel's backtraces, which becomes a segment of the kernel's image.
//!
//! Little endian: the magic, the number of symbols, the length of the strings; for each symbol, sorted by address, its
//! offset from the kernel's base, its size and where its name starts; then the names, each ended by NUL.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSymbol, SymbolKind};

const MAGIC: &[u8; 8] = b"ALTMSYM1";

/// Where the kernel image is linked.
const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;

/// The bootloader reads the kernel through the BIOS, slowly; a name longer than this is mostly type arguments.
const NAME_BYTES_MAX: usize = 96;

/// The symbol table of an unstripped kernel.
pub fn table(elf: &[u8]) -> Result<Vec<u8>> {
    let file = object::File::parse(elf).context("the kernel is no ELF file")?;
    let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0);
    let functions = functions.filter_map(|symbol| {
        let name = readable(symbol.name().ok()?);
        Some(Function { offset: offset(symbol.address())?, size: u32::try_from(symbol.size()).ok()?, name })
    });
    let functions: Vec<_> = functions.collect();
    if functions.is_empty() {
        bail!("the kernel has no symbols");
    }
    encode(functions)
}

struct Function {
    offset: u32,
    size: u32,
    name: String,
}

fn offset(address: u64) -> Option<u32> {
    u32::try_from(address.checked_sub(KERNEL_BASE)?).ok()
}

/// Demangled, without the hash.
fn readable(mangled: &str) -> String {
    let name = format!("{:#}", rustc_demangle::demangle(mangled));
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    let end = name.floor_char_boundary(NAME_BYTES_MAX - "..".len());
    format!("{}..", &name[..end])
}

fn encode(mut functions: Vec<Function>) -> Result<Vec<u8>> {
    functions.sort_by(|a, b| (a.offset, &a.name).cmp(&(b.offset, &b.name)));
    // Functions with equal code are folded into one address; one name is as good as the other.
    functions.dedup_by_key(|function| function.offset);

    let mut strings = Vec::new();
    let mut known = HashMap::new();
    let mut entries = Vec::new();
    for Function { offset, size, name } in &functions {
        let next = u32::try_from(strings.len()).context("the names are too long")?;
        let at = *known.entry(name).or_insert(next);
        if at == next {
            strings.extend_from_slice(name.as_bytes());
            strings.push(0);
        }
        for field in [*offset, *size, at] {
            entries.extend_from_slice(&field.to_le_bytes());
        }
    }

    let mut table = MAGIC.to_vec();
    table.extend_from_slice(&u32::try_from(functions.len())?.to_le_bytes());
    table.extend_from_slice(&u32::try_from(strings.len())?.to_le_bytes());
    table.extend_from_slice(&entries);
    table.extend_from_slice(&strings);
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(offset: u32, name: &str) -> Function {
        Function { offset, size: 16, name: name.to_owned() }
    }

    fn word(table: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(table[at..at + 4].try_into().expect("four bytes"))
    }

    #[test]
    fn entries_are_sorted_and_point_at_their_names() {
        let table = encode(vec![function(0x200, "second"), function(0x100, "first")]).expect("encodes");
        assert_eq!(&table[..8], MAGIC);
        assert_eq!((word(&table, 8), word(&table, 12)), (2, 13));
        let strings = &table[16 + 2 * 12..];
        assert_eq!(strings, b"first\0second\0");
        assert_eq!([16, 20, 24, 28, 32, 36].map(|at| word(&table, at)), [0x100, 16, 0, 0x200, 16, 6]);
    }

    #[test]
    fn a_folded_function_appears_once_and_a_shared_name_is_stored_once() {
        let functions = vec![function(0x100, "b"), function(0x100, "a"), function(0x200, "a")];
        let table = encode(functions).expect("encodes");
        assert_eq!((word(&table, 8), word(&table, 12)), (2, 2));
    }

    #[test]
    fn names_lose_their_hash_and_keep_their_path() {
        assert_eq!(readable("_ZN6kernel5shell3run17h0123456789abcdefE"), "kernel::shell::run");
        assert_eq!(readable("_start"), "_start");
        let long = readable(&"x".repeat(500));
        assert!(long.len() <= NAME_BYTES_MAX && long.ends_with(".."), "{long}");
    }

    #[test]
    fn addresses_outside_the_kernel_are_left_out() {
        assert_eq!(offset(KERNEL_BASE + 0x1000), Some(0x1000));
        assert_eq!(offset(0x1000), None);
        assert_eq!(offset(KERNEL_BASE - 1), None);
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        assert!(table(b"not an ELF").is_err());
    }
}
