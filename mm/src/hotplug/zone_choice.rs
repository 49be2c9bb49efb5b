//! What is to be expected of blocks that come online: which zone the policy chooses, and what that does to kernel memory.
//!
//! Under [`OnlinePolicy::AutoMovable`] a device is decided about as a whole, when its first block comes: the ratio is asked about
//! all of it. The rest follows the blocks that are online, to Normal if any is there, and what is still offline of a device that
//! is Movable counts as Movable when others are decided about. So a device is Movable as a whole or not at all, also when blocks
//! of several come online by turns. Boot memory belongs to no device; each of its blocks is for itself, as every block is under
//! [`OnlinePolicy::ContigZones`].
//!
//! Whatever the policy, no block is made Movable that the kernel could not serve: mapping memory takes page tables, and those
//! lie in Movable zones only where Normal ones are short. What kernel memory can still get must hold the tables of all Movable memory that is free or on its
//! way, mapped page by page, and [`KERNEL_FLOOR_PAGES`] beside them; else Normal is chosen. The offline rest of a device is on
//! its way only where it is to follow.

use crate::addr::{NodeId, Order, PAGE_SIZE, SectionId, SectionRange};
use crate::evacuate::budget;
use crate::limits::KERNEL_FLOOR_PAGES;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::record::policy::{OnlinePolicy, Policy};
use crate::section::group::{GroupId, Tally};
use crate::section::kind::ZoneKind;
use crate::section::state::BlockState;
use crate::section::word::Section;
use core::ops::AddAssign;

/// Something to know of the zones that blocks got, or would get.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Remark {
    /// The policy would have made them Movable, but kernel memory is too scarce for that.
    #[error("kept Normal: the kernel can get {} MiB, and as Movable it would need {} MiB", mib(*.available), mib(*.needed))]
    KeptNormal {
        /// Frames that kernel memory can still get.
        available: u64,
        /// Frames that it would have to be able to get.
        needed: u64,
    },
    /// They were made Movable on request, and now there is more Movable memory than the ratio allows.
    #[error("{} MiB are Movable, more than the {} MiB that the ratio allows", mib(*.movable), mib(*.most))]
    BeyondRatio {
        /// Movable frames of the machine.
        movable: u64,
        /// How many the ratio allows.
        most: u64,
    },
    /// They are Movable now, or were Normal and are offline, on request, and kernel memory may become scarce before
    /// Movable memory is used up, whose page tables must lie in it then.
    #[error("the kernel can get {} MiB, and with the page tables of all Movable memory it may need {} MiB", mib(*.available), mib(*.needed))]
    KernelShort {
        /// Frames that kernel memory can still get.
        available: u64,
        /// Frames that it may need.
        needed: u64,
    },
}

const fn mib(frames: u64) -> u64 {
    (frames * PAGE_SIZE) >> 20
}

/// A zone, and what is to be said of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Choice {
    pub(crate) zone: ZoneKind,
    pub(crate) remark: Option<Remark>,
}

/// What decides about the blocks of one device, or about boot memory of one node, as it was at one moment: so that many blocks
/// need one look at the zones.
#[derive(Clone, Copy, Debug)]
pub struct ZoneChooser {
    pub(crate) policy: Policy,
    pub(crate) node: NodeId,
    pub(crate) group: GroupId,
    /// The lowest and highest block of the node's zones.
    pub(crate) spans: [Option<(SectionId, SectionId)>; ZoneKind::ALL.len()],
    pub(crate) machine: Balance,
    pub(crate) own: Balance,
    /// `None` where every block is for itself.
    pub(crate) device: Option<Tally>,
    pub(crate) kernel: KernelMemory,
}

/// Present frames by what may use them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Balance {
    /// Of boot memory in Normal: what the machine itself brought. Hot-added Normal memory licenses no Movable memory of
    /// another device.
    pub(crate) kernel: u64,
    pub(crate) movable: u64,
}

