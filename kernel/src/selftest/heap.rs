//! The kernel heap: it gives back, grows, and moves under those who use it.
#![deny(unsafe_code)]

use super::fixture::memory_adds_up;
use super::kernel_frames::{leave_a_block, survives_an_error};
use super::{Test, skip};
use crate::memory::{self, inspect, mm};
use crate::task;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use mm::addr::{NodeId, Order, PAGE_SIZE, Pfn};
use mm::alloc::request::{Place, Request, Urgency};
use mm::frame::mobility::Mobility;
use mm::frame::page::Owner;
use mm::machine::mover::{Move, Mover, Stay};
use mm::observe::report::FrameState;
use mm::section::kind::ZoneKind;
use mm::section::word::Section;
use mm::site::Site;

/// A frame of the heap's.
const REQUEST: Request = Request {
    order: Order::PAGE,
    mobility: Mobility::Unmovable,
    place: Place::Near(NodeId::ZERO),
    owner: Owner::Heap,
    urgency: Urgency::Ordinary,
    site: Site::here(),
};

pub(super) const TESTS: &[Test] = &[
    Test { name: "heap::memory_comes_back", run: memory_comes_back },
    Test { name: "heap::it_grows", run: it_grows },
    Test { name: "heap::it_grows_by_more_than_is_open", run: it_grows_by_more_than_is_open },
    Test { name: "heap::it_moves_while_it_is_used", run: it_moves_while_it_is_used },
    Test { name: "heap::frames_leave_a_block_that_goes_offline", run: frames_leave_a_block },
    Test { name: "heap::a_frame_with_an_error_is_replaced", run: a_frame_with_an_error_is_replaced },
];

fn memory_comes_back() {
    let before = memory::heap_used();
    for round in 0..64 {
        let blocks: Vec<Vec<u8>> = (0..16).map(|block| alloc::vec![block; 8 * 1024]).collect();
        for (value, block) in blocks.iter().enumerate() {
            assert!(block.iter().all(|&byte| usize::from(byte) == value), "round {round}");
        }
        assert!(memory::heap_used() >= before + 16 * 8 * 1024, "round {round}");
    }
    assert_eq!(memory::heap_used(), before);
}

fn it_grows() {
    let before = memory::heap_size();
    let blocks: Vec<Vec<u64>> = (0..4).map(|block| alloc::vec![block; 96 << 10]).collect();
    assert!(memory::heap_size() >= before + (2 << 20));
    assert!(blocks.iter().zip(0..).all(|(block, value)| block.iter().all(|word| *word == value)));
    let used = memory::heap_used();
    drop(blocks);
    assert!(memory::heap_used() + (3 << 20) <= used);
    let absurd = Vec::<u8>::new().try_reserve(1 << 40);
    assert!(absurd.is_err(), "the heap cannot hold a terabyte");
}

fn it_grows_by_more_than_is_open() {
    const MORE: u64 = 8 << 20;
    let is_of_kernel = |(_, section): &(_, Section)| section.is_untouched() && section.may_hold_reserve();
    if mm().blocks().filter(is_of_kernel).count() < 2 {
        return skip("there is no boot memory to be opened");
    }
    let report = mm().memory_report();
    let wanted = report.free - report.untouched + MORE;
    let before = memory::heap_size();
    Vec::<u8>::new().try_reserve_exact(wanted as usize).expect("it has a block opened");
    assert!(memory::heap_size() >= before + MORE as usize);
    assert!(mm().memory_report().untouched < report.untouched);
    memory_adds_up();
}

