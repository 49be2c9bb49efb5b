//! Ranges mapped and unmapped over tables in a map, where touching a table that is gone is an error.

use super::super::plan::own_tables;
use super::*;
use crate::memory::fake_tables::FakeTables;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
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
        map(self, range, own, leaves).expect("there are frames");
    }

    fn is_direct(&self, pfn: Pfn) -> bool {
        let leaf = self.tree.borrow_mut().leaf(layout::direct(pfn));
        leaf.is_some_and(|(entry, level)| {
            entry.frame().add(pfn.number() % level.entry_pages()) == pfn && entry.flags().contains(DATA)
        })
    }

    fn has_memmap_table(&self, section: SectionId) -> bool {
        self.tree.borrow_mut().table(memmap_address(section), Level::PAGE_TABLE).is_some()
    }
}

fn range(first: u64, count: u64) -> SectionRange {
    SectionRange::new(first, count).expect("in reach")
}

fn own_frames(range: SectionRange, leaves: HugeLeaves) -> PfnRange {
    PfnRange::new(range.first().pages().start(), own_tables(range, leaves))
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
    assert!(machine.has_memmap_table(high.first()));
    assert!(!machine.is_direct(low.pages().start()) && machine.is_direct(high.pages().start()));
    assert_eq!(unmap(&machine, high), Tables::System);
    assert_eq!(machine.tables(), before);
}

#[test]
fn a_range_beyond_what_boot_prepared_is_refused() {
    let machine = Machine::new();
    let before = machine.tables();
    assert_eq!(map(&machine, range(16 * 4096, 8), PfnRange::EMPTY, HugeLeaves::Have), Err(MapError));
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
            let result = map(&machine, range, PfnRange::EMPTY, leaves);
            if result.is_ok() {
                unmap(&machine, range);
            }
            assert_eq!(machine.tables(), before, "with {budget} frames");
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
        let inside = machine.tables().keys().filter(|table| range.pages().contains(Pfn::new(**table))).count();
        prop_assert_eq!(inside as u64, own.len());
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
                prop_assert!(other.iter().all(|section| machine.has_memmap_table(section)));
            }
        }
        prop_assert_eq!(machine.tables(), before);
    }
}
