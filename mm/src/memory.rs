//! All parts together: the zones, the section table, the groups, the chain and the settings, each behind its own lock.

use crate::addr::{NodeId, Pfn, SectionId, SectionRange};
use crate::inject::{Injected, Point, Points};
use crate::machine::Machine;
use crate::node::Distances;
use crate::record::journal::{Event, Journal};
use crate::record::notifier::{Chain, ListenerReport};
use crate::record::policy::Policy;
use crate::record::range_lock::RangeLocks;
use crate::section::group::{Group, GroupId, GroupName, GroupTable};
use crate::section::kind::ZoneKind;
use crate::section::table::SectionTable;
use crate::section::word::Section;
use crate::site::SiteTable;
use crate::zone::cache::CacheCell;
use crate::zone::reserve::BootFree;
use crate::zone::zones::{Caches, Zones, kind_of_zone, zone_number};
use crate::zone::{Zone, ZoneCell};
use core::cell::Cell;
use core::sync::atomic::AtomicU64;
use lock_api::Mutex;

/// A zone of a machine.
pub type MachineZone<M> = ZoneCell<<M as Machine>::Spin>;

/// A cache of a machine.
pub type MachineCache<M> = CacheCell<<M as Machine>::Spin>;

/// What [`Memory`] keeps its tables in, given once and for ever.
pub struct Storage<M: Machine> {
    /// One zeroed word for every section from zero to the end of the hotplug window.
    pub sections: &'static [AtomicU64],
    /// As many zeroed words again: a bit for each pageblock of a section.
    pub withheld: &'static [AtomicU64],
    /// Empty zones, [`ZoneKind::ALL`] of them for each of the first nodes.
    pub zones: &'static [MachineZone<M>],
    /// Empty caches: for every CPU as many as there are zones.
    pub caches: &'static [MachineCache<M>],
    /// Distances between the nodes.
    pub distances: Distances,
}

/// The memory of the machine.
///
/// The locks and their order are described at the top of the crate.
pub struct Memory<M: Machine> {
    pub(crate) machine: M,
    pub(crate) sections: SectionTable,
    pub(crate) zones: Zones<M::Spin>,
    pub(crate) caches: Caches<M::Spin>,
    pub(crate) distances: Distances,
    /// Who may change which sections.
    pub(crate) ranges: RangeLocks<M::Spin>,
    /// Held while zones are chosen by policy.
    pub(crate) choice: Mutex<M::Sleep, ()>,
    pub(crate) chain: Chain<M::Spin>,
    pub(crate) groups: Mutex<M::Spin, GroupTable>,
    pub(crate) policy: Mutex<M::Spin, Policy>,
    pub(crate) journal: Mutex<M::Spin, Journal>,
    pub(crate) points: Points,
    pub(crate) boot_free: BootFree,
    /// Frames in Normal zones that operations under way will still take.
    pub(crate) promised: AtomicU64,
    /// Frames that are poisoned, and those that will be when they are given back; both change under the lock of their range.
    pub(crate) poisoned_count: AtomicU64,
    pub(crate) faulty_count: AtomicU64,
    /// Frames of pageblocks that are withheld.
    pub(crate) withheld_count: AtomicU64,
    /// Groups whose memory is not always accessible; changes under the lock of the groups.
    pub(crate) standby_groups: AtomicU64,
    /// Pins taken in sections that were on their way out.
    pub(crate) late_pins: AtomicU64,
    /// Who takes unmovable memory.
    pub(crate) sites: SiteTable,
}

impl<M: Machine> Memory<M> {
    /// A machine without any memory yet.
    pub fn new(machine: M, storage: Storage<M>) -> Self {
        Self {
            machine,
            sections: SectionTable::new(storage.sections, storage.withheld),
            zones: Zones::new(storage.zones),
            caches: Caches::new(storage.caches, storage.zones.len()),
            distances: storage.distances,
            ranges: RangeLocks::new(),
            choice: Mutex::new(()),
            chain: Chain::new(),
            groups: Mutex::new(GroupTable::new()),
            policy: Mutex::new(Policy::DEFAULT),
            journal: Mutex::new(Journal::new()),
            points: Points::new(),
            boot_free: BootFree::new(),
            promised: AtomicU64::new(0),
            poisoned_count: AtomicU64::new(0),
            faulty_count: AtomicU64::new(0),
            withheld_count: AtomicU64::new(0),
            standby_groups: AtomicU64::new(0),
            late_pins: AtomicU64::new(0),
            sites: SiteTable::new(),
        }
    }

    /// The machine underneath.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Returns what is known of block `id`; `None` if it is absent.
    pub fn section(&self, id: SectionId) -> Option<Section> {
        self.sections.get(id)
    }

