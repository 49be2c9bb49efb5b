//! Which zone a policy gives to the blocks of whole devices, and that it is told beforehand.

use crate::machine::dimms::plug;
use crate::machine::{Fake, Snapshot, assert_valid, blocks, booted, booted_on, section};
use mm::Memory;
use mm::addr::{Order, PAGE_SIZE, SectionRange};
use mm::alloc::request::Request;
use mm::errno::Errno;
use mm::frame::page::Owner;
use mm::hotplug::zone_choice::Remark;
use mm::inject::Point;
use mm::limits::KERNEL_FLOOR_PAGES;
use mm::machine::tasks::Unhurried;
use mm::record::policy::{OnlineAs, OnlinePolicy};
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;

fn auto_movable(memory: &Memory<Fake>, ratio: u32) {
    memory.set_policy(|policy| {
        policy.online_policy = OnlinePolicy::AutoMovable;
        policy.auto_movable_ratio = ratio;
    });
}

/// The zone that is shown first for an offline block.
fn shown(memory: &Memory<Fake>, block: u64) -> ZoneKind {
    let described = memory.section(section(block)).expect("added");
    let mut parts = memory.zone_chooser(described).valid_zones(blocks(block, block), described);
    parts.next().expect("a block").1[0]
}

fn online(memory: &Memory<Fake>, range: SectionRange) -> Option<Remark> {
    memory.online(&[range], OnlineAs::ByPolicy, &mut Unhurried).expect("offline blocks")
}

fn movable(memory: &Memory<Fake>) -> Vec<u32> {
    let is_movable = |state| state == BlockState::Online(ZoneKind::Movable);
    memory.blocks().filter(|(_, section)| is_movable(section.state)).map(|(id, _)| id.number()).collect()
}

#[test]
fn a_device_is_movable_as_a_whole_or_not_at_all() {
    // Two boot sections with holes have 48512 present frames; 150 % of that license two blocks.
    for (count, expected) in [(2, vec![32, 33]), (3, vec![])] {
        let memory = booted();
        auto_movable(&memory, 150);
        plug(&memory, 0, blocks(32, 31 + count), 0);
        online(&memory, blocks(32, 31 + count));
        assert_eq!(movable(&memory), expected);
        assert_valid(&memory);
    }
}

#[test]
fn it_makes_no_difference_whether_blocks_come_one_by_one() {
    for (count, expected) in [(2, vec![32, 33]), (3, vec![])] {
        let memory = booted();
        auto_movable(&memory, 150);
        plug(&memory, 0, blocks(32, 31 + count), 0);
        for block in (32..32 + count).rev() {
            let before = shown(&memory, block);
            online(&memory, blocks(block, block));
            let state = memory.section(section(block)).expect("added").state;
            assert_eq!(state, BlockState::Online(before), "block {block}");
        }
        assert_eq!(movable(&memory), expected);
    }
}

#[test]
fn what_is_in_normal_draws_the_rest_of_its_device_after_it_and_no_other() {
    let memory = booted();
    auto_movable(&memory, 301);
    plug(&memory, 0, blocks(32, 33), 0);
    plug(&memory, 1, blocks(34, 35), 0);
    memory.online(&[blocks(33, 33)], OnlineAs::Zone(ZoneKind::Normal), &mut Unhurried).expect("offline");
    assert_eq!(
        [32, 34, 35].map(|block| shown(&memory, block)),
        [ZoneKind::Normal, ZoneKind::Movable, ZoneKind::Movable]
    );
    online(&memory, blocks(32, 32));
    online(&memory, blocks(34, 35));
    assert_eq!(movable(&memory), [34, 35]);
}

#[test]
fn added_normal_memory_licenses_nothing() {
    let memory = booted();
    auto_movable(&memory, 60);
    plug(&memory, 0, blocks(32, 39), 0);
    memory.online(&[blocks(32, 39)], OnlineAs::Zone(ZoneKind::Normal), &mut Unhurried).expect("offline");
    plug(&memory, 1, blocks(40, 40), 0);
    assert_eq!(shown(&memory, 40), ZoneKind::Normal);
}

#[test]
fn each_node_has_a_ratio_of_its_own_unless_told_otherwise() {
    for (numa_aware, expected) in [(true, vec![32, 34]), (false, vec![32, 33])] {
        let memory = booted_on([0, 1]);
        auto_movable(&memory, 150);
        memory.set_policy(|policy| policy.numa_aware = numa_aware);
        for (number, (block, on)) in [(32, 0), (33, 0), (34, 1), (35, 1)].into_iter().enumerate() {
            plug(&memory, number as u16, blocks(block, block), on);
            online(&memory, blocks(block, block));
        }
        assert_eq!(movable(&memory), expected);
    }
}

/// Takes boot memory until ordinary requests for a pageblock find no more.
fn exhaust(memory: &Memory<Fake>) {
    let request = Request { order: Order::PAGEBLOCK, ..Request::kernel(Owner::Kfill) };
    while memory.allocate(&request).is_ok() {}
    let request = Request { order: Order::PAGE, ..request };
    while memory.allocate(&request).is_ok() {}
}

