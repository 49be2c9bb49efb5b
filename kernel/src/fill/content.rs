//! What is written to memory, so that every wrong byte can be told. No word depends on where its page lies: a page may move.
//!
//! Where writers are at work a page is written again and again. Each time, a *generation*, every word counts up by one, the
//! first word first. Which generation a page shows is known outside of it, too: what stays behind is found even where a
//! whole page went back in time.

use crate::vm::{Page, WORDS};
use core::sync::atomic::Ordering::Relaxed;

/// What the content of a page is made from: which page of which fill, and how often it was written since the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// What the content of the fill follows from.
    pub(super) key: u64,
    pub(super) page: u64,
    pub(super) generation: u64,
}

impl Stamp {
    /// Where page `page` of a fill is after it was written once.
    pub(super) const fn first(key: u64, page: u64) -> Self {
        Self { key, page, generation: 0 }
    }

    /// What its words are.
    pub(super) fn words(self) -> impl Iterator<Item = u64> {
        let first = mix(mix(self.key) ^ self.page).wrapping_add(self.generation);
        (0..WORDS as u64).map(move |n| first.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Writes the page.
    pub(super) fn write(self, page: &Page) {
        for (word, at) in self.words().zip(page) {
            at.store(word, Relaxed);
        }
    }

    /// The offset in bytes of the first word that is not what was written.
    pub(super) fn first_difference(self, found: impl IntoIterator<Item = u64>) -> Option<usize> {
        let wrong = self.words().zip(found).position(|(word, found)| word != found);
        wrong.map(|word| word * size_of::<u64>())
    }

    /// Writes the next generation over this one.
    ///
    /// # Errors
    /// A word is not of this generation: its offset in bytes. It and those behind it stay as they are.
    pub(super) fn count_up(self, page: &Page) -> Result<(), usize> {
        for (n, (word, at)) in self.words().zip(page).enumerate() {
            // Two accesses, as any program has them: the page may go elsewhere in between, and nobody may notice.
            if at.load(Relaxed) != word {
                return Err(n * size_of::<u64>());
            }
            at.store(word.wrapping_add(1), Relaxed);
        }
        Ok(())
    }
}

/// What a page holds now.
pub(super) fn held(page: &Page) -> impl Iterator<Item = u64> {
    page.iter().map(|word| word.load(Relaxed))
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
    use core::sync::atomic::AtomicU64;

    /// A page in its second generation, which every other test damages.
    const STAMP: Stamp = Stamp { key: 7, page: 3, generation: 2 };

    fn page(stamp: Stamp) -> Page {
        let page = core::array::from_fn(|_| AtomicU64::new(0));
        stamp.write(&page);
        page
    }

    #[test]
    fn pages_of_different_fills_places_and_generations_differ_in_every_word() {
        let reference: Vec<u64> = Stamp::first(1, 0).words().collect();
        assert_eq!(reference.len(), 512);
        for other in [
            Stamp::first(2, 0),
            Stamp::first(1, 1),
            Stamp::first(1, 512),
            Stamp { generation: 1, ..Stamp::first(1, 0) },
        ] {
            assert!(reference.iter().zip(other.words()).all(|(a, b)| *a != b), "{other:?}");
        }
    }

    #[test]
    fn any_changed_byte_of_a_page_is_found() {
        let page = page(STAMP);
        assert_eq!(STAMP.first_difference(held(&page)), None);
        for offset in [0, 7, 8, 2049, 4095] {
            let bit = 1 << (offset % 8 * 8);
            page[offset / 8].fetch_xor(bit, Relaxed);
            assert_eq!(STAMP.first_difference(held(&page)), Some(offset / 8 * 8));
            page[offset / 8].fetch_xor(bit, Relaxed);
        }
    }

    #[test]
    fn a_page_counts_up_to_the_next_generation() {
        let page = page(STAMP);
        assert_eq!(STAMP.count_up(&page), Ok(()));
        let next = Stamp { generation: 3, ..STAMP };
        assert_eq!(next.first_difference(held(&page)), None);
        assert_eq!(next.count_up(&page), Ok(()));
    }

    /// What a migration that goes wrong leaves of a page that shows `STAMP`, and where that is found.
    #[track_caller]
    fn is_found(damage: impl Fn(&Page), offset: usize) {
        let page = page(STAMP);
        damage(&page);
        assert_eq!(STAMP.first_difference(held(&page)), Some(offset));
        let before: Vec<u64> = held(&page).collect();
        assert_eq!(STAMP.count_up(&page), Err(offset));
        assert!(
            held(&page).skip(offset / 8).eq(before.into_iter().skip(offset / 8)),
            "what is wrong is left for others to see"
        );
    }

    #[test]
    fn a_write_that_went_to_the_old_frame_is_found() {
        is_found(|page| _ = page[100].fetch_sub(1, Relaxed), 800);
    }

    #[test]
    fn a_page_that_went_back_in_time_as_a_whole_is_found() {
        is_found(|page| Stamp { generation: 1, ..STAMP }.write(page), 0);
    }

    #[test]
    fn a_page_whose_end_was_copied_too_early_is_found() {
        is_found(|page| page[511].store(page[511].load(Relaxed) - 1, Relaxed), 4088);
    }

    #[test]
    fn a_word_that_was_written_twice_is_found() {
        is_found(|page| _ = page[9].fetch_add(1, Relaxed), 72);
    }

    #[test]
    fn the_page_of_another_place_or_fill_is_found() {
        is_found(|page| Stamp { page: 4, ..STAMP }.write(page), 0);
        is_found(|page| Stamp { key: 8, ..STAMP }.write(page), 0);
    }

    #[test]
    fn a_half_that_belongs_to_another_page_is_found() {
        let other: Vec<u64> = Stamp { page: 4, ..STAMP }.words().collect();
        is_found(|page| (256..512).for_each(|n| page[n].store(other[n], Relaxed)), 2048);
    }

    #[test]
    fn a_page_of_zeros_is_found() {
        is_found(|page| page.iter().for_each(|word| word.store(0, Relaxed)), 0);
    }
}
