//! Data that the verbs keep: who is asked, what was done, what is set, who works where.

pub mod journal;
pub mod notifier;
pub mod policy;
pub(crate) mod promise;
pub(crate) mod range_lock;
