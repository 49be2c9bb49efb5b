//! From what a person names to what is there, and back for completion.

use super::super::arguments::{Among, Kind};
use super::super::failure::{Failure, Quoted};
use super::super::values::{BlockList, Piece, number};
use crate::memory::mm;
use alloc::collections::BTreeSet;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt::{Display, Write};
use mm::Errno;
use mm::addr::{NodeId, SECTION_LIMIT, SectionRange};
use mm::inject::Point;
use mm::section::group::{Group, GroupId, GroupName};
use mm::section::state::BlockState;
use mm::section::word::Section;

/// The present blocks that a word names: lowest first, merged.
pub(super) fn blocks(word: &str) -> Result<Vec<SectionRange>, Failure> {
    let list = BlockList::parse(word, SECTION_LIMIT)?;
    let mut ranges: Vec<SectionRange> = Vec::new();
    for piece in list.pieces() {
        match piece {
            Piece::Blocks { first, last } => ranges.push(present_range(*first, *last)?),
            Piece::Group(name) => {
                let present = mm().runs(group(name)?.1.window).filter(|(_, section)| section.is_some());
                ranges.extend(present.map(|(run, _)| run));
            }
        }
    }
    if ranges.is_empty() {
        return Err(Failure::new(Errno::NoEntry, format_args!("there is no block in {}", Quoted(word))));
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

/// Runs of blocks, lowest first, those without a gap between them and with the same to say of them as one.
pub(super) fn joined<T: PartialEq>(
    runs: impl Iterator<Item = (SectionRange, T)>,
) -> impl Iterator<Item = (SectionRange, T)> {
    let mut rest = runs.peekable();
    core::iter::from_fn(move || {
        let (mut run, of) = rest.next()?;
        while let Some(longer) = rest.peek().and_then(|(next, its)| run.join(*next).filter(|_| *its == of)) {
            run = longer;
            rest.next();
        }
        Some((run, of))
    })
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
    groups.sort_unstable_by_key(|(_, group)| group.window.first());
    groups
}

/// The node that a word names, whether it has memory or not.
pub(super) fn any_node(word: &str) -> Result<NodeId, Failure> {
    let value = number(word, "a node number")?;
    let found = mm().nodes().find(|node| u64::from(node.number()) == value);
    found.ok_or_else(|| Failure::new(Errno::NoEntry, format_args!("there is no node {}", Quoted(word))))
}

/// The node that a word names; it must have memory that is online.
pub(super) fn node(word: &str) -> Result<NodeId, Failure> {
    let node = any_node(word)?;
    let is_of = |section: Section| section.node == node && section.state.is_in_zone();
    if mm().block_runs().any(|(_, section)| is_of(section)) {
        Ok(node)
    } else {
        Err(Failure::new(Errno::NoEntry, format_args!("there is no memory online on node {node}")))
    }
}

/// Offers what may stand where a word of `kind` is expected, for completion.
pub(crate) fn candidates(kind: Kind, each: &mut dyn FnMut(&str)) {
    let mut shown = |value: &dyn Display| each(&value.to_string());
    match kind {
        Kind::Free => {}
        Kind::OneOf(words) => words.iter().for_each(|word| shown(word)),
        Kind::BlocksOrGroup(among) => blocks_and_groups(among, each),
        Kind::Node => {
            let online = mm().block_runs().filter(|(_, section)| section.state.is_in_zone());
            let nodes: BTreeSet<u8> = online.map(|(_, section)| section.node.number()).collect();
            nodes.iter().for_each(|node| shown(node));
        }
        Kind::AnyNode => mm().nodes().for_each(|node| shown(&node)),
        Kind::Command => super::all().for_each(|command| shown(&command.name)),
        Kind::CommandOrTopic => {
            super::all().map(|command| command.name).chain(super::help::topics()).for_each(|name| shown(&name));
        }
        Kind::Fill => super::load::ids().iter().for_each(|id| shown(id)),
        Kind::Job => super::jobs::numbers().iter().for_each(|number| shown(number)),
        Kind::FailurePoint => {
            super::testing::points().map(Point::name).chain(["off"]).for_each(|name| shown(&name));
        }
        Kind::Errno => Errno::ALL.iter().for_each(|errno| shown(&errno.name())),
        Kind::Listener => super::notify::chain().iter().for_each(|listener| shown(&listener.name)),
    }
}

/// The blocks among which a command chooses, and the groups that hold one of them.
fn blocks_and_groups(among: Among, each: &mut dyn FnMut(&str)) {
    let is_wanted = |section: Section| match among {
        Among::Online => section.state.is_in_zone(),
        Among::Offline => section.state == BlockState::Offline,
    };
    // There may be very many: what they are called takes no memory.
    let mut name: heapless::String<10> = heapless::String::new();
    for (run, _) in mm().block_runs().filter(|(_, section)| is_wanted(*section)) {
        for id in run.iter() {
            name.clear();
            write!(name, "{id}").expect("a block's number has few digits");
            each(&name);
        }
    }
    for (_, group) in groups() {
        if mm().runs(group.window).any(|(_, section)| section.is_some_and(is_wanted)) {
            each(&group.name.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_neighbours_that_are_alike_are_joined() {
        let run = |first, count| SectionRange::new(first, count).expect("in reach");
        let runs = [(run(1, 1), 'a'), (run(2, 3), 'a'), (run(6, 1), 'a'), (run(7, 1), 'b'), (run(8, 2), 'b')];
        let joined: Vec<_> = joined(runs.into_iter()).collect();
        assert_eq!(joined, [(run(1, 4), 'a'), (run(6, 1), 'a'), (run(7, 3), 'b')]);
    }
}
