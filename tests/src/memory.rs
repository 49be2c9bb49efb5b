//! What the guest says of its memory, as values that can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::check::same;
use crate::vm::Vm;

/// A memory block.
pub const BLOCK_BYTES: u64 = 128 << 20;
/// A frame.
pub const FRAME_BYTES: u64 = 4 << 10;
/// Frames of a block.
pub const BLOCK_FRAMES: u64 = BLOCK_BYTES / FRAME_BYTES;

/// Bytes of page tables of an address space with so many bytes in pages of 4 KiB, up to 1 GiB.
pub const fn space_tables(bytes: u64) -> u64 {
    (bytes.div_ceil(2 << 20) + 3) * FRAME_BYTES
}

/// One block of `lsmem -a -J`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Block {
    #[serde(rename = "first")]
    pub number: u64,
    pub start: u64,
    pub size: u64,
    pub state: String,
    pub zone: Option<String>,
    pub node: u64,
    pub group: Option<String>,
    pub valid_zones: Vec<String>,
}

impl Block {
    /// `offline`, or the zone it is online in: what a table of expectations says.
    pub fn place(&self) -> &str {
        match &self.zone {
            Some(zone) if self.state == "online" => zone,
            _ => &self.state,
        }
    }
}

/// One group of `groups -J` that is present.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Group {
    pub name: String,
    pub kind: String,
    pub slot: Option<u64>,
    pub node: u64,
    pub start: u64,
    pub size: u64,
    pub first: u64,
    pub last: u64,
    pub online: u64,
    pub offline: u64,
}

/// `meminfo -J`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Usage {
    pub total: u64,
    pub free: u64,
    pub available: u64,
    pub kernel_available: u64,
    pub offline: u64,
    pub untouched: u64,
    pub memmap: Memmap,
    pub page_tables: u64,
    pub zones: Vec<Zone>,
}

/// Bytes of struct pages.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Memmap {
    pub used: u64,
    pub reserved: u64,
}

/// One zone of one node in `meminfo -J`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Zone {
    pub node: u64,
    pub zone: String,
    pub spanned: u64,
    pub present: u64,
    pub managed: u64,
    pub free: u64,
}

/// One operation of `events -J`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Operation {
    pub t: u64,
    pub op: String,
    pub start: u64,
    pub size: u64,
    pub result: String,
    /// Pages that it moved elsewhere.
    pub moved: u64,
    pub phases: Vec<Phase>,
}

/// A part of an operation and the time it took, on the guest's clock.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Phase {
    pub name: String,
    pub ns: u64,
}

impl Operation {
    /// The time that it took.
    pub fn took(&self) -> Duration {
        Duration::from_nanos(self.phases.iter().map(|phase| phase.ns).sum())
    }
}

/// Everything an operation that failed must leave as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    blocks: Value,
    groups: Value,
    usage: Usage,
    free_blocks: Value,
}

impl Trace {
    /// The totals of that moment.
    pub fn usage(&self) -> Usage {
        self.usage.clone()
    }
}

impl Usage {
    /// How much memory there is, in use or free, in each zone: which blocks are open, and so have struct pages in use, is history.
    #[must_use]
    pub fn apart_from_what_is_open(&self) -> Self {
        Self { untouched: 0, memmap: Memmap { used: 0, ..self.memmap.clone() }, ..self.clone() }
    }

    /// The zone of a node, empty where there is none.
    pub fn zone(&self, node: u64, zone: &str) -> Zone {
        let found = self.zones.iter().find(|other| other.node == node && other.zone == zone);
        let none = Zone { node, zone: zone.to_owned(), spanned: 0, present: 0, managed: 0, free: 0 };
        found.cloned().unwrap_or(none)
    }

    /// Free bytes of all zones of this kind.
    pub fn free_in(&self, zone: &str) -> u64 {
        self.zones.iter().filter(|other| other.zone == zone).map(|zone| zone.free).sum()
    }
}

impl Vm {
    /// All present blocks by number.
    #[track_caller]
    pub fn blocks(&mut self) -> Result<BTreeMap<u64, Block>> {
        let mut list = self.json("lsmem -a")?;
        let blocks: Vec<Block> = serde_json::from_value(list["ranges"].take()).context("`lsmem -a -J`")?;
        Ok(blocks.into_iter().map(|block| (block.number, block)).collect())
    }

    /// One block.
    #[track_caller]
    pub fn block(&mut self, number: u64) -> Result<Block> {
        let blocks = self.blocks()?;
        let known: Vec<_> = blocks.keys().collect();
        blocks.get(&number).cloned().with_context(|| format!("there is no block {number}, only {known:?}"))
    }

    /// Fails unless each block is offline or in a zone as said: `(32..=33, "offline")`.
    #[track_caller]
    pub fn expect_blocks(&mut self, want: &[(RangeInclusive<u64>, &str)]) -> Result<()> {
        let blocks = self.blocks()?;
        for (numbers, place) in want {
            for number in numbers.clone() {
                let got = blocks.get(&number).map_or("absent", Block::place);
                ensure!(got == *place, "block {number}: got {got}, expected {place}; all: {}", places(&blocks));
            }
        }
        Ok(())
    }

