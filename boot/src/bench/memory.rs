//! What a guest says of its memory.

use anyhow::{Context, Result};

use super::counted::Counted;

/// In bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// Free in the zones in which the kernel lives: hot-added memory goes to another.
    pub existing: u64,
    /// Free in Movable.
    pub movable: u64,
    /// Struct pages in use, where the guest tells.
    pub memmap: Option<u64>,
}

impl Memory {
    pub(super) fn of(machine: &mut Counted) -> Result<Self> {
        let memory = machine.json("meminfo")?;
        let zones = memory["zones"].as_array().context("no zones")?;
        let free = |movable: bool| {
            let of_kind = zones.iter().filter(|zone| (zone["zone"] == "Movable") == movable);
            of_kind.filter_map(|zone| zone["free"].as_u64()).sum()
        };
        Ok(Self { existing: free(false), movable: free(true), memmap: memory["memmap"]["used"].as_u64() })
    }
}