impl AddAssign for Balance {
    fn add_assign(&mut self, other: Self) {
        self.kernel += other.kernel;
        self.movable += other.movable;
    }
}

impl Balance {
    /// The most Movable frames that `ratio` percent allow.
    fn most(self, ratio: u32) -> u64 {
        self.kernel.saturating_mul(u64::from(ratio)) / 100
    }

    fn allows(self, pages: u64, ratio: u32) -> bool {
        self.movable + pages <= self.most(ratio)
    }
}

/// What there is for the kernel, and what may be asked of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct KernelMemory {
    /// Frames that it can still get.
    pub(crate) available: u64,
    /// Movable frames that nothing maps yet.
    pub(crate) unmapped: u64,
}

impl KernelMemory {
    /// Frames that the kernel must be able to get if so many more become Movable.
    const fn needed(self, coming: u64) -> u64 {
        // One entry of a page table for each frame, and one of a directory for each table, and so on.
        let tables = (self.unmapped + coming).div_ceil(Order::PAGEBLOCK.pages() - 1);
        KERNEL_FLOOR_PAGES + tables
    }

    /// What is to be said of it if it may run out.
    const fn shortage(self) -> Option<Remark> {
        let (available, needed) = (self.available, self.needed(0));
        if available < needed { Some(Remark::KernelShort { available, needed }) } else { None }
    }
}

impl ZoneChooser {
    /// Whether the remark is about such a block.
    #[must_use]
    pub fn is_about(&self, section: Section) -> bool {
        self.node == section.node && self.group == section.group
    }

    /// The zones that each block of `run`, whose words are equal, may get, the one that `online` would choose first;
    /// one that is not offline has its own only. Blocks with equal answers are returned as one range, lowest first.
    pub fn valid_zones(
        self,
        run: SectionRange,
        section: Section,
    ) -> impl Iterator<Item = (SectionRange, &'static [ZoneKind])> {
        let mut rest = Some(run);
        core::iter::from_fn(move || {
            let run = rest?;
            let (part, zones) = self.first_valid_zones(run, section);
            rest = run.behind(part);
            Some((part, zones))
        })
    }

    fn first_valid_zones(&self, run: SectionRange, section: Section) -> (SectionRange, &'static [ZoneKind]) {
        if let BlockState::Mixed(_) = section.state {
            return (run, &[]);
        }
        if let Some(zone) = section.state.zone() {
            return (run, if zone == ZoneKind::Normal { &[ZoneKind::Normal] } else { &[ZoneKind::Movable] });
        }
        let zone = self.choose(run.first(), section).zone;
        let count = run.iter().take_while(|id| self.choose(*id, section).zone == zone).count() as u64;
        let zones: &[ZoneKind] = match zone {
            ZoneKind::Normal => &[ZoneKind::Normal, ZoneKind::Movable],
            ZoneKind::Movable => &[ZoneKind::Movable, ZoneKind::Normal],
        };
        (run.first_part(count), zones)
    }

    /// The zone that an offline block gets when none is named.
    pub(crate) fn choose(&self, id: SectionId, section: Section) -> Choice {
        let coming = self.device.map_or(u64::from(section.present), |device| device.offline);
        let zone = match self.policy.online_policy {
            OnlinePolicy::ContigZones => self.contiguous(id),
            OnlinePolicy::AutoMovable => self.balanced(coming),
        };
        let needed = self.kernel.needed(coming);
        let available = self.kernel.available;
        if zone == ZoneKind::Movable && available < needed {
            return Choice { zone: ZoneKind::Normal, remark: Some(Remark::KeptNormal { available, needed }) };
        }
        Choice { zone, remark: None }
    }

    fn contiguous(&self, id: SectionId) -> ZoneKind {
        let is_in = |zone: ZoneKind| self.spans[zone as usize].is_some_and(|(first, last)| first <= id && id <= last);
        match (is_in(ZoneKind::Normal), is_in(ZoneKind::Movable)) {
            (true, false) => ZoneKind::Normal,
            (false, true) => ZoneKind::Movable,
            _ if self.policy.movable_node => ZoneKind::Movable,
            _ => ZoneKind::Normal,
        }
    }

