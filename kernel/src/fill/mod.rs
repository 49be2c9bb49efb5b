//! Memory that is really used: every page has content of its own, which can be checked.
#![deny(unsafe_code)]

mod content;
mod source;

pub(crate) use source::{LEFT_FREE, Source, TakeError, kernel_is_short};

use crate::memory::FrameList;
use crate::task;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use mm::addr::PAGE_SIZE;
use mm::machine::{Pace, Stop};
use thiserror::Error;

/// Pages handled between two looks at what else there is to do.
const BATCH: u64 = 64;

/// Memory with content; freed when dropped.
pub(crate) struct Fill {
    /// What the content follows from.
    key: u64,
    frames: FrameList,
    _counted: Counted,
}

/// Pages of all fills.
static FILLED: AtomicU64 = AtomicU64::new(0);

/// How many bytes all fills hold.
pub(crate) fn filled_bytes() -> u64 {
    FILLED.load(Relaxed) * PAGE_SIZE
}

/// So many pages of a fill, counted among all while it exists.
struct Counted(u64);

impl Counted {
    fn new(pages: u64) -> Self {
        FILLED.fetch_add(pages, Relaxed);
        Self(pages)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        FILLED.fetch_sub(self.0, Relaxed);
    }
}

/// Why a fill could not be said to be as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum CheckError {
    #[error("page {page} is not what was written, at address {address:#x}")]
    Wrong { page: u64, address: u64 },
    #[error("{0}")]
    Stopped(Stop),
}

impl Fill {
    /// Writes to every page of `frames`.
    pub(crate) fn write(key: u64, mut frames: FrameList, pace: &mut dyn Pace) -> Result<Self, Stop> {
        let mut pages = 0;
        frames.try_for_each(|block| {
            for page in block.bytes_mut().as_chunks_mut().0 {
                content::write(key, pages, page);
                pages += 1;
                if pages % BATCH == 0 {
                    pace.pause()?;
                }
            }
            Ok(())
        })?;
        let counted = Counted::new(frames.page_count());
        Ok(Self { key, frames, _counted: counted })
    }

    pub(crate) const fn key(&self) -> u64 {
        self.key
    }

    pub(crate) const fn size_bytes(&self) -> u64 {
        self.frames.page_count() * PAGE_SIZE
    }

    /// Checks every byte.
    pub(crate) fn check(&mut self, pace: &mut dyn Pace) -> Result<(), CheckError> {
        let mut pages = 0;
        self.frames.try_for_each(|block| {
            for (place, page) in block.bytes().as_chunks().0.iter().enumerate() {
                if let Some(offset) = content::first_difference(self.key, pages, page) {
                    let address = block.head().address() + place as u64 * PAGE_SIZE + offset as u64;
                    return Err(CheckError::Wrong { page: pages, address });
                }
                pages += 1;
                if pages % BATCH == 0 {
                    pace.pause().map_err(CheckError::Stopped)?;
                }
            }
            Ok(())
        })
    }

    /// Gives the memory back while others run.
    pub(crate) fn free(&mut self) {
        let mut blocks = 0;
        while let Some(block) = self.frames.pop() {
            drop(block);
            blocks += 1;
            if blocks % BATCH == 0 {
                task::yield_now();
            }
        }
    }
}
