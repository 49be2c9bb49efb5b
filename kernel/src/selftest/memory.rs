//! Page tables, heap, stacks and the memory of the machine.
#![deny(unsafe_code)]

use super::{Test, skip};
use crate::memory::{self, Fault, FrameList, OwnedFrames, inspect};
use crate::recount::recount;
use alloc::vec::Vec;
use mm::addr::{NodeId, Order, PAGE_SIZE, Pfn, PfnRange, SectionRange};
use mm::alloc::request::{Place, Request, Urgency};
use mm::frame::memmap::Memmap;
use mm::frame::mobility::Mobility;
use mm::frame::page::{MEMMAP_PAGES, Owner};
use mm::hotplug::AddRequest;
use mm::machine::mapper::{DirectMap, Mapper};
use mm::machine::tasks::Unhurried;
use mm::record::policy::OnlineAs;
use mm::section::group::{GroupKind, GroupName};
use mm::section::kind::Origin;
use mm::section::kind::ZoneKind;
use mm::site::Site;

pub(super) const TESTS: &[Test] = &[
    Test { name: "memory::the_direct_map_shows_all_boot_memory", run: the_direct_map_shows_all_boot_memory },
    Test { name: "memory::the_image_is_protected", run: the_image_is_protected },
    Test { name: "memory::the_lower_half_is_empty", run: the_lower_half_is_empty },
    Test { name: "memory::the_recount_agrees", run: the_recount_agrees },
    Test { name: "memory::a_memmap_is_mapped_and_unmapped", run: a_memmap_is_mapped_and_unmapped },
    Test { name: "memory::hidden_memory_comes_and_goes_without_a_trace", run: hidden_memory_comes_and_goes },
    Test { name: "memory::a_stack_has_a_guard_and_comes_back", run: a_stack_has_a_guard_and_comes_back },
    Test { name: "memory::frames_hold_what_was_written", run: frames_hold_what_was_written },
    Test { name: "memory::a_frame_list_costs_nothing", run: a_frame_list_costs_nothing },
    Test { name: "memory::a_probe_of_nothing_is_refused", run: a_probe_of_nothing_is_refused },
];

const REQUEST: Request = Request {
    order: Order::PAGEBLOCK,
    mobility: Mobility::Unmovable,
    place: Place::Near(NodeId::ZERO),
    owner: Owner::Selftest,
    urgency: Urgency::Ordinary,
    site: Site::here(),
};

fn free_pages() -> u64 {
    let mut free = 0;
    memory::mm().for_each_zone(|zone| free += zone.free);
    free
}

fn table_frames() -> u64 {
    memory::mm().machine().table_frames()
}

fn the_direct_map_shows_all_boot_memory() {
    let image = inspect(the_direct_map_shows_all_boot_memory as fn() as usize as u64).expect("this runs").physical;
    for (id, section) in memory::mm().blocks().filter(|(_, section)| section.origin == Origin::Boot) {
        let frames = id.pages();
        let mut seen = 0;
        for pfn in frames.iter().step_by(64) {
            let Some(mapping) = inspect(memory::direct_map_address(pfn.address())) else { continue };
            assert_eq!(mapping.physical, pfn.address());
            assert!(!mapping.is_executable && mapping.is_cached, "{pfn}: {mapping:?}");
            assert!(mapping.is_writable || pfn.address().abs_diff(image) < 64 << 20, "{pfn}: {mapping:?}");
            seen += 64;
        }
        let present = u64::from(section.present);
        assert!(seen + 64 * 8 >= present, "block {id} has {present} frames, {seen} are mapped");
    }
}

