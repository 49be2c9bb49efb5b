//! Taking frames and giving them back.

pub(crate) mod caches;
pub(crate) mod lookup;
pub(crate) mod open;
pub mod request;
pub mod run;
mod sources;
pub mod take;
pub(crate) mod watermark;
