//! The interrupt hardware as the firmware describes it (ACPI 6.5 §5.2.12), in plain values.

use alloc::vec::Vec;

/// What `firmware` reads from the MADT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MadtInfo {
    /// Physical address of every CPU's local APIC.
    pub(crate) local_apic_address: u64,
    pub(crate) io_apics: Vec<IoApicInfo>,
    /// Where ISA interrupts are not what they are by default: IRQ n on GSI n, edge, active high.
    pub(crate) overrides: Vec<IsaOverride>,
    pub(crate) cpus: Vec<CpuInfo>,
}

/// One IOAPIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IoApicInfo {
    pub(crate) id: u8,
    pub(crate) address: u64,
    /// The global system interrupt of its first input.
    pub(crate) gsi_base: u32,
}

/// An ISA interrupt that arrives elsewhere or otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IsaOverride {
    pub(crate) irq: u8,
    pub(crate) gsi: u32,
    pub(crate) mode: GsiMode,
}

/// One CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuInfo {
    pub(crate) apic_id: u32,
    pub(crate) enabled: bool,
}

/// How an interrupt line speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GsiMode {
    pub(crate) trigger: Trigger,
    pub(crate) polarity: Polarity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    Edge,
    Level,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Polarity {
    ActiveHigh,
    ActiveLow,
}

impl GsiMode {
    /// What an ISA interrupt is unless the firmware says otherwise.
    pub(crate) const ISA: Self = Self { trigger: Trigger::Edge, polarity: Polarity::ActiveHigh };
}

impl MadtInfo {
    /// Where an ISA interrupt arrives, and how.
    pub(crate) fn isa(&self, irq: u8) -> (u32, GsiMode) {
        self.overrides
            .iter()
            .find(|other| other.irq == irq)
            .map_or((irq.into(), GsiMode::ISA), |other| (other.gsi, other.mode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn an_override_moves_an_isa_interrupt() {
        let mode = GsiMode { trigger: Trigger::Level, polarity: Polarity::ActiveHigh };
        let madt = MadtInfo { overrides: vec![IsaOverride { irq: 0, gsi: 2, mode }], ..MadtInfo::default() };
        assert_eq!(madt.isa(0), (2, mode));
        assert_eq!(madt.isa(4), (4, GsiMode::ISA));
    }
}
