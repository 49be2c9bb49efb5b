//! The segment of the kernel's ELF file that is the symbol table.
//!
//! `kernel.ld` keeps a place for it: the last segment that is loaded, behind everything else in memory. The table goes to the end of
//! the file, and the segment's program header is made to point there.

use anyhow::{Context, Result, ensure};
use object::elf::{FileHeader64, PT_LOAD, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, U64, pod};

/// Pages of this size are mapped from the file where they lie in it.
const PAGE_BYTES: usize = 4096;

/// The kernel's first page tables reach no further.
const TABLE_BYTES_MAX: usize = 1 << 20;

/// A stripped kernel, with `table` as its last segment.
pub fn with_symbols(mut elf: Vec<u8>, table: &[u8]) -> Result<Vec<u8>> {
    ensure!(table.len() <= TABLE_BYTES_MAX, "a symbol table of {} bytes is too long for the kernel", table.len());
    let header = FileHeader64::<LittleEndian>::parse(&*elf).context("the kernel is no ELF file")?;
    let headers_at = usize::try_from(header.e_phoff(LittleEndian))?;
    let segments = header.program_headers(LittleEndian, &*elf).context("the kernel has no segments")?;
    let last = segments.iter().rposition(|segment| segment.p_type(LittleEndian) == PT_LOAD);
    let last = last.context("the kernel has no segment to load")?;
    let at = headers_at + last * size_of::<ProgramHeader64<LittleEndian>>();

    elf.resize(elf.len().next_multiple_of(PAGE_BYTES), 0);
    let (offset, length) = (u64::try_from(elf.len())?, u64::try_from(table.len())?);
    let (segment, _) = pod::from_bytes_mut::<ProgramHeader64<LittleEndian>>(&mut elf[at..])
        .map_err(|()| anyhow::anyhow!("the kernel's program headers are not where they should be"))?;
    segment.p_offset = U64::new(LittleEndian, offset);
    segment.p_filesz = U64::new(LittleEndian, length);
    segment.p_memsz = U64::new(LittleEndian, length);
    elf.extend_from_slice(table);
    // The bootloader refuses a segment that ends where the file does.
    elf.push(0);
    Ok(elf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::elf::{PT_NOTE, ProgramType};

    const HEADER_BYTES: usize = 64;
    const SEGMENT_BYTES: usize = 56;

    /// A file with segments of these types and nothing in them.
    fn elf(types: &[ProgramType]) -> Vec<u8> {
        let mut header = [0; HEADER_BYTES];
        header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        for (at, value) in [(16, 2), (18, 62), (20, 1), (32, HEADER_BYTES), (52, HEADER_BYTES), (54, SEGMENT_BYTES)] {
            header[at] = value as u8;
        }
        header[56] = types.len() as u8;
        let segments = types.iter().flat_map(|kind| {
            let kind = u64::from(kind.0) | 4 << 32;
            [kind, 0x40, 0x1000, 0x1000, 16, 16, 0x1000].map(u64::to_le_bytes).concat()
        });
        header.into_iter().chain(segments).collect()
    }

    #[test]
    fn the_last_loaded_segment_becomes_the_table_and_nothing_else_changes() {
        let before = elf(&[PT_LOAD, PT_LOAD, PT_NOTE]);
        let after = with_symbols(before.clone(), b"the table").expect("there is a segment");
        let header = FileHeader64::<LittleEndian>::parse(&*after).expect("an ELF file");
        let segments = header.program_headers(LittleEndian, &*after).expect("segments");
        let fields = |number: usize| {
            let segment = &segments[number];
            [&segment.p_offset, &segment.p_filesz, &segment.p_memsz].map(|field| field.get(LittleEndian))
        };
        assert_eq!([fields(0), fields(1), fields(2)], [[0x40, 16, 16], [0x1000, 9, 9], [0x40, 16, 16]]);
        assert_eq!(segments[1].data(LittleEndian, &*after), Ok(&b"the table"[..]));
        assert_eq!(after.len(), 0x1000 + 9 + 1);
        let second = HEADER_BYTES + SEGMENT_BYTES;
        assert_eq!(after[..second], before[..second]);
    }

    #[test]
    fn a_file_without_a_place_and_a_table_that_is_too_long_are_refused() {
        assert!(with_symbols(elf(&[PT_NOTE]), b"").is_err());
        assert!(with_symbols(b"no ELF file".to_vec(), b"").is_err());
        assert!(with_symbols(elf(&[PT_LOAD]), &[0; TABLE_BYTES_MAX]).is_ok());
        assert!(with_symbols(elf(&[PT_LOAD]), &[0; TABLE_BYTES_MAX + 1]).is_err());
    }
}
