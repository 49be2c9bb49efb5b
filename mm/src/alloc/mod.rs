//! Taking frames and giving them back.
//!
//! | file | what |
//! |---|---|
//! | [`request`] | what a request says, and why it fails |
//! | `sources` | which zones serve which request, in what order: the fallback order |
//! | `watermark` | what must be left free for the kernel |
//! | [`take`] | the paths of one block: per-CPU page list, zone, the next source |
//! | `caches` | per-CPU page lists drained and counted |
//! | `open` | untouched sections opened when their frames are needed, and closed |
//! | `ahead` | sections opened before they are needed, for those who cannot have it done then |
//! | [`run`] | many frames in a row |
//! | `lookup` | the allocated block that a frame is part of |

pub(crate) mod ahead;
pub(crate) mod caches;
pub(crate) mod lookup;
pub(crate) mod open;
pub mod request;
pub mod run;
mod sources;
pub mod take;
pub(crate) mod watermark;
