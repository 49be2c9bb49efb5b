//! Blocks of frames on a list that lives in their own struct pages, so that holding memory takes no memory.

use super::{OwnedFrames, mm};
use mm::addr::Pfn;
use mm::frame::memmap::Memmap;

/// What the owner's word says behind the last block.
const END: u64 = u64::MAX;

/// Blocks of frames in the order in which they were pushed; freed when dropped.
#[derive(Debug, Default)]
pub(crate) struct FrameList {
    /// The first and the last block.
    ends: Option<(Pfn, Pfn)>,
    page_count: u64,
}

impl FrameList {
    pub(crate) const fn new() -> Self {
        Self { ends: None, page_count: 0 }
    }

    /// How many frames are on the list.
    pub(crate) const fn page_count(&self) -> u64 {
        self.page_count
    }

    /// Puts a block at the end.
    pub(crate) fn push(&mut self, frames: OwnedFrames) {
        self.page_count += frames.order().pages();
        let head = frames.into_head();
        set_next(head, None);
        self.ends = match self.ends {
            Some((first, last)) => {
                set_next(last, Some(head));
                Some((first, head))
            }
            None => Some((head, head)),
        };
    }

    /// Takes the first block.
    pub(crate) fn pop(&mut self) -> Option<OwnedFrames> {
        let (first, last) = self.ends?;
        self.ends = next(first).map(|next| (next, last));
        // SAFETY: `push` gave it to the list, which has just let go of it.
        let frames = unsafe { OwnedFrames::from_head(first) };
        self.page_count -= frames.order().pages();
        Some(frames)
    }

    /// Shows every block to `each`, until it fails.
    pub(crate) fn try_for_each<E>(&mut self, mut each: impl FnMut(&mut OwnedFrames) -> Result<(), E>) -> Result<(), E> {
        let mut at = self.ends.map(|(first, _)| first);
        while let Some(head) = at {
            at = next(head);
            // SAFETY: `push` gave it to the list, which is not used until this gives it back; not even by a panic, which ends all.
            let mut frames = unsafe { OwnedFrames::from_head(head) };
            let result = each(&mut frames);
            // It stays on the list, which goes on owning it.
            frames.into_head();
            result?;
        }
        Ok(())
    }
}

impl Drop for FrameList {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

fn set_next(head: Pfn, next: Option<Pfn>) {
    mm().machine().page(head).set_private(next.map_or(END, Pfn::number));
}

fn next(head: Pfn) -> Option<Pfn> {
    match mm().machine().page(head).private() {
        END => None,
        number => Some(Pfn::new(number)),
    }
}