fn the_image_is_protected() {
    static DATA: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(1);
    const TEXT: &str = "read-only data";
    let rights = |address: usize| {
        let mapping = inspect(address as u64).expect("the image is mapped");
        (mapping.is_writable, mapping.is_executable)
    };
    let code = the_image_is_protected as fn() as usize;
    assert_eq!(rights(code), (false, true));
    assert_eq!(rights(TEXT.as_ptr().addr()), (false, false));
    assert_eq!(rights((&raw const DATA).addr()), (true, false));
    let alias = memory::direct_map_address(inspect(code as u64).expect("it is mapped").physical);
    let alias = inspect(alias).expect("the image lies in RAM");
    assert!(!alias.is_writable && !alias.is_executable, "{alias:?}");
}

fn the_lower_half_is_empty() {
    assert!(!memory::maps_lower_half());
}

fn the_recount_agrees() {
    let recount = recount();
    assert!(recount.is_ok(), "{recount}");
    assert_eq!(recount.totals().page_tables, table_frames());
}

/// On an address range that no memory can be at; nothing touches what the direct map shows there meanwhile.
fn a_memmap_is_mapped_and_unmapped() {
    let machine = memory::mm().machine();
    let range = SectionRange::new(4001, 3).expect("in reach");
    let before = (free_pages(), table_frames());
    machine.map_range(range, PfnRange::EMPTY, DirectMap::Present).expect("there is memory");
    let id = range.last();
    let frames: Vec<_> = (0..MEMMAP_PAGES)
        .map(|_| OwnedFrames::allocate(&Request { order: Order::PAGE, ..REQUEST }).expect("there is memory"))
        .collect();
    for (index, frame) in frames.iter().enumerate() {
        machine.map_memmap_page(id, index as u64, frame.head());
    }
    machine.clear(id.pages());
    for pfn in id.pages().iter() {
        assert_eq!(machine.page(pfn).private(), 0);
        machine.page(pfn).set_private(pfn.number());
    }
    let middle = PfnRange::new(id.pages().start().add(100), 1000);
    machine.clear(middle);
    let expected = |pfn: Pfn| if middle.contains(pfn) { 0 } else { pfn.number() };
    assert!(id.pages().iter().all(|pfn| machine.page(pfn).private() == expected(pfn)));
    for (index, frame) in frames.iter().enumerate() {
        assert_eq!(machine.unmap_memmap_page(id, index as u64), frame.head());
    }
    machine.settle_memmaps();
    drop(frames);
    machine.unmap_range(range);
    assert_eq!(inspect(memory::direct_map_address(id.address())), None);
    assert_eq!((free_pages(), table_frames()), before);
}

/// What `mem=` hid is added, used and removed, in every way.
fn hidden_memory_comes_and_goes() {
    let hidden = memory::host::hidden();
    if hidden.is_empty() {
        return skip("`mem=` hides nothing");
    }
    let mm = memory::mm();
    let policy = mm.policy();
    for hidden in hidden {
        let first = u64::from(hidden.first().number());
        // Three from the start share a table with their neighbour, and so does the last.
        let count = hidden.count();
        for (shift, count) in [(0, count.min(3)), (count - 1, 1)] {
            let range = SectionRange::new(first + shift, count).expect("a part of what is hidden");
            for zone in ZoneKind::ALL {
                for memmap_on_memory in [true, false] {
                    mm.set_policy(|policy| policy.memmap_on_memory = memmap_on_memory);
                    let before = (free_pages(), table_frames());
                    come_and_go(range, zone);
                    assert_eq!((free_pages(), table_frames()), before, "{range:?}");
                }
            }
        }
    }
    mm.set_policy(|changed| *changed = policy);
    the_recount_agrees();
}

