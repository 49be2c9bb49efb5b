//! Memory that was there at boot: the same six steps. A section in which something is in use already is opened at once, with a memmap
//! whose place was chosen before there was an allocator. All others are laid out as added memory is, and stay untouched.

use crate::addr::{NodeId, PAGES_PER_SECTION, Pfn, PfnRange, SectionId, SectionRange};
use crate::alloc::open;
use crate::frame::page::{Head, Owner, PageState};
use crate::frame::pageblock::{KEPT_COUNT, Pageblock};
use crate::frame::pageblock_set::PageblockSet;
use crate::hotplug::steps;
use crate::machine::Machine;
use crate::machine::mapper::DirectMap;
use crate::machine::tasks::Unhurried;
use crate::memory::Memory;
use crate::section::altmap::Altmap;
use crate::section::group::{Grant, Group, GroupId, GroupKind, GroupName, Ready, Terms};
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

/// Neighbouring sections with memory at boot, all of it there and none in use. They are mapped, and there are page tables for their
/// struct pages, or promises of some.
#[derive(Clone, Copy, Debug)]
pub struct EmptyBootSections {
    /// Which.
    pub range: SectionRange,
    /// Their node.
    pub node: NodeId,
    /// The zone that all of them are to be in.
    pub zone: ZoneKind,
    /// So many frames at the head of the first hold page tables of all.
    pub tables: u64,
}

impl<M: Machine> Memory<M> {
    /// Takes over boot sections in which nothing is in use: known and online, untouched. They are only opened, and until then no byte
    /// of them but for tables is written, when somebody needs their memory.
    ///
    /// # Panics
    /// A section is present already, beyond the table, or on a node without zones; the tables leave no room for struct pages. All of
    /// these are mistakes of the boot code.
    pub fn add_empty_boot_sections(&self, boot: &EmptyBootSections) {
        let EmptyBootSections { range, node, zone, tables } = *boot;
        let _alone = range_guard::lock_range(self, range, &mut Unhurried).expect("nobody tells to stop");
        assert!(self.sections.iter_range(range).next().is_none(), "boot sections are given twice: {range:?}");
        let altmap = Altmap::new(range, tables).expect("the tables leave room for struct pages");
        let group = boot_group(self, range, node);
        let first = range.first_part(1);
        for run in [Some(first), range.behind(first)].into_iter().flatten() {
            let head = altmap.head_frames(run.first());
            let section = Section {
                memmap: MemmapPlace::Head,
                present: PAGES_PER_SECTION as u16,
                head: head as u16,
                managed: (PAGES_PER_SECTION - head) as u16,
                ..boot_section(node, group, BlockState::GoingOnline(zone))
            };
            section_change::make_known(self, run, section, PageblockSet::EMPTY);
            enter(self, run, section);
        }
    }

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
        let state = match boot.movable_from {
            Some(first) if first <= start => BlockState::GoingOnline(ZoneKind::Movable),
            Some(first) if first < end => {
                BlockState::Mixed(ZoneBorder::before(first).expect("Movable begins between two pairs"))
            }
            _ => BlockState::GoingOnline(ZoneKind::Normal),
        };
        let section = Section {
            present: present as u16,
            managed: managed as u16,
            ..boot_section(boot.node, boot_group(self, only, boot.node), state)
        };
        section_change::make_known(self, only, section, PageblockSet::EMPTY);
        match section.state {
            BlockState::Mixed(border) => enter_both(self, boot, section, border),
            _state => enter(self, only, section),
        }
    }
}

/// A boot section without memory.
const fn boot_section(node: NodeId, group: GroupId, state: BlockState) -> Section {
    Section {
        state,
        openness: Openness::Untouched,
        last_zone: ZoneKind::Normal,
        node,
        group,
        origin: Origin::Boot,
        memmap: MemmapPlace::Boot,
        ready: true,
        present: 0,
        head: 0,
        managed: 0,
        poisoned: false,
        faulty: false,
    }
}

/// Steps 4 to 6 for sections that are to be in one zone.
fn enter<M: Machine>(memory: &Memory<M>, run: SectionRange, section: Section) {
    section_change::expect(memory, run, section);
    steps::enter_run(memory, run, section);
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

/// The group that boot sections belong to: one for each run of neighbours on one node.
fn boot_group<M: Machine>(memory: &Memory<M>, range: SectionRange, node: NodeId) -> GroupId {
    let mut groups = memory.groups.lock();
    let is_below = |group: &Group| group.node == node && group.window.last().next() == Some(range.first());
    let below = groups.iter().find(|(_, group)| is_below(group));
    if let Some((id, _)) = below {
        groups.extend(id, range);
        return id;
    }
    let number = groups.iter().count() as u16;
    let group = Group {
        name: GroupName { kind: GroupKind::Boot, number },
        window: range,
        node,
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
