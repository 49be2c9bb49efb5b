//! Devices, one file each.
#![deny(unsafe_code)]

pub(crate) mod console;