#[test]
fn nothing_becomes_movable_by_policy_while_the_kernel_has_too_little() {
    for policy in [OnlinePolicy::AutoMovable, OnlinePolicy::ContigZones] {
        let memory = booted();
        memory.set_policy(|settings| {
            settings.online_policy = policy;
            settings.movable_node = true;
        });
        plug(&memory, 0, blocks(32, 33), 1);
        memory.set_policy(|settings| settings.numa_aware = false);
        assert_eq!(shown(&memory, 32), ZoneKind::Movable);
        exhaust(&memory);
        let before = Snapshot::of(&memory);
        assert_eq!(shown(&memory, 32), ZoneKind::Normal);
        assert_eq!(Snapshot::of(&memory), before);
        let remark = online(&memory, blocks(32, 33));
        assert!(matches!(remark, Some(Remark::KeptNormal { available: 0, .. })), "{remark:?}");
        assert_eq!(movable(&memory), []);
        // With that, there is enough again.
        plug(&memory, 1, blocks(34, 34), 2);
        assert_eq!(online(&memory, blocks(34, 34)), None);
        assert_eq!(movable(&memory), [34]);
        assert_valid(&memory);
    }
}

#[test]
fn a_wish_for_movable_is_obeyed_and_remarked_on() {
    let memory = booted();
    let wish = |range: SectionRange| {
        memory.online(&[range], OnlineAs::Zone(ZoneKind::Movable), &mut Unhurried).expect("offline")
    };
    plug(&memory, 0, blocks(32, 37), 0);
    assert_eq!(wish(blocks(32, 35)), None);
    assert!(matches!(wish(blocks(36, 36)), Some(Remark::BeyondRatio { .. })));
    exhaust(&memory);
    assert!(matches!(wish(blocks(37, 37)), Some(Remark::KernelShort { available: 0, .. })));
    assert_eq!(movable(&memory).len(), 6);
}

#[test]
fn devices_whose_blocks_come_by_turns_are_each_in_one_zone() {
    // The ratio licenses three blocks: the first device, and half of the second.
    let memory = booted();
    auto_movable(&memory, 210);
    plug(&memory, 0, blocks(32, 33), 0);
    plug(&memory, 1, blocks(34, 35), 0);
    plug(&memory, 2, blocks(36, 36), 0);
    for block in [32, 34, 33, 35, 36] {
        let before = shown(&memory, block);
        online(&memory, blocks(block, block));
        let state = memory.section(section(block)).expect("added").state;
        assert_eq!(state, BlockState::Online(before), "block {block}");
    }
    assert_eq!(movable(&memory), [32, 33, 36]);
    assert_valid(&memory);
    // What goes offline is promised to its device, as long as a part of that is there.
    memory.offline(&[blocks(33, 36)], &mut Unhurried).expect("free");
    assert_eq!(
        [33, 34, 36].map(|block| shown(&memory, block)),
        [ZoneKind::Movable, ZoneKind::Normal, ZoneKind::Movable]
    );
    memory.offline(&[blocks(32, 32)], &mut Unhurried).expect("free");
    assert_eq!(shown(&memory, 34), ZoneKind::Movable);
    assert_valid(&memory);
}

#[test]
fn the_rest_of_a_device_follows_blocks_that_somebody_made_movable_or_relabelled() {
    let memory = booted();
    auto_movable(&memory, 0);
    plug(&memory, 0, blocks(32, 33), 0);
    assert_eq!(shown(&memory, 33), ZoneKind::Normal);
    for (zone, how) in [ZoneKind::Movable, ZoneKind::Normal, ZoneKind::Movable].map(|zone| (zone, OnlineAs::Zone(zone)))
    {
        memory.online(&[blocks(32, 32)], how, &mut Unhurried).expect("offline, or in the other zone");
        assert_eq!(shown(&memory, 33), zone);
        assert_valid(&memory);
    }
}

#[test]
fn a_refused_change_leaves_a_device_undecided() {
    let memory = booted();
    auto_movable(&memory, 210);
    plug(&memory, 0, blocks(32, 33), 0);
    plug(&memory, 1, blocks(34, 35), 0);
    memory.failure_points().arm(Point::OnlinePrepare, Errno::Io, 1);
    memory.online(&[blocks(32, 32)], OnlineAs::ByPolicy, &mut Unhurried).expect_err("armed");
    assert_valid(&memory);
    online(&memory, blocks(34, 34));
    assert_eq!([32, 35].map(|block| shown(&memory, block)), [ZoneKind::Normal, ZoneKind::Movable]);
}

#[test]
fn contig_zones_asks_for_no_more_than_the_block_that_comes() {
    let memory = booted();
    memory.set_policy(|policy| policy.movable_node = true);
    // The kernel is left enough for the tables of a block, and not for those of eight.
    while memory.memory_report().kernel_available / PAGE_SIZE > KERNEL_FLOOR_PAGES + 100 {
        memory.allocate(&Request::kernel(Owner::Kfill)).expect("free");
    }
    plug(&memory, 0, blocks(32, 39), 0);
    assert_eq!(shown(&memory, 34), ZoneKind::Movable);
    assert_eq!(online(&memory, blocks(34, 34)), None);
    assert_eq!(movable(&memory), [34]);
    // What one command brings is on its way together.
    assert!(matches!(online(&memory, blocks(35, 39)), Some(Remark::KeptNormal { .. })));
    assert_eq!(movable(&memory), [34]);
    memory.offline(&[blocks(34, 39)], &mut Unhurried).expect("free");
    auto_movable(&memory, 1000);
    assert_eq!(shown(&memory, 34), ZoneKind::Normal);
    assert!(matches!(online(&memory, blocks(34, 34)), Some(Remark::KeptNormal { .. })));
    assert_valid(&memory);
}
