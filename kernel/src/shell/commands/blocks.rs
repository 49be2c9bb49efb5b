//! `lsmem` and `groups`: which memory there is, by block and by device.

use super::super::arguments::{JSON, OptionSpec, Syntax};
use super::super::call::Call;
use super::super::failure::Outcome;
use super::super::table::{Align, Cell, Table, cell};
use super::super::values::{Human, Span};
use super::{Command, resolve};
use crate::memory::mm;
use crate::sources::dimm::{self, Refusal};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use mm::addr::{SECTION_SIZE, SectionRange};
use mm::hotplug::zone_choice::ZoneChooser;
use mm::section::group::{GroupKind, GroupName};
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;
use mm::section::word::Section;
use serde::{Serialize, Serializer};

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
             so that its blocks can be taken offline again; a mixed block is
             in both (kernelcore=, movablecore=), and stays so
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
online and offline one by one, but it is removed as a whole.

STATE        present, or refused and why: a DIMM that is in its slot and did
             not become memory; `probe` tries again",
        example: "groups",
        run: groups,
    },
];

/// One of the `ranges` that `lsmem -J` prints; the field names are a contract.
#[derive(Clone, Copy, Serialize)]
struct Range {
    first: u32,
    last: u32,
    start: u64,
    size: u64,
    #[serde(flatten)]
    attributes: Attributes,
}

/// What neighbours must share to be shown as one range.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
struct Attributes {
    state: &'static str,
    zone: Option<&'static str>,
    node: u8,
    #[serde(serialize_with = "shown")]
    group: Option<GroupName>,
    #[serde(serialize_with = "names")]
    valid_zones: &'static [ZoneKind],
}

fn shown<S: Serializer>(group: &Option<GroupName>, serializer: S) -> Result<S::Ok, S::Error> {
    match group {
        Some(name) => serializer.collect_str(name),
        None => serializer.serialize_none(),
    }
}

fn names<S: Serializer>(zones: &&[ZoneKind], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(zones.iter().map(|zone| zone.name()))
}

const LSMEM: [(&str, Align); 8] = [
    ("RANGE", Align::Left),
    ("SIZE", Align::Right),
    ("STATE", Align::Left),
    ("ZONE", Align::Left),
    ("NODE", Align::Right),
    ("GROUP", Align::Left),
    ("BLOCK", Align::Right),
    ("VALID_ZONES", Align::Left),
];

fn lsmem(call: &mut Call<'_>) -> Outcome {
    let every_block = call.arguments.has("-a");
    let (mut online, mut offline) = (0, 0);
    let mut count = |range: &Range| match range.attributes.state {
        // A block on its way out is still in use; one on its way in is not yet.
        "online" | "going-offline" => online += range.size,
        _ => offline += range.size,
    };
    if call.arguments.has("-J") {
        call.part(format_args!("{{\"block_size\":{SECTION_SIZE},\"ranges\":"))?;
        call.json_list(ranges(every_block).inspect(&mut count))?;
        call.line(format_args!(",\"online\":{online},\"offline\":{offline}}}"));
    } else {
        call.table(&LSMEM, || ranges(every_block).map(|range| cells(&range)))?;
        ranges(false).for_each(|range| count(&range));
        call.line(format_args!(
            "\nMemory block size:    {:>8}\nTotal online memory:  {:>8}\nTotal offline memory: {:>8}",
            Human(SECTION_SIZE),
            Human(online),
            Human(offline)
        ));
    }
    Ok(())
}

/// What there is: every block, or neighbours that share everything as one.
fn ranges(every_block: bool) -> impl Iterator<Item = Range> {
    let mut chooser = None;
    let by_attributes = mm().block_runs().flat_map(move |(run, section)| {
        // The blocks of a device lie together.
        let known = chooser.filter(|chooser: &ZoneChooser| chooser.is_about(section));
        let chooser = *chooser.insert(known.unwrap_or_else(|| mm().zone_chooser(section)));
        let group = mm().group(section.group).map(|group| group.name);
        let zones = chooser.valid_zones(run, section);
        zones.map(move |(part, valid_zones)| (part, Attributes::of(section, group, valid_zones)))
    });
    resolve::joined(by_attributes).flat_map(move |(run, attributes)| {
        let (blocks, as_one) = if every_block { (usize::MAX, None) } else { (0, Some(run)) };
        run.iter().take(blocks).map(SectionRange::single).chain(as_one).map(move |part| Range {
            first: part.first().number(),
            last: part.last().number(),
            start: part.first().address(),
            size: part.size_bytes(),
            attributes,
        })
    })
}

impl Attributes {
    fn of(section: Section, group: Option<GroupName>, valid_zones: &'static [ZoneKind]) -> Self {
        Self {
            state: section.state.name(),
            zone: match section.state {
                BlockState::Mixed(_) => Some("mixed"),
                state => state.zone().map(ZoneKind::name),
            },
            node: section.node.number(),
            group,
            valid_zones,
        }
    }
}

