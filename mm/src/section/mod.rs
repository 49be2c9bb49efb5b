//! What is known of a section: one word each, and the group that it came with.

pub mod altmap;

pub mod group;
pub mod kind;
pub mod state;
pub mod table;
pub mod word;
pub mod zone_border;
