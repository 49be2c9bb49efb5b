//! From a place in memory to a device: the memory-mapped bus (virtio 1.2 §4.2). It cannot be searched; where its slots are, the
//! firmware says, or the command line.

use super::calls::Calls;
use super::face::{Face, MAPPED_BYTES};
use super::function::Unfit;
use super::mem::VirtioMem;
use super::shared::Patience;
use super::transport::Transport;
use super::{MemOfMachine, Trouble};
use crate::arch::GsiMode;
use crate::memory::dma::DmaPage;
use crate::memory::mmio::Mmio;
use core::fmt;

/// What every slot begins with, the layout of its registers, and which device is in it.
const MAGIC: usize = 0x00;
const VERSION: usize = 0x04;
const DEVICE: usize = 0x08;
const MAGIC_VALUE: u32 = 0x7472_6976;
/// The one before it is from before the standard.
const SPOKEN_VERSION: u32 = 2;
/// A slot with nothing in it.
const NOTHING: u32 = 0;

/// More than this of a device's own configuration has no use here.
const CONFIG_BYTES_MAX: u64 = 0x1000 - MAPPED_BYTES as u64;

/// A place where a device may be, with a line of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) gsi: u32,
    pub(crate) mode: GsiMode,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {:#x}", self.start)
    }
}

impl Slot {
    /// Which device is in the slot, by its number.
    pub(crate) fn device(&self) -> Option<u32> {
        let registers = self.registers()?;
        let is_slot = registers.read::<u32>(MAGIC) == MAGIC_VALUE;
        is_slot.then(|| registers.read(DEVICE)).filter(|device| *device != NOTHING)
    }

    fn registers(&self) -> Option<Mmio> {
        let is_sound = self.start.is_multiple_of(4) && self.len >= MAPPED_BYTES as u64;
        is_sound.then(|| Mmio::map(self.start, MAPPED_BYTES))?
    }

    fn config(&self) -> Option<Mmio> {
        let len = (self.len - MAPPED_BYTES as u64).min(CONFIG_BYTES_MAX);
        Mmio::map(self.start + MAPPED_BYTES as u64, len as usize)
    }
}

/// Resets the virtio-mem device in a slot, and starts it.
pub(crate) fn open_slot(slot: &Slot, patience: &mut impl Patience) -> Result<(MemOfMachine, Calls), Unfit> {
    let registers = || slot.registers().ok_or(Unfit::OutOfReach);
    if registers()?.read::<u32>(VERSION) != SPOKEN_VERSION {
        return Err(Trouble::NoVersion.into());
    }
    let transport = Transport { face: Face::Mapped(registers()?), config: slot.config().ok_or(Unfit::OutOfReach)? };
    transport.reset(patience)?;
    let calls = Calls::by_own_line(registers()?, slot.gsi, slot.mode).unwrap_or_else(Calls::none);
    Ok((VirtioMem::start(transport, DmaPage::take()?)?, calls))
}