fn cells(range: &Range) -> [Cell; 8] {
    let attributes = &range.attributes;
    let zones = attributes.valid_zones;
    [
        cell(format_args!("{:#014x}-{:#014x}", range.start, range.start + (range.size - 1))),
        cell(Human(range.size)),
        cell(attributes.state),
        cell(attributes.zone.unwrap_or("-")),
        cell(attributes.node),
        attributes.group.map_or_else(|| cell("-"), cell),
        cell(Span(range.first.into(), range.last.into())),
        cell(format_args!(
            "{}{}{}",
            zones.first().map_or("", |zone| zone.name()),
            if zones.len() > 1 { " " } else { "" },
            zones.get(1).map_or("", |zone| zone.name())
        )),
    ]
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
    node: u32,
    start: u64,
    size: u64,
    first: Option<u32>,
    last: Option<u32>,
    online: u64,
    offline: u64,
    state: &'static str,
    reason: Option<String>,
}

fn groups(call: &mut Call<'_>) -> Outcome {
    let mut groups = present_groups();
    groups.extend(dimm::refused().iter().map(refused_group));
    call.show(&Groups { groups }, groups_table);
    Ok(())
}

fn present_groups() -> Vec<Entry> {
    let mut groups = Vec::new();
    for (_, group) in resolve::groups() {
        let (mut online, mut offline) = (0, 0);
        for (run, section) in mm().runs(group.window) {
            match section.map(|section| section.state) {
                Some(
                    BlockState::Online(_)
                    | BlockState::Shrinking(_)
                    | BlockState::GoingOffline(_)
                    | BlockState::Mixed(_),
                ) => online += run.size_bytes(),
                Some(BlockState::Offline | BlockState::GoingOnline(_)) => offline += run.size_bytes(),
                Some(BlockState::Device) | None => {}
            }
        }
        groups.push(Entry {
            name: group.name.to_string(),
            kind: group.name.kind.name(),
            slot: (group.name.kind == GroupKind::Dimm).then_some(group.name.number),
            node: group.node.number().into(),
            start: group.window.first().address(),
            size: group.window.size_bytes(),
            first: Some(group.window.first().number()),
            last: Some(group.window.last().number()),
            online,
            offline,
            state: "present",
            reason: None,
        });
    }
    groups
}

/// What a DIMM would be that was refused.
fn refused_group(refusal: &Refusal) -> Entry {
    let name = refusal.name();
    Entry {
        name: name.to_string(),
        kind: name.kind.name(),
        slot: Some(name.number),
        node: refusal.dimm.domain,
        start: refusal.dimm.start,
        size: refusal.dimm.len,
        first: None,
        last: None,
        online: 0,
        offline: 0,
        state: "refused",
        reason: Some(refusal.why.to_string()),
    }
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
        ("STATE", Align::Left),
    ]);
    for group in &report.groups {
        let last_address = group.start.saturating_add(group.size.saturating_sub(1));
        let blocks = group.first.zip(group.last).map(|(first, last)| Span(first.into(), last.into()).to_string());
        let reason = group.reason.as_ref().map(|reason| format!(": {reason}"));
        table.row([
            group.name.clone(),
            group.kind.into(),
            group.slot.map_or_else(|| "-".into(), |slot| slot.to_string()),
            group.node.to_string(),
            format!("{:#014x}-{last_address:#014x}", group.start),
            Human(group.size).to_string(),
            blocks.unwrap_or_else(|| "-".into()),
            Human(group.online).to_string(),
            Human(group.offline).to_string(),
            format!("{}{}", group.state, reason.unwrap_or_default()),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::super::json;
    use super::*;
    use crate::drivers::dimm::Dimm;
    use crate::sources::dimm::Refused;

    #[test]
    fn a_refused_dimm_is_a_group_without_blocks() {
        let dimm = Dimm { slot: 5, start: u64::MAX, len: u64::MAX, domain: 300 };
        let entry = refused_group(&Refusal { dimm, why: Refused::NoBlock });
        assert_eq!(
            json::line(&entry),
            r#"{"name":"dimm5","kind":"dimm","slot":5,"node":300,"start":18446744073709551615,"size":18446744073709551615,"first":null,"last":null,"online":0,"offline":0,"state":"refused","reason":"it holds no whole block"}"#
        );
        let empty = refused_group(&Refusal { dimm: Dimm { start: 0, len: 0, ..dimm }, why: Refused::NoBlock });
        let table = groups_table(&Groups { groups: Vec::from([entry, empty]) });
        assert_eq!(table.matches("refused: it holds no whole block").count(), 2);
    }

    #[test]
    fn a_range_in_json_has_the_fields_scripts_rely_on() {
        let attributes = Attributes {
            state: "offline",
            zone: None,
            node: 0,
            group: GroupName::parse("dimm0"),
            valid_zones: &[ZoneKind::Normal, ZoneKind::Movable],
        };
        let block = Range { first: 32, last: 32, start: 32 * SECTION_SIZE, size: SECTION_SIZE, attributes };
        assert_eq!(
            json::line(&block),
            r#"{"first":32,"last":32,"start":4294967296,"size":134217728,"state":"offline","zone":null,"node":0,"group":"dimm0","valid_zones":["Normal","Movable"]}"#
        );
        let unknown = Attributes { group: None, ..attributes };
        assert!(json::line(&unknown).contains(r#""group":null"#));
    }
}