fn it_moves_while_it_is_used() {
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    let users = [1, 2, 3].map(|seed| {
        task::spawn("user of the heap", move || {
            while !IS_OVER.load(SeqCst) {
                let numbers: Vec<_> = (0..200).map(|n| Box::new(n * seed)).collect();
                assert!(numbers.iter().zip(0..).all(|(number, n)| **number == n * seed));
            }
        })
    });
    let blocks: Vec<Vec<u64>> = (0..4).map(|block| alloc::vec![block; 96 << 10]).collect();
    let mut moved = 0;
    for block in &blocks {
        let range = block.as_ptr_range();
        // Some of them: every time all CPUs have to be had.
        for address in (range.start.addr() as u64..range.end.addr() as u64).step_by(8 * PAGE_SIZE as usize) {
            let before = frame(address);
            if can_move(before) {
                let to = mm().move_block(before, &REQUEST).expect("nobody else moves it");
                assert_eq!(frame(address), to);
                moved += 1;
            }
        }
    }
    moves_itself(&blocks[3]);
    IS_OVER.store(true, SeqCst);
    users.into_iter().for_each(task::wait_for_end);
    assert!(moved > 60, "{moved} frames have moved");
    assert!(blocks.iter().zip(0..).all(|(block, value)| block.iter().all(|word| *word == value)));
    memory_adds_up();
}

/// What is written to the heap by whoever moves it is in the new place: here, what becomes of each move.
fn moves_itself(block: &[u64]) {
    let mut moves: Vec<Move> = Vec::with_capacity(size_of_val(block) / size_of::<Move>());
    let pages = |start: u64, count: u64| (0..count).map(move |page| start + page * PAGE_SIZE);
    for address in pages(moves.as_ptr().addr() as u64, 4).chain(pages(block.as_ptr().addr() as u64, 20)) {
        let from = frame(address);
        if can_move(from) {
            let to = mm().allocate(&REQUEST).expect("there is memory");
            moves.push(Move { from, to, order: Order::PAGE, outcome: Err(Stay::InFlight) });
        }
    }
    assert!(moves.len() > 20, "most of the heap can move");
    mm().machine().migrate(&mut moves);
    for Move { from, outcome, .. } in moves {
        assert_eq!(outcome, Ok(()));
        mm().free(from, Order::PAGE);
    }
}

/// The frame behind an address of the heap.
fn frame(address: u64) -> Pfn {
    Pfn::containing(inspect(address).expect("the heap is mapped").physical)
}

/// What the heap had before there was an allocator stays where it is.
fn can_move(frame: Pfn) -> bool {
    mm().frame_report(frame).state == FrameState::Allocated
}

/// Words on the heap that count up whenever somebody looks at them.
struct Words {
    words: Vec<AtomicU64>,
    rounds: Cell<u64>,
}

impl Words {
    /// Half as many again as the heap can have from the start.
    fn new() -> Self {
        Self { words: (0..192 << 10).map(AtomicU64::new).collect(), rounds: Cell::new(0) }
    }

    /// Some of their frames that can move.
    fn frames(&self) -> Vec<Pfn> {
        let range = self.words.as_ptr_range();
        let addresses = (range.start.addr() as u64..range.end.addr() as u64).step_by(16 * PAGE_SIZE as usize);
        addresses.map(frame).filter(|frame| can_move(*frame)).collect()
    }

    fn count_up(&self) {
        let rounds = self.rounds.get();
        let is_right = |(word, n): (&AtomicU64, u64)| word.fetch_add(1, Relaxed) == n + rounds;
        assert!(self.words.iter().zip(0..).all(is_right), "after {rounds} rounds");
        self.rounds.set(rounds + 1);
        // Nor do its own links suffer, which lie beside them.
        drop((0..200).map(Box::new).collect::<Vec<_>>());
    }
}

fn frames_leave_a_block() {
    let words = Words::new();
    let frames = words.frames();
    assert!(frames.len() > 7, "{} frames", frames.len());
    leave_a_block(ZoneKind::Normal, &Request::kernel(Owner::Heap), &frames, || words.count_up());
}

fn a_frame_with_an_error_is_replaced() {
    let words = Words::new();
    let [.., bad] = words.frames()[..] else { panic!("it has frames that can move") };
    survives_an_error(bad, || {
        words.count_up();
        assert!(words.frames().len() > 7);
    });
    assert!(!words.frames().contains(&bad));
}
