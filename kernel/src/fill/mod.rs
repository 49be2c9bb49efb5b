//! Memory that is really used: every page has content of its own, which can be checked.
//!
//! | file | what |
//! |---|---|
//! | [`anonymous`] | a fill in an address space: it moves, and can be pinned |
//! | [`kernel`], [`source`] | a fill of frames of the kernel's own, and where they come from |
//! | [`content`] | what is written, so that every wrong byte can be told |
//! | [`share`], [`writers`] | what a writer has written when, and the tasks that do it |
//! | [`registry`] | the fills of the shell, by number |
//! | [`mod@change`] | whether one is just being taken or given back |
//! | [`error`] | why something was not done |
#![deny(unsafe_code)]

mod anonymous;
mod change;
mod content;
mod error;
mod kernel;
pub(crate) mod registry;
mod share;
mod source;
mod writers;

pub(crate) use anonymous::{Pinned, Taken};
pub(crate) use change::{change, changes};
pub(crate) use error::{CheckError, FreeError, PinFailure, TakeError};
pub(crate) use source::Source;
pub(crate) use writers::WRITERS_MAX;

use crate::memory::FrameList;
use crate::vm::PinMode;
use anonymous::{AnonymousFill, View};
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use kernel::KernelFill;
use mm::addr::PAGE_SIZE;
use mm::machine::tasks::Pace;

/// Pages handled between two looks at what else there is to do.
const BATCH: u64 = 64;

/// Memory with content; given back, while others run, when dropped.
pub(crate) struct Fill {
    memory: Memory,
    counted: Counted,
}

enum Memory {
    Anonymous(AnonymousFill),
    Kernel(KernelFill),
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

impl Fill {
    /// Writes to every page of an address space; `writers` tasks keep changing them. The content follows from `id`, which
    /// also names the tasks.
    pub(crate) fn anonymous(id: u64, taken: Taken, writers: u64, pace: &mut dyn Pace) -> Result<Self, TakeError> {
        let fill = AnonymousFill::write(id, taken, writers, pace)?;
        Ok(Self { counted: Counted::new(fill.page_count()), memory: Memory::Anonymous(fill) })
    }

    /// Writes to every page of the kernel's own. The content follows from `id`.
    pub(crate) fn kernel(id: u64, frames: FrameList, pace: &mut dyn Pace) -> Result<Self, TakeError> {
        let fill = KernelFill::write(id, frames, pace)?;
        Ok(Self { counted: Counted::new(fill.page_count()), memory: Memory::Kernel(fill) })
    }

    pub(crate) const fn size_bytes(&self) -> u64 {
        self.counted.0 * PAGE_SIZE
    }

    /// Checks every byte.
    pub(crate) fn check(&mut self, pace: &mut dyn Pace) -> Result<(), CheckError> {
        match &mut self.memory {
            Memory::Anonymous(fill) => fill.check(pace),
            Memory::Kernel(fill) => fill.check(pace),
        }
    }

    /// Pins a page, or all of them, once more.
    ///
    /// # Errors
    /// Not all that was asked for can be pinned, and nothing more is than before. What had to be moved for it may have been.
    pub(crate) fn pin(&self, page: Option<u64>, how: PinMode, pace: &mut dyn Pace) -> Result<Pinned, PinFailure> {
        let (fill, pages) = self.pinnable(page)?;
        fill.pin(pages, how, pace)
    }

    /// Gives up a pin of a page, or one of each; says of how many.
    pub(crate) fn unpin(&self, page: Option<u64>) -> Result<u64, PinFailure> {
        let (fill, pages) = self.pinnable(page)?;
        let count = pages.end - pages.start;
        fill.unpin(pages).map(|()| count)
    }

    fn pinnable(&self, page: Option<u64>) -> Result<(&AnonymousFill, Range<u64>), PinFailure> {
        let Memory::Anonymous(fill) = &self.memory else { return Err(PinFailure::Kernel) };
        let count = fill.page_count();
        match page {
            None => Ok((fill, 0..count)),
            Some(page) if page < count => Ok((fill, page..page + 1)),
            Some(page) => Err(PinFailure::NoPage { page, count }),
        }
    }

    /// Whether somebody has pinned a page of it.
    pub(crate) fn is_pinned(&self) -> bool {
        matches!(&self.memory, Memory::Anonymous(fill) if fill.is_pinned())
    }

    fn view(&self) -> Option<View> {
        match &self.memory {
            Memory::Anonymous(fill) => Some(fill.view()),
            Memory::Kernel(_) => None,
        }
    }
}
