//! `fill`, `verify` and `free`: anonymous memory that is really there, in pages of the size that is asked for.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};
use memmap2::{Advice, MmapMut};

/// What the processor maps by one entry.
const PAGE: usize = 4 << 10;
const HUGE_PAGE: usize = 2 << 20;

/// All that was filled and not freed, by number.
#[derive(Default)]
pub(crate) struct Fills {
    last: u64,
    fills: BTreeMap<u64, Fill>,
}

/// Memory whose every page begins with its own number.
struct Fill {
    mapping: MmapMut,
    /// Where the first page begins: Linux aligns what it maps to small pages only.
    start: usize,
    len: usize,
}

impl Fills {
    /// Takes so many bytes, rounded up to whole pages, and returns the number of the fill.
    pub(crate) fn fill(&mut self, size: &str, huge: bool) -> Result<u64> {
        let fill = if huge { Fill::huge(bytes(size)?)? } else { Fill::small(bytes(size)?)? };
        self.last += 1;
        self.fills.insert(self.last, fill);
        Ok(self.last)
    }

    /// Checks every page.
    pub(crate) fn verify(&self, id: &str) -> Result<()> {
        let fill = self.fills.get(&number(id)?).with_context(|| format!("there is no fill {id}"))?;
        match fill.pages().zip(0_u64..).find(|(page, number)| **page != number.to_le_bytes()) {
            Some((_, page)) => bail!("page {page} of fill {id} is not what was written"),
            None => Ok(()),
        }
    }

    pub(crate) fn free(&mut self, id: &str) -> Result<()> {
        self.fills.remove(&number(id)?).map(drop).with_context(|| format!("there is no fill {id}"))
    }
}

impl Fill {
    fn small(len: usize) -> Result<Self> {
        let len = len.next_multiple_of(PAGE);
        let mapping = MmapMut::map_anon(len)?;
        mapping.advise(Advice::NoHugePage)?;
        let mut fill = Self { mapping, start: 0, len };
        fill.write();
        Ok(fill)
    }

    fn huge(len: usize) -> Result<Self> {
        let len = len.next_multiple_of(HUGE_PAGE);
        let mapping = MmapMut::map_anon(len + HUGE_PAGE)?;
        mapping.advise(Advice::HugePage)?;
        let address = mapping.as_ptr().addr();
        let mut fill = Self { mapping, start: address.next_multiple_of(HUGE_PAGE) - address, len };
        let before = in_huge_pages()?;
        fill.write();
        match in_huge_pages()? - before {
            huge if huge == len => Ok(fill),
            huge => bail!("only {huge} of {len} bytes are in pages of 2 MiB, and all of it was given back"),
        }
    }

    fn write(&mut self) {
        let memory = &mut self.mapping[self.start..self.start + self.len];
        for (page, number) in memory.as_chunks_mut::<PAGE>().0.iter_mut().zip(0_u64..) {
            page[..size_of::<u64>()].copy_from_slice(&number.to_le_bytes());
        }
    }

    /// What each page begins with.
    fn pages(&self) -> impl Iterator<Item = &[u8]> {
        let memory = &self.mapping[self.start..self.start + self.len];
        memory.as_chunks::<PAGE>().0.iter().map(|page| &page[..size_of::<u64>()])
    }
}

/// How many bytes of this program are in pages of 2 MiB.
fn in_huge_pages() -> Result<usize> {
    let text = fs::read_to_string("/proc/self/smaps_rollup").context("Linux does not tell the size of pages")?;
    let line = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).context("it has no huge pages")?;
    let kibibytes = line.trim().strip_suffix(" kB").context("huge pages are in kB")?;
    Ok(kibibytes.parse::<usize>()? << 10)
}

/// `4096`, `4K`, `128M` or `1G`.
fn bytes(text: &str) -> Result<usize> {
    let units = [("K", 10), ("M", 20), ("G", 30)];
    let with_unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (digits, shift) = with_unit.unwrap_or((text, 0));
    let size = digits.parse::<usize>().ok().filter(|size| *size > 0);
    size.and_then(|size| size.checked_mul(1 << shift)).with_context(|| format!("{text} is no size"))
}

fn number(text: &str) -> Result<u64> {
    text.parse().with_context(|| format!("{text} is no fill"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, size) in [("4096", 4096), ("4K", 4096), ("126M", 126 << 20), ("1G", 1 << 30)] {
            assert_eq!(bytes(text).expect(text), size);
        }
        for text in ["", "0", "M", "-1", "4k"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_page_that_lost_its_content_is_found() {
        let mut fills = Fills::default();
        let id = fills.fill("9000", false).expect("there is memory").to_string();
        fills.verify(&id).expect("as written");
        let fill = fills.fills.values_mut().next().expect("the only one");
        assert_eq!(fill.pages().count(), 3, "whole pages");
        fill.mapping[2 * PAGE] ^= 1;
        assert_eq!(fills.verify(&id).expect_err("changed").to_string(), "page 2 of fill 1 is not what was written");
        fills.free(&id).expect("it is there");
        assert!(fills.verify(&id).is_err() && fills.free(&id).is_err());
    }
}
