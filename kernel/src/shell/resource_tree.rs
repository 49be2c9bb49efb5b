//! The physical address map as a tree, told while it is walked: who owns which range inside which other.

use alloc::string::String;
use alloc::vec::Vec;
use core::iter::Peekable;
use serde::Serialize;

/// A range with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Resource {
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) name: String,
}

impl Resource {
    pub(crate) fn new(start: u64, size: u64, name: impl Into<String>) -> Self {
        Self { start, size, name: name.into() }
    }

    /// The last byte. Ranges are never empty.
    pub(crate) fn last(&self) -> u64 {
        self.start + (self.size - 1)
    }

    fn holds(&self, other: &Self) -> bool {
        self.start <= other.start && other.last() <= self.last()
    }

    /// What holds others comes before them.
    fn place(&self) -> (u64, u64) {
        (self.start, u64::MAX - self.size)
    }
}

/// Sorts ranges for the walk; empty ones are dropped. Of equal ranges the one given first holds the other.
pub(crate) fn sorted(mut ranges: Vec<Resource>) -> Vec<Resource> {
    ranges.retain(|range| range.size > 0);
    ranges.sort_by_key(Resource::place);
    ranges
}

/// What two sorted lists hold, sorted. Of equal ranges that of the first list holds the other.
pub(crate) fn merged(
    first: impl IntoIterator<Item = Resource>,
    second: impl IntoIterator<Item = Resource>,
) -> impl Iterator<Item = Resource> {
    let (mut first, mut second) = (first.into_iter().peekable(), second.into_iter().peekable());
    core::iter::from_fn(move || match (first.peek(), second.peek()) {
        (Some(a), Some(b)) if a.place() <= b.place() => first.next(),
        (Some(_), None) => first.next(),
        _ => second.next(),
    })
}

/// A step of the walk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Into a range, at this depth.
    Enter(Resource, usize),
    /// Out of the range that was entered last and not left yet.
    Leave,
}

/// Nests sorted ranges by what holds what, keeping no more of them than are nested at one place.
pub(crate) fn walk(sorted: impl IntoIterator<Item = Resource>) -> impl Iterator<Item = Step> {
    let (mut rest, mut entered) = (sorted.into_iter().peekable(), Vec::new());
    core::iter::from_fn(move || step(&mut rest, &mut entered))
}

fn step(rest: &mut Peekable<impl Iterator<Item = Resource>>, entered: &mut Vec<Resource>) -> Option<Step> {
    let Some(next) = rest.next_if(|next| entered.last().is_none_or(|outer| outer.holds(next))) else {
        return entered.pop().map(|_| Step::Leave);
    };
    // To see what it holds its name is not needed.
    entered.push(Resource { name: String::new(), ..next });
    Some(Step::Enter(next, entered.len() - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;
    use proptest::prelude::*;

    /// The walk as lines, two blanks deeper at each level.
    fn lines(ranges: Vec<Resource>) -> String {
        let mut text = String::new();
        for step in walk(sorted(ranges)) {
            if let Step::Enter(range, depth) = step {
                text +=
                    &format!("{:indent$}{:x}-{:x} {}\n", "", range.start, range.last(), range.name, indent = 2 * depth);
            }
        }
        text
    }

    #[test]
    fn ranges_nest_by_what_holds_what() {
        let ranges = vec![
            Resource::new(0x1000, 0x1000, "altmap"),
            Resource::new(0x1000, 0x8000, "dimm0"),
            Resource::new(0, 0x10000, "window"),
            Resource::new(0x20000, 0x1000, "device"),
            Resource::new(0x5000, 0, "nothing"),
        ];
        assert_eq!(lines(ranges), "0-ffff window\n  1000-8fff dimm0\n    1000-1fff altmap\n20000-20fff device\n");
    }

    #[test]
    fn ranges_that_only_overlap_stand_side_by_side() {
        assert_eq!(lines(vec![Resource::new(0, 10, "a"), Resource::new(5, 10, "b")]), "0-9 a\n5-e b\n");
    }

    #[test]
    fn of_equal_ranges_that_of_the_first_list_holds_the_other() {
        let [a, b] = ["a", "b"].map(|name| Resource::new(0, 10, name));
        let names: Vec<String> = merged([a], [b]).map(|range| range.name).collect();
        assert_eq!(names, ["a", "b"]);
    }

    proptest! {
        #[test]
        fn every_range_is_entered_and_left_once_in_either_list(
            ranges in prop::collection::vec((0u64..1000, 1u64..1000, any::<bool>()), 0..50),
        ) {
            let list = |which| {
                let of = ranges.iter().filter(|range| range.2 == which);
                sorted(of.map(|(start, size, _)| Resource::new(*start, *size, "")).collect())
            };
            let mut depths = Vec::new();
            let mut inside: Vec<Resource> = Vec::new();
            for step in walk(merged(list(true), list(false))) {
                match step {
                    Step::Enter(range, depth) => {
                        prop_assert_eq!(depth, inside.len());
                        prop_assert!(inside.last().is_none_or(|outer| outer.holds(&range)));
                        depths.push(depth);
                        inside.push(range);
                    }
                    Step::Leave => prop_assert!(inside.pop().is_some()),
                }
            }
            prop_assert!(inside.is_empty());
            prop_assert_eq!(depths.len(), ranges.len());
        }
    }
}
