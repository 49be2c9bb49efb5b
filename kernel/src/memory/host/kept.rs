//! Which of the boot loader's RAM the kernel has: what `mem=` hides and what has no room for its struct pages it has not.

use super::start;
use crate::memory::frames::mm;
use alloc::vec::Vec;
use mm::addr::{SECTION_LIMIT, SECTION_SIZE, SectionRange};
use mm::section::kind::Origin;

/// What became of RAM that was there at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is in a block.
    Kept,
    /// It is above what `mem=` says.
    Hidden,
    /// It is in no block, because its section has no room for its own struct pages.
    LeftOut,
}

/// Cuts RAM where its fate changes. What was hidden and then added by hand is left out here: it is of another group.
pub(crate) fn fates(first: u64, end: u64) -> Vec<(u64, u64, Fate)> {
    let sections = (first / SECTION_SIZE, end.div_ceil(SECTION_SIZE).min(SECTION_LIMIT));
    let runs = SectionRange::new(sections.0, sections.1.saturating_sub(sections.0));
    let runs = runs.into_iter().flat_map(|range| mm().runs(range));
    cut(first, end, start::limit(), runs.map(|(run, section)| (run, section.map(|section| section.origin))))
}

/// `runs` are those of the sections around the RAM, as far as there can be any: when each came.
fn cut(
    first: u64,
    end: u64,
    limit: u64,
    runs: impl Iterator<Item = (SectionRange, Option<Origin>)>,
) -> Vec<(u64, u64, Fate)> {
    let mut parts: Vec<(u64, u64, Fate)> = Vec::new();
    let mut part = |from: u64, to: u64, fate: Fate| match parts.last_mut() {
        _ if from >= to => {}
        Some(last) if last.1 == from && last.2 == fate => last.1 = to,
        _ => parts.push((from, to, fate)),
    };
    let mut at = first;
    for (run, origin) in runs {
        let run_end = (run.first().address() + run.size_bytes()).min(end);
        let visible_end = limit.clamp(at, run_end);
        let fate = match origin {
            Some(Origin::Boot) => Some(Fate::Kept),
            Some(Origin::Added) => None,
            None => Some(Fate::LeftOut),
        };
        if let Some(fate) = fate {
            part(at, visible_end, fate);
            part(visible_end, run_end, Fate::Hidden);
        }
        at = run_end;
    }
    part(at, end, Fate::LeftOut);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use Fate::{Hidden, Kept, LeftOut};

    const MIB: u64 = 1 << 20;

    /// Boot memory, then nothing, then something added by hand, then nothing: two sections each.
    fn runs() -> impl Iterator<Item = (SectionRange, Option<Origin>)> {
        let origins = [Some(Origin::Boot), None, Some(Origin::Added), None];
        (0..).zip(origins).map(|(number, origin)| (SectionRange::new(2 * number, 2).expect("in reach"), origin))
    }

    #[test]
    fn what_is_in_no_block_is_not_kept() {
        let block = SECTION_SIZE;
        assert_eq!(
            cut(MIB, 4 * block - MIB, u64::MAX, runs()),
            [(MIB, 2 * block, Kept), (2 * block, 4 * block - MIB, LeftOut)]
        );
        assert_eq!(cut(0, block + MIB, u64::MAX, runs().take(1)), [(0, block + MIB, Kept)]);
        assert_eq!(cut(0, 9 * block, u64::MAX, runs().skip(3)).last(), Some(&(0, 9 * block, LeftOut)));
    }

    #[test]
    fn what_the_limit_hides_is_hidden_until_it_is_added_by_hand() {
        let block = SECTION_SIZE;
        assert_eq!(
            cut(0, 8 * block, block + MIB, runs()),
            [(0, block + MIB, Kept), (block + MIB, 4 * block, Hidden), (6 * block, 8 * block, Hidden)]
        );
    }
}
