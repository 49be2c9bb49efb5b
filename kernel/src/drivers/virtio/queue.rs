//! A split virtqueue (virtio 1.2 §2.7) in one page, with one request at a time: a buffer that the device reads, and behind it
//! one that it writes.
//!
//! With one request there is nothing to be kept in order, and nothing that an answer could be mistaken for: the descriptors
//! stay where they are, and every word that the device writes has one right value.

use super::Trouble;
use super::shared::SharedPage;
use core::sync::atomic::{Ordering, fence};

/// Descriptors of a queue; a device may want fewer.
const SIZE_MAX: u16 = 8;
/// Of a request.
const DESCRIPTORS: u16 = 2;

// Where everything lies in the page, each on a multiple of what it needs (§2.7).
const TABLE: usize = 0;
const DESCRIPTOR_BYTES: usize = 16;
const AVAILABLE: usize = 0x100;
const USED: usize = 0x200;
const REQUEST: usize = 0x300;
const ANSWER: usize = 0x380;

/// The longest request, in words of 32 bits.
const REQUEST_WORDS: usize = (ANSWER - REQUEST) / 4;
/// The longest answer, in words of 16 bits.
const ANSWER_WORDS: usize = 8;

/// Flags of a descriptor: another one follows; the device writes it.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// Of either ring.
const INDEX: usize = 2;
const RING: usize = 4;

const _: () = assert!(TABLE + SIZE_MAX as usize * DESCRIPTOR_BYTES <= AVAILABLE);
const _: () = assert!(AVAILABLE + RING + 2 * SIZE_MAX as usize + 2 <= USED);
const _: () = assert!(USED + RING + 8 * SIZE_MAX as usize + 2 <= REQUEST);
const _: () = assert!(ANSWER + 2 * ANSWER_WORDS <= 4096);

/// The queue; what it does not hold itself, the device may change.
pub(super) struct Queue<S> {
    page: S,
    size: u16,
    /// How many requests have been made, and how many answers have been seen. Both count around at 2^16, as the device does.
    made: u16,
    seen: u16,
}

impl<S: SharedPage> Queue<S> {
    /// An empty queue in a page of zeros, for a device that takes at most `limit` descriptors.
    pub(super) fn new(page: S, limit: u16) -> Result<Self, Trouble> {
        let size = (1..=limit.min(SIZE_MAX)).rev().find(|size| size.is_power_of_two());
        let size = size.filter(|size| *size >= DESCRIPTORS).ok_or(Trouble::NoQueue)?;
        Ok(Self { page, size, made: 0, seen: 0 })
    }

    pub(super) const fn size(&self) -> u16 {
        self.size
    }

    /// Where the descriptors are, the available ring, and the used one.
    pub(super) fn places(&self) -> [u64; 3] {
        [TABLE, AVAILABLE, USED].map(|at| self.page.address() + at as u64)
    }

    /// Makes a request, to which the answer has at most so many words; the one before has been answered.
    pub(super) fn ask(&mut self, request: &[u32], answer_words: usize) {
        assert!(self.made == self.seen && request.len() <= REQUEST_WORDS && answer_words <= ANSWER_WORDS);
        for (n, word) in request.iter().enumerate() {
            self.page.write_u32(REQUEST + 4 * n, *word);
        }
        self.describe(0, REQUEST, 4 * request.len(), NEXT, 1);
        self.describe(1, ANSWER, 2 * answer_words, WRITE, 0);
        let slot = usize::from(self.made % self.size);
        self.page.write_u16(AVAILABLE + RING + 2 * slot, 0);
        self.made = self.made.wrapping_add(1);
        // What the index makes available has been written (§2.7.13).
        fence(Ordering::SeqCst);
        self.page.write_u16(AVAILABLE + INDEX, self.made);
        // The device looks after it has been told, and finds the index.
        fence(Ordering::SeqCst);
    }

    /// The answer, of at most `words` words, if it is there.
    pub(super) fn answer(&mut self, words: usize) -> Result<Option<[u16; ANSWER_WORDS]>, Trouble> {
        let used = self.page.read_u16(USED + INDEX).wrapping_sub(self.seen);
        if used == 0 {
            return Ok(None);
        }
        if used != 1 || self.made == self.seen {
            return Err(Trouble::Index { used });
        }
        // What the index speaks of has been written.
        fence(Ordering::SeqCst);
        let slot = USED + RING + 8 * usize::from(self.seen % self.size);
        let (head, len) = (self.page.read_u32(slot), self.page.read_u32(slot + 4));
        if head != 0 {
            return Err(Trouble::Head(head));
        }
        if !(2..=2 * words as u32).contains(&len) {
            return Err(Trouble::Length(len));
        }
        self.seen = self.made;
        let mut answer = [0; ANSWER_WORDS];
        for (n, word) in answer.iter_mut().enumerate().take(len as usize / 2) {
            *word = self.page.read_u16(ANSWER + 2 * n);
        }
        Ok(Some(answer))
    }

    fn describe(&mut self, number: usize, buffer: usize, bytes: usize, flags: u16, next: u16) {
        let at = TABLE + DESCRIPTOR_BYTES * number;
        let address = self.page.address() + buffer as u64;
        self.page.write_u32(at, address as u32);
        self.page.write_u32(at + 4, (address >> 32) as u32);
        self.page.write_u32(at + 8, bytes as u32);
        self.page.write_u16(at + 12, flags);
        self.page.write_u16(at + 14, next);
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
