//! What the operations ask of an allocator.

use std::ops::Range;

/// Frames of 4 KiB in a section, the piece of memory that comes and goes.
pub(crate) const SECTION_FRAMES: u64 = 32768;
/// Bytes in a section.
pub(crate) const SECTION_BYTES: u64 = SECTION_FRAMES << 12;

/// Takes the free ones of these frames out of the allocator's reach.
pub(crate) type TakeOut<F> = fn(&F, Range<u64>);

/// A frame allocator, called as a kernel would call it: by shared reference, so one that wants to be alone has a lock.
/// Frames are named by number, and not all allocators begin with the same one; memory is whole sections.
pub(crate) trait Frames: Sized {
    /// The name of the crate.
    const NAME: &'static str;
    /// Frames that are taken and freed in random order; less where one more makes all others dearer.
    const RANDOM_FRAMES: u64 = 1 << 20;
    /// How a section that is wholly free is taken out; `None` where there is no operation for it.
    const TAKE_FREE: Option<TakeOut<Self>> = None;
    /// How one is taken out half of which is in use.
    const TAKE_USED: Option<TakeOut<Self>> = None;

    /// Room to account for so many bytes, none of which are there yet.
    fn without_memory(bytes: u64) -> Self;

    /// Makes so many bytes allocatable, all at once.
    fn make_allocatable(&self, bytes: u64);

    /// An allocator for so many bytes.
    fn with_memory(bytes: u64) -> Self {
        let frames = Self::without_memory(bytes);
        frames.make_allocatable(bytes);
        frames
    }

    /// Takes 2^`order` frames.
    fn allocate(&self, order: u8) -> Option<u64>;

    /// Gives them back.
    fn free(&self, frame: u64, order: u8);
}