fn come_and_go(range: SectionRange, zone: ZoneKind) {
    let mm = memory::mm();
    let first = memory::direct_map_address(range.first().address());
    assert_eq!(inspect(first), None);
    let request =
        AddRequest { range, node: NodeId::ZERO, name: GroupName { kind: GroupKind::Probe, number: u16::MAX } };
    mm.add(&request, &mut Unhurried).expect("there is room");
    let added = (free_pages(), table_frames());
    mm.online(&[range], OnlineAs::Zone(zone), &mut Unhurried).expect("nobody refuses");
    let movable = Request { mobility: Mobility::Movable, ..REQUEST };
    let mut blocks: Vec<_> = core::iter::from_fn(|| OwnedFrames::allocate_within(&movable, range).ok()).collect();
    for (value, block) in blocks.iter_mut().enumerate() {
        block.bytes_mut()[..8].copy_from_slice(&value.to_le_bytes());
    }
    assert!(blocks.iter().enumerate().all(|(value, block)| block.bytes()[..8] == value.to_le_bytes()));
    the_recount_agrees();
    drop(blocks);
    mm.offline(&[range], &mut Unhurried).expect("all of it is free");
    assert_eq!((free_pages(), table_frames()), added);
    mm.remove(&[request.name], &mut Unhurried).expect("it is offline");
    assert_eq!(inspect(first), None);
}

fn a_stack_has_a_guard_and_comes_back() {
    // The tables of the window stay, so the first round is not counted.
    drop(memory::alloc_stack());
    let before = (free_pages(), table_frames());
    let mut stack = memory::alloc_stack().expect("there is memory");
    stack.bytes().fill(0xa5);
    let (low, high) = stack.bounds();
    assert!(inspect(low as u64).is_some_and(|mapping| mapping.is_writable && !mapping.is_executable));
    assert_eq!(inspect(low as u64 - 1), None);
    assert_eq!(inspect(high as u64), None);
    drop(stack);
    assert_eq!(inspect(low as u64), None);
    assert_eq!((free_pages(), table_frames()), before);
}

fn frames_hold_what_was_written() {
    let before = free_pages();
    let mut blocks: Vec<_> = (0..4).map(|_| OwnedFrames::allocate(&REQUEST).expect("there is memory")).collect();
    for (value, block) in blocks.iter_mut().enumerate() {
        block.bytes_mut().fill(value as u8);
    }
    assert!(blocks.iter().enumerate().all(|(value, block)| block.bytes().iter().all(|byte| *byte == value as u8)));
    drop(blocks);
    assert_eq!(free_pages(), before);
}

fn a_frame_list_costs_nothing() {
    let (free, heap) = (free_pages(), memory::heap_used());
    let mut list = FrameList::new();
    for number in 0..5 {
        let order = Order::new(number % 3).expect("a small order");
        let mut frames = OwnedFrames::allocate(&Request { order, ..REQUEST }).expect("there is memory");
        frames.bytes_mut()[0] = number;
        list.push(frames);
    }
    assert_eq!(list.page_count(), 1 + 2 + 4 + 1 + 2);
    assert_eq!(free - free_pages(), list.page_count() * PAGE_SIZE);
    assert_eq!(memory::heap_used(), heap);
    let mut next = 0;
    let in_order: Result<(), u8> = list.try_for_each(|frames| {
        let seen = frames.bytes()[0];
        next += 1;
        if seen == next - 1 && seen < 4 { Ok(()) } else { Err(seen) }
    });
    assert_eq!(in_order, Err(4), "it stops where the closure says");
    assert_eq!(list.pop().expect("there are five").bytes()[0], 0);
    drop(list);
    assert_eq!(free_pages(), free);
}

fn a_probe_of_nothing_is_refused() {
    let frame = OwnedFrames::allocate(&REQUEST).expect("there is memory");
    assert_eq!(memory::read_probe(frame.head().address()), Ok(frame.bytes()[0]));
    let nowhere = 4001 << 27;
    assert_eq!(memory::read_probe(nowhere), Err(Fault::Unmapped(nowhere)));
    assert_eq!(memory::read_probe(1 << 46), Err(Fault::OutOfReach(1 << 46)));
    assert_eq!(memory::read_probe(u64::MAX), Err(Fault::OutOfReach(u64::MAX)));
}
