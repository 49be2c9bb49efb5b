//! What one CPU pays for another one that does the same: next to nothing.

use crate::allocators::{Altmap, Cpus};
use crate::frames::{Frames, SECTION_BYTES};
use crate::runner::{Operation, Runner};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
}

/// Each thread says which it runs on.
struct ByThread;

impl Cpus for ByThread {
    const COUNT: usize = 2;

    #[inline]
    fn number() -> usize {
        CPU.get()
    }
}

/// The operations of one CPU that is alone, and of one that is not.
pub(crate) fn all(runner: &Runner) {
    let count = if runner.is_quick() { 128 } else { 4096 };
    let operation = |name| Operation { name, size: None, count };
    let memory = || Arc::new(Altmap::<ByThread>::with_memory(16 * SECTION_BYTES));
    let act = |memory: &Altmap<ByThread>| (0..count).for_each(|_| pair(memory));
    runner.repeat(operation("order-0 take + free, one of two CPUs"), memory, |memory| act(memory));
    runner.repeat(operation("order-0 take + free, both CPUs"), || Both::new(memory()), |both| act(&both.memory));
}

fn pair(memory: &Altmap<ByThread>) {
    let frame = memory.allocate(0).expect("almost everything is free");
    memory.free(frame, 0);
}

/// The other CPU takes and frees for as long as this lives.
struct Both {
    memory: Arc<Altmap<ByThread>>,
    is_done: Arc<AtomicBool>,
    other: Option<JoinHandle<()>>,
}

impl Both {
    fn new(memory: Arc<Altmap<ByThread>>) -> Self {
        let is_done = Arc::new(AtomicBool::new(false));
        let (its_memory, its_end) = (Arc::clone(&memory), Arc::clone(&is_done));
        let other = std::thread::spawn(move || {
            CPU.set(1);
            while !its_end.load(Ordering::Relaxed) {
                pair(&its_memory);
            }
        });
        Self { memory, is_done, other: Some(other) }
    }
}

impl Drop for Both {
    fn drop(&mut self) {
        self.is_done.store(true, Ordering::Relaxed);
        let ended = self.other.take().map(JoinHandle::join);
        assert!(ended.is_some_and(|ended| ended.is_ok()), "the other CPU does the same");
    }
}
