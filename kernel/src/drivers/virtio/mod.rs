//! Virtio devices, version 1 and later (Virtual I/O Device 1.2, "virtio 1.2" below).
//!
//! | file | what |
//! |---|---|
//! | [`shared`] | what a driver asks of the machine: registers, memory that the device reaches, time |
//! | [`queue`] | a split virtqueue with one request at a time |
//! | [`face`] | the registers that all devices have, on each kind of bus |
//! | [`transport`] | what is done with them: reset, start, queues, the configuration |
//! | [`calls`] | how a device tells that it has something to say |
//! | [`function`] | where the registers are that a PCI function has, and how it calls |
//! | [`mapped`] | slots of the memory-mapped bus |
//! | [`mem`] | virtio-mem: requests, answers, configuration |
//!
//! A device may lie. What it says is looked at once, copied, and checked; nothing is waited for without end. A device in
//! [`Trouble`] is not used any more.
#![deny(unsafe_code)]

mod calls;
mod face;
mod function;
mod mapped;
pub(crate) mod mem;
mod queue;
mod shared;
mod transport;

pub(crate) use calls::Calls;
pub(crate) use function::{Unfit, open};
pub(crate) use mapped::{Slot, open_slot};
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
    #[error("it does not take the message that it is to send")]
    NoMessage,
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
