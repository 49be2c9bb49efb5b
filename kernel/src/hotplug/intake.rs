//! What became of DIMMs that were taken in, and what the log says of it.

use super::blocks::Blocks;
use super::refusal::Refused;
use super::{Leftover, end, leftovers_of, name};
use crate::drivers::dimm::Dimm;
use alloc::vec::Vec;
use mm::addr::{NodeId, SectionRange};
use mm::group::GroupName;
use mm::hotplug::{AddRequest, OnlineError};
use mm::outlook::Remark;
use mm::policy::AutoOnline;

/// Blocks that were added, and what came of automatic onlining.
#[derive(Clone, Copy, Debug)]
pub(super) struct Added {
    name: GroupName,
    range: SectionRange,
    node: NodeId,
    online: Onlining,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Onlining {
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
) -> Result<Added, Refused> {
    let node = NodeId::new(domain).ok_or(Refused::Domain(domain))?;
    blocks.add(&AddRequest { range, node, name }).map_err(Refused::Add)?;
    let online = match blocks.auto_online() {
        AutoOnline::Offline => Onlining::NotAsked,
        AutoOnline::As(how) => blocks.online(range, how).map_or_else(Onlining::Failed, Onlining::Done),
    };
    Ok(Added { name, range, node, online })
}

impl Added {
    /// Tells the log.
    pub(super) fn log(&self) {
        let Self { name, range, node, online } = self;
        let (mib, first, last) = (range.size_bytes() >> 20, range.first(), range.last());
        let how = if matches!(online, Onlining::Done(_)) { ", online" } else { "" };
        match range.count() {
            1 => log::info!(target: "dimm", "{name}: {mib} MiB, block {first}, added on node {node}{how}"),
            _ => log::info!(target: "dimm", "{name}: {mib} MiB, blocks {first}-{last}, added on node {node}{how}"),
        }
        match online {
            Onlining::NotAsked | Onlining::Done(None) => {}
            Onlining::Done(Some(remark)) => log::warn!(target: "dimm", "{name}: {remark}"),
            Onlining::Failed(error) => log::warn!(target: "dimm", "{name}: stays offline: {error}"),
        }
    }
}

/// A DIMM that is memory now, all of it or in part.
#[derive(Debug)]
pub(super) struct Intake {
    dimm: Dimm,
    /// `None` if it was there already.
    added: Option<Added>,
    leftovers: Vec<Leftover>,
}

impl Intake {
    pub(super) fn new(dimm: Dimm, added: Option<Added>, blocks: &impl Blocks) -> Self {
        Self { dimm, added, leftovers: leftovers_of(&dimm, |range| blocks.known(range)) }
    }

    /// Tells the log.
    pub(super) fn log(&self) {
        match &self.added {
            Some(added) => added.log(),
            None => log::info!(target: "dimm", "{}: its blocks are known already", name(&self.dimm)),
        }
        for Leftover { name, start, len, why } in &self.leftovers {
            let (last, mib) = (start + (len - 1), len >> 20);
            log::warn!(target: "dimm", "{name}: {mib} MiB at {start:#x}-{last:#x} are left alone: {why}");
        }
    }
}

/// Tells the log that a DIMM was refused.
pub(super) fn log_refusal(dimm: &Dimm, why: Refused) {
    let (name, mib, start, last) = (name(dimm), dimm.len >> 20, dimm.start, end(dimm).saturating_sub(1));
    log::warn!(target: "dimm", "{name}: {mib} MiB at {start:#x}-{last:#x}, node {}, not added: {why}", dimm.domain);
}
