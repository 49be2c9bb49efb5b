//! The search for ACPI's root pointer where a PC's firmware leaves it (ACPI 6.5 §5.2.5.1), for loaders that do not name it.

use core::ops::Range;

/// Holds the segment of the extended BIOS data area.
const EBDA_SEGMENT: u64 = 0x40e;
/// Only the beginning of the area is searched.
const EBDA_BYTES: usize = 1024;
const BIOS: Range<u64> = 0xe_0000..0x10_0000;

const SIGNATURE: &[u8] = b"RSD PTR ";
/// What a root pointer is aligned to.
const STEP: usize = 16;
/// As long as ACPI 1.0 made it; all of these bytes add up to zero, in later ones, too.
const BYTES: usize = 20;

/// The physical address of the root pointer. `view` shows physical memory.
pub(super) fn find<'a>(view: &impl Fn(u64, usize) -> &'a [u8]) -> Option<u64> {
    let ebda = match *view(EBDA_SEGMENT, 2) {
        [low, high] => u64::from(u16::from_le_bytes([low, high])) << 4,
        _ => 0,
    };
    [(ebda, EBDA_BYTES), (BIOS.start, (BIOS.end - BIOS.start) as usize)].into_iter().find_map(|(start, bytes)| {
        let area = view(start, bytes);
        let offset = (0..area.len()).step_by(STEP).find(|offset| is_root(&area[*offset..]))?;
        Some(start + offset as u64)
    })
}

fn is_root(bytes: &[u8]) -> bool {
    bytes.starts_with(SIGNATURE)
        && bytes.get(..BYTES).is_some_and(|root| root.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    /// The first mebibyte with a root pointer at some places.
    fn memory(places: &[usize]) -> Vec<u8> {
        let mut memory = vec![0; 1 << 20];
        memory[0x40e..0x410].copy_from_slice(&0x9fc0u16.to_le_bytes());
        for place in places {
            memory[*place..][..SIGNATURE.len()].copy_from_slice(SIGNATURE);
            let sum = SIGNATURE.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
            memory[*place + 8] = sum.wrapping_neg();
        }
        memory
    }

    fn found(memory: &[u8]) -> Option<u64> {
        find(&|start, bytes| &memory[start as usize..start as usize + bytes])
    }

    #[test]
    fn it_is_found_where_firmware_leaves_it() {
        assert_eq!(found(&memory(&[0x9_fc40])), Some(0x9_fc40));
        assert_eq!(found(&memory(&[0xe_0000])), Some(0xe_0000));
        assert_eq!(found(&memory(&[0xf_ffe0])), Some(0xf_ffe0));
        assert_eq!(found(&memory(&[0xf_0000, 0x9_ffe0])), Some(0x9_ffe0), "the data area comes first");
    }

    #[test]
    fn what_only_looks_like_it_is_passed_over() {
        assert_eq!(found(&memory(&[])), None);
        assert_eq!(found(&memory(&[0xe_0008, 0xd_0000, 0xa_0000])), None);
        let mut damaged = memory(&[0xe_0000, 0xe_1000]);
        damaged[0xe_0013] = 1;
        assert_eq!(found(&damaged), Some(0xe_1000));
        let mut cut = memory(&[]);
        cut[0xf_fff0..0xf_fff8].copy_from_slice(SIGNATURE);
        assert_eq!(found(&cut), None);
    }
}
