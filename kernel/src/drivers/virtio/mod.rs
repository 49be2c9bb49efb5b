//! Virtio devices, version 1 and later (Virtual I/O Device 1.2, "virtio 1.2" below).
//!
//! | file | what |
//! |---|---|
//! | [`shared`] | what a driver asks of the machine: registers, memory that the device reaches, time |
//! | [`queue`] | a split virtqueue with one request at a time |
//! | [`transport`] | a device's registers: how it is reset and started, its queue, its configuration |
//! | [`function`] | where the registers are that a PCI function has |
//! | [`mem`] | virtio-mem: requests, answers, configuration |
//!
//! A device may lie. What it says is looked at once, copied, and checked; nothing is waited for without end. A device in
//! [`Trouble`] is not used any more.
//!
//! There are no interrupts: which line a function has, only the firmware's code tells, and devices of this kind have no MSI-X on
//! the hosts that matter most. Whoever drives a device looks at it now and then.
#![deny(unsafe_code)]

mod function;
pub(crate) mod mem;
mod queue;
mod shared;
mod transport;

pub(crate) use function::open;
pub(crate) use shared::Patience;

use crate::memory::dma::DmaPage;
use crate::memory::mmio::Mmio;
use thiserror::Error;

/// A virtio-mem device of this machine.
pub(crate) type MemOfMachine = mem::VirtioMem<Mmio, DmaPage>;

/// Why a device is not used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Trouble {
    #[error("its registers read as ones: it is gone")]
    Gone,
    #[error("it does not end its reset")]
    NoReset,
    #[error("it speaks no version that is spoken here")]
    NoVersion,
    #[error("it refuses the features {0:#x}")]
    Features(u64),
    #[error("it has no queue for requests")]
    NoQueue,
    #[error("its configuration never stands still")]
    Restless,
    #[error("its configuration has {0} bytes only")]
    ShortConfig(usize),
    #[error("it asks to be reset")]
    NeedsReset,
    #[error("it does not answer")]
    Silent,
    #[error("it claims to have used {used} buffers more, of 1")]
    Index { used: u16 },
    #[error("it answers buffer {0:#x}, which it does not have")]
    Head(u32),
    #[error("it claims to have written {0} bytes")]
    Length(u32),
    #[error("its answer {0:#x} means nothing")]
    Answer(u16),
}
