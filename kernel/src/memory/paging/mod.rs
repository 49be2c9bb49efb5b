//! Page tables of our own, and what is mapped by them.
//!
//! | file | what |
//! |---|---|
//! | [`entry`], [`tree`] | one entry, and the walk |
//! | [`editor`] | how tables are edited, in bounded steps |
//! | [`plan`], [`vmemmap`], [`ranges`] | mapping sections and their struct pages: which tables, and whose they are |
//! | [`shared_tables`] | page tables that two sections share |
//! | [`tables`], [`boot_map`] | the tables in use, and how the first were built |
//! | [`space_tree`] | the page tables of address spaces |
//! | [`devices`] | registers of devices and tables of the firmware, made visible |
//! | [`low`] | pages in which other CPUs begin |
//! | [`mod@inspect`] | looking at what is mapped |

pub(crate) mod boot_map;
pub(crate) mod devices;
pub(crate) mod editor;
pub(crate) mod entry;
#[cfg(test)]
mod fake_tables;
pub(crate) mod inspect;
pub(crate) mod low;
pub(crate) mod plan;
pub(crate) mod ranges;
pub(crate) mod shared_tables;
pub(crate) mod space_tree;
pub(crate) mod tables;
pub(crate) mod tree;
pub(crate) mod vmemmap;
