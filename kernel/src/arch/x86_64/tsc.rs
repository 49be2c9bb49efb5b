//! The time-stamp counter, raw; `crate::time` turns it into nanoseconds.

use core::arch::x86_64::{__cpuid, CpuidResult};

/// Cycles since some moment before the kernel's entry.
pub(crate) fn ticks() -> u64 {
    // SAFETY: Every x86_64 CPU has RDTSC, and CR4.TSD is clear.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Cycles per second as the CPU is sold, if it tells (leaf 16h; Intel SDM volume 2, CPUID).
pub(crate) fn base_rate_by_cpuid() -> Option<u64> {
    const BASE: u32 = 0x16;
    leaf(0, BASE).map(|leaf| u64::from(leaf.eax) * 1_000_000).filter(|rate| *rate != 0)
}

/// Cycles per second, if the CPU or the hypervisor tells exactly.
pub(crate) fn rate_by_cpuid() -> Option<u64> {
    const FEATURES: u32 = 1;
    const IS_GUEST: u32 = 1 << 31;
    const CRYSTAL: u32 = 0x15;
    const HYPERVISOR: u32 = 0x4000_0000;
    const HYPERVISOR_TIMING: u32 = 0x4000_0010;
    let told = Told {
        crystal: leaf(0, CRYSTAL).map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx]),
        hypervisor_khz: leaf(0, FEATURES)
            .filter(|features| features.ecx & IS_GUEST != 0)
            .and_then(|_| leaf(HYPERVISOR, HYPERVISOR_TIMING))
            .map(|leaf| leaf.eax),
    };
    told.rate()
}

/// A leaf of CPUID, if its range, which begins with its own length, reaches so far.
fn leaf(range: u32, number: u32) -> Option<CpuidResult> {
    (__cpuid(range).eax >= number).then(|| __cpuid(number))
}

/// What is told of the counter's rate. Zeros are as good as silence.
#[derive(Clone, Copy, Default)]
struct Told {
    /// Denominator and numerator of the counter's rate to that of the crystal, and the crystal's Hz (leaf 15h; Intel SDM
    /// volume 2, CPUID).
    crystal: Option<[u32; 3]>,
    /// Leaf 4000_0010h (VMware KB 1009458; QEMU with KVM tells it, too).
    hypervisor_khz: Option<u32>,
}

impl Told {
    fn rate(self) -> Option<u64> {
        let by_crystal = self.crystal.and_then(|[denominator, numerator, hz]| {
            (u64::from(hz) * u64::from(numerator)).checked_div(denominator.into())
        });
        let by_hypervisor = self.hypervisor_khz.map(|khz| u64::from(khz) * 1000);
        [by_crystal, by_hypervisor].into_iter().flatten().find(|rate| *rate != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_most_exact_one_that_is_told() {
        assert_eq!(Told::default().rate(), None);
        let guest = Told { hypervisor_khz: Some(2_099_998), ..Told::default() };
        assert_eq!(guest.rate(), Some(2_099_998_000));
        let crystal = Told { crystal: Some([2, 176, 24_000_000]), ..guest };
        assert_eq!(crystal.rate(), Some(2_112_000_000));
        for silent in [[0, 0, 0], [2, 176, 0], [0, 176, 24_000_000]] {
            assert_eq!(Told { crystal: Some(silent), ..guest }.rate(), guest.rate());
        }
        assert_eq!(Told { hypervisor_khz: Some(0), ..Told::default() }.rate(), None);
    }
}
