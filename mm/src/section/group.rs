//! Memory groups: the devices that memory comes from, each with the terms on which it comes.
//!
//! A group is registered once, with the window that its memory can lie in. Ranges of the window are added to it and removed from
//! it: of a DIMM all at once, of a device that grows and shrinks a unit at a time.

use crate::addr::{NodeId, SectionRange};
use crate::limits::GROUP_LIMIT;
use crate::machine::backing::Backing;
use crate::machine::mapper::DirectMap;
use crate::section::kind::{MemmapPlace, ZoneKind};
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
    /// A range that was added by hand.
    Probe,
    /// A virtio-mem device.
    VirtioMem,
}

impl GroupKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Boot, Self::Dimm, Self::Probe, Self::VirtioMem];

    /// Its name for scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VirtioMem => "virtio-mem",
            _ => self.prefix(),
        }
    }

    /// What names of its groups begin with.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Dimm => "dimm",
            Self::Probe => "probe",
            Self::VirtioMem => "vmem",
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
        GroupKind::ALL.into_iter().find_map(|kind| {
            let digits = text.strip_prefix(kind.prefix())?;
            let canonical = digits == "0" || !digits.starts_with(['0', '+']);
            let number = digits.parse().ok().filter(|_| canonical)?;
            Some(Self { kind, number })
        })
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind.prefix(), self.number)
    }
}

/// When memory of a group is accessible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ready {
    /// From when it is added to when it is removed.
    AtAdd,
    /// While a block of its unit is online: the group's [`Backing`] sees to it.
    AtOnline,
}

/// What of a section's memory the allocator gets when the section goes online.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grant {
    /// All that is not its own struct pages and tables.
    Whole,
    /// The pageblocks that have been granted, see [`pieces`](crate::hotplug::pieces); when it is added, those that its head lies in.
    Pieces,
}

/// The terms on which memory of a group comes and goes. The verbs ask them, and never what kind of device it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Where its struct pages lie.
    pub memmap: MemmapPlace,
    /// Sections that are made accessible and mapped together, between multiples of this number.
    pub unit: u64,
    /// When it is accessible.
    pub ready: Ready,
    /// What of it the allocator gets.
    pub grant: Grant,
    /// Whether CPUs may touch it.
    pub direct_map: DirectMap,
}

/// A device's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Group {
    /// Its name.
    pub name: GroupName,
    /// Where its blocks lie, or can lie. No other group's do.
    pub window: SectionRange,
    /// The node of all of them.
    pub node: NodeId,
    /// On which terms they come and go.
    pub terms: Terms,
}

impl Group {
    /// Whether its blocks can be removed.
    #[must_use]
    pub const fn is_removable(&self) -> bool {
        !matches!(self.name.kind, GroupKind::Boot)
    }
}

/// Present frames of a device by where they are, so that no policy has to go through its blocks. What is on its way counts where
/// it goes to, or where it comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) offline: u64,
    pub(crate) normal: u64,
    pub(crate) movable: u64,
}

impl Tally {
    /// The zone that the rest of it is to follow to, if any of it is in one.
    pub(crate) const fn zone(self) -> Option<ZoneKind> {
        match self {
            Self { normal: 1.., .. } => Some(ZoneKind::Normal),
            Self { movable: 1.., .. } => Some(ZoneKind::Movable),
            _ => None,
        }
    }

    /// So many frames have come, offline.
    pub(crate) const fn add(&mut self, pages: u64) {
        self.offline += pages;
    }

    /// So many frames, which are offline, have gone.
    pub(crate) const fn remove(&mut self, pages: u64) {
        self.offline -= pages;
    }

    /// So many frames go from one zone to another; without a zone, they are offline.
    pub(crate) const fn shift(&mut self, pages: u64, from: Option<ZoneKind>, to: Option<ZoneKind>) {
        *self.place(from) -= pages;
        *self.place(to) += pages;
    }

    const fn place(&mut self, zone: Option<ZoneKind>) -> &mut u64 {
        match zone {
            None => &mut self.offline,
            Some(ZoneKind::Normal) => &mut self.normal,
            Some(ZoneKind::Movable) => &mut self.movable,
        }
    }
}

/// Why there is no place for a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unplaced {
    NameTaken,
    /// The window of that group reaches into it.
    Overlaps(GroupName),
    Full,
}

#[derive(Clone, Copy)]
enum Slot {
    Vacant,
    /// Nobody finds it yet, but its name and window are taken.
    Reserved(Group),
    /// Of boot memory nothing is counted: it is no device's.
    Known(Group, Tally, Option<&'static dyn Backing>),
}

impl Slot {
    const fn known(self) -> Option<Group> {
        match self {
            Self::Known(group, ..) => Some(group),
            Self::Vacant | Self::Reserved(_) => None,
        }
    }

