//! Ranges mapped and unmapped over tables in a map, where touching a table that is gone is an error.

use super::*;
use crate::memory::paging::entry::CLAIMS;
use crate::memory::paging::fake_tables::FakeTables;
use crate::memory::paging::plan::PER_MEMMAP_TABLE;
use crate::memory::paging::shared_tables;
use mm::addr::{PAGE_SIZE, Pfn, SectionId};
use mm::frame::page::MEMMAP_PAGES;
use mm::machine::trial::BadMemory;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

struct Machine {
    tree: RefCell<Tree<FakeTables>>,
}

impl Editor for Machine {
    type Memory = FakeTables;

    fn edit<R>(&self, change: impl FnOnce(&mut Tree<FakeTables>) -> R) -> R {
        change(&mut self.tree.borrow_mut())
    }

    fn settle(&self) {
        let memory = &mut self.tree.borrow_mut().memory;
        for table in std::mem::take(&mut memory.given_back) {
            memory.tables.remove(&table).expect("a table given back was alive");
            memory.budget += 1;
        }
    }
}

impl Machine {
    /// Room for sections up to 8 TiB, as boot prepares it.
    fn new() -> Self {
        let mut tree = FakeTables::tree();
        for slot in 0..16 {
            tree.make(layout::DIRECT_MAP + slot * layout::SLOT_SIZE, Level::POINTERS).expect("there are frames");
        }
        tree.make(layout::VMEMMAP, Level::POINTERS).expect("there are frames");
        Self { tree: RefCell::new(tree) }
    }

    fn set_budget(&self, frames: u64) {
        self.tree.borrow_mut().memory.budget = frames;
    }

    fn tables(&self) -> BTreeMap<u64, Vec<Entry>> {
        self.tree.borrow().memory.tables.clone()
    }

    /// What was in a range that is gone cannot be touched any more.
    fn forget(&self, range: SectionRange) {
        let pages = range.pages();
        self.tree.borrow_mut().memory.tables.retain(|table, _| !pages.contains(Pfn::new(*table)));
    }

    fn map(&self, range: SectionRange, own: PfnRange, leaves: HugeLeaves) {
        map(self, range, own, leaves, DirectMap::Present).expect("there are frames");
    }

    fn is_direct(&self, pfn: Pfn) -> bool {
        let leaf = self.tree.borrow_mut().leaf(layout::direct(pfn));
        leaf.is_some_and(|(entry, level)| {
            entry.frame().add(pfn.number() % level.entry_pages()) == pfn && entry.flags().contains(DATA)
        })
    }

    /// Whether the struct pages of `section` can be mapped without taking anything.
    fn is_prepared(&self, section: SectionId) -> bool {
        let mut tree = self.tree.borrow_mut();
        let address = shared_tables::address_of(section);
        let Some(directory) = tree.table(address, Level::DIRECTORY) else { return false };
        let entry = tree.memory.read(directory, Level::DIRECTORY.index(address));
        let has_table = entry.promised().is_some() || entry.table(Level::DIRECTORY).is_some();
        has_table && entry.flags().contains(CLAIMS[section.number() as usize % 2])
    }

    /// Tables that lie in `range` and have been written.
    fn tables_inside(&self, range: SectionRange) -> u64 {
        let pages = range.pages();
        self.tree.borrow().memory.tables.keys().filter(|table| pages.contains(Pfn::new(**table))).count() as u64
    }

    fn try_open(&self, section: SectionId) -> Result<(), BadMemory> {
        self.edit(|tree| vmemmap::write_all(tree, section, |index| Entry::new(backing(section, index), DATA)))
    }

    fn open(&self, section: SectionId) {
        self.try_open(section).expect("it is good memory");
    }

    fn close(&self, section: SectionId) {
        self.edit(|tree| vmemmap::write_all(tree, section, |_| Entry::EMPTY)).expect("it has its table");
    }

    /// The frame behind page `index` of the struct pages of `section`.
    fn memmap_page(&self, section: SectionId, index: u64) -> Option<Pfn> {
        let (leaf, level) = self.edit(|tree| tree.leaf(shared_tables::address_of(section) + index * PAGE_SIZE))?;
        assert_eq!(level, Level::PAGE_TABLE);
        Some(leaf.frame())
    }

