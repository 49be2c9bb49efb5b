//! `lsmem` and `groups`: which memory there is, by block and by device.

use super::super::arguments::{JSON, OptionSpec, Syntax};
use super::super::call::Call;
use super::super::failure::Outcome;
use super::super::table::{Align, Table};
use super::super::values::{Human, Span};
use super::{Command, resolve};
use crate::memory::mm;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use mm::addr::{SECTION_SIZE, SectionId};
use mm::group::GroupKind;
use mm::section::{BlockState, Section};
use serde::Serialize;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "lsmem",
        syntax: Syntax {
            options: &[OptionSpec { name: "-a", value: None, help: "every block on its own line" }, JSON],
            operands: &[],
        },
        summary: "list the ranges of memory and their state",
        details: "\
Memory comes and goes in blocks of 128 MiB; block N begins at N x 128 MiB.
Neighbours that share everything are one line, unless -a is given.

STATE        offline memory is known and mapped, but nobody uses it
ZONE         Normal serves everything; Movable only what can be moved away,
             so that its blocks can be taken offline again
NODE         the NUMA node the block belongs to
GROUP        the device it came with; see `groups`
VALID_ZONES  where `online` may put it, its own choice first",
        example: "lsmem -a",
        run: lsmem,
    },
    Command {
        name: "groups",
        syntax: Syntax { options: &[JSON], operands: &[] },
        summary: "list the devices that memory came with",
        details: "\
A group is what comes and goes together: a DIMM (dimmN is the one in slot N),
memory added by hand with `probe`, or what was there at boot. Its blocks can be
online and offline one by one, but it is removed as a whole.",
        example: "groups",
        run: groups,
    },
];

/// What `lsmem -J` prints; the field names are a contract.
#[derive(Serialize)]
struct Blocks {
    block_size: u64,
    online: u64,
    offline: u64,
    ranges: Vec<Range>,
}

#[derive(Clone, PartialEq, Eq, Serialize)]
struct Range {
    first: u32,
    last: u32,
    start: u64,
    size: u64,
    #[serde(flatten)]
    attributes: Attributes,
}

/// What neighbours must share to be shown as one range.
#[derive(Clone, PartialEq, Eq, Serialize)]
struct Attributes {
    state: &'static str,
    zone: Option<&'static str>,
    node: u8,
    group: Option<String>,
    valid_zones: Vec<&'static str>,
}

fn lsmem(call: &mut Call<'_>) -> Outcome {
    let mut ranges: Vec<Range> = mm().blocks().map(|(id, section)| range_of(id, section)).collect();
    if !call.arguments.has("-a") {
        ranges = join_neighbours(ranges);
    }
    let sum = |wanted: fn(&Range) -> bool| ranges.iter().filter(|range| wanted(range)).map(|range| range.size).sum();
    let report = Blocks {
        block_size: SECTION_SIZE,
        // A block on its way out is still in use; one on its way in is not yet.
        online: sum(|range| matches!(range.attributes.state, "online" | "going-offline")),
        offline: sum(|range| matches!(range.attributes.state, "offline" | "going-online")),
        ranges,
    };
    call.show(&report, lsmem_table);
    Ok(())
}

fn range_of(id: SectionId, section: Section) -> Range {
    let zones = mm().outlook(section.node).valid_zones(id, section);
    let attributes = Attributes {
        state: section.state.name(),
        zone: section.state.zone().map(|zone| zone.name()),
        node: section.node.number(),
        group: mm().group(section.group).map(|group| group.name.to_string()),
        valid_zones: zones.as_slice().iter().map(|zone| zone.name()).collect(),
    };
    Range { first: id.number(), last: id.number(), start: id.address(), size: SECTION_SIZE, attributes }
}

fn join_neighbours(blocks: Vec<Range>) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for block in blocks {
        match ranges.last_mut() {
            Some(before) if before.last + 1 == block.first && before.attributes == block.attributes => {
                before.last = block.last;
                before.size += block.size;
            }
            _ => ranges.push(block),
        }
    }
    ranges
}

