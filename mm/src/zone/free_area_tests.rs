//! The lists alone, on two sections of struct pages.

extern crate std;
use super::*;
use crate::addr::PAGES_PER_SECTION;
use crate::frame::pageblock::Descriptor;
use crate::testing::Table;
use proptest::prelude::*;
use std::vec::Vec;

const SECTIONS: u64 = 2;

fn section(n: u64) -> SectionId {
    SectionId::new(n).expect("in reach")
}

fn admitted() -> (Table, FreeArea) {
    let table = Table::new(SECTIONS * PAGES_PER_SECTION);
    let mut area = FreeArea::new();
    for id in (0..SECTIONS).map(section) {
        for block in Pageblock::of_section(id) {
            block.set(&table, Descriptor::unlisted(FRAMES, Mobility::Movable));
        }
        area.admit(&table, id);
    }
    (table, area)
}

fn take(area: &mut FreeArea, table: &Table, order: Order, mobility: Mobility) -> Option<Pfn> {
    found(area, table, order, mobility, Mixing::Never)
}

fn found(area: &mut FreeArea, table: &Table, order: Order, mobility: Mobility, mixing: Mixing) -> Option<Pfn> {
    loop {
        match area.take(table, order, mobility, mixing) {
            Search::Found(head) => return Some(head),
            Search::Nothing => return None,
            Search::Unfinished => {}
        }
    }
}

#[test]
fn what_was_admitted_first_is_taken_first_and_lowest_first() {
    let (table, mut area) = admitted();
    assert_eq!(area.pages(), SECTIONS * PAGES_PER_SECTION);
    assert_eq!(take(&mut area, &table, Order::MAX, Mobility::Movable), Some(Pfn::new(0)));
    assert_eq!(take(&mut area, &table, Order::MAX, Mobility::Movable), Some(Pfn::new(1024)));
    assert_eq!(take(&mut area, &table, Order::PAGE, Mobility::Movable), Some(Pfn::new(2048)));
    assert_eq!(take(&mut area, &table, Order::PAGEBLOCK, Mobility::Movable), Some(Pfn::new(2560)));
}

#[test]
fn mobilities_share_no_pageblock_until_nothing_else_is_left() {
    let (table, mut area) = admitted();
    let movable = take(&mut area, &table, Order::PAGE, Mobility::Movable).expect("free");
    let unmovable = take(&mut area, &table, Order::PAGE, Mobility::Unmovable).expect("free");
    assert_ne!(Pageblock::of(movable), Pageblock::of(unmovable));
    while take(&mut area, &table, Order::PAGEBLOCK, Mobility::Movable).is_some() {}
    let mut most = FRAMES - 1;
    while take(&mut area, &table, Order::PAGE, Mobility::Unmovable).is_some() {
        most -= 1;
    }
    assert_eq!(most, 0, "its own pageblock is used up first");
    let mixed =
        found(&mut area, &table, Order::PAGE, Mobility::Unmovable, Mixing::Allowed).expect("the other has some");
    assert_eq!(Pageblock::of(mixed), Pageblock::of(movable));
    assert_eq!(
        Pageblock::of(mixed).descriptor(&table).mobility(),
        Mobility::Unmovable,
        "it cannot be emptied any more"
    );
    assert!(take(&mut area, &table, Order::PAGE, Mobility::Movable).is_none());
}

#[test]
fn an_isolated_section_gives_nothing_and_keeps_what_it_gets() {
    let (table, mut area) = admitted();
    let held = take(&mut area, &table, Order::PAGE, Mobility::Movable).expect("free");
    area.isolate(&table, section(0));
    assert_eq!((area.pages(), area.isolated()), (PAGES_PER_SECTION, PAGES_PER_SECTION - 1));
    area.put(&table, held, Order::PAGE);
    assert_eq!((area.pages(), area.isolated()), (PAGES_PER_SECTION, PAGES_PER_SECTION));
    assert_eq!(take(&mut area, &table, Order::MAX, Mobility::Movable), Some(section(1).pages().start()));
    area.admit(&table, section(0));
    assert_eq!((area.pages(), area.isolated()), (2 * PAGES_PER_SECTION - 1024, 0));
    assert_eq!(area.empty_sections(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn everything_given_back_makes_the_largest_blocks_again(
        steps in prop::collection::vec((0u8..=10, any::<bool>(), any::<prop::sample::Index>()), 1..400),
        isolated in any::<bool>(),
    ) {
        let (table, mut area) = admitted();
        let total = area.pages();
        let mut held: Vec<(Pfn, Order)> = Vec::new();
        let mut held_pages = 0;
        for (order, movable, which) in steps {
            let order = Order::new(order).expect("kept");
            let mobility = if movable { Mobility::Movable } else { Mobility::Unmovable };
            if which.index(3) == 0 && !held.is_empty() {
                let (head, order) = held.swap_remove(which.index(held.len()));
                area.put(&table, head, order);
                held_pages -= order.pages();
            } else if let Some(head) = found(&mut area, &table, order, mobility, Mixing::Allowed) {
                prop_assert_eq!(head.align_down(order), head);
                let overlaps = |(other, len): &(Pfn, Order)| {
                    head.number() < other.number() + len.pages() && other.number() < head.number() + order.pages()
                };
                prop_assert!(!held.iter().any(overlaps));
                held.push((head, order));
                held_pages += order.pages();
            }
            prop_assert_eq!(area.pages(), total - held_pages);
        }
        if isolated {
            area.isolate(&table, section(0));
        }
        for (head, order) in held {
            area.put(&table, head, order);
        }
        if isolated {
            area.admit(&table, section(0));
        }
        prop_assert_eq!((area.pages(), area.isolated(), area.empty_sections()), (total, 0, SECTIONS));
        for _ in 0..total / Order::MAX.pages() {
            prop_assert!(take(&mut area, &table, Order::MAX, Mobility::Movable).is_some());
        }
        prop_assert_eq!(area.pages(), 0);
    }
}
