//! What a machine is made of.

use crate::size::{Bytes, gib};

/// A machine to boot the kernel on.
#[derive(Clone, Debug)]
pub struct Machine {
    pub board: Board,
    pub way: Way,
    /// Boot memory, spread evenly over the nodes.
    pub memory: Bytes,
    pub maxmem: Bytes,
    pub slots: u32,
    pub cpus: u32,
    pub nodes: u32,
    /// Cold-plugged.
    pub dimms: Vec<Dimm>,
    /// Devices whose size can be changed while the machine runs.
    pub virtio_mems: Vec<VirtioMem>,
    /// Kernel parameters.
    pub params: Vec<String>,
    pub debugger: Debugger,
    /// Appended to QEMU's command line as they are.
    pub extra: Vec<String>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            board: Board::Q35,
            way: Way::SeaBios,
            memory: gib(1),
            maxmem: gib(64),
            slots: 8,
            cpus: 2,
            nodes: 1,
            dimms: Vec::new(),
            virtio_mems: Vec::new(),
            params: Vec::new(),
            debugger: Debugger::None,
            extra: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Board {
    Q35,
    Pc,
    /// Without PCI, without slots for memory modules, and with one node only. It boots by PVH.
    Microvm,
}

/// How the kernel gets into the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From a disk, by the BIOS.
    SeaBios,
    /// From a disk, by UEFI.
    Ovmf,
    /// QEMU loads the ELF file, and what firmware there is enters it as a PVH guest.
    Pvh,
}

/// Whether the machine waits for a debugger before its first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debugger {
    None,
    WaitFor,
}

/// A memory module. What is left out, QEMU chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dimm {
    pub size: Bytes,
    pub id: Option<String>,
    pub node: Option<u32>,
    pub address: Option<u64>,
}

/// A virtio-mem device. What is left out, QEMU chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtioMem {
    /// The most that it can be.
    pub size: Bytes,
    /// How much of it the guest shall have at first.
    pub requested: Bytes,
    pub node: Option<u32>,
    /// In which pieces it comes and goes.
    pub block: Option<Bytes>,
    /// Whether its blocks are known from the start, and backed while they are online.
    pub standby: bool,
}
