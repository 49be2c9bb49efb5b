//! What hotplug and the kernel are left with: by one count, whoever asks.

use crate::machine::dimms::{MOVABLE, NORMAL, add, plug};
use crate::machine::holders::TABLE;
use crate::machine::taking::take_all;
use crate::machine::{Fake, Snapshot, assert_valid, blocks, booted, section};
use mm::Memory;
use mm::addr::{Order, PAGE_SIZE, Pfn, SectionRange};
use mm::alloc::request::{AllocError, Request, Urgency};
use mm::errno::Errno;
use mm::frame::mobility::Mobility;
use mm::frame::page::{MEMMAP_PAGES, Owner};
use mm::hotplug::zone_choice::Remark;
use mm::hotplug::{AddError, OfflineError, OnlineError, RelabelError};
use mm::limits::{KERNEL_PAGES, RESERVE_PAGES};
use mm::machine::mapper::Mapper;
use mm::machine::tasks::Unhurried;
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;

/// Takes all there is of `range` for such a request; the single frames among it, of which there are many.
fn exhaust(memory: &Memory<Fake>, range: SectionRange, urgency: Urgency) -> Vec<Pfn> {
    let request = |order| Request { order, urgency, ..Request::kernel(Owner::Kfill) };
    let single = || memory.allocate_within(&request(Order::PAGE), range).ok();
    let mut singles: Vec<Pfn> = (0..1024).map_while(|_| single()).collect();
    while memory.allocate_within(&request(Order::PAGEBLOCK), range).is_ok() {}
    singles.extend(std::iter::from_fn(single));
    singles
}

fn kernel_available(memory: &Memory<Fake>) -> u64 {
    memory.memory_report().kernel_available / PAGE_SIZE
}

/// Whether an offline of `range` would break the reserve, by so many frames, foreseen and told.
fn assert_breaks_reserve(memory: &Memory<Fake>, range: SectionRange, short_by: u64) {
    let before = Snapshot::of(memory);
    let preview = memory.preview_offline(&[range], &mut Unhurried, |_, _| ()).expect("online");
    assert_eq!((preview.short_by, preview.reserve_short_by), (0, short_by));
    let error = memory.offline(&[range], &mut Unhurried).expect_err("the reserve");
    assert_eq!((error, error.errno()), (OfflineError::ReserveShort { short_by }, Errno::NoMemory));
    let error = memory.online(&[range], MOVABLE, &mut Unhurried).expect_err("the reserve");
    assert_eq!(error, OnlineError::Relabel(RelabelError::ReserveShort { short_by }));
    assert_eq!(Snapshot::of(memory), before);
    assert_valid(memory);
}

#[test]
fn free_boot_memory_goes_unless_the_reserve_would_be_broken() {
    let memory = booted();
    let mut singles = exhaust(&memory, blocks(0, 0), Urgency::Ordinary);
    memory.drain_caches();
    assert_breaks_reserve(&memory, blocks(1, 1), RESERVE_PAGES);
    // Added memory does not make up for it, as hotplug may have to bring that first.
    plug(&memory, 0, blocks(32, 32), 0);
    memory.online(&[blocks(32, 32)], NORMAL, &mut Unhurried).expect("offline");
    assert_breaks_reserve(&memory, blocks(1, 1), RESERVE_PAGES);
    let mut give_back = |count: u64| {
        (0..count).for_each(|_| memory.free(singles.pop().expect("many"), Order::PAGE));
        memory.drain_caches();
    };
    give_back(RESERVE_PAGES - 1);
    assert_breaks_reserve(&memory, blocks(1, 1), 1);
    give_back(1);
    let preview = memory.preview_offline(&[blocks(1, 1)], &mut Unhurried, |_, _| ()).expect("online");
    assert_eq!(preview.reserve_short_by, 0);
    memory.offline(&[blocks(1, 1)], &mut Unhurried).expect("the reserve is whole without it");
    assert_valid(&memory);
}