    fn balanced(&self, coming: u64) -> ZoneKind {
        let ratio = self.policy.auto_movable_ratio;
        let node_allows = !self.policy.numa_aware || self.own.allows(coming, ratio);
        match self.device.and_then(Tally::zone) {
            Some(zone) => zone,
            None if node_allows && self.machine.allows(coming, ratio) => ZoneKind::Movable,
            None => ZoneKind::Normal,
        }
    }

    /// Such a block goes to `zone`.
    pub(crate) fn expect(&mut self, zone: ZoneKind, section: Section) {
        let pages = u64::from(section.present);
        if let Some(device) = &mut self.device {
            device.shift(pages, None, Some(zone));
        }
        if zone == ZoneKind::Movable {
            self.promise(pages, self.node);
        }
    }

    /// So many frames of a node count as Movable from now on.
    fn promise(&mut self, pages: u64, node: NodeId) {
        let share = Balance { kernel: 0, movable: pages };
        self.machine += share;
        if node == self.node {
            self.own += share;
        }
        self.kernel.unmapped += pages;
    }

    /// The remark, if any, about memory that has just been made Movable.
    pub(crate) fn excess(&self) -> Option<Remark> {
        let Balance { movable, .. } = self.machine;
        let most = self.machine.most(self.policy.auto_movable_ratio);
        self.kernel.shortage().or((movable > most).then_some(Remark::BeyondRatio { movable, most }))
    }
}

impl<M: Machine> Memory<M> {
    /// What decides at this moment which zones such blocks get.
    pub fn zone_chooser(&self, section: Section) -> ZoneChooser {
        let mut chooser = chooser_of_zones(self, section);
        if chooser.policy.online_policy == OnlinePolicy::AutoMovable {
            for (id, group, device) in self.groups.lock().devices() {
                if id == section.group {
                    chooser.device = Some(device);
                } else if device.zone() == Some(ZoneKind::Movable) {
                    chooser.promise(device.offline, group.node);
                }
            }
        }
        chooser
    }

    /// The remark, if any, about Normal blocks that have just gone offline on request.
    pub fn shortage(&self) -> Option<Remark> {
        kernel_memory(self).shortage()
    }
}

/// The remark, if any, about blocks that go to Movable on request. Costs the same for devices of any size.
pub(crate) fn excess<M: Machine>(memory: &Memory<M>, section: Section) -> Option<Remark> {
    chooser_of_zones(memory, section).excess()
}

/// The chooser without a look at the devices.
fn chooser_of_zones<M: Machine>(memory: &Memory<M>, section: Section) -> ZoneChooser {
    let mut chooser = ZoneChooser {
        policy: memory.policy(),
        node: section.node,
        group: section.group,
        spans: [None; ZoneKind::ALL.len()],
        machine: Balance::default(),
        own: Balance::default(),
        device: None,
        kernel: kernel_memory(memory),
    };
    for (of, kind) in memory.zones.all() {
        let zone = memory.zones.lock(of, kind);
        let share = match kind {
            ZoneKind::Normal => Balance { kernel: zone.boot_present_pages(), movable: 0 },
            ZoneKind::Movable => Balance { kernel: 0, movable: zone.present_pages() + zone.expected_pages() },
        };
        chooser.machine += share;
        if of == section.node {
            chooser.own += share;
            chooser.spans[kind as usize] = zone.span();
        }
    }
    chooser
}

fn kernel_memory<M: Machine>(memory: &Memory<M>) -> KernelMemory {
    let room = budget::room(memory);
    KernelMemory { available: room.kernel(), unmapped: room.movable_soon() }
}

#[cfg(test)]
#[path = "zone_choice_tests.rs"]
mod tests;
