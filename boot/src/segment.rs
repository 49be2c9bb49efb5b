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
