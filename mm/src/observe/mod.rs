//! Looking without changing: reports for people, and the recount of everything.

pub mod report;
pub mod validate;
