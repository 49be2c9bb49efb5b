//! The four verbs that users know: add, online, offline, remove; [`BootSection`] and [`EmptyBootSections`], which are the same for
//! what is there already; and [`pieces`] of blocks, granted and withheld.
//!
//! A verb is a list of the six steps, each of which `steps` does and undoes. It does first everything that can fail, then
//! everything that cannot. What must be undone on the way is a guard that is dropped.

mod add;
mod batch;
mod boot;
mod device;
mod empty;
mod listeners;
mod offline;
mod online;
pub mod pieces;
pub mod preview;
mod relabel;
mod remove;
mod steps;
mod system_memmap;
mod undo;
pub mod zone_choice;

pub use add::{AddError, AddRequest};
pub use boot::{BootSection, BootUse, EmptyBootSections};
pub use offline::OfflineError;
pub use online::OnlineError;
pub use pieces::PieceError;
pub use relabel::RelabelError;
pub use remove::{RemoveError, UnplugError};