#[test]
fn the_last_memory_that_the_kernel_can_get_goes_by_a_command_and_with_a_remark() {
    let memory = booted();
    exhaust(&memory, blocks(0, 1), Urgency::Ordinary);
    plug(&memory, 0, blocks(32, 32), 0);
    for is_relabelled in [false, true] {
        memory.online(&[blocks(32, 32)], NORMAL, &mut Unhurried).expect("offline");
        assert_eq!(memory.shortage(), None);
        let remark = if is_relabelled {
            memory.online(&[blocks(32, 32)], MOVABLE, &mut Unhurried).expect("free")
        } else {
            memory.offline(&[blocks(32, 32)], &mut Unhurried).expect("free");
            memory.shortage()
        };
        assert!(matches!(remark, Some(Remark::KernelShort { available: 0, .. })), "{remark:?}");
        assert_valid(&memory);
    }
    // Hotplug goes on.
    plug(&memory, 1, blocks(40, 40), 0);
    memory.online(&[blocks(40, 40)], NORMAL, &mut Unhurried).expect("offline");
    memory.allocate(&Request::kernel(Owner::Kfill)).expect("added memory serves");
}

#[test]
fn a_reserve_that_is_used_keeps_no_added_memory_from_leaving() {
    let memory = booted();
    exhaust(&memory, blocks(0, 1), Urgency::Ordinary);
    plug(&memory, 0, blocks(32, 33), 0);
    memory.online(&[blocks(32, 33)], NORMAL, &mut Unhurried).expect("offline");
    exhaust(&memory, blocks(0, 1), Urgency::Hotplug);
    memory.online(&[blocks(32, 32)], MOVABLE, &mut Unhurried).expect("free");
    memory.offline(&[blocks(32, 33)], &mut Unhurried).expect("free");
    assert_valid(&memory);
}

#[test]
fn nothing_is_reserved_of_added_memory() {
    let memory = booted();
    plug(&memory, 0, blocks(32, 32), 0);
    memory.online(&[blocks(32, 32)], NORMAL, &mut Unhurried).expect("offline");
    exhaust(&memory, blocks(0, 1), Urgency::Hotplug);
    let mut singles = exhaust(&memory, blocks(32, 32), Urgency::Ordinary);
    memory.drain_caches();
    assert_eq!(kernel_available(&memory), 0);
    let mut give_back = |count: u64| {
        (0..count).for_each(|_| memory.free(singles.pop().expect("many"), Order::PAGE));
        memory.drain_caches();
    };
    give_back(KERNEL_PAGES);
    assert_eq!((kernel_available(&memory), memory.is_kernel_short()), (KERNEL_PAGES, true));
    // Struct pages in the system leave the kernel so many, too.
    memory.set_policy(|policy| policy.memmap_on_memory = false);
    let needed = MEMMAP_PAGES + memory.machine().own_tables(blocks(40, 40));
    give_back(needed - 1);
    assert_eq!(add(&memory, 1, blocks(40, 40), 0), Err(AddError::NoMemory));
    give_back(1);
    assert!(!memory.is_kernel_short());
    add(&memory, 1, blocks(40, 40), 0).expect("exactly enough");
    assert_eq!(memory.section(section(40)).expect("added").state, BlockState::Offline);
    assert_valid(&memory);
}

/// A machine whose kernel can get exactly so many frames, of boot memory or of a block that was added; some lie in caches.
fn left_with(pages: u64, is_added: bool) -> Memory<Fake> {
    let memory = booted();
    let mut singles = exhaust(&memory, blocks(0, 1), Urgency::Ordinary);
    if is_added {
        plug(&memory, 0, blocks(32, 32), 0);
        memory.online(&[blocks(32, 32)], NORMAL, &mut Unhurried).expect("offline");
        singles = exhaust(&memory, blocks(32, 32), Urgency::Ordinary);
    }
    singles[..pages as usize].iter().for_each(|pfn| memory.free(*pfn, Order::PAGE));
    assert_eq!(kernel_available(&memory), pages);
    memory
}

fn bulk(order: Order, mobility: Mobility) -> Request {
    Request { order, mobility, urgency: Urgency::Bulk, ..Request::kernel(Owner::Kfill) }
}

