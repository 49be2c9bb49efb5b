//! Where the high-precision event timer is. IA-PC HPET specification 1.0a §3.2.4.

use acpi::address::{AddressSpace, GenericAddress, RawGenericAddress};
use mm::addr::MAX_PHYS_BITS;
use thiserror::Error;

/// Its registers.
const BYTES: u64 = 0x400;

/// Registers are accessed 64 bits at a time.
const ALIGNMENT: u64 = 8;

/// Why the timer cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum HpetProblem {
    #[error("its registers are not in memory space; ignored")]
    NotMemory,
    #[error("its registers at {0:#x} are out of reach; ignored")]
    OutOfReach(u64),
    #[error("its registers at {0:#x} are not aligned; ignored")]
    Unaligned(u64),
}

/// The physical address of the registers that the table names.
pub(super) fn registers(base: RawGenericAddress) -> Result<u64, HpetProblem> {
    let base = GenericAddress::from_raw(base).map_err(|_| HpetProblem::NotMemory)?;
    let address = base.address;
    if base.address_space != AddressSpace::SystemMemory {
        return Err(HpetProblem::NotMemory);
    }
    if address > (1 << MAX_PHYS_BITS) - BYTES {
        return Err(HpetProblem::OutOfReach(address));
    }
    if !address.is_multiple_of(ALIGNMENT) {
        return Err(HpetProblem::Unaligned(address));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address_space: u8, address: u64) -> RawGenericAddress {
        RawGenericAddress { address_space, bit_width: 64, bit_offset: 0, access_size: 0, address }
    }

    #[test]
    fn registers_in_reach_are_used() {
        for address in [0xfed0_0000, (1 << 46) - 0x400] {
            assert_eq!(registers(at(0, address)), Ok(address));
        }
    }

    #[test]
    fn registers_out_of_reach_are_refused() {
        for address in [(1 << 46) - 0x3f8, 1 << 46, u64::MAX - 7] {
            assert_eq!(registers(at(0, address)), Err(HpetProblem::OutOfReach(address)));
        }
    }

    #[test]
    fn registers_that_are_not_memory_are_refused() {
        for space in [1, 2, 0x0b, 0xc0] {
            assert_eq!(registers(at(space, 0xfed0_0000)), Err(HpetProblem::NotMemory));
        }
    }

    #[test]
    fn registers_that_are_not_aligned_are_refused() {
        assert_eq!(registers(at(0, 0xfed0_0004)), Err(HpetProblem::Unaligned(0xfed0_0004)));
    }
}
