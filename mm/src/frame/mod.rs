//! What struct pages say: of a frame, of an allocated block, of a pageblock.

pub(crate) mod list;
pub mod memmap;
pub mod mobility;
pub mod page;
pub(crate) mod pageblock;
pub mod pageblock_set;
