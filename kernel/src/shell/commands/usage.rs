//! `meminfo`, `zoneinfo` and `buddyinfo`: how much memory is used, and in which pieces the rest lies.

use super::super::arguments::{JSON, Syntax};
use super::super::call::{Call, breathe};
use super::super::failure::{Failure, Outcome};
use super::super::table::{Align, Table};
use super::super::values::{Human, Span};
use super::Command;
use crate::memory::{heap_size, heap_used, mm, space_table_bytes};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use mm::addr::{NodeId, Order};
use mm::observe::report::{FreeGroups, ZoneReport};
use mm::section::kind::ZoneKind;
use serde::Serialize;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "meminfo",
        syntax: Syntax { options: &[JSON], operands: &[] },
        summary: "show the memory of the whole machine",
        details: "\
total        what the allocator manages: online memory less struct pages, page
             tables and what firmware and kernel image keep
free         of that, what nobody has
available    free, less a reserve that only hotplug itself may take
kernel       of that, what the kernel itself can still get: what lies in zones
             Normal. When it runs out, memory that is only Movable helps nobody
offline      in blocks that are known but offline
untouched    online, but never used, so that its struct pages do not exist yet
memmap       struct pages (32 bytes a frame): of online blocks, and the room
             set aside for those of every block
page_tables  frames that hold page tables
heap         the kernel's own data
poisoned     frames with an error, online and offline; no part of the total
faulty       frames with an error that somebody holds; they are poisoned when
             they are given back
withheld     blocks, online and offline, whose memory did not keep what was
             written where their struct pages were to go; no part of the total

Every node is listed, whether it has memory or not; zones only when they have.",
        example: "meminfo",
        run: meminfo,
    },
    Command {
        name: "zoneinfo",
        syntax: Syntax { options: &[JSON], operands: &[] },
        summary: "show each zone of each node",
        details: "\
spanned   from the first to the last block of the zone, gaps included
present   memory in its blocks
managed   of that, what the allocator got and nobody has poisoned
free      of that, what nobody has: since boot is the part that was there then,
          at hand what CPUs keep in their caches, untouched what lies in
          blocks that nobody has used
isolated  free, but on its way offline

spanned >= present >= managed >= free always holds. Every zone of every node is
shown; one without blocks is empty.",
        example: "zoneinfo",
        run: zoneinfo,
    },
    Command {
        name: "buddyinfo",
        syntax: Syntax { options: &[JSON], operands: &[] },
        summary: "count the free blocks of each order",
        details: "\
Free memory lies in groups of 2^order frames. Many small ones and few large ones
mean fragmentation: a request for a large one can fail while plenty is free.

A pageblock of 2 MiB that is partly used serves unmovable or movable requests;
one that is on its way offline is isolated; one that is free as a whole serves
nobody yet. What CPUs have at hand goes back before it is counted; untouched
blocks are not among this, `zoneinfo` counts them.",
        example: "buddyinfo",
        run: buddyinfo,
    },
];

/// What `meminfo -J` prints; the field names are a contract.
#[derive(Serialize)]
struct Usage {
    total: u64,
    free: u64,
    available: u64,
    kernel_available: u64,
    offline: u64,
    untouched: u64,
    memmap: Memmap,
    page_tables: u64,
    heap: u64,
    /// What it has taken, used or not.
    heap_size: u64,
    ballooned: u64,
    poisoned: u64,
    faulty: u64,
    withheld: u64,
    nodes: Vec<Node>,
    zones: Vec<Zone>,
}

#[derive(Serialize)]
struct Memmap {
    used: u64,
    reserved: u64,
}

#[derive(Serialize)]
struct Node {
    node: u8,
    total: u64,
    free: u64,
}

#[derive(Default, Serialize)]
struct Zone {
    node: u8,
    zone: &'static str,
    spanned: u64,
    present: u64,
    managed: u64,
    free: u64,
}

/// Every zone; room is made before the zones are asked, so that asking does not change the answer.
fn zones() -> Vec<ZoneReport> {
    let mut count = 0;
    mm().for_each_zone(|_| count += 1);
    let mut zones = Vec::with_capacity(count);
    mm().for_each_zone(|zone| zones.push(*zone));
    zones
}

fn meminfo(call: &mut Call<'_>) -> Outcome {
    let zones = zones();
    let memory = mm().memory_report();
    let report = Usage {
        total: memory.total,
        free: memory.free,
        available: memory.available,
        kernel_available: memory.kernel_available,
        offline: memory.offline,
        untouched: memory.untouched,
        memmap: Memmap { used: memory.memmap_used, reserved: memory.memmap_reserved },
        page_tables: memory.page_tables + space_table_bytes(),
        heap: heap_used() as u64,
        heap_size: heap_size() as u64,
        ballooned: 0,
        poisoned: memory.poisoned,
        faulty: memory.faulty,
        withheld: memory.withheld,
        nodes: mm().nodes().map(|node| node_of(node, &zones)).collect(),
        zones: zones.iter().map(zone_of).collect(),
    };
    call.show(&report, meminfo_text);
    Ok(())
}

