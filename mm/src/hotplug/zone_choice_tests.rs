//! What the policies choose for a block, given what is around it.

use super::*;
use crate::addr::PAGES_PER_SECTION;
use crate::section::kind::{MemmapPlace, Origin};
use crate::section::state::Openness;

const BLOCK: u64 = PAGES_PER_SECTION;

/// Two nodes of two blocks of boot memory each, and on one of them a block of a device.
const CHOOSER: ZoneChooser = ZoneChooser {
    policy: Policy::DEFAULT,
    node: NodeId::ZERO,
    group: GroupId::new(1),
    spans: [None, None],
    machine: Balance { kernel: 4 * BLOCK, movable: 0 },
    own: Balance { kernel: 2 * BLOCK, movable: 0 },
    device: None,
    kernel: KernelMemory { available: 4 * BLOCK, unmapped: 0 },
};

/// The device has two blocks, and all of it is offline.
const AUTO: ZoneChooser = ZoneChooser {
    policy: Policy { online_policy: OnlinePolicy::AutoMovable, ..Policy::DEFAULT },
    device: Some(device(2, 0, 0)),
    ..CHOOSER
};

/// A device with so many blocks in each place.
const fn device(offline: u64, normal: u64, movable: u64) -> Tally {
    Tally { offline: offline * BLOCK, normal: normal * BLOCK, movable: movable * BLOCK }
}

fn block() -> Section {
    Section {
        state: BlockState::Offline,
        openness: Openness::Untouched,
        last_zone: ZoneKind::Normal,
        node: NodeId::ZERO,
        group: GroupId::new(1),
        origin: Origin::Added,
        memmap: MemmapPlace::Head,
        ready: true,
        present: BLOCK as u16,
        managed: BLOCK as u16,
        head: 0,
        poisoned: false,
        faulty: false,
    }
}

fn id(n: u64) -> SectionId {
    SectionId::new(n).expect("in reach")
}

fn chosen(chooser: &ZoneChooser) -> ZoneKind {
    chooser.choose(id(34), block()).zone
}

#[test]
fn contig_zones_follows_the_only_span_that_holds_the_block() {
    let around = Some((id(32), id(39)));
    let elsewhere = Some((id(35), id(39)));
    let with = |spans, movable_node| {
        chosen(&ZoneChooser { spans, policy: Policy { movable_node, ..Policy::DEFAULT }, ..CHOOSER })
    };
    assert_eq!(with([None, None], false), ZoneKind::Normal);
    assert_eq!(with([elsewhere, around], false), ZoneKind::Movable);
    assert_eq!(with([around, elsewhere], true), ZoneKind::Normal);
    assert_eq!(with([around, around], false), ZoneKind::Normal);
    assert_eq!(with([around, around], true), ZoneKind::Movable);
    assert_eq!(with([None, None], true), ZoneKind::Movable);
}

#[test]
fn auto_movable_asks_the_ratio_of_machine_and_node_about_the_whole_device() {
    let with = |movable: u64, offline: u64, numa_aware| {
        let add = Balance { kernel: 0, movable };
        let mut chooser = ZoneChooser { device: Some(device(offline, 0, 0)), ..AUTO };
        chooser.machine += add;
        chooser.own += add;
        chooser.policy.numa_aware = numa_aware;
        chosen(&chooser)
    };
    // 301 % of two blocks are six, of four they are twelve.
    assert_eq!(with(4 * BLOCK, 2, true), ZoneKind::Movable);
    assert_eq!(with(4 * BLOCK, 3, true), ZoneKind::Normal);
    assert_eq!(with(4 * BLOCK, 8, false), ZoneKind::Movable);
    assert_eq!(with(4 * BLOCK, 9, false), ZoneKind::Normal);
}

#[test]
fn the_rest_of_a_device_follows_what_is_online_whatever_the_ratio_says() {
    for (normal, movable, zone) in [(1, 0, ZoneKind::Normal), (0, 1, ZoneKind::Movable), (1, 1, ZoneKind::Normal)] {
        for taken in [0, 100] {
            let mut chooser = ZoneChooser { device: Some(device(1, normal, movable)), ..AUTO };
            chooser.machine.movable = taken * BLOCK;
            assert_eq!(chosen(&chooser), zone, "{normal} blocks in Normal, {movable} in Movable");
        }
    }
}

#[test]
fn what_is_chosen_for_a_device_stays_the_same_until_its_last_block_is_online() {
    for movable in [4 * BLOCK, 5 * BLOCK] {
        let mut chooser = AUTO;
        chooser.own.movable = movable;
        let zone = chosen(&chooser);
        chooser.expect(zone, block());
        assert_eq!(chosen(&chooser), zone);
    }
}

#[test]
fn boot_blocks_are_for_themselves() {
    let mut chooser = ZoneChooser { device: None, ..AUTO };
    chooser.own.movable = 5 * BLOCK;
    assert_eq!(chosen(&chooser), ZoneKind::Movable);
    chooser.expect(ZoneKind::Movable, block());
    assert_eq!(chosen(&chooser), ZoneKind::Normal);
}

#[test]
fn nothing_becomes_movable_that_the_kernel_could_not_serve() {
    let policy = Policy { movable_node: true, ..Policy::DEFAULT };
    for policy in [policy, AUTO.policy] {
        let with = |available, unmapped| {
            let device = Some(device(1, 0, 0));
            ZoneChooser { policy, device, kernel: KernelMemory { available, unmapped }, ..CHOOSER }
                .choose(id(34), block())
        };
        // A block takes 65 tables.
        let enough = KERNEL_FLOOR_PAGES + 65;
        assert_eq!(with(enough, 0), Choice { zone: ZoneKind::Movable, remark: None });
        let remark = Some(Remark::KeptNormal { available: enough - 1, needed: enough });
        assert_eq!(with(enough - 1, 0), Choice { zone: ZoneKind::Normal, remark });
        assert_eq!(with(enough, BLOCK).zone, ZoneKind::Normal);
        assert_eq!(with(enough + 64, BLOCK).zone, ZoneKind::Movable);
    }
}

#[test]
fn memory_that_somebody_made_movable_is_remarked_on_when_it_is_too_much() {
    let with = |movable, unmapped| {
        let machine = Balance { kernel: 4 * BLOCK, movable };
        let kernel = KernelMemory { available: KERNEL_FLOOR_PAGES + 64, unmapped };
        ZoneChooser { machine, kernel, ..CHOOSER }.excess()
    };
    let (most, available) = (4 * BLOCK * 301 / 100, KERNEL_FLOOR_PAGES + 64);
    assert_eq!(with(most, 0), None);
    assert_eq!(with(most + 1, 0), Some(Remark::BeyondRatio { movable: most + 1, most }));
    assert_eq!(with(most + 1, BLOCK), Some(Remark::KernelShort { available, needed: available + 1 }));
}