    /// No leaf reaches beyond the range that it was made for.
    fn has_own_leaves(&self, range: SectionRange) -> bool {
        [range.first(), range.last()].into_iter().all(|section| {
            let start = section.pages().start();
            let (leaf, level) = self.edit(|tree| tree.leaf(layout::direct(start))).expect("it is mapped");
            let end = leaf.frame().add(level.entry_pages() - 1);
            range.pages().contains(leaf.frame()) && range.pages().contains(end)
        })
    }
}

/// Frames that no other section has.
fn backing(section: SectionId, index: u64) -> Pfn {
    section.pages().start().add(0x1000 + index)
}

fn range(first: u64, count: u64) -> SectionRange {
    SectionRange::new(first, count).expect("in reach")
}

fn own_frames(range: SectionRange, leaves: HugeLeaves) -> PfnRange {
    PfnRange::new(range.first().pages().start(), OwnTables::of(range, leaves).count())
}

#[test]
fn neighbours_share_a_page_table_until_the_last_of_them_goes() {
    let machine = Machine::new();
    let before = machine.tables();
    let [low, high] = [range(32, 1), range(33, 1)];
    machine.map(low, PfnRange::EMPTY, HugeLeaves::Have);
    let with_low = machine.tables().len();
    machine.map(high, PfnRange::EMPTY, HugeLeaves::Have);
    assert_eq!(machine.tables().len(), with_low);
    assert_eq!(unmap(&machine, low), Tables::System);
    assert!(machine.is_prepared(high.first()));
    assert!(!machine.is_direct(low.pages().start()) && machine.is_direct(high.pages().start()));
    assert_eq!(unmap(&machine, high), Tables::System);
    assert_eq!(machine.tables(), before);
}

#[test]
fn struct_pages_of_unused_boot_memory_have_their_tables_at_its_head() {
    let machine = Machine::new();
    let (boot, whole) = (range(33, 9), range(1024, 1024));
    assert_eq!(prepare_boot(&machine, boot), Ok(4), "the odd one shares its table");
    assert_eq!(machine.tables_inside(boot), 0);
    assert!(boot.iter().all(|section| machine.is_prepared(section)));
    machine.open(boot.last());
    assert_eq!(machine.tables_inside(boot), 1);
    assert!(!machine.is_direct(boot.pages().start()), "that is done already, where it is boot memory");
    assert_eq!(prepare_boot(&machine, whole), Ok(512 + 1));
    assert_eq!(machine.tables_inside(whole), 1, "the directory");
    machine.set_budget(0);
    machine.open(whole.last());
    assert_eq!(machine.tables_inside(whole), 2);
}

#[test]
fn memory_that_no_cpu_may_touch_has_struct_pages_only() {
    let machine = Machine::new();
    let before = machine.tables();
    // Beside memory that shares its tables.
    let (hidden, beside) = (range(33, 30), range(32, 1));
    machine.map(beside, PfnRange::EMPTY, HugeLeaves::Have);
    let with_neighbour = machine.tables();
    map(&machine, hidden, PfnRange::EMPTY, HugeLeaves::Have, DirectMap::Absent).expect("there are frames");
    for section in hidden.iter() {
        assert!(machine.is_prepared(section) && !machine.is_direct(section.pages().start()));
    }
    assert_eq!(unmap(&machine, hidden), Tables::System);
    assert!(machine.is_direct(beside.pages().start()));
    assert_eq!(machine.tables(), with_neighbour);
    unmap(&machine, beside);
    assert_eq!(machine.tables(), before);
}

#[test]
fn a_range_beyond_what_boot_prepared_is_refused() {
    let machine = Machine::new();
    let before = machine.tables();
    assert_eq!(
        map(&machine, range(16 * 4096, 8), PfnRange::EMPTY, HugeLeaves::Have, DirectMap::Present),
        Err(MapError.into())
    );
    assert_eq!(machine.tables(), before);
}

