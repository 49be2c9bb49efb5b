//! The queue against a device side that somebody else wrote, and against devices that lie.

use super::*;
use std::cell::RefCell;
use std::rc::Rc;
use virtio_queue::{Queue as DeviceQueue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// A page in the memory of a guest.
struct Page {
    memory: Rc<GuestMemoryMmap>,
    start: u64,
}

impl SharedPage for Page {
    fn address(&self) -> u64 {
        self.start
    }

    fn read_u16(&self, at: usize) -> u16 {
        self.memory.read_obj(GuestAddress(self.start + at as u64)).expect("inside")
    }

    fn read_u32(&self, at: usize) -> u32 {
        self.memory.read_obj(GuestAddress(self.start + at as u64)).expect("inside")
    }

    fn write_u16(&mut self, at: usize, value: u16) {
        self.memory.write_obj(value, GuestAddress(self.start + at as u64)).expect("inside");
    }

    fn write_u32(&mut self, at: usize, value: u32) {
        self.memory.write_obj(value, GuestAddress(self.start + at as u64)).expect("inside");
    }
}

#[test]
fn another_device_side_understands_every_request_and_is_understood() {
    for limit in [2, 3, 8, 128] {
        let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("memory");
        let memory = Rc::new(memory);
        let mut queue = Queue::new(Page { memory: Rc::clone(&memory), start: 0x7000 }, limit).expect("large enough");
        let [table, available, used] = queue.places();
        let mut device = DeviceQueue::new(128).expect("a size");
        device.set_size(queue.size());
        device.set_desc_table_address(Some(table as u32), Some(0));
        device.set_avail_ring_address(Some(available as u32), Some(0));
        device.set_used_ring_address(Some(used as u32), Some(0));
        device.set_ready(true);
        assert!(device.is_valid(&*memory));
        // More often than the index counts.
        for n in 0..70_000_u32 {
            assert_eq!(queue.answer(5), Ok(None));
            queue.ask(&[n, !n, 7], 5);
            assert_eq!(queue.answer(5), Ok(None));
            let mut chain = device.pop_descriptor_chain(&*memory).expect("a request");
            let head = chain.head_index();
            let (request, answer) = (chain.next().expect("a request"), chain.next().expect("room for an answer"));
            assert!(chain.next().is_none() && !request.is_write_only() && answer.is_write_only());
            assert_eq!((request.len(), answer.len()), (12, 10));
            assert_eq!(memory.read_obj::<[u32; 3]>(request.addr()).expect("inside"), [n, !n, 7]);
            memory.write_obj([n as u16, 2, 3, 4, 5], answer.addr()).expect("inside");
            device.add_used(&*memory, head, 10).expect("a used ring");
            assert_eq!(queue.answer(5), Ok(Some([n as u16, 2, 3, 4, 5, 0, 0, 0])));
        }
        assert!(device.pop_descriptor_chain(&*memory).is_none());
    }
}

#[test]
fn a_device_that_takes_too_few_descriptors_has_no_queue() {
    for limit in [0, 1] {
        assert_eq!(Queue::new(plain(), limit).err(), Some(Trouble::NoQueue));
    }
}

/// A page without anybody else.
#[derive(Clone)]
struct Plain(Rc<RefCell<[u8; 4096]>>);

fn plain() -> Plain {
    Plain(Rc::new(RefCell::new([0; 4096])))
}

impl SharedPage for Plain {
    fn address(&self) -> u64 {
        0x5_0000_0000
    }

    fn read_u16(&self, at: usize) -> u16 {
        let page = self.0.borrow();
        u16::from_le_bytes([page[at], page[at + 1]])
    }

    fn read_u32(&self, at: usize) -> u32 {
        u32::from(self.read_u16(at + 2)) << 16 | u32::from(self.read_u16(at))
    }

    fn write_u16(&mut self, at: usize, value: u16) {
        self.0.borrow_mut()[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn write_u32(&mut self, at: usize, value: u32) {
        self.0.borrow_mut()[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

#[test]
fn what_a_lying_device_writes_is_an_answer_or_trouble_and_nothing_else() {
    const CASES: u32 = 1_200_000;
    let mut random = fastrand::Rng::with_seed(1);
    let (mut answers, mut troubles) = (0, 0);
    let mut page = plain();
    let mut queue = Queue::new(page.clone(), 8).expect("large enough");
    for _ in 0..CASES {
        if queue.made == queue.seen {
            queue.ask(&[random.u32(..); 6], 5);
        }
        // What it may write at all: mostly what could be right, sometimes anything, anywhere in what it is told of.
        let slot = USED + RING + 8 * usize::from(random.u16(..8));
        let right = USED + RING + 8 * usize::from(queue.seen % queue.size);
        let index = queue.seen.wrapping_add(random.choice([0, 1, 1, 1, 2, 8, 0x8000, u16::MAX]).expect("some"));
        page.write_u16(USED + INDEX, index);
        page.write_u32(if random.bool() { right } else { slot }, random.choice([0, 0, 1, u32::MAX]).expect("some"));
        page.write_u32(right + 4, random.choice([10, 10, 2, 0, 1, 11, u32::MAX]).expect("some"));
        page.write_u16(random.usize(0..2047) * 2, random.u16(..));
        let before = (queue.made, queue.seen);
        match queue.answer(5) {
            Ok(None) => assert_eq!(page.read_u16(USED + INDEX), before.1),
            Ok(Some(_)) => {
                assert_eq!((page.read_u16(USED + INDEX), page.read_u32(right)), (before.0, 0));
                assert_eq!((queue.made, queue.seen), (before.0, before.0));
                answers += 1;
            }
            Err(_) => {
                assert_eq!((queue.made, queue.seen), before);
                troubles += 1;
            }
        }
    }
    assert!(answers > CASES / 20 && troubles > CASES / 4, "{answers} answers, {troubles} troubles");
}
