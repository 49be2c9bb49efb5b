//! Devices, one file each.
#![deny(unsafe_code)]

pub(crate) mod console;
pub(crate) mod dimm;
pub(crate) mod fw_cfg;
pub(crate) mod pci;
pub(crate) mod virtio;
