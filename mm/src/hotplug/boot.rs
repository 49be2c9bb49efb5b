//! Memory that was there at boot: the same six steps, with a memmap whose place was chosen before there was an allocator.

use crate::addr::{NodeId, Pfn, PfnRange, SectionId, SectionRange};
use crate::alloc::open;
use crate::frame::page::{Head, Owner, PageState};
use crate::frame::pageblock::{KEPT_COUNT, Pageblock};
use crate::frame::pageblock_set::PageblockSet;
use crate::hotplug::steps;
use crate::machine::Machine;
use crate::machine::mapper::DirectMap;
use crate::machine::tasks::Unhurried;
use crate::memory::Memory;
use crate::section::group::{Grant, Group, GroupKind, GroupName, Ready, Terms};
use crate::section::kind::{MemmapPlace, Origin, ZoneKind};
use crate::section::state::{BlockState, Openness};
use crate::section::word::Section;
use crate::section::zone_border::ZoneBorder;
use crate::{range_guard, section_change};

/// What a run of frames of a boot section is used for when the allocator takes over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootUse {
    /// For nothing: the allocator gets it.
    Free,
    /// It holds the struct pages of its section.
    Memmap,
    /// In use for ever.
    Reserved(Owner),
}

/// A section with memory in it at boot, mapped, its memmap mapped too.
#[derive(Clone, Copy, Debug)]
pub struct BootSection<'a> {
    /// Which.
    pub id: SectionId,
    /// Its node.
    pub node: NodeId,
    /// The first frame of its node that is to be in the Movable zone, between two pairs of pageblocks, if any is; all below it are
    /// in the Normal zone.
    pub movable_from: Option<Pfn>,
    /// What its frames are used for, lowest first and without overlap; frames not named do not exist.
    pub uses: &'a [(PfnRange, BootUse)],
}

impl<M: Machine> Memory<M> {
    /// Takes over a boot section: known, initialised and online in the zones of its node.
    ///
    /// # Panics
    /// `movable_from` lies inside a pair of pageblocks of the section; the section is present already, beyond the table, or on a node without zones; uses lie outside it or out of order. All of these are
    /// mistakes of the boot code.
    pub fn add_boot_section(&self, boot: &BootSection<'_>) {
        let only = SectionRange::single(boot.id);
        let _alone = range_guard::lock_range(self, only, &mut Unhurried).expect("nobody tells to stop");
        assert!(self.sections.get(boot.id).is_none(), "boot section {} is given twice", boot.id);
        let (present, managed) = describe_boot_frames(self, boot);
        let (start, end) = (boot.id.pages().start(), boot.id.pages().end());
        let section = Section {
            state: match boot.movable_from {
                Some(first) if first <= start => BlockState::GoingOnline(ZoneKind::Movable),
                Some(first) if first < end => {
                    BlockState::Mixed(ZoneBorder::before(first).expect("Movable begins between two pairs"))
                }
                _ => BlockState::GoingOnline(ZoneKind::Normal),
            },
            openness: Openness::Untouched,
            last_zone: ZoneKind::Normal,
            node: boot.node,
            group: boot_group(self, boot),
            origin: Origin::Boot,
            memmap: MemmapPlace::Boot,
            ready: true,
            present: present as u16,
            head: 0,
            managed: managed as u16,
            poisoned: false,
            faulty: false,
        };
        section_change::make_known(self, only, section, PageblockSet::EMPTY);
        match section.state {
            BlockState::Mixed(border) => enter_both(self, boot, section, border),
            _state => {
                section_change::expect(self, only, section);
                steps::enter_run(self, only, section);
            }
        }
    }
}

/// Steps 4 to 6 for a section that is to be in both zones.
fn enter_both<M: Machine>(memory: &Memory<M>, boot: &BootSection<'_>, section: Section, border: ZoneBorder) {
    for kind in ZoneKind::ALL {
        let part = border.part(boot.id, kind);
        let blocks = || Pageblock::of_section(boot.id).filter(|block| part.contains(block.first()));
        blocks().for_each(|block| open::describe_pageblock(memory, block, kind, block.count_free(&memory.machine)));
        let present: u64 = boot.uses.iter().map(|(range, _)| range.intersection(part).len()).sum();
        let managed: u64 = blocks().map(|block| block.descriptor(&memory.machine).managed()).sum();
        let share = Section { present: present as u16, managed: managed as u16, ..section };
        memory.with_zone(boot.node, kind, |zone| {
            section_change::enter_in_part(memory, zone, boot.id, share, kind);
            zone.area_mut(Origin::Boot).admit_part(&memory.machine, part);
        });
    }
}

/// Writes the struct pages of everything but free frames, and counts frames present and managed.
fn describe_boot_frames<M: Machine>(memory: &Memory<M>, boot: &BootSection<'_>) -> (u64, u64) {
    let pages = boot.id.pages();
    memory.machine.clear(pages);
    Pageblock::of(pages.start()).set_empty_count(&memory.machine, KEPT_COUNT);
    let set_aside = |from: Pfn, to: Pfn, head| {
        let range = PfnRange::new(from, to.number() - from.number());
        for pfn in range.iter() {
            memory.machine.page(pfn).set_head(head);
        }
        Pageblock::of_section(boot.id).for_each(|block| block.reserve(&memory.machine, range));
    };
    let absent = Head::single(PageState::Absent, Owner::None);
    let (mut present, mut managed, mut at) = (0, 0, pages.start());
    for (range, usage) in boot.uses {
        assert!(at <= range.start() && range.end() <= pages.end(), "uses are in order and within the section");
        set_aside(at, range.start(), absent);
        at = range.end();
        present += range.len();
        match usage {
            BootUse::Free => managed += range.len(),
            BootUse::Memmap => set_aside(range.start(), at, Head::single(PageState::Memmap, Owner::Memmap)),
            BootUse::Reserved(owner) => set_aside(range.start(), at, Head::single(PageState::Reserved, *owner)),
        }
    }
    set_aside(at, pages.end(), absent);
    (present, managed)
}

/// The group that a boot section belongs to: one for each run of neighbours on one node.
fn boot_group<M: Machine>(memory: &Memory<M>, boot: &BootSection<'_>) -> crate::section::group::GroupId {
    let mut groups = memory.groups.lock();
    let below = groups
        .iter()
        .find(|(_, group)| group.node == boot.node && group.window.last().number() + 1 == boot.id.number());
    if let Some((id, _)) = below {
        groups.extend(id, boot.id);
        return id;
    }
    let number = groups.iter().count() as u16;
    let group = Group {
        name: GroupName { kind: GroupKind::Boot, number },
        window: SectionRange::single(boot.id),
        node: boot.node,
        terms: Terms {
            memmap: MemmapPlace::Boot,
            unit: 1,
            ready: Ready::AtAdd,
            grant: Grant::Whole,
            direct_map: DirectMap::Present,
        },
    };
    let id = groups.reserve(group).expect("there is room for what a machine boots with");
    groups.publish(id, None, 0);
    id
}
