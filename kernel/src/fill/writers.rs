//! Tasks that keep changing a fill, page by page, until it is freed.

use super::TakeError;
use super::share::{Share, Wrong};
use crate::sync::Mutex;
use crate::task::{self, TaskId};
use crate::vm::AddressSpace;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// How many writers a fill may have.
pub(crate) const WRITERS_MAX: u64 = 16;

/// Pages that all writers of a fill together write before they rest: a fraction of what one CPU can do meanwhile, also where
/// an emulator plays the CPU.
const PAGES_PER_TURN: u64 = 64;

/// How long they rest.
const REST: Duration = Duration::from_millis(5);

/// The pages of a fill, dealt out to its writers. Each share is locked while one of its pages is written or checked, so that
/// whoever looks sees a whole one.
pub(super) type Shares = Arc<Vec<Mutex<Share>>>;

/// Tasks; they have ended when this is dropped.
pub(super) struct Writers(Vec<TaskId>);

impl Writers {
    /// Starts one for each of the first `count` shares.
    pub(super) fn start(id: u64, space: &Arc<AddressSpace>, shares: &Shares, count: u64) -> Result<Self, TakeError> {
        let mut writers = Self(Vec::new());
        for number in 0..count {
            let (space, shares) = (Arc::clone(space), Arc::clone(shares));
            let write = move || write(id, &space, &shares[number as usize], PAGES_PER_TURN / count);
            let task = task::try_spawn(&format!("fill {id} writer {number}"), write);
            writers.0.push(task.map_err(TakeError::NoWriter)?);
        }
        Ok(writers)
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        for task in &self.0 {
            task::cancel(*task);
        }
        for task in &self.0 {
            task::wait_for_end(*task);
        }
    }
}

/// What the task of a writer does: it ends when it is told to, or finds something else than it had written.
fn write(id: u64, space: &Arc<AddressSpace>, share: &Mutex<Share>, pages_per_turn: u64) {
    let entered = space.enter();
    while task::sleep_cancellable(REST).is_ok() {
        for _ in 0..pages_per_turn {
            let mut share = share.lock();
            let page = share.next();
            if let Err(Wrong { page, offset }) = share.write_next(entered.words(page)) {
                log::error!(target: "fill", "page {page} of fill {id} is not as its writer left it, at offset {offset:#x}");
                return;
            }
            drop(share);
            if task::cancelled() {
                return;
            }
            task::yield_now();
        }
    }
}
