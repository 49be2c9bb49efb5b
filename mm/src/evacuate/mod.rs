//! Getting what lies in memory that shall go elsewhere: what is there, whether there is room for it, and the moving.

pub(crate) mod budget;
pub mod content;
pub mod evacuation;
pub mod moving;
pub(crate) mod pin;
