//! The memory-hotplug subsystem: pure, without hardware.
#![no_std]
#![forbid(unsafe_code)]
