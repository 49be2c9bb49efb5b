//! Blocks that come from a source: added, and then done with as the policy says.

use super::blocks::Blocks;
use mm::Errno;
use mm::addr::{NodeId, SectionRange};
use mm::hotplug::zone_choice::Remark;
use mm::hotplug::{AddError, AddRequest, OnlineError};
use mm::record::policy::AutoOnline;
use mm::section::group::GroupName;
use thiserror::Error;

/// Why blocks were not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum NotAdded {
    #[error("proximity domain {domain} is no node: their numbers end at {}", NodeId::LIMIT - 1)]
    Domain { domain: u32 },
    #[error(transparent)]
    Add(AddError),
}

impl NotAdded {
    /// The errno name.
    pub(super) fn errno(self) -> Errno {
        match self {
            Self::Domain { .. } => Errno::Invalid,
            Self::Add(error) => error.errno(),
        }
    }
}

/// Blocks that were added, and what came of automatic onlining.
#[derive(Clone, Copy, Debug)]
pub(super) struct Added {
    pub(super) name: GroupName,
    pub(super) range: SectionRange,
    pub(super) node: NodeId,
    pub(super) online: Onlining,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Onlining {
    NotAsked,
    Done(Option<Remark>),
    Failed(OnlineError),
}

/// Adds blocks and does with them what the policy says. They stay when going online fails.
pub(super) fn add(
    range: SectionRange,
    domain: u32,
    name: GroupName,
    blocks: &mut impl Blocks,
) -> Result<Added, NotAdded> {
    let node = NodeId::new(domain).ok_or(NotAdded::Domain { domain })?;
    blocks.add(&AddRequest { range, node, name }).map_err(NotAdded::Add)?;
    let online = match blocks.auto_online() {
        AutoOnline::Offline => Onlining::NotAsked,
        AutoOnline::As(how) => blocks.online(range, how).map_or_else(Onlining::Failed, Onlining::Done),
    };
    Ok(Added { name, range, node, online })
}

impl Added {
    /// Tells the log, for a source whose lines have that target.
    pub(super) fn log(&self, target: &str) {
        let Self { name, range, node, online } = self;
        let (mib, first, last) = (range.size_bytes() >> 20, range.first(), range.last());
        let how = if matches!(online, Onlining::Done(_)) { ", online" } else { "" };
        match range.count() {
            1 => log::info!(target: target, "{name}: {mib} MiB, block {first}, added on node {node}{how}"),
            _ => log::info!(target: target, "{name}: {mib} MiB, blocks {first}-{last}, added on node {node}{how}"),
        }
        match online {
            Onlining::NotAsked | Onlining::Done(None) => {}
            Onlining::Done(Some(remark)) => log::warn!(target: target, "{name}: {remark}"),
            Onlining::Failed(error) => log::warn!(target: target, "{name}: not brought online: {error}"),
        }
    }
}
