//! Memory blocks through sysfs, and what `/proc` says of memory.

use std::fs;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

const DIRECTORY: &str = "/sys/devices/system/memory";

/// altmap's; Linux chooses larger ones for a guest that boots with 64 GiB.
const BLOCK_SIZE: u64 = 128 << 20;

/// Block numbers mean the same on both sides of a comparison only where blocks have one size.
pub(crate) fn check_block_size() -> Result<()> {
    let text = fs::read_to_string(format!("{DIRECTORY}/block_size_bytes")).context("no memory hotplug here")?;
    match u64::from_str_radix(text.trim(), 16)? {
        BLOCK_SIZE => Ok(()),
        other => bail!("blocks of {other} bytes cannot be compared"),
    }
}

/// `32` or `32-39`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    first: u64,
    last: u64,
}

impl FromStr for Blocks {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |word: &str| word.parse::<u64>().with_context(|| format!("{text} are no blocks"));
        Ok(Self { first: number(first)?, last: number(last)? })
    }
}

/// Writes `state` to one block after the other.
pub(crate) fn set(state: &str, blocks: Blocks) -> Result<()> {
    for block in blocks.first..=blocks.last {
        fs::write(format!("{DIRECTORY}/memory{block}/state"), state)
            .with_context(|| format!("{state} of block {block}; those before it stay"))?;
    }
    Ok(())
}

/// What happens to memory that is added from now on.
pub(crate) fn auto_online(policy: &str) -> Result<()> {
    fs::write(format!("{DIRECTORY}/auto_online_blocks"), policy).with_context(|| format!("auto_online {policy}"))
}

/// Free memory of each zone.
pub(crate) fn meminfo() -> Result<Value> {
    Ok(json!({ "zones": zones(&fs::read_to_string("/proc/zoneinfo")?) }))
}

/// What Linux counts since it booted; altmap's journal tells of each operation instead.
pub(crate) fn vmstat() -> Result<Value> {
    let text = fs::read_to_string("/proc/vmstat")?;
    let counts = text.lines().filter_map(|line| line.split_once(' '));
    Ok(counts.filter_map(|(name, count)| Some((name, count.parse::<u64>().ok()?))).collect())
}

/// From the lines `Node 0, zone   Normal`, and below it `  pages free     123` and `              count: 4` for each CPU: free
/// pages on lists of a CPU are not in the former.
fn zones(zoneinfo: &str) -> Vec<Value> {
    let mut zones: Vec<(&str, u64)> = Vec::new();
    for line in zoneinfo.lines() {
        let pages = |key| line.trim().strip_prefix(key)?.trim().parse::<u64>().ok();
        if let Some((_, name)) = line.split_once(", zone") {
            zones.push((name.trim(), 0));
        } else if let (Some(pages), Some((_, free))) =
            (pages("pages free").or_else(|| pages("count:")), zones.last_mut())
        {
            *free += pages << 12;
        }
    }
    zones.into_iter().map(|(zone, free)| json!({"zone": zone, "free": free})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_a_number_or_two() {
        assert_eq!("32".parse::<Blocks>().expect("one"), Blocks { first: 32, last: 32 });
        assert_eq!("32-39".parse::<Blocks>().expect("some"), Blocks { first: 32, last: 39 });
        assert!("dimm0".parse::<Blocks>().is_err());
    }

    #[test]
    fn free_pages_are_read_zone_by_zone() {
        let text = "Node 0, zone      DMA\n  per-node stats\n  pages free     2\n        min      7\n  pagesets\n    cpu: 0\n\
                    \x20             count: 1\nNode 0, zone   Movable\n  pages free     0\n";
        assert_eq!(zones(text), [json!({"zone": "DMA", "free": 12288}), json!({"zone": "Movable", "free": 0})]);
    }
}
