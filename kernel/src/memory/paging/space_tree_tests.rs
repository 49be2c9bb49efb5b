use super::*;
use crate::memory::paging::fake_tables::FakeTables;
use std::vec::Vec;

const PAGE: Leaf = Leaf { frame: Pfn::new(0x1_2345), order: Order::PAGE };
const BLOCK: Leaf = Leaf { frame: Pfn::new(0x1_2200), order: Order::PAGEBLOCK };

fn space() -> SpaceTree<FakeTables> {
    SpaceTree(FakeTables::tree())
}

#[test]
fn a_page_is_empty_then_mapped_then_moving_and_mapped_elsewhere() {
    let mut space = space();
    assert_eq!(space.look(7).1, Slot::Empty(Order::PAGEBLOCK));
    space.put(7, PAGE).expect("there are frames");
    assert_eq!(space.look(8).1, Slot::Empty(Order::PAGE));
    let (place, slot) = space.look(7);
    assert_eq!(slot, Slot::Mapped(PAGE));
    space.change(place, Slot::Moving(PAGE));
    assert_eq!(space.look(7).1, Slot::Moving(PAGE));
    let there = Leaf { frame: Pfn::new(0x54321), ..PAGE };
    space.change(place, Slot::Mapped(there));
    assert_eq!(space.look(7).1, Slot::Mapped(there));
    space.change(place, Slot::Empty(Order::PAGE));
    assert_eq!(space.look(7).1, Slot::Empty(Order::PAGE));
}

#[test]
fn a_pageblock_stands_for_all_its_pages_until_it_is_split() {
    let mut space = space();
    space.put(512, BLOCK).expect("there are frames");
    for page in [512, 700, 1023] {
        assert_eq!(space.look(page).1, Slot::Mapped(BLOCK));
    }
    assert_eq!(space.look(1024).1, Slot::Empty(Order::PAGEBLOCK));
    let (place, _) = space.look(512);
    space.change(place, Slot::Moving(BLOCK));
    assert_eq!(space.look(700).1, Slot::Moving(BLOCK));
    let table = space.0.memory.take().expect("there are frames");
    space.split_into(place, BLOCK, table);
    for page in [512, 700, 1023] {
        let frame = BLOCK.frame.add(page - 512);
        assert_eq!(space.look(page).1, Slot::Mapped(Leaf { frame, order: Order::PAGE }));
    }
}

#[test]
fn pages_are_moving_while_their_table_is() {
    let mut space = space();
    space.put(7, PAGE).expect("there are frames");
    let (EntryPlace { table, .. }, _) = space.look(7);
    let place = space.find_table(8, table).expect("it is for page 8 as well");
    assert!(space.find_table(512, table).is_none());
    space.change(place, Slot::Moving(Leaf { frame: table, order: Order::PAGE }));
    for page in [7, 8, 511] {
        assert!(matches!(space.look(page).1, Slot::Moving(_)));
    }
    assert_eq!(space.look(512).1, Slot::Empty(Order::PAGEBLOCK));
    assert!(space.find_table(7, table).is_none(), "it is moving");
    assert!(space.find_table(7, place.table).is_none(), "a table in it is moving");
    space.point_to(place, table);
    assert_eq!(space.look(7).1, Slot::Mapped(PAGE));
    assert!(space.find_table(7, place.table).is_some());
    assert!(space.find_table(7, space.0.root()).is_none(), "nothing points to the topmost");
}

#[test]
fn without_a_frame_for_a_table_nothing_is_mapped_and_what_was_made_is_used_later() {
    let mut space = space();
    space.0.memory.budget = 1;
    assert!(space.put(0, PAGE).is_err());
    assert_eq!(space.look(0).1, Slot::Empty(Order::PAGEBLOCK));
    space.0.memory.budget = 2;
    assert!(space.put(0, PAGE).is_ok());
    assert_eq!(space.look(0).1, Slot::Mapped(PAGE));
}

#[test]
fn a_walk_passes_holes_by_whole_entries_and_meets_every_table_once() {
    let mut space = space();
    let far = 3 << 27;
    for page in [5, 600, far + 1] {
        space.put(page, Leaf { frame: Pfn::new(page), order: Order::PAGE }).expect("there are frames");
    }
    let (mut at, mut looks, mut found, mut tables) = (0, 0, Vec::new(), Vec::new());
    while at < far + 2 {
        tables.extend(space.tables_from(at).iter().map(|table| table.number()));
        let (place, slot) = space.look(at);
        if matches!(slot, Slot::Mapped(_)) {
            found.push(at);
        }
        at = place.end(at);
        looks += 1;
    }
    assert_eq!(found, [5, 600, far + 1]);
    // Two page tables, the rest of their directory and of the table above that, two entries of the topmost one, and two pages.
    assert_eq!(looks, 512 + 512 + 510 + 511 + 2 + 2);
    tables.sort_unstable();
    assert!(tables.iter().eq(space.0.memory.tables.keys()), "{tables:x?}");
}

#[test]
fn taking_a_space_apart_finds_every_leaf_and_gives_every_table_back() {
    let mut space = space();
    space.put(3, PAGE).expect("there are frames");
    space.put(1024, BLOCK).expect("there are frames");
    space.put(1 << 27, PAGE).expect("there are frames");
    let mut leaves = Vec::new();
    space.take_apart(&mut |leaf| leaves.push(leaf));
    assert_eq!(leaves, [PAGE, BLOCK, PAGE]);
    assert_eq!(space.0.memory.given_back.len(), space.0.memory.tables.len());
}
