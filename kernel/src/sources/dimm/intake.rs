//! What became of DIMMs that were taken in, and what the log says of it.
//!
//! One that comes while the machine runs has a line of its own. Those that were there at boot can be many and alike: what
//! went as it should is told in one line for all of a kind.

use super::refusal::Refused;
use super::{LOG, Leftover, end, leftovers_of, name};
use crate::drivers::dimm::Dimm;
use crate::sources::added::{Added, Onlining};
use crate::sources::blocks::Blocks;
use alloc::vec::Vec;
use core::fmt;
use mm::addr::NodeId;

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
            Some(added) => added.log(LOG),
            None => log::info!(target: LOG, "{}: already added", name(&self.dimm)),
        }
        for Leftover { name, start, len, why } in &self.leftovers {
            let (last, mib) = (start + (len - 1), len >> 20);
            log::warn!(target: LOG, "{name}: {mib} MiB at {start:#x}-{last:#x} not used: {why}");
        }
    }

    /// What there is to say of it, if everything went as it should.
    fn kind(&self) -> Option<Kind> {
        let added = self.added.filter(|_| self.leftovers.is_empty())?;
        let is_online = match added.online {
            Onlining::NotAsked => false,
            Onlining::Done(None) => true,
            Onlining::Done(Some(_)) | Onlining::Failed(_) => return None,
        };
        Some(Kind { bytes: self.dimm.len, node: added.node, is_online })
    }
}

/// Tells the log that a DIMM was refused.
pub(super) fn log_refusal(dimm: &Dimm, why: Refused) {
    let (name, mib, start, last) = (name(dimm), dimm.len >> 20, dimm.start, end(dimm).saturating_sub(1));
    log::warn!(target: LOG, "{name}: {mib} MiB at {start:#x}-{last:#x}, node {}, not added: {why}", dimm.domain);
}

/// DIMMs of a kind have one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    bytes: u64,
    node: NodeId,
    is_online: bool,
}

/// What was there at boot.
#[derive(Debug, Default)]
pub(super) struct Summary(Vec<(Kind, Vec<Intake>)>);

impl Summary {
    /// Keeps what is like others for the end, and tells the rest at once.
    pub(super) fn add(&mut self, intake: Intake) {
        let Some(kind) = intake.kind() else { return intake.log() };
        match self.0.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, alike)) => alike.push(intake),
            None => self.0.push((kind, Vec::from([intake]))),
        }
    }

    /// Tells the log.
    pub(super) fn log(&self) {
        for (kind, alike) in &self.0 {
            match alike.as_slice() {
                [only] => only.log(),
                _ => log::info!(target: LOG, "{}", Alike(*kind, alike)),
            }
        }
    }
}

/// One line for several DIMMs.
struct Alike<'a>(Kind, &'a [Intake]);

impl fmt::Display for Alike<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Kind { bytes, node, is_online }, intakes) = self;
        let how = if *is_online { ", online" } else { "" };
        write!(f, "{} DIMMs of {} MiB each added on node {node}{how}: ", intakes.len(), bytes >> 20)?;
        let rows = intakes.chunk_by(|one, next| one.dimm.slot + 1 == next.dimm.slot);
        for (number, row) in rows.enumerate() {
            let (first, last) = (name(&row[0].dimm), name(&row[row.len() - 1].dimm));
            let separator = if number == 0 { "" } else { ", " };
            match row {
                [_] => write!(f, "{separator}{first}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use mm::addr::SectionRange;
    use mm::hotplug::OnlineError;

    const MIB: u64 = 1 << 20;

    fn intake(slot: u32, blocks: u64, online: Onlining) -> Intake {
        let range = SectionRange::new(32, blocks).expect("in reach");
        let dimm = Dimm { slot, start: range.first().address(), len: range.size_bytes(), domain: 0 };
        let added = Added { name: name(&dimm), range, node: NodeId::ZERO, online };
        Intake { dimm, added: Some(added), leftovers: Vec::new() }
    }

    #[test]
    fn dimms_that_are_alike_share_a_line_and_others_do_not() {
        let mut summary = Summary::default();
        let done = Onlining::Done(None);
        for slot in [0, 1, 2, 4, 6, 7] {
            summary.add(intake(slot, 1, Onlining::NotAsked));
        }
        summary.add(intake(3, 2, Onlining::NotAsked));
        summary.add(intake(5, 1, done));
        summary.add(Intake { added: None, ..intake(8, 1, done) });
        let lines: Vec<_> = summary.0.iter().map(|(kind, alike)| Alike(*kind, alike).to_string()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], "6 DIMMs of 128 MiB each added on node 0: dimm0-dimm2, dimm4, dimm6-dimm7");
        assert!(lines[1].contains("256 MiB") && lines[2].contains(", online: dimm5"));
    }

    #[test]
    fn a_dimm_with_something_to_say_of_it_is_like_no_other() {
        let absent = OnlineError::Absent(mm::addr::SectionId::new(32).expect("it exists"));
        assert_eq!(intake(0, 1, Onlining::Failed(absent)).kind(), None);
        let dimm = Dimm { slot: 0, start: 0, len: 192 * MIB, domain: 0 };
        let why = super::super::Why::PartOfBlock;
        let tail = Leftover { name: name(&dimm), start: 128 * MIB, len: 64 * MIB, why };
        let cut = Intake { leftovers: Vec::from([tail]), ..intake(0, 1, Onlining::NotAsked) };
        assert_eq!(cut.kind(), None);
    }
}
