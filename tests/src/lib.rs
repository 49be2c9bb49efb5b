//! What the QEMU tests need: a machine that boots altmap, its shell, its monitor, and a look at its memory.
//!
//! - [`mod@scenario`]: a test is a machine and what is done to it; every scenario ends with the same checks.
//! - [`vm`]: the running machine: shell commands, their refusals, and how it ends.
//! - [`dimms`]: plugging and unplugging, and what the guest answers to the firmware.
//! - [`resizing`]: virtio-mem devices, and how large they are on both sides.
//! - [`memory`]: what the guest says of its memory, as values that can be compared.
//! - [`check`]: comparisons that show both sides.

pub mod check;
pub mod dimms;
pub mod memory;
pub mod resizing;
pub mod scenario;
pub mod vm;
