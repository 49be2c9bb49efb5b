//! The allocators, each behind [`Frames`](crate::frames::Frames).

mod altmap;
mod bitmap;
mod buddy_system;
mod frame_alloc;
mod free_list;

pub(crate) use altmap::{Altmap, Cpus, One};
pub(crate) use bitmap::Bitmap;
pub(crate) use buddy_system::BuddySystem;
pub(crate) use frame_alloc::FrameAlloc;
pub(crate) use free_list::Ranges;
