//! What a driver asks of the machine: registers of the device, memory that both reach, and time.

use crate::memory::dma::DmaPage;
use crate::memory::mmio::Mmio;

/// A range of registers.
///
/// # Invariants
/// Places lie inside and are multiples of the size that is read or written; whoever calls has looked at the length.
pub(crate) trait Registers {
    fn len(&self) -> usize;
    fn read_u8(&self, at: usize) -> u8;
    fn read_u16(&self, at: usize) -> u16;
    fn read_u32(&self, at: usize) -> u32;
    fn write_u8(&self, at: usize, value: u8);
    fn write_u16(&self, at: usize, value: u16);
    fn write_u32(&self, at: usize, value: u32);
}

/// A page that the device reads and writes beside us, at any time. Each call is one access.
pub(crate) trait SharedPage {
    /// Where the device finds it.
    fn address(&self) -> u64;
    fn read_u16(&self, at: usize) -> u16;
    fn read_u32(&self, at: usize) -> u32;
    fn write_u16(&mut self, at: usize, value: u16);
    fn write_u32(&mut self, at: usize, value: u32);
}

/// How long a device is waited for.
pub(crate) trait Patience {
    /// Begins to wait for something.
    fn begin(&mut self);

    /// Lets a moment pass; says whether to go on waiting.
    fn wait(&mut self) -> bool;
}

impl Registers for Mmio {
    fn len(&self) -> usize {
        Self::len(self)
    }

    fn read_u8(&self, at: usize) -> u8 {
        self.read(at)
    }

    fn read_u16(&self, at: usize) -> u16 {
        self.read(at)
    }

    fn read_u32(&self, at: usize) -> u32 {
        self.read(at)
    }

    fn write_u8(&self, at: usize, value: u8) {
        self.write(at, value);
    }

    fn write_u16(&self, at: usize, value: u16) {
        self.write(at, value);
    }

    fn write_u32(&self, at: usize, value: u32) {
        self.write(at, value);
    }
}

impl SharedPage for DmaPage {
    fn address(&self) -> u64 {
        Self::address(self)
    }

    fn read_u16(&self, at: usize) -> u16 {
        self.read(at)
    }

    fn read_u32(&self, at: usize) -> u32 {
        self.read(at)
    }

    fn write_u16(&mut self, at: usize, value: u16) {
        self.write(at, value);
    }

    fn write_u32(&mut self, at: usize, value: u32) {
        self.write(at, value);
    }
}