    const fn taken(self) -> Option<Group> {
        match self {
            Self::Known(group, ..) | Self::Reserved(group) => Some(group),
            Self::Vacant => None,
        }
    }
}

/// All groups.
pub(crate) struct GroupTable {
    slots: Vec<Slot, GROUP_LIMIT>,
}

impl GroupTable {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new() }
    }

    pub(crate) fn get(&self, id: GroupId) -> Option<Group> {
        self.slots.get(usize::from(id.0))?.known()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (GroupId, Group)> + '_ {
        self.slots.iter().enumerate().filter_map(|(n, slot)| Some((GroupId(n as u16), slot.known()?)))
    }

    /// Every group that is a device, with what is where of it.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (GroupId, Group, Tally)> + '_ {
        self.slots.iter().enumerate().filter_map(|(n, slot)| match *slot {
            Slot::Known(group, tally, _) if group.is_removable() => Some((GroupId(n as u16), group, tally)),
            _ => None,
        })
    }

    /// What is where of a device that exists.
    pub(crate) fn tally_mut(&mut self, id: GroupId) -> &mut Tally {
        match &mut self.slots[usize::from(id.0)] {
            Slot::Known(_, tally, _) => tally,
            Slot::Vacant | Slot::Reserved(_) => unreachable!("blocks are of a group that exists"),
        }
    }

    /// So many frames of a group go from one zone to another; without a zone, they are offline. Returns when its memory is accessible.
    pub(crate) fn shift(&mut self, id: GroupId, pages: u64, from: Option<ZoneKind>, to: Option<ZoneKind>) -> Ready {
        let Slot::Known(group, tally, _) = &mut self.slots[usize::from(id.0)] else {
            unreachable!("blocks are of a group that exists")
        };
        tally.shift(pages, from, to);
        group.terms.ready
    }

    /// The backing that makes the memory of a group accessible, if it needs one.
    pub(crate) fn backing(&self, id: GroupId) -> Option<&'static dyn Backing> {
        match self.slots.get(usize::from(id.0)) {
            Some(Slot::Known(.., backing)) => *backing,
            _ => None,
        }
    }

    pub(crate) fn find(&self, name: GroupName) -> Option<(GroupId, Group)> {
        self.iter().find(|(_, group)| group.name == name)
    }

    /// Takes a name, a window and a place for a group that is not there yet: it is published, or removed.
    pub(crate) fn reserve(&mut self, group: Group) -> Result<GroupId, Unplaced> {
        for other in self.slots.iter().filter_map(|slot| slot.taken()) {
            if other.name == group.name {
                return Err(Unplaced::NameTaken);
            }
            if other.window.overlaps(group.window) {
                return Err(Unplaced::Overlaps(other.name));
            }
        }
        let vacancy = self.slots.iter().position(|slot| matches!(slot, Slot::Vacant)).unwrap_or(self.slots.len());
        match self.slots.get_mut(vacancy) {
            Some(slot) => *slot = Slot::Reserved(group),
            None => self.slots.push(Slot::Reserved(group)).map_err(|_| Unplaced::Full)?,
        }
        Ok(GroupId(vacancy as u16))
    }

    /// From now on everybody finds a group that was reserved, with so many frames, all of them offline.
    pub(crate) fn publish(&mut self, id: GroupId, backing: Option<&'static dyn Backing>, pages: u64) {
        let slot = &mut self.slots[usize::from(id.0)];
        let Slot::Reserved(group) = *slot else { unreachable!("only a reserved group is published") };
        *slot = Slot::Known(group, Tally { offline: pages, ..Tally::default() }, backing);
    }

    /// Lets a group, just made for boot memory, grow by the sections behind it.
    pub(crate) fn extend(&mut self, id: GroupId, range: SectionRange) {
        let Slot::Known(group, ..) = &mut self.slots[usize::from(id.0)] else {
            unreachable!("only an existing group grows")
        };
        group.window = group.window.hull(range);
    }

    pub(crate) fn remove(&mut self, id: GroupId) {
        self.slots[usize::from(id.0)] = Slot::Vacant;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;

    #[test]
    fn names_read_as_they_are_written() {
        for text in ["dimm0", "dimm17", "boot1", "probe3", "vmem2"] {
            let mut written = heapless::String::<16>::new();
            write!(written, "{}", GroupName::parse(text).expect(text)).expect("short");
            assert_eq!(written.as_str(), text);
        }
        for text in ["dimm", "dimm01", "dimm+1", "dimm-1", "dimm99999", "slot1", "virtio-mem0", ""] {
            assert_eq!(GroupName::parse(text), None, "{text}");
        }
    }
}