fn lsmem_table(report: &Blocks) -> String {
    let mut table = Table::new(&[
        ("RANGE", Align::Left),
        ("SIZE", Align::Right),
        ("STATE", Align::Left),
        ("ZONE", Align::Left),
        ("NODE", Align::Right),
        ("GROUP", Align::Left),
        ("BLOCK", Align::Right),
        ("VALID_ZONES", Align::Left),
    ]);
    for range in &report.ranges {
        let attributes = &range.attributes;
        table.row([
            format!("{:#014x}-{:#014x}", range.start, range.start + (range.size - 1)),
            Human(range.size).to_string(),
            attributes.state.into(),
            attributes.zone.unwrap_or("-").into(),
            attributes.node.to_string(),
            attributes.group.clone().unwrap_or_else(|| "-".into()),
            Span(range.first.into(), range.last.into()).to_string(),
            attributes.valid_zones.join(" "),
        ]);
    }
    format!(
        "{table}\nMemory block size:    {:>8}\nTotal online memory:  {:>8}\nTotal offline memory: {:>8}\n",
        Human(report.block_size),
        Human(report.online),
        Human(report.offline)
    )
}

/// What `groups -J` prints.
#[derive(Serialize)]
struct Groups {
    groups: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    kind: &'static str,
    slot: Option<u16>,
    node: u8,
    start: u64,
    size: u64,
    first: u32,
    last: u32,
    online: u64,
    offline: u64,
}

fn groups(call: &mut Call<'_>) -> Outcome {
    let mut groups = Vec::new();
    for (_, group) in resolve::groups() {
        let (mut online, mut offline) = (0, 0);
        for section in group.range.iter().filter_map(|id| mm().section(id)) {
            match section.state {
                BlockState::Online(_) | BlockState::GoingOffline(_) => online += SECTION_SIZE,
                BlockState::Offline | BlockState::GoingOnline(_) => offline += SECTION_SIZE,
            }
        }
        groups.push(Entry {
            name: group.name.to_string(),
            kind: group.name.kind.name(),
            slot: (group.name.kind == GroupKind::Dimm).then_some(group.name.number),
            node: group.node.number(),
            start: group.range.first().address(),
            size: group.range.size_bytes(),
            first: group.range.first().number(),
            last: group.range.last().number(),
            online,
            offline,
        });
    }
    call.show(&Groups { groups }, groups_table);
    Ok(())
}

fn groups_table(report: &Groups) -> String {
    let mut table = Table::new(&[
        ("GROUP", Align::Left),
        ("KIND", Align::Left),
        ("SLOT", Align::Right),
        ("NODE", Align::Right),
        ("RANGE", Align::Left),
        ("SIZE", Align::Right),
        ("BLOCK", Align::Right),
        ("ONLINE", Align::Right),
        ("OFFLINE", Align::Right),
    ]);
    for group in &report.groups {
        table.row([
            group.name.clone(),
            group.kind.into(),
            group.slot.map_or_else(|| "-".into(), |slot| slot.to_string()),
            group.node.to_string(),
            format!("{:#014x}-{:#014x}", group.start, group.start + (group.size - 1)),
            Human(group.size).to_string(),
            Span(group.first.into(), group.last.into()).to_string(),
            Human(group.online).to_string(),
            Human(group.offline).to_string(),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::super::json;
    use super::*;

    fn block(number: u32, state: &'static str) -> Range {
        let attributes = Attributes { state, zone: None, node: 0, group: Some("dimm0".into()), valid_zones: [].into() };
        let start = u64::from(number) * SECTION_SIZE;
        Range { first: number, last: number, start, size: SECTION_SIZE, attributes }
    }

    #[test]
    fn only_equal_neighbours_become_one_range() {
        let blocks = [block(1, "online"), block(2, "online"), block(4, "online"), block(5, "offline")];
        let ranges = join_neighbours(blocks.into());
        let spans: Vec<(u32, u32)> = ranges.iter().map(|range| (range.first, range.last)).collect();
        assert_eq!(spans, [(1, 2), (4, 4), (5, 5)]);
        assert_eq!(ranges[0].size, 2 * SECTION_SIZE);
    }

    #[test]
    fn a_range_in_json_has_the_fields_scripts_rely_on() {
        assert_eq!(
            json::line(&block(32, "offline")),
            r#"{"first":32,"last":32,"start":4294967296,"size":134217728,"state":"offline","zone":null,"node":0,"group":"dimm0","valid_zones":[]}"#
        );
    }
}
