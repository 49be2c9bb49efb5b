//! What the machine does for `mm`: its seams, and boot memory handed to it. It needs tasks, so it lies above them.
//!
//! | file | what |
//! |---|---|
//! | [`machine`] | struct pages, page tables, clock and locks, as `mm` asks for them |
//! | [`mover`] | who moves the memory of which owner |
//! | [`keeper`] | the task that opens and closes sections for `mm` |
//! | [`mod@start`] | what `mm` is given before it owns memory |
//! | [`boot_blocks`], [`kernelcore`] | boot memory handed to `mm`, and where Movable begins in it |
//! | [`kept`] | what became of the RAM that the boot loader reports |

mod boot_blocks;
mod keeper;
mod kept;
mod kernelcore;
mod machine;
pub(crate) mod mover;
mod start;

pub(crate) use keeper::start_keeper;
pub(crate) use kept::{Fate, fates};
pub(crate) use kernelcore::{Amount, KernelCore};
pub(crate) use start::{hidden, start, windows};