/// The sums of a node's zones, of which it may have none.
fn node_of(node: NodeId, zones: &[ZoneReport]) -> Node {
    let sum = |of: fn(&ZoneReport) -> u64| zones.iter().filter(|zone| zone.node == node).map(of).sum();
    Node { node: node.number(), total: sum(|zone| zone.managed), free: sum(|zone| zone.free) }
}

fn zone_of(zone: &ZoneReport) -> Zone {
    Zone {
        node: zone.node.number(),
        zone: zone.kind.name(),
        spanned: zone.spanned,
        present: zone.present,
        managed: zone.managed,
        free: zone.free,
    }
}

fn meminfo_text(report: &Usage) -> String {
    let mut text = String::new();
    for (name, bytes) in [
        ("total", report.total),
        ("free", report.free),
        ("available", report.available),
        ("kernel", report.kernel_available),
        ("offline", report.offline),
        ("untouched", report.untouched),
        ("memmap, used", report.memmap.used),
        ("memmap, reserved", report.memmap.reserved),
        ("page tables", report.page_tables),
        ("heap", report.heap),
        ("ballooned", report.ballooned),
        ("poisoned", report.poisoned),
        ("faulty", report.faulty),
        ("withheld", report.withheld),
    ] {
        text += &format!("{name:<18}{:>8} {:>14} KiB\n", Human(bytes), bytes >> 10);
    }
    let mut nodes = Table::new(&[("NODE", Align::Right), ("TOTAL", Align::Right), ("FREE", Align::Right)]);
    for node in &report.nodes {
        nodes.row([node.node.to_string(), Human(node.total).to_string(), Human(node.free).to_string()]);
    }
    let mut zones = Table::new(&[
        ("NODE", Align::Right),
        ("ZONE", Align::Left),
        ("SPANNED", Align::Right),
        ("PRESENT", Align::Right),
        ("MANAGED", Align::Right),
        ("FREE", Align::Right),
    ]);
    for zone in &report.zones {
        let sizes = [zone.spanned, zone.present, zone.managed, zone.free];
        let head = [zone.node.to_string(), zone.zone.into()];
        zones.row(head.into_iter().chain(sizes.map(|size| Human(size).to_string())));
    }
    format!("{text}\n{nodes}\n{zones}")
}

/// What `zoneinfo -J` prints.
#[derive(Serialize)]
struct Zones {
    zones: Vec<ZoneDetails>,
}

#[derive(Default, Serialize)]
struct ZoneDetails {
    #[serde(flatten)]
    zone: Zone,
    /// Its lowest and highest block.
    first: Option<u32>,
    last: Option<u32>,
    free_boot: u64,
    cached: u64,
    untouched: u64,
    untouched_blocks: u64,
    isolated: u64,
}

impl ZoneDetails {
    fn of(zone: &ZoneReport) -> Self {
        Self {
            zone: zone_of(zone),
            first: Some(zone.span.0.number()),
            last: Some(zone.span.1.number()),
            free_boot: zone.free_boot,
            cached: zone.cached,
            untouched: zone.untouched,
            untouched_blocks: zone.untouched_sections,
            isolated: zone.isolated,
        }
    }

    /// Of a zone without blocks.
    fn empty(node: NodeId, kind: ZoneKind) -> Self {
        Self { zone: Zone { node: node.number(), zone: kind.name(), ..Zone::default() }, ..Self::default() }
    }
}

fn zoneinfo(call: &mut Call<'_>) -> Outcome {
    let zones = zones();
    let report = Zones { zones: mm().nodes().flat_map(|node| zones_of(node, &zones)).collect() };
    call.show(&report, zoneinfo_text);
    Ok(())
}

/// Every zone of a node; `zones` are those that have blocks.
fn zones_of(node: NodeId, zones: &[ZoneReport]) -> [ZoneDetails; ZoneKind::ALL.len()] {
    ZoneKind::ALL.map(|kind| {
        let found = zones.iter().find(|zone| (zone.node, zone.kind) == (node, kind));
        found.map_or_else(|| ZoneDetails::empty(node, kind), ZoneDetails::of)
    })
}

fn zoneinfo_text(report: &Zones) -> String {
    let mut text = String::new();
    for details in &report.zones {
        let zone = &details.zone;
        text += &format!("Node {}, zone {}: ", zone.node, zone.zone);
        let Some((first, last)) = details.first.zip(details.last) else {
            text += "empty\n";
            continue;
        };
        text += &format!("blocks {}\n", Span(first.into(), last.into()));
        for (name, bytes) in [
            ("spanned", zone.spanned),
            ("present", zone.present),
            ("managed", zone.managed),
            ("free", zone.free),
            ("  since boot", details.free_boot),
            ("  at hand", details.cached),
            ("  untouched", details.untouched),
            ("isolated", details.isolated),
        ] {
            text += &format!("  {name:<14}{:>8} {:>12} frames\n", Human(bytes), bytes >> 12);
        }
        text += &format!("  untouched blocks {:>5}\n", details.untouched_blocks);
    }
    text
}

