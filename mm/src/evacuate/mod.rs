//! Emptying memory by page migration: what lies there, whether there is room for it elsewhere, and the moving.

pub(crate) mod budget;
pub mod content;
pub mod evacuation;
pub mod moving;
pub(crate) mod pin;
