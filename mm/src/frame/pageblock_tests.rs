//! Bits against a plain array of booleans.

extern crate std;
use super::*;
use crate::testing::Table;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec::Vec;

const BLOCK: Pageblock = Pageblock::of(Pfn::new(FRAMES));

fn below_pageblock() -> impl Strategy<Value = Order> {
    (0u8..9).prop_map(|n| Order::new(n).expect("kept"))
}

fn prepared() -> Table {
    let table = Table::new(4 * FRAMES);
    BLOCK.set(&table, Descriptor::unlisted(FRAMES, Mobility::Movable));
    table
}

/// The order of the largest aligned group around `index` that is free, below a pageblock's.
fn group_around(used: &[bool], index: usize) -> Order {
    let is_free = |order: &Order| {
        let len = order.pages() as usize;
        let start = index / len * len;
        used[start..start + len].iter().all(|used| !used)
    };
    Order::all().take(9).take_while(is_free).last().expect("the frame itself is free")
}

#[test]
fn what_is_written_into_a_descriptor_is_read_and_changes_nothing_else() {
    let places = [
        Listing::Nowhere,
        Listing::Partial,
        Listing::Single,
        Listing::PairFirst,
        Listing::PairSecond,
        Listing::Isolated,
    ];
    for listing in places {
        for mobility in Mobility::ALL {
            for largest in Order::all() {
                let before = Descriptor::unlisted(500, mobility.other()).with_listing(Listing::Isolated);
                let after =
                    before.taken(499).given(3).with_listing(listing).with_mobility(mobility).with_largest(largest);
                assert_eq!((after.free(), after.managed(), after.listing()), (4, 500, listing));
                assert_eq!((after.mobility(), after.largest()), (mobility, largest));
            }
        }
    }
}

proptest! {
    #[test]
    fn groups_are_taken_and_given_as_from_an_array(
        steps in prop::collection::vec((below_pageblock(), any::<prop::sample::Index>(), any::<bool>()), 1..200),
    ) {
        let table = prepared();
        let mut used = [false; FRAMES as usize];
        let mut held = Vec::new();
        for (order, which, give) in steps {
            let len = order.pages() as usize;
            if give && !held.is_empty() {
                let (head, order): (Pfn, Order) = held.swap_remove(which.index(held.len()));
                let start = (head.number() - FRAMES) as usize;
                used[start..start + order.pages() as usize].fill(false);
                let known = Order::new(which.index(9) as u8).expect("kept");
                let grown = BLOCK.give(&table, head, order, known);
                let around = group_around(&used, start);
                prop_assert_eq!(grown, Some(around).filter(|around| *around > known));
            } else {
                let expected = (0..used.len()).step_by(len).find(|start| !used[*start..start + len].contains(&true));
                let taken = BLOCK.take(&table, order);
                prop_assert_eq!(taken, expected.map(|start| BLOCK.first().add(start as u64)));
                if let Some(start) = expected {
                    used[start..start + len].fill(true);
                    held.push((BLOCK.first().add(start as u64), order));
                }
            }
            let free = used.iter().filter(|used| !**used).count() as u64;
            prop_assert_eq!(BLOCK.count_free(&table), free);
            let mut grouped = 0;
            BLOCK.free_groups(&table, |head, order| {
                assert_eq!(head.align_down(order), head);
                grouped += order.pages();
            });
            prop_assert_eq!(grouped, free);
        }
    }

    #[test]
    fn single_frames_are_taken_lowest_first(taken in prop::collection::vec(0u64..FRAMES, 0..300), most in 0u64..100) {
        let table = prepared();
        let mut free: BTreeSet<u64> = (0..FRAMES).collect();
        for index in taken {
            BLOCK.reserve(&table, PfnRange::new(BLOCK.first().add(index), 1));
            free.remove(&index);
        }
        let mut got = Vec::new();
        let count = BLOCK.take_frames(&table, most, |frame| got.push(frame.number() - FRAMES));
        let expected: Vec<u64> = free.iter().copied().take(most as usize).collect();
        prop_assert_eq!(count as usize, got.len());
        prop_assert_eq!(got, expected);
        prop_assert_eq!(BLOCK.count_free(&table), free.len() as u64 - count);
    }
}
