//! Who uses a space while its pages move.
#![deny(unsafe_code)]

use crate::task;
use crate::vm::AddressSpace;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

/// Tasks that add to words of their own in every page of a space until this is stopped.
pub(super) struct Writers {
    stop: Arc<AtomicBool>,
    /// What each has added to each page.
    rounds: Vec<Arc<AtomicU64>>,
    tasks: Vec<task::TaskId>,
    pages: u64,
}

impl Writers {
    pub(super) fn start(space: &Arc<AddressSpace>, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let pages = space.page_count();
        let mut writers = Self { stop, rounds: Vec::new(), tasks: Vec::new(), pages };
        for own in 0..count {
            let rounds = Arc::new(AtomicU64::new(0));
            writers.rounds.push(Arc::clone(&rounds));
            let (stop, space) = (Arc::clone(&writers.stop), Arc::clone(space));
            writers.tasks.push(task::spawn("writer", move || {
                let entered = space.enter();
                while !stop.load(SeqCst) {
                    for page in 0..pages {
                        let word = &entered.words(page)[own * 64];
                        // Not in one step: a write between the two that goes to an old frame is lost.
                        word.store(word.load(Relaxed) + 1, Relaxed);
                    }
                    rounds.fetch_add(1, SeqCst);
                }
            }));
        }
        writers
    }

    /// Waits until every writer has gone through all pages once more.
    pub(super) fn wait_for_round(&self) {
        for rounds in &self.rounds {
            let before = rounds.load(SeqCst);
            while rounds.load(SeqCst) == before {
                task::yield_now();
            }
        }
    }

    /// Stops them and checks what they have written.
    #[track_caller]
    pub(super) fn finish(self, space: &Arc<AddressSpace>) {
        self.stop.store(true, SeqCst);
        self.tasks.into_iter().for_each(task::wait_for_end);
        let entered = space.enter();
        for page in 0..self.pages {
            for (own, rounds) in self.rounds.iter().enumerate() {
                assert_eq!(entered.words(page)[own * 64].load(SeqCst), rounds.load(SeqCst), "page {page}");
            }
        }
    }
}
