//! Devices, one file each.
#![deny(unsafe_code)]

pub(crate) mod console;
pub(crate) mod dimm;
pub(crate) mod fw_cfg;
pub(crate) mod pci;
#[cfg_attr(not(test), expect(dead_code, reason = "nobody drives a device yet"))]
pub(crate) mod virtio;
