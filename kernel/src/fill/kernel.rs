//! Kernel memory with content: nobody but its owner knows where it lies, so it stays there.

use super::content::Stamp;
use super::{BATCH, CheckError, TakeError};
use crate::memory::FrameList;
use crate::task;
use mm::addr::PAGE_SIZE;
use mm::machine::tasks::Pace;

/// Frames of the kernel's own; freed when dropped.
pub(super) struct KernelFill {
    key: u64,
    frames: FrameList,
}

impl KernelFill {
    /// Writes to every page of `frames`.
    pub(super) fn write(key: u64, mut frames: FrameList, pace: &mut dyn Pace) -> Result<Self, TakeError> {
        let mut pages = 0;
        frames.try_for_each(|block| {
            for page in block.bytes_mut().as_chunks_mut::<{ PAGE_SIZE as usize }>().0 {
                for (word, bytes) in Stamp::first(key, pages).words().zip(page.as_chunks_mut().0) {
                    *bytes = word.to_le_bytes();
                }
                pages += 1;
                if pages % BATCH == 0 {
                    pace.pause().map_err(TakeError::Stopped)?;
                }
            }
            Ok(())
        })?;
        Ok(Self { key, frames })
    }

    pub(super) const fn page_count(&self) -> u64 {
        self.frames.page_count()
    }

    pub(super) fn check(&mut self, pace: &mut dyn Pace) -> Result<(), CheckError> {
        let mut pages = 0;
        self.frames.try_for_each(|block| {
            for (place, page) in block.bytes().as_chunks::<{ PAGE_SIZE as usize }>().0.iter().enumerate() {
                let held = page.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
                if let Some(offset) = Stamp::first(self.key, pages).first_difference(held) {
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
}

impl Drop for KernelFill {
    /// Gives the memory back while others run.
    fn drop(&mut self) {
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
