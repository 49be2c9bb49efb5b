//! Memory that was there at boot: the same six steps, with a memmap whose place was chosen before there was an allocator.

use crate::addr::{NodeId, Pfn, PfnRange, SectionId, SectionRange};
use crate::group::{Group, GroupKind, GroupName};
use crate::machine::{Machine, Unhurried};
use crate::memory::Memory;
use crate::page::{Head, Owner, PageState};
use crate::pageblock::Pageblock;
use crate::section::{BlockState, MemmapPlace, Openness, Section, ZoneKind};

/// What a run of frames of a boot section is used for when the allocator takes over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootUse {
    /// For nothing: the allocator gets it.
    Free,
    /// It holds the struct pages of its section.
    Memmap,
    /// By somebody for ever.
    Reserved(Owner),
}

/// A section with memory in it at boot, mapped, its memmap mapped too.
#[derive(Clone, Copy, Debug)]
pub struct BootSection<'a> {
    /// Which.
    pub id: SectionId,
    /// Its node.
    pub node: NodeId,
    /// What its frames are used for, lowest first and without overlap; frames not named do not exist.
    pub uses: &'a [(PfnRange, BootUse)],
}

impl<M: Machine> Memory<M> {
    /// Takes over a boot section: known, initialised and online in the Normal zone of its node.
    ///
    /// # Panics
    /// The section is present already, beyond the table, or on a node without zones; uses lie outside it or out of order. All of these are
    /// mistakes of the boot code.
    pub fn add_boot_section(&self, boot: &BootSection<'_>) {
        let only = SectionRange::single(boot.id);
        let _alone = self.lock_range(only, &mut Unhurried).expect("nobody tells to stop");
        assert!(self.sections.get(boot.id).is_none(), "boot section {} is given twice", boot.id);
        let (present, managed) = self.describe_boot_frames(boot);
        let section = Section {
            state: BlockState::GoingOnline(ZoneKind::Normal),
            openness: Openness::Untouched,
            last_zone: ZoneKind::Normal,
            node: boot.node,
            group: self.boot_group(boot),
            memmap: MemmapPlace::Boot,
            present: present as u16,
            managed: managed as u16,
            poisoned: 0,
        };
        self.sections.set(boot.id, section);
        self.with_zone(boot.node, ZoneKind::Normal, |zone| self.enter(zone, only, section));
    }

    /// Writes the struct pages of everything but free frames, and counts frames present and managed.
    fn describe_boot_frames(&self, boot: &BootSection<'_>) -> (u64, u64) {
        let pages = boot.id.pages();
        self.machine.clear(pages);
        let set_aside = |from: Pfn, to: Pfn, head| {
            let range = PfnRange::new(from, to.number() - from.number());
            for pfn in range.iter() {
                self.machine.page(pfn).set_head(head);
            }
            Pageblock::of_section(boot.id).for_each(|block| block.reserve(&self.machine, range));
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
        self.describe_pageblocks(boot.id, ZoneKind::Normal, |block| block.count_free(&self.machine));
        (present, managed)
    }

    /// The group that a boot section belongs to: one for each run of neighbours on one node.
    fn boot_group(&self, boot: &BootSection<'_>) -> crate::group::GroupId {
        let mut groups = self.groups.lock();
        let below = groups
            .iter()
            .find(|(_, group)| group.node == boot.node && group.range.last().number() + 1 == boot.id.number());
        if let Some((id, _)) = below {
            groups.extend(id, boot.id);
            return id;
        }
        let number = groups.iter().count() as u16;
        let group = Group {
            name: GroupName { kind: GroupKind::Boot, number },
            range: SectionRange::single(boot.id),
            node: boot.node,
            memmap: MemmapPlace::Boot,
        };
        let id = groups.reserve(group).expect("there is room for what a machine boots with");
        groups.publish(id);
        id
    }
}
