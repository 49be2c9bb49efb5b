//! How the kernel is entered: one file for each way in. All of them produce [`BootFacts`], and the rest of the kernel knows
//! only these.
#![deny(unsafe_code)]

mod bootloader;
mod facts;
mod image;
mod map;
mod pvh;

pub(crate) use facts::{BootFacts, MemoryRegion, RegionKind, facts, keep};
pub(crate) use image::{boot_stack, symbol_table};