#[test]
fn a_range_that_runs_out_of_frames_half_way_leaves_nothing() {
    for leaves in [HugeLeaves::Have, HugeLeaves::Lack] {
        for budget in 0..12 {
            let machine = Machine::new();
            let before = machine.tables();
            machine.set_budget(budget);
            let range = range(33, 22);
            let result = map(&machine, range, PfnRange::EMPTY, leaves, DirectMap::Present);
            if result.is_ok() {
                unmap(&machine, range);
            }
            assert_eq!(machine.tables(), before, "with {budget} frames");
        }
    }
}

#[test]
fn bad_memory_never_becomes_a_table() {
    for leaves in [HugeLeaves::Have, HugeLeaves::Lack] {
        // Fills a directory of the vmemmap window and a bit.
        let range = range(1022, 1028);
        let own = own_frames(range, leaves);
        let eager = own.len() - range.count() / PER_MEMMAP_TABLE;
        for bad in own.iter().take(eager as usize + 2) {
            let machine = Machine::new();
            let before = machine.tables();
            machine.edit(|tree| tree.memory.bad.insert(bad));
            if bad < own.start().add(eager) {
                assert_eq!(map(&machine, range, own, leaves, DirectMap::Present), Err(BadMemory(bad).into()));
                machine.forget(range);
                assert_eq!(machine.tables(), before);
                continue;
            }
            machine.map(range, own, leaves);
            let unopened: Vec<u32> = range
                .iter()
                .filter(|section| machine.try_open(*section) == Err(BadMemory(bad)))
                .map(SectionId::number)
                .collect();
            let first = range.first().number() + 2 * (bad.number() - own.start().number() - eager) as u32;
            assert_eq!(unopened, [first, first + 1], "the two whose page table it would be");
            // A promise that could not be kept is still one.
            machine.edit(|tree| tree.memory.bad.clear());
            unopened.into_iter().for_each(|n| machine.open(SectionId::new(n.into()).expect("in reach")));
            range.iter().for_each(|section| machine.close(section));
            unmap(&machine, range);
            machine.forget(range);
            assert_eq!(machine.tables(), before);
        }
    }
}

fn leaves() -> impl Strategy<Value = HugeLeaves> {
    prop_oneof![Just(HugeLeaves::Have), Just(HugeLeaves::Lack)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_range_takes_exactly_the_own_tables_that_were_planned(
        first in 0u64..3000, count in 1u64..2500, leaves in leaves(),
    ) {
        let machine = Machine::new();
        let range = range(first, count);
        let own = own_frames(range, leaves);
        let before = machine.tables();
        // Fails inside if frames are left over.
        machine.map(range, own, leaves);
        let page_tables = range.iter().filter(|id| id.number().is_multiple_of(2) && *id != range.last()).count() as u64;
        prop_assert_eq!(machine.tables_inside(range), own.len() - page_tables);
        range.iter().for_each(|section| machine.open(section));
        prop_assert_eq!(machine.tables_inside(range), own.len());
        let found = unmap(&machine, range);
        prop_assert_eq!(found == Tables::Own, !own.is_empty());
        machine.forget(range);
        prop_assert_eq!(machine.tables(), before);
    }

    #[test]
    fn ranges_that_come_and_go_in_any_order_return_every_table(
        cuts in prop::collection::vec((0u64..6, 1u64..40, any::<bool>()), 1..12),
        order in any::<prop::sample::Index>(),
        leaves in leaves(),
    ) {
        let machine = Machine::new();
        let before = machine.tables();
        let mut at = 1000;
        let mut ranges = Vec::new();
        for (gap, count, has_own) in cuts {
            at += gap;
            ranges.push((range(at, count), has_own));
            at += count;
        }
        let turn = order.index(ranges.len());
        ranges.rotate_left(turn);
        for (range, has_own) in &ranges {
            let own = if *has_own { own_frames(*range, leaves) } else { PfnRange::EMPTY };
            machine.map(*range, own, leaves);
        }
        ranges.rotate_left(turn);
        ranges.reverse();
        let mut alive = ranges.clone();
        for (range, _) in ranges {
            unmap(&machine, range);
            machine.forget(range);
            alive.remove(0);
            prop_assert!(!machine.is_direct(range.pages().start()));
            for (other, _) in &alive {
                prop_assert!(machine.is_direct(other.pages().start()));
                prop_assert!(machine.has_own_leaves(*other));
                prop_assert!(other.iter().all(|section| machine.is_prepared(section)));
            }
        }
        prop_assert_eq!(machine.tables(), before);
    }
    #[test]
    fn sections_opened_and_closed_in_any_order_write_only_the_tables_that_they_need(
        cuts in prop::collection::vec((0u64..6, prop_oneof![8 => 1u64..40, 1 => 1000u64..2200], any::<bool>()), 1..6),
        steps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..8), 1..80),
        leaves in leaves(),
    ) {
        let machine = Machine::new();
        let before = machine.tables();
        let mut at = 1000;
        let mut groups = Vec::new();
        for (gap, count, has_own) in cuts {
            at += gap;
            groups.push(Group::new(range(at, count), has_own, leaves));
            at += count;
        }
        for (which, section, action) in steps {
            let which = which.index(groups.len());
            let group = &mut groups[which];
            let section = section.index(group.range.count() as usize);
            match action {
                0 if group.is_mapped => group.remove(&machine),
                _ if group.is_mapped => group.toggle(&machine, section),
                _ => group.add(&machine, leaves),
            }
            groups.iter().for_each(|group| group.check(&machine));
        }
        groups.iter_mut().filter(|group| group.is_mapped).for_each(|group| group.remove(&machine));
        prop_assert_eq!(machine.tables(), before);
    }
}

