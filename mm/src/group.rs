//! Memory groups: the device whose blocks came together and go together.

use crate::addr::{NodeId, SectionId, SectionRange};
use crate::section::MemmapPlace;
use core::fmt;
use heapless::Vec;

/// Which group, for as long as it exists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupId(u16);

impl GroupId {
    pub(crate) const fn new(n: u16) -> Self {
        Self(n)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// What a group is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum GroupKind {
    /// Memory that was there at boot.
    Boot,
    /// A DIMM in a slot.
    Dimm,
    /// A range that somebody added by hand.
    Probe,
}

impl GroupKind {
    /// Its name for scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Dimm => "dimm",
            Self::Probe => "probe",
        }
    }
}

/// The name of a group: `dimm3` is the DIMM in slot 3, others count up per kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GroupName {
    /// The kind.
    pub kind: GroupKind,
    /// The slot, or the number within the kind.
    pub number: u16,
}

impl GroupName {
    /// Reads a name such as `dimm3`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [GroupKind::Boot, GroupKind::Dimm, GroupKind::Probe].into_iter().find_map(|kind| {
            let digits = text.strip_prefix(kind.name())?;
            let canonical = digits == "0" || !digits.starts_with(['0', '+']);
            let number = digits.parse().ok().filter(|_| canonical)?;
            Some(Self { kind, number })
        })
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind.name(), self.number)
    }
}

/// A device's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Group {
    /// Its name.
    pub name: GroupName,
    /// Its blocks.
    pub range: SectionRange,
    /// The node of all of them.
    pub node: NodeId,
    /// Where its struct pages lie.
    pub memmap: MemmapPlace,
}

/// The most groups there can be: 256 DIMM slots, one boot group per node, and as many added by hand.
pub const GROUP_LIMIT: usize = 512;

/// All groups.
pub(crate) struct GroupTable {
    entries: Vec<Option<Group>, GROUP_LIMIT>,
}

impl GroupTable {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    pub(crate) fn get(&self, id: GroupId) -> Option<Group> {
        *self.entries.get(usize::from(id.0))?
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (GroupId, Group)> + '_ {
        self.entries.iter().enumerate().filter_map(|(n, entry)| Some((GroupId(n as u16), (*entry)?)))
    }

    pub(crate) fn find(&self, name: GroupName) -> Option<(GroupId, Group)> {
        self.iter().find(|(_, group)| group.name == name)
    }

    /// The id that the next [`insert`](Self::insert) will give, if there is room for one more.
    pub(crate) fn vacancy(&self) -> Option<GroupId> {
        let slot = self.entries.iter().position(Option::is_none).unwrap_or(self.entries.len());
        (slot < GROUP_LIMIT).then_some(GroupId(slot as u16))
    }

    /// Puts `group` into the vacancy.
    pub(crate) fn insert(&mut self, group: Group) -> GroupId {
        let id = self.vacancy().expect("the caller has seen a vacancy");
        match self.entries.get_mut(usize::from(id.0)) {
            Some(entry) => *entry = Some(group),
            None => assert!(self.entries.push(Some(group)).is_ok(), "the vacancy is within the limit"),
        }
        id
    }

    /// Lets a group, just made for boot memory, grow by the section behind it.
    pub(crate) fn extend(&mut self, id: GroupId, section: SectionId) {
        let group = self.entries[usize::from(id.0)].as_mut().expect("only an existing group grows");
        let first = u64::from(group.range.first().number());
        let count = u64::from(section.number()) - first + 1;
        group.range = SectionRange::new(first, count).expect("its sections exist");
    }

    pub(crate) fn remove(&mut self, id: GroupId) {
        self.entries[usize::from(id.0)] = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;

    #[test]
    fn names_read_as_they_are_written() {
        for text in ["dimm0", "dimm17", "boot1", "probe3"] {
            let mut written = heapless::String::<16>::new();
            write!(written, "{}", GroupName::parse(text).expect(text)).expect("short");
            assert_eq!(written.as_str(), text);
        }
        for text in ["dimm", "dimm01", "dimm+1", "dimm-1", "dimm99999", "slot1", ""] {
            assert_eq!(GroupName::parse(text), None, "{text}");
        }
    }
}
