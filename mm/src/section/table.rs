//! The table of the words of all sections.

use crate::addr::{PAGES_PER_SECTION, Pfn, SectionId, SectionRange};
use crate::frame::pageblock_set::PageblockSet;
use crate::section::word::Section;
use core::sync::atomic::{AtomicU64, Ordering};

/// Runs of sections with equal words.
pub(crate) struct Runs<'a> {
    table: &'a SectionTable,
    rest: Option<SectionRange>,
}

impl Iterator for Runs<'_> {
    type Item = (SectionRange, Option<Section>);

    // Inlined, it decodes only what its caller looks at.
    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let range = self.rest?;
        let (run, section) = self.table.first_run(range);
        self.rest = range.behind(run);
        Some((run, section))
    }
}

/// The words of all sections, from section 0 to the end of what the machine can ever have.
#[derive(Clone, Copy)]
pub struct SectionTable {
    words: &'static [AtomicU64],
    /// Pageblocks that are withheld, a bit for each; zero in an absent section.
    withheld: &'static [AtomicU64],
}

impl SectionTable {
    /// A table over `words` and as many bits of pageblocks, all of them zero: every section absent.
    ///
    /// # Panics
    /// There are not as many of the one as of the other.
    #[must_use]
    pub const fn new(words: &'static [AtomicU64], withheld: &'static [AtomicU64]) -> Self {
        assert!(words.len() == withheld.len(), "two words for each section");
        Self { words, withheld }
    }

    /// How many sections the table has words for.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.words.len() as u64
    }

    /// Returns what is known of section `id`; `None` if it is absent.
    #[must_use]
    #[inline(always)]
    pub fn get(&self, id: SectionId) -> Option<Section> {
        // Acquire pairs with the Release in `set` and its like.
        Section::decode(self.words.get(id.index())?.load(Ordering::Acquire))
    }

    /// The section of `pfn`, if it is present and its struct pages are in use.
    #[must_use]
    pub fn open(&self, pfn: Pfn) -> Option<Section> {
        SectionId::new(pfn.number() / PAGES_PER_SECTION).and_then(|id| self.get(id)).filter(|section| section.is_open())
    }

    /// Where the word of `pfn`'s section stands.
    #[inline]
    pub(crate) fn place(&self, pfn: Pfn) -> Option<&AtomicU64> {
        self.words.get(pfn.section().index())
    }

    /// Every present section, lowest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (SectionId, Section)> + '_ {
        self.words.iter().enumerate().filter_map(|(n, word)| {
            // Acquire pairs with the Release in `set` and its like.
            let section = Section::decode(word.load(Ordering::Acquire))?;
            Some((SectionId::new(n as u64)?, section))
        })
    }

    /// The present sections of `range`, lowest first.
    pub fn iter_range(&self, range: SectionRange) -> impl Iterator<Item = (SectionId, Section)> + '_ {
        range.iter().filter_map(|id| Some((id, self.get(id)?)))
    }

    /// Cuts `range` into maximal runs of sections with equal words, absent ones too, lowest first.
    pub(crate) const fn runs(&self, range: SectionRange) -> Runs<'_> {
        Runs { table: self, rest: Some(range) }
    }

    /// The first sections of `range` with equal words.
    #[inline(always)]
    pub(crate) fn first_run(&self, range: SectionRange) -> (SectionRange, Option<Section>) {
        let (run, word) = self.run_of_words(range);
        (run, Section::decode(word))
    }

    /// The first sections of `range` that are all present, or all absent, and which of the two they are.
    pub(crate) fn first_presence(&self, range: SectionRange) -> (SectionRange, bool) {
        let mut runs = self.runs(range).map(|(run, section)| (run.count(), section.is_some()));
        let (count, first) = runs.next().expect("a range has a section");
        let alike = runs.take_while(|(_, is_there)| *is_there == first).map(|(count, _)| count);
        (range.first_part(count + alike.sum::<u64>()), first)
    }

    fn run_of_words(&self, range: SectionRange) -> (SectionRange, u64) {
        let end = self.words.len().min(range.last().index() + 1);
        match self.words.get(range.first().index()..end) {
            Some([first, others @ ..]) => {
                // Acquire pairs with the Release in `set` and its like.
                let first = first.load(Ordering::Acquire);
                let same = others.iter().take_while(|word| word.load(Ordering::Acquire) == first).count();
                (range.first_part(same as u64 + 1), first)
            }
            // All beyond the table is absent.
            _ => (range, 0),
        }
    }

    /// The present sections of `ranges`, in maximal runs of equal words.
    pub(crate) fn present_runs<'a>(
        &'a self,
        ranges: &'a [SectionRange],
    ) -> impl Iterator<Item = (SectionRange, Section)> + 'a {
        let runs = ranges.iter().flat_map(|range| self.runs(*range));
        runs.filter_map(|(run, section)| Some((run, section?)))
    }

    /// The open sections of `ranges`.
    pub(crate) fn open_sections<'a>(
        &'a self,
        ranges: &'a [SectionRange],
    ) -> impl Iterator<Item = (SectionId, Section)> + 'a {
        let sections = ranges.iter().flat_map(|range| self.iter_range(*range));
        sections.filter(|(_, section)| section.is_open())
    }

    /// The pageblocks of a section that are withheld from the allocator. They change under the lock of its range, and while it is in
    /// a zone under that of the zone, too.
    #[must_use]
    pub fn withheld(&self, id: SectionId) -> PageblockSet {
        self.withheld
            .get(id.index())
            .map_or(PageblockSet::EMPTY, |bits| PageblockSet::from_bits(bits.load(Ordering::Relaxed)))
    }

    pub(crate) fn set_withheld(&self, id: SectionId, set: PageblockSet) {
        self.withheld[id.index()].store(set.bits(), Ordering::Relaxed);
    }

    /// Frames of an added section that are poisoned.
    pub(crate) fn poisoned_frames(&self, id: SectionId, section: Section) -> u64 {
        section.unmanaged_frames() - self.withheld(id).frames()
    }

    /// Writes the same for every section of `range`.
    pub(crate) fn set_all(&self, range: SectionRange, section: Section) {
        self.set_words(range, section.encode());
    }

    pub(crate) fn set(&self, id: SectionId, section: Section) {
        // Release pairs with the Acquire in `Word::read` and in the readers here.
        self.words[id.index()].store(section.encode(), Ordering::Release);
    }

    /// Makes every section of `range` absent.
    pub(crate) fn clear_all(&self, range: SectionRange) {
        self.set_words(range, 0);
    }

    fn set_words(&self, range: SectionRange, word: u64) {
        for place in &self.words[range.first().index()..=range.last().index()] {
            // Release pairs with the Acquire in `Word::read` and in the readers here.
            place.store(word, Ordering::Release);
        }
    }
}
