//! The fills of the shell, by number.

use super::anonymous::View;
use super::{Fill, FreeError};
use crate::memory::mm;
use crate::sync::Mutex;
use crate::vm;
use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::addr::{Pfn, PfnRange};

/// A fill that somebody can name.
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) size_bytes: u64,
    /// Locked by whoever checks, pins or frees it; nothing once it is freed.
    fill: Mutex<Option<Fill>>,
    /// Also while somebody holds the lock above.
    view: Option<View>,
}

struct Registry {
    fills: Vec<Arc<Entry>>,
    next_id: u64,
}

static FILLS: Mutex<Registry> = Mutex::new(Registry { fills: Vec::new(), next_id: 1 });

/// A number that no fill had before.
pub(crate) fn next_id() -> u64 {
    let mut registry = FILLS.lock();
    registry.next_id += 1;
    registry.next_id - 1
}

/// Gives a fill the name that it was written for.
pub(crate) fn add(id: u64, fill: Fill) -> Arc<Entry> {
    let (size_bytes, view) = (fill.size_bytes(), fill.view());
    let entry = Arc::new(Entry { id, size_bytes, fill: Mutex::new(Some(fill)), view });
    FILLS.lock().fills.push(Arc::clone(&entry));
    entry
}

/// Every fill, oldest first.
pub(crate) fn all() -> Vec<Arc<Entry>> {
    FILLS.lock().fills.clone()
}

/// The fill of this number.
pub(crate) fn find(id: u64) -> Option<Arc<Entry>> {
    FILLS.lock().fills.iter().find(|entry| entry.id == id).cloned()
}

impl Entry {
    /// Works with the fill, when nobody else does; `None` if it was freed meanwhile.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Fill) -> R) -> Option<R> {
        self.fill.lock().as_mut().map(work)
    }

    /// Gives the fill back.
    pub(crate) fn free(&self) -> Result<(), FreeError> {
        // Whoever checks it now keeps it until the check is over.
        let mut place = self.fill.lock();
        if place.as_ref().is_some_and(Fill::is_pinned) {
            return Err(FreeError::Pinned);
        }
        let fill = place.take().ok_or(FreeError::Gone)?;
        FILLS.lock().fills.retain(|entry| entry.id != self.id);
        drop(fill);
        Ok(())
    }
}

/// A pin, for telling why memory stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) fill: u64,
    pub(crate) page: u64,
    pub(crate) since_ns: u64,
}

/// The oldest pin of the block that a frame is part of, if that is a part of a fill.
pub(crate) fn pin_of(frame: Pfn) -> Option<Pin> {
    let (head, order) = mm().frame_report(frame).block_head?;
    let pin = vm::pin_of(head, order)?;
    let frames = PfnRange::new(head, order.pages());
    let entry = all().into_iter().find(|entry| entry.view.as_ref().is_some_and(|view| view.has(pin.page, frames)))?;
    Some(Pin { fill: entry.id, page: pin.page, since_ns: pin.since_ns })
}