    /// Memory totals.
    #[track_caller]
    pub fn usage(&mut self) -> Result<Usage> {
        self.ask("meminfo")
    }

    /// Fails unless there is as much memory, in use or free, as at that moment.
    #[track_caller]
    pub fn expect_usage(&mut self, before: &Usage) -> Result<()> {
        same("totals", self.usage()?.apart_from_what_is_open(), before.apart_from_what_is_open())
    }

    /// The nodes that entries of a list of `command -J` are about, each once.
    #[track_caller]
    pub fn nodes_in(&mut self, command: &str, list: &str) -> Result<Vec<u64>> {
        let report = self.json(command)?;
        let entries = report[list].as_array().with_context(|| format!("no {list} in `{command} -J`"))?;
        let nodes: BTreeSet<u64> = entries.iter().filter_map(|entry| entry["node"].as_u64()).collect();
        Ok(nodes.into_iter().collect())
    }

    /// All groups that are present, by name.
    #[track_caller]
    pub fn groups(&mut self) -> Result<BTreeMap<String, Group>> {
        let groups: Vec<Group> = serde_json::from_value(self.groups_that_are("present")?).context("`groups -J`")?;
        Ok(groups.into_iter().map(|group| (group.name.clone(), group)).collect())
    }

    /// The DIMMs that were refused, by name, and why.
    #[track_caller]
    pub fn refused(&mut self) -> Result<BTreeMap<String, String>> {
        let list = self.groups_that_are("refused")?;
        let text = |group: &Value, key: &str| group[key].as_str().map(str::to_owned);
        let of =
            |group| text(group, "name").zip(text(group, "reason")).with_context(|| format!("no reason in {group}"));
        list.as_array().into_iter().flatten().map(of).collect()
    }

    fn groups_that_are(&mut self, state: &str) -> Result<Value> {
        let mut list = self.json("groups")?;
        let groups = list["groups"].as_array_mut().context("no groups")?;
        groups.retain(|group| group["state"] == state);
        Ok(list["groups"].take())
    }

    /// The journal, oldest first.
    #[track_caller]
    pub fn operations(&mut self) -> Result<Vec<Operation>> {
        let mut list = self.json("events")?;
        serde_json::from_value(list["events"].take()).context("`events -J`")
    }

    /// The last offline that the journal tells of.
    #[track_caller]
    pub fn last_offline(&mut self) -> Result<Operation> {
        let operations = self.operations()?.into_iter();
        operations.rev().find(|operation| operation.op == "offline").context("no offline in the journal")
    }

    /// What must be the same after a failure as before.
    #[track_caller]
    pub fn trace(&mut self) -> Result<Trace> {
        Ok(Trace {
            blocks: self.json("lsmem -a")?,
            groups: self.groups_that_are("present")?,
            free_blocks: self.json("buddyinfo")?,
            usage: self.usage()?,
        })
    }

    /// Fails if anything is not as it was.
    #[track_caller]
    pub fn unchanged_since(&mut self, what: &str, before: &Trace) -> Result<()> {
        let now = self.trace()?;
        ensure!(now.blocks == before.blocks, "{what} changed blocks: {} to {}", before.blocks, now.blocks);
        ensure!(now.groups == before.groups, "{what} changed groups: {} to {}", before.groups, now.groups);
        let [was, is] = [before, &now].map(|trace| trace.usage.apart_from_what_is_open());
        ensure!(is == was, "{what} changed totals: {was:?} to {is:?}");
        let (was, is) = (&before.free_blocks, &now.free_blocks);
        ensure!(is == was, "{what} changed free lists: {was} to {is}");
        Ok(())
    }

    /// The state of a frame, by `page`.
    #[track_caller]
    pub fn frame_state(&mut self, pfn: u64) -> Result<String> {
        let frame = self.json(&format!("page pfn:{pfn}"))?;
        Ok(frame["state"].as_str().with_context(|| format!("no state in {frame}"))?.to_owned())
    }

    /// How many frames at the head of a block hold its own struct pages and tables.
    #[track_caller]
    pub fn head_frames(&mut self, block: u64) -> Result<u64> {
        let first = block * BLOCK_FRAMES;
        // The head is contiguous: look for its end by halving.
        let (mut low, mut high) = (0, BLOCK_FRAMES);
        while low < high {
            let middle = (low + high) / 2;
            if self.frame_state(first + middle)? == "memmap" {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The bytes of a block that the allocator gets when the block comes online.
    #[track_caller]
    pub fn managed(&mut self, block: u64) -> Result<u64> {
        Ok(BLOCK_BYTES - self.head_frames(block)? * FRAME_BYTES)
    }
}

fn places(blocks: &BTreeMap<u64, Block>) -> String {
    let places: Vec<_> = blocks.values().map(|block| format!("{} {}", block.number, block.place())).collect();
    places.join(", ")
}
