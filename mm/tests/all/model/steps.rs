//! What can be done, and the dice for it.

use super::{DIMMS, FIRST, LAST};
use mm::addr::Order;
use mm::frame::mobility::Mobility;
use mm::section::kind::ZoneKind;
use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Add {
        dimm: u16,
        first: u64,
        count: u64,
        node: u32,
        on_memory: bool,
    },
    Online {
        first: u64,
        count: u64,
        zone: ZoneKind,
    },
    Offline {
        first: u64,
        count: u64,
    },
    /// All blocks of a DIMM, whichever these are by then.
    OnlineAll {
        dimm: u16,
        zone: ZoneKind,
    },
    /// The same.
    OfflineAll {
        dimm: u16,
    },
    /// A DIMM that is there, if this is the number of one that there can be.
    Remove {
        dimm: u16,
    },
    /// The same.
    Unplug {
        dimm: u16,
    },
    Allocate {
        order: Order,
        mobility: Mobility,
    },
    Free {
        which: prop::sample::Index,
    },
    Hold {
        order: Order,
    },
    Release {
        which: prop::sample::Index,
    },
    Pin {
        which: prop::sample::Index,
    },
    Unpin {
        which: prop::sample::Index,
    },
    Run {
        blocks: u64,
        mobility: Mobility,
    },
    Keep,
    Drain,
    Arm {
        point: prop::sample::Index,
    },
    Disarm,
}

/// Steps are chosen without looking at the state, so that refused ones come too.
pub(super) struct Steps;

impl ReferenceStateMachine for Steps {
    type State = ();
    type Transition = Step;

    fn init_state() -> BoxedStrategy<()> {
        Just(()).boxed()
    }

    fn transitions((): &()) -> BoxedStrategy<Step> {
        let range = || (FIRST..=LAST, 1u64..=4).prop_map(|(first, count)| (first, count.min(LAST - first + 1)));
        let zone = || prop_oneof![Just(ZoneKind::Normal), Just(ZoneKind::Movable)];
        let mobility = || prop_oneof![Just(Mobility::Unmovable), Just(Mobility::Movable)];
        let order = || (0u8..=10).prop_map(|order| Order::new(order).expect("kept"));
        let add = (0..DIMMS, range(), 0u32..3, any::<bool>())
            .prop_map(|(dimm, (first, count), node, on_memory)| Step::Add { dimm, first, count, node, on_memory });
        let run = prop_oneof![1u64..=8, 1u64..=130];
        prop_oneof![
            6 => add,
            8 => (0..DIMMS, zone()).prop_map(|(dimm, zone)| Step::OnlineAll { dimm, zone }),
            8 => (0..DIMMS).prop_map(|dimm| Step::OfflineAll { dimm }),
            2 => (range(), zone()).prop_map(|((first, count), zone)| Step::Online { first, count, zone }),
            1 => range().prop_map(|(first, count)| Step::Offline { first, count }),
            2 => (0..=DIMMS).prop_map(|dimm| Step::Remove { dimm }),
            2 => (0..=DIMMS).prop_map(|dimm| Step::Unplug { dimm }),
            4 => (order(), mobility()).prop_map(|(order, mobility)| Step::Allocate { order, mobility }),
            5 => any::<prop::sample::Index>().prop_map(|which| Step::Free { which }),
            8 => prop_oneof![3 => Just(Order::PAGE), 1 => Just(Order::PAGEBLOCK)].prop_map(|order| Step::Hold { order }),
            1 => any::<prop::sample::Index>().prop_map(|which| Step::Release { which }),
            1 => any::<prop::sample::Index>().prop_map(|which| Step::Pin { which }),
            3 => any::<prop::sample::Index>().prop_map(|which| Step::Unpin { which }),
            2 => (run, mobility()).prop_map(|(blocks, mobility)| Step::Run { blocks, mobility }),
            1 => Just(Step::Keep),
            1 => Just(Step::Drain),
            1 => any::<prop::sample::Index>().prop_map(|point| Step::Arm { point }),
            1 => Just(Step::Disarm),
        ]
        .boxed()
    }

    fn apply((): (), _: &Step) {}
}
