//! The physical address map that `iomem` prints, as a tree.

use anyhow::{Context, Result, ensure};
use system_tests::vm::Vm;

/// One line: who owns a range, how deep inside others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) depth: usize,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) owner: String,
}

/// Everything `iomem` prints, in its order.
pub(crate) fn map(vm: &mut Vm) -> Result<Vec<Entry>> {
    let text = vm.cmd("iomem")?;
    text.lines().filter(|line| !line.trim().is_empty()).map(entry).collect()
}

/// `  START-END : OWNER`, hexadecimal, two spaces per level.
fn entry(line: &str) -> Result<Entry> {
    let (range, owner) = line.split_once(" : ").with_context(|| format!("no owner in `{line}`"))?;
    let depth = (range.len() - range.trim_start().len()) / 2;
    let (start, end) = range.trim().split_once('-').with_context(|| format!("no range in `{line}`"))?;
    let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16);
    let parsed = number(start).and_then(|start| Ok((start, number(end)?)));
    let (start, end) = parsed.with_context(|| format!("no range in `{line}`"))?;
    Ok(Entry { depth, start, end, owner: owner.trim().to_owned() })
}

/// Every entry lies inside the one above it and after its neighbour: nothing overlaps.
pub(crate) fn is_a_tree(map: &[Entry]) -> Result<()> {
    let mut above: Vec<&Entry> = Vec::new();
    let mut neighbour_end: Vec<Option<u64>> = vec![None];
    for entry in map {
        ensure!(entry.start <= entry.end, "{entry:#x?} ends before it starts");
        ensure!(entry.depth <= above.len(), "{entry:#x?} is deeper than what it could lie in");
        above.truncate(entry.depth);
        neighbour_end.truncate(entry.depth + 1);
        if let Some(outer) = above.last() {
            ensure!(outer.start <= entry.start && entry.end <= outer.end, "{entry:#x?} is not inside {outer:#x?}");
        }
        if let Some(Some(end)) = neighbour_end.last() {
            ensure!(*end < entry.start, "{entry:#x?} overlaps what ends at {end:#x}");
        }
        *neighbour_end.last_mut().expect("there is a level for every depth") = Some(entry.end);
        above.push(entry);
        neighbour_end.push(None);
    }
    Ok(())
}
