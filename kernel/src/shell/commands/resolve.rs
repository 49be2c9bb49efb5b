//! From what a person names to what is there, and back for completion.

use super::super::arguments::{Among, Kind};
use super::super::failure::{Failure, Quoted};
use super::super::values::{BlockList, Piece, number};
use crate::memory::mm;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use mm::Errno;
use mm::addr::{NodeId, SECTION_LIMIT, SectionId, SectionRange};
use mm::group::{Group, GroupId, GroupName};
use mm::inject::Point;
use mm::section::BlockState;

/// The present blocks that a word names: lowest first, merged.
pub(super) fn blocks(word: &str) -> Result<Vec<SectionRange>, Failure> {
    let list = BlockList::parse(word, SECTION_LIMIT)?;
    let mut ranges: Vec<SectionRange> = Vec::new();
    for piece in list.pieces() {
        ranges.push(match piece {
            Piece::Blocks { first, last } => present_range(*first, *last)?,
            Piece::Group(name) => group(name)?.1.range,
        });
    }
    ranges.sort_unstable_by_key(|range| range.first());
    Ok(SectionRange::merged(ranges).collect())
}

fn present_range(first: u64, last: u64) -> Result<SectionRange, Failure> {
    let absent = |block: u64| Failure::new(Errno::NoEntry, format_args!("there is no block {block}"));
    let range = SectionRange::new(first, last - first + 1).ok_or_else(|| absent(last))?;
    match mm().runs(range).find(|(_, section)| section.is_none()) {
        Some((run, _)) => Err(absent(run.first().number().into())),
        None => Ok(range),
    }
}

/// The group of this name.
pub(super) fn group(name: &str) -> Result<(GroupId, Group), Failure> {
    GroupName::parse(name)
        .and_then(|name| mm().find_group(name))
        .ok_or_else(|| Failure::new(Errno::NoEntry, format_args!("there is no block or group {}", Quoted(name))))
}

/// Every group, lowest address first.
pub(super) fn groups() -> Vec<(GroupId, Group)> {
    let mut count = 0;
    mm().for_each_group(|_, _| count += 1);
    // Room for all is made beforehand: nothing may be allocated while the groups are looked at.
    let mut groups = Vec::with_capacity(count);
    mm().for_each_group(|id, group| {
        if groups.len() < groups.capacity() {
            groups.push((id, group));
        }
    });
    groups.sort_unstable_by_key(|(_, group)| group.range.first());
    groups
}

/// The node that `--node N` names; it must have memory.
pub(super) fn node(word: &str) -> Result<NodeId, Failure> {
    let value = number(word, "a node number")?;
    let node = u32::try_from(value).ok().and_then(NodeId::new);
    let present = node.filter(|node| mm().blocks().any(|(_, section)| section.node == *node));
    present.ok_or_else(|| Failure::new(Errno::NoEntry, format_args!("there is no memory on node {}", Quoted(word))))
}

/// What may stand where a word of `kind` is expected, for completion.
pub(crate) fn candidates(kind: Kind) -> Vec<String> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
    match kind {
        Kind::Free => Vec::new(),
        Kind::OneOf(words) => names(words),
        Kind::BlocksOrGroup(among) => blocks_and_groups(among),
        Kind::Node => {
            let mut nodes: Vec<u8> = mm().blocks().map(|(_, section)| section.node.number()).collect();
            nodes.sort_unstable();
            nodes.dedup();
            nodes.iter().map(ToString::to_string).collect()
        }
        Kind::Command => super::all().map(|command| command.name.into()).collect(),
        Kind::CommandOrTopic => {
            let commands = super::all().map(|command| command.name);
            commands.chain(super::help::topics()).map(Into::into).collect()
        }
        Kind::Fill => super::load::ids().iter().map(ToString::to_string).collect(),
        Kind::Job => super::jobs::numbers().iter().map(ToString::to_string).collect(),
        Kind::FailurePoint => Point::ALL.iter().map(|point| point.name().into()).chain(["off".into()]).collect(),
        Kind::Errno => Errno::ALL.iter().map(|errno| errno.name().into()).collect(),
        Kind::Listener => super::notify::listeners().iter().map(|listener| listener.name.to_string()).collect(),
    }
}

/// The blocks among which a command chooses, and the groups that hold one of them.
fn blocks_and_groups(among: Among) -> Vec<String> {
    let wanted = |id: SectionId| {
        mm().section(id).is_some_and(|section| match among {
            Among::Online => section.state.is_in_zone(),
            Among::Offline => section.state == BlockState::Offline,
        })
    };
    let blocks = mm().blocks().filter(|(id, _)| wanted(*id)).map(|(id, _)| id.to_string());
    let groups = groups().into_iter().filter(|(_, group)| group.range.iter().any(wanted));
    blocks.chain(groups.map(|(_, group)| group.name.to_string())).collect()
}