#[test]
fn bulk_users_leave_the_kernel_its_frames_whatever_they_ask_for() {
    for (is_added, mobility) in [false, true].into_iter().flat_map(|added| Mobility::ALL.map(|it| (added, it))) {
        for (left, spare) in [(KERNEL_PAGES - 2, 0), (KERNEL_PAGES, 0), (KERNEL_PAGES + 2, 2), (KERNEL_PAGES + 77, 77)]
        {
            let memory = left_with(left, is_added);
            for order in Order::all() {
                let request = bulk(order, mobility);
                if order.pages() > spare {
                    assert_eq!(memory.allocate(&request), Err(AllocError::OutOfMemory), "{left} {order:?}");
                    assert_eq!(memory.allocate_within(&request, blocks(0, 32)), Err(AllocError::OutOfMemory));
                }
            }
            let request = bulk(Order::PAGE, mobility);
            let taken = take_all(&memory, &request);
            assert_eq!((taken.len() as u64, kernel_available(&memory)), (spare, left - spare));
            taken.into_iter().for_each(|pfn| memory.free(pfn, Order::PAGE));
            let take = || memory.allocate_within(&request, blocks(0, 32)).ok();
            assert_eq!(std::iter::from_fn(take).count() as u64, spare);
            assert_eq!(kernel_available(&memory), left - spare);
            // The kernel itself has the rest, down to the reserve.
            let kernel = Request::kernel(Owner::Stack);
            assert_eq!(take_all(&memory, &kernel).len() as u64, left - spare);
            assert_valid(&memory);
        }
    }
}

#[test]
fn added_memory_that_nobody_has_touched_is_the_kernels_too() {
    let memory = left_with(0, false);
    assert_eq!(memory.allocate(&bulk(Order::PAGE, Mobility::Unmovable)), Err(AllocError::OutOfMemory));
    plug(&memory, 0, blocks(32, 32), 0);
    memory.online(&[blocks(32, 32)], NORMAL, &mut Unhurried).expect("offline");
    let all = kernel_available(&memory);
    let take = || memory.allocate(&bulk(Order::PAGE, Mobility::Unmovable)).ok();
    assert_eq!(std::iter::from_fn(take).count() as u64, all - KERNEL_PAGES);
    assert_eq!(kernel_available(&memory), KERNEL_PAGES);
    assert_valid(&memory);
}

#[test]
fn page_tables_lie_in_normal_zones_down_to_what_is_left_for_the_kernel() {
    for is_added in [false, true] {
        for left in KERNEL_PAGES - 2..=KERNEL_PAGES + 2 {
            let memory = left_with(left, is_added);
            plug(&memory, 1, blocks(40, 40), 0);
            memory.online(&[blocks(40, 40)], MOVABLE, &mut Unhurried).expect("offline");
            memory.drain_caches();
            let spare = left.saturating_sub(KERNEL_PAGES);
            let tables: Vec<_> = (0..5).map(|_| memory.allocate(&TABLE).expect("there is room")).collect();
            let in_normal = tables.iter().take_while(|pfn| memory.zone_of(**pfn) == Some(ZoneKind::Normal)).count();
            assert_eq!((in_normal as u64, kernel_available(&memory)), (spare, left - spare));
            assert!(tables[in_normal..].iter().all(|pfn| memory.zone_of(*pfn) == Some(ZoneKind::Movable)));
            tables.into_iter().for_each(|pfn| memory.free(pfn, Order::PAGE));
            assert_eq!(kernel_available(&memory), left);
            assert_valid(&memory);
        }
    }
}

#[test]
fn movable_memory_can_be_used_to_its_end_with_page_tables_in_it() {
    let memory = left_with(KERNEL_PAGES, false);
    plug(&memory, 1, blocks(40, 41), 0);
    memory.online(&[blocks(40, 41)], MOVABLE, &mut Unhurried).expect("offline");
    let free = || (memory.memory_report().available - memory.memory_report().kernel_available) / PAGE_SIZE;
    let (all, mut taken, mut tables) = (free(), 0, 0);
    let page = Request { owner: Owner::Anonymous, ..bulk(Order::PAGE, Mobility::Movable) };
    while taken + tables < all {
        if taken % Order::PAGEBLOCK.pages() == 0 && tables == taken / Order::PAGEBLOCK.pages() {
            memory.allocate(&TABLE).expect("there is room");
            tables += 1;
        } else {
            memory.allocate(&page).expect("there is room");
            taken += 1;
        }
    }
    assert_eq!((free(), kernel_available(&memory)), (0, KERNEL_PAGES));
    for request in [page, TABLE] {
        assert_eq!(memory.allocate(&request), Err(AllocError::OutOfMemory));
    }
    assert_valid(&memory);
}