/// A range that comes and goes, and which of its sections are open.
struct Group {
    range: SectionRange,
    own: PfnRange,
    eager_tables: u64,
    is_mapped: bool,
    open: BTreeSet<SectionId>,
    /// Pairs with a page table of their own that was written since the range came.
    written: BTreeSet<u32>,
}

impl Group {
    fn new(range: SectionRange, has_own: bool, leaves: HugeLeaves) -> Self {
        let own = if has_own { own_frames(range, leaves) } else { PfnRange::EMPTY };
        let whole_pairs = range.iter().filter(|id| Self::has_own_page_table(range, *id)).count() as u64 / 2;
        let eager_tables = own.len().saturating_sub(whole_pairs);
        Self { range, own, eager_tables, is_mapped: false, open: BTreeSet::new(), written: BTreeSet::new() }
    }

    fn has_own_page_table(range: SectionRange, section: SectionId) -> bool {
        let other = SectionId::new(u64::from(section.number() ^ 1)).expect("in reach");
        range.contains(section) && range.contains(other)
    }

    fn add(&mut self, machine: &Machine, leaves: HugeLeaves) {
        machine.map(self.range, self.own, leaves);
        self.is_mapped = true;
    }

    fn toggle(&mut self, machine: &Machine, index: usize) {
        let section = self.range.iter().nth(index).expect("an index below the count");
        if self.open.remove(&section) {
            machine.close(section);
        } else {
            machine.open(section);
            self.open.insert(section);
            if !self.own.is_empty() && Self::has_own_page_table(self.range, section) {
                self.written.insert(section.number() / 2);
            }
        }
    }

    /// The struct pages go before their tables.
    fn remove(&mut self, machine: &Machine) {
        std::mem::take(&mut self.open).into_iter().for_each(|section| machine.close(section));
        unmap(machine, self.range);
        machine.forget(self.range);
        self.written.clear();
        self.is_mapped = false;
    }

    fn check(&self, machine: &Machine) {
        let tables = if self.is_mapped { self.eager_tables + self.written.len() as u64 } else { 0 };
        assert_eq!(machine.tables_inside(self.range), tables, "{:?}", self.range);
        assert!(!self.is_mapped || machine.has_own_leaves(self.range), "{:?}", self.range);
        for section in [self.range.first(), self.range.last()].into_iter().chain(self.open.iter().copied()) {
            for index in [0, MEMMAP_PAGES - 1] {
                let expected = self.open.contains(&section).then(|| backing(section, index));
                assert_eq!(machine.memmap_page(section, index), expected, "{section}");
            }
        }
    }
}
