//! The physical address map as a tree: who owns which range inside which other.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::Serialize;

/// A range with a name, and the named ranges inside it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Resource {
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) name: String,
    pub(crate) children: Vec<Resource>,
}

impl Resource {
    pub(crate) fn new(start: u64, size: u64, name: impl Into<String>) -> Self {
        Self { start, size, name: name.into(), children: Vec::new() }
    }

    /// The last byte. Ranges are never empty.
    fn last(&self) -> u64 {
        self.start + (self.size - 1)
    }

    fn holds(&self, other: &Self) -> bool {
        self.start <= other.start && other.last() <= self.last()
    }
}

/// Nests ranges by what holds what; empty ones are dropped. Of equal ranges the one given first holds the other.
pub(crate) fn nest(mut ranges: Vec<Resource>) -> Vec<Resource> {
    ranges.retain(|range| range.size > 0);
    ranges.sort_by_key(|range| (range.start, u64::MAX - range.size));
    let mut top = Vec::new();
    let mut open: Vec<Resource> = Vec::new();
    for range in ranges {
        while open.last().is_some_and(|outer| !outer.holds(&range)) {
            close(&mut open, &mut top);
        }
        open.push(range);
    }
    while !open.is_empty() {
        close(&mut open, &mut top);
    }
    top
}

fn close(open: &mut Vec<Resource>, top: &mut Vec<Resource>) {
    let Some(done) = open.pop() else { return };
    match open.last_mut() {
        Some(outer) => outer.children.push(done),
        None => top.push(done),
    }
}

/// The tree as lines, two blanks deeper at each level.
pub(crate) fn lines(tree: &[Resource]) -> String {
    let mut text = String::new();
    for resource in tree {
        append(resource, 0, &mut text);
    }
    text
}

fn append(resource: &Resource, depth: usize, text: &mut String) {
    *text += &format!(
        "{:indent$}{:012x}-{:012x} : {}\n",
        "",
        resource.start,
        resource.last(),
        resource.name,
        indent = 2 * depth
    );
    for child in &resource.children {
        append(child, depth + 1, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn ranges_nest_by_what_holds_what() {
        let tree = nest(vec![
            Resource::new(0x1000, 0x1000, "altmap"),
            Resource::new(0x1000, 0x8000, "dimm0"),
            Resource::new(0, 0x10000, "window"),
            Resource::new(0x20000, 0x1000, "device"),
            Resource::new(0x5000, 0, "nothing"),
        ]);
        assert_eq!(
            lines(&tree),
            "000000000000-00000000ffff : window\n\
             \x20 000000001000-000000008fff : dimm0\n\
             \x20   000000001000-000000001fff : altmap\n\
             000000020000-000000020fff : device\n"
        );
    }

    #[test]
    fn ranges_that_only_overlap_stand_side_by_side() {
        let tree = nest(vec![Resource::new(0, 10, "a"), Resource::new(5, 10, "b")]);
        assert_eq!(tree.len(), 2);
    }

    fn count(tree: &[Resource]) -> usize {
        tree.iter().map(|resource| 1 + count(&resource.children)).sum()
    }

    proptest! {
        #[test]
        fn no_range_is_lost(ranges in prop::collection::vec((0u64..1000, 1u64..1000), 0..50)) {
            let given: Vec<Resource> = ranges.iter().map(|(start, size)| Resource::new(*start, *size, "")).collect();
            prop_assert_eq!(count(&nest(given)), ranges.len());
        }
    }
}