    /// Returns the zone that a frame lies in; `None` if its block is in none.
    pub fn zone_of(&self, frame: Pfn) -> Option<ZoneKind> {
        self.section(frame.section()).and_then(|section| section.state.zone_of(frame))
    }

    /// The number of blocks that the hotplug window can hold, from block 0 on.
    pub fn section_limit(&self) -> u64 {
        self.sections.limit()
    }

    /// Every present block, lowest first.
    pub fn blocks(&self) -> impl DoubleEndedIterator<Item = (SectionId, Section)> + '_ {
        self.sections.iter()
    }

    /// Cuts `range` into maximal runs of blocks with equal words, absent ones too, lowest first.
    pub fn runs(&self, range: SectionRange) -> impl Iterator<Item = (SectionRange, Option<Section>)> + '_ {
        self.sections.runs(range)
    }

    /// Every present block, in maximal runs of blocks with equal words, lowest first.
    pub fn block_runs(&self) -> impl Iterator<Item = (SectionRange, Section)> + '_ {
        let all = SectionRange::new(0, self.section_limit());
        all.into_iter().flat_map(|range| self.runs(range)).filter_map(|(run, section)| Some((run, section?)))
    }

    /// Every node, whether it has memory or not.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<M> {
        NodeId::all().take(self.zones.node_limit())
    }

    /// The settings.
    pub fn policy(&self) -> Policy {
        *self.policy.lock()
    }

    /// Changes settings.
    pub fn set_policy(&self, change: impl FnOnce(&mut Policy)) {
        change(&mut self.policy.lock());
    }

    /// The group `id`.
    pub fn group(&self, id: GroupId) -> Option<Group> {
        self.groups.lock().get(id)
    }

    /// The group with this name.
    pub fn find_group(&self, name: GroupName) -> Option<(GroupId, Group)> {
        self.groups.lock().find(name)
    }

    /// Every group, in no particular order. `each` must not call back into memory.
    pub fn for_each_group(&self, mut each: impl FnMut(GroupId, Group)) {
        for (id, group) in self.groups.lock().iter() {
            each(id, group);
        }
    }

    /// Every listener on the notifier chain, the one to be asked first first. `each` must not call back into memory.
    pub fn for_each_listener(&self, mut each: impl FnMut(ListenerReport)) {
        self.chain.report(&mut each);
    }

    /// The failure points, to be armed.
    pub fn failure_points(&self) -> &Points {
        &self.points
    }

    /// Fails if the failure point is armed; also called by the machine, for the steps that it takes.
    ///
    /// # Errors
    /// A failure was injected here.
    pub fn check_injected(&self, point: Point) -> Result<(), Injected> {
        self.points.check(point)
    }

    /// The oldest kept event whose number is at least `number`.
    pub fn event_since(&self, number: u64) -> Option<Event> {
        self.journal.lock().since(number)
    }

    /// Works on a zone under its lock.
    pub(crate) fn with_zone<R>(&self, node: NodeId, kind: ZoneKind, work: impl FnOnce(&mut Zone) -> R) -> R {
        change_zone(self, zone_number(node, kind), work)
    }
}

/// Works on the zone of that number under its lock. Keeps the count of free boot memory right, and calls for the keeper when there
/// is something to be done that cannot be done here.
#[inline]
pub(crate) fn change_zone<M: Machine, R>(memory: &Memory<M>, number: usize, work: impl FnOnce(&mut Zone) -> R) -> R {
    take_from_zone(memory, number, || Some(0), work).expect("who sets nothing aside is not refused")
}

/// As [`change_zone`], for taking free boot memory: first `set_aside` says how much, or that there is none to be had; what is left
/// of it goes back. All of it happens under the lock, so that the counters agree whenever nobody has it.
#[inline]
pub(crate) fn take_from_zone<M: Machine, R>(
    memory: &Memory<M>,
    number: usize,
    set_aside: impl FnOnce() -> Option<u64>,
    work: impl FnOnce(&mut Zone) -> R,
) -> Option<R> {
    let kind = kind_of_zone(number);
    let aside = Cell::new(0);
    let work = |zone: &mut Zone| {
        aside.set(set_aside()?);
        Some(work(zone))
    };
    let zone = memory.zones.by_number(number);
    let (result, change) = zone.change(work, |change| {
        let boot_pages = change.boot_pages.wrapping_add(aside.get());
        if boot_pages != 0 && kind == ZoneKind::Normal {
            memory.boot_free.add(boot_pages.cast_signed());
        }
    });
    let is_kernel_short = || kind == ZoneKind::Normal && memory.boot_free.is_short() && zone.closed_up().is_some();
    if change.has_many_empty || is_kernel_short() {
        memory.machine.wake_keeper();
    }
    result
}