/// What `buddyinfo -J` prints.
#[derive(Serialize)]
struct Buddies {
    zones: Vec<Buddy>,
}

#[derive(Serialize)]
struct Buddy {
    node: u8,
    zone: &'static str,
    /// Groups of each order, whatever they serve.
    free_blocks: [u64; Order::COUNT],
    types: Types,
}

#[derive(Serialize)]
struct Types {
    unmovable: [u64; Order::COUNT],
    movable: [u64; Order::COUNT],
    isolated: [u64; Order::COUNT],
    whole: [u64; Order::COUNT],
}

impl Buddy {
    fn of(zone: &ZoneReport, groups: FreeGroups) -> Self {
        let FreeGroups { unmovable, movable, isolated, whole } = groups;
        let mut free_blocks = whole;
        for counts in [unmovable, movable, isolated] {
            free_blocks.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        let types = Types { unmovable, movable, isolated, whole };
        Self { node: zone.node.number(), zone: zone.kind.name(), free_blocks, types }
    }
}

fn buddyinfo(call: &mut Call<'_>) -> Outcome {
    mm().drain_caches();
    let zones = zones();
    let groups = free_groups(&zones)?;
    let report = Buddies { zones: zones.iter().zip(groups).map(|(zone, groups)| Buddy::of(zone, groups)).collect() };
    call.show(&report, buddyinfo_table);
    Ok(())
}

/// The free groups of the open blocks of each zone, the zones being in order.
fn free_groups(zones: &[ZoneReport]) -> Result<Vec<FreeGroups>, Failure> {
    let mut groups = vec![FreeGroups::default(); zones.len()];
    for (run, section) in mm().block_runs().filter(|(_, section)| section.is_open()) {
        for kind in ZoneKind::ALL.into_iter().filter(|kind| section.state.reaches_into(*kind)) {
            let of = (section.node, kind);
            let Ok(place) = zones.binary_search_by_key(&of, |zone| (zone.node, zone.kind)) else { continue };
            for id in run.iter() {
                breathe()?;
                groups[place] += mm().free_groups_in(id, kind).unwrap_or_default();
            }
        }
    }
    Ok(groups)
}

fn buddyinfo_table(report: &Buddies) -> String {
    let sizes: Vec<String> = Order::all().map(|order| Human(order.pages() << 12).to_string()).collect();
    let columns: Vec<(&str, Align)> = [("NODE", Align::Right), ("ZONE", Align::Left), ("TYPE", Align::Left)]
        .into_iter()
        .chain(sizes.iter().map(|size| (size.as_str(), Align::Right)))
        .collect();
    let mut table = Table::new(&columns);
    for zone in &report.zones {
        let Types { unmovable, movable, isolated, whole } = &zone.types;
        for (name, counts) in [("unmovable", unmovable), ("movable", movable), ("isolated", isolated), ("whole", whole)]
        {
            let labels = [zone.node.to_string(), zone.zone.into(), name.into()];
            table.row(labels.into_iter().chain(counts.iter().map(ToString::to_string)));
        }
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm::addr::SectionId;

    fn zone(node: NodeId, kind: ZoneKind, managed: u64, free: u64) -> ZoneReport {
        let block = SectionId::new(7).expect("in reach");
        ZoneReport {
            node,
            kind,
            span: (block, block),
            spanned: 1 << 27,
            present: 1 << 27,
            managed,
            free,
            free_boot: 0,
            cached: 0,
            untouched: 0,
            untouched_sections: 0,
            isolated: 0,
        }
    }

    #[test]
    fn a_node_without_memory_is_listed_with_nothing() {
        let [empty, full] = [0, 1].map(|number| NodeId::new(number).expect("in reach"));
        let zones = [zone(full, ZoneKind::Normal, 5000, 3000), zone(full, ZoneKind::Movable, 700, 100)];
        let sums = [empty, full].map(|node| node_of(node, &zones)).map(|sum| (sum.node, sum.total, sum.free));
        assert_eq!(sums, [(0, 0, 0), (1, 5700, 3100)]);
        let report = Zones { zones: [empty, full].into_iter().flat_map(|node| zones_of(node, &zones[..1])).collect() };
        let shown = zoneinfo_text(&report);
        let heads: Vec<&str> = shown.lines().filter(|line| line.starts_with("Node")).collect();
        let expected = [
            "Node 0, zone Normal: empty",
            "Node 0, zone Movable: empty",
            "Node 1, zone Normal: blocks 7",
            "Node 1, zone Movable: empty",
        ];
        assert_eq!(heads, expected);
    }
}
