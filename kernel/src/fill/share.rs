//! The pages that one writer keeps changing, and how far it has come: the generation of each of them follows from that.

use super::content::{self, Stamp};
use crate::vm::Page;

/// Every so-manieth page of a fill: neighbours, which may lie in the same 2 MiB page, are changed by different writers.
#[derive(Debug)]
pub(super) struct Share {
    /// What the content of the fill follows from.
    key: u64,
    first: u64,
    step: u64,
    end: u64,
    /// How often all of its pages were written.
    rounds: u64,
    /// The page that comes next. Those before it were written once more.
    next: u64,
    /// What the writer found instead of what it had left; it has stopped there.
    wrong: Option<Wrong>,
}

/// A word that is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) page: u64,
    /// In bytes from the start of the page.
    pub(super) offset: usize,
}

impl Share {
    /// What writer `number` of `writers` has of the fill with this key.
    ///
    /// # Panics
    /// There are too few pages for so many writers.
    pub(super) fn new(key: u64, pages: u64, number: u64, writers: u64) -> Self {
        assert!(number < writers && writers <= pages, "every writer has a page");
        Self { key, first: number, step: writers, end: pages, rounds: 0, next: number, wrong: None }
    }

    /// The page to be written next.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Writes the next generation of that page, which is shown as `words`, unless something is wrong with it.
    pub(super) fn write_next(&mut self, words: &Page) -> Result<(), Wrong> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let page = self.next;
        if let Err(offset) = self.stamp(page).count_up(words) {
            let wrong = Wrong { page, offset };
            self.wrong = Some(wrong);
            return Err(wrong);
        }
        self.next += self.step;
        if self.next >= self.end {
            self.next = self.first;
            self.rounds += 1;
        }
        Ok(())
    }

    /// The first wrong word of one of its pages, which is shown as `words`: the one that the writer stumbled over, if it did.
    pub(super) fn check(&self, page: u64, words: &Page) -> Result<(), Wrong> {
        if let Some(wrong) = self.wrong.filter(|wrong| wrong.page == page) {
            return Err(wrong);
        }
        self.stamp(page).first_difference(content::held(words)).map_or(Ok(()), |offset| Err(Wrong { page, offset }))
    }

    const fn stamp(&self, page: u64) -> Stamp {
        let generation = self.rounds + (page < self.next) as u64;
        Stamp { key: self.key, page, generation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use core::sync::atomic::AtomicU64;
    use core::sync::atomic::Ordering::Relaxed;
    use proptest::prelude::*;

    const KEY: u64 = 9;

    fn pages(count: u64) -> Vec<Page> {
        let page = |page| {
            let words = core::array::from_fn(|_| AtomicU64::new(0));
            Stamp::first(KEY, page).write(&words);
            words
        };
        (0..count).map(page).collect()
    }

    fn shares(pages: u64, writers: u64) -> Vec<Share> {
        (0..writers).map(|number| Share::new(KEY, pages, number, writers)).collect()
    }

    fn write(share: &mut Share, pages: &[Page]) -> Result<(), Wrong> {
        share.write_next(&pages[share.next() as usize])
    }

    fn check(shares: &[Share], pages: &[Page]) -> Result<(), Wrong> {
        let mut numbered = (0..).zip(pages);
        numbered.try_for_each(|(page, words)| shares[page as usize % shares.len()].check(page, words))
    }

    proptest! {
        #[test]
        fn all_is_as_written_whoever_writes_how_often(count in 1..9_u64, turns: Vec<u8>, writers in 1..9_u64) {
            let (pages, writers) = (pages(count), writers.min(count));
            let mut shares = shares(count, writers);
            for turn in turns {
                let number = usize::from(turn) % shares.len();
                prop_assert_eq!(write(&mut shares[number], &pages), Ok(()));
                prop_assert_eq!(check(&shares, &pages), Ok(()));
            }
        }

        #[test]
        fn a_page_that_is_put_back_is_found_by_whoever_looks_first(writes in 1..30_u64, of_writer: bool) {
            const PAGES: u64 = 4;
            let pages = pages(PAGES);
            let mut share = Share::new(KEY, PAGES, 0, 1);
            for _ in 1..writes {
                prop_assert_eq!(write(&mut share, &pages), Ok(()));
            }
            let page = share.next();
            let old: Vec<u64> = content::held(&pages[page as usize]).collect();
            prop_assert_eq!(write(&mut share, &pages), Ok(()));
            // All that was written last stayed behind in another frame.
            pages[page as usize].iter().zip(old).for_each(|(word, old)| word.store(old, Relaxed));
            let wrong = Err(Wrong { page, offset: 0 });
            if of_writer {
                for _ in 1..PAGES {
                    prop_assert_eq!(write(&mut share, &pages), Ok(()));
                }
                prop_assert_eq!(write(&mut share, &pages), wrong);
            }
            prop_assert_eq!(check(&[share], &pages), wrong);
        }
    }

    #[test]
    fn a_page_in_the_place_of_another_is_found() {
        let mut pages = pages(4);
        let mut shares = shares(4, 2);
        for turn in 0..6 {
            assert_eq!(write(&mut shares[turn % 2], &pages), Ok(()));
        }
        pages.swap(1, 2);
        assert_eq!(check(&shares, &pages), Err(Wrong { page: 1, offset: 0 }));
    }

    #[test]
    fn what_the_writer_stumbled_over_is_told_although_it_has_begun_to_write() {
        let pages = pages(1);
        let mut share = Share::new(KEY, 1, 0, 1);
        assert_eq!(write(&mut share, &pages), Ok(()));
        pages[0][100].fetch_sub(1, Relaxed);
        let wrong = Err(Wrong { page: 0, offset: 800 });
        assert_eq!(write(&mut share, &pages), wrong);
        assert_eq!(write(&mut share, &pages), wrong);
        assert_eq!(share.check(0, &pages[0]), wrong);
    }
}
