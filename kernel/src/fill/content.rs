//! What is written to memory, so that every wrong byte can be told. No word depends on where its page lies: a page may move.

use mm::addr::PAGE_SIZE;

pub(super) type Page = [u8; PAGE_SIZE as usize];

/// Writes page `index` of the fill with this key.
pub(super) fn write(key: u64, index: u64, page: &mut Page) {
    for (word, bytes) in words(key, index).zip(page.as_chunks_mut().0) {
        *bytes = word.to_le_bytes();
    }
}

/// The offset of the first wrong word of a page.
pub(super) fn first_difference(key: u64, index: u64, page: &Page) -> Option<usize> {
    let mut words = words(key, index).zip(page.as_chunks().0);
    words.position(|(word, bytes)| word.to_le_bytes() != *bytes).map(|word| word * size_of::<u64>())
}

fn words(key: u64, index: u64) -> impl Iterator<Item = u64> {
    let first = mix(mix(key) ^ index);
    (0..PAGE_SIZE / 8).map(move |n| first.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// Spreads the bits of a number over the whole word.
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let n = (n ^ (n >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    n ^ (n >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn pages_of_different_fills_and_places_differ_in_every_word() {
        let page = |key, index| -> Vec<u64> { words(key, index).collect() };
        let reference = page(1, 0);
        assert_eq!(reference.len(), 512);
        for other in [page(2, 0), page(1, 1), page(1, 512)] {
            assert!(reference.iter().zip(&other).all(|(a, b)| a != b));
        }
    }

    #[test]
    fn any_changed_byte_of_a_page_is_found() {
        let mut page: Page = [0; PAGE_SIZE as usize];
        write(7, 3, &mut page);
        assert_eq!(first_difference(7, 3, &page), None);
        for offset in [0, 7, 8, 2049, page.len() - 1] {
            page[offset] ^= 1;
            assert_eq!(first_difference(7, 3, &page), Some(offset / 8 * 8));
            page[offset] ^= 1;
        }
        assert_eq!(first_difference(7, 4, &page), Some(0));
    }
}
