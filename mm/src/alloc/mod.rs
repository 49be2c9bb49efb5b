//! Taking frames and giving them back.

pub(crate) mod open;
pub mod request;
pub mod run;
mod sources;
pub mod take;
