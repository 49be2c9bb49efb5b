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

/// Which CPUs beside the one that booted are to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuChoice {
    /// Their numbers on the interrupt bus, in the firmware's order.
    pub(crate) others: Vec<u32>,
    /// How many are left out because there are enough.
    pub(crate) over_limit: usize,
    /// How many are left out because no interrupt of ours reaches them.
    pub(crate) out_of_reach: usize,
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
    /// What a line of PCI is.
    pub(crate) const PCI: Self = Self { trigger: Trigger::Level, polarity: Polarity::ActiveLow };
}

impl CpuChoice {
    /// How many run, if all come.
    pub(crate) fn count(&self) -> usize {
        self.others.len() + 1
    }
}

impl MadtInfo {
    /// What a PC has whose firmware tells nothing: controllers at their default addresses (MultiProcessor Specification 1.4
    /// §3.6), and no CPU but the one that booted.
    pub(crate) fn of_a_silent_pc() -> Self {
        Self {
            local_apic_address: 0xfee0_0000,
            io_apics: Vec::from([IoApicInfo { id: 0, address: 0xfec0_0000, gsi_base: 0 }]),
            ..Self::default()
        }
    }

    /// Up to `limit` CPUs, counting the one that booted, `boot_id`; none whose number is above `reach`. The firmware says
    /// which are there: places for CPUs that may come later are not enabled. One that is named twice, as it may be in both
    /// formats, is one.
    pub(crate) fn choose_cpus(&self, boot_id: u32, limit: usize, reach: u32) -> CpuChoice {
        let mut choice = CpuChoice::default();
        let mut seen = Vec::from([boot_id]);
        for CpuInfo { apic_id, .. } in self.cpus.iter().filter(|cpu| cpu.enabled) {
            if seen.contains(apic_id) {
                continue;
            }
            seen.push(*apic_id);
            if *apic_id > reach {
                choice.out_of_reach += 1;
            } else if choice.others.len() + 1 >= limit {
                choice.over_limit += 1;
            } else {
                choice.others.push(*apic_id);
            }
        }
        choice
    }

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

    fn cpus(ids: &[(u32, bool)]) -> MadtInfo {
        let cpus = ids.iter().map(|(apic_id, enabled)| CpuInfo { apic_id: *apic_id, enabled: *enabled }).collect();
        MadtInfo { cpus, ..MadtInfo::default() }
    }

    #[test]
    fn every_enabled_cpu_but_the_boot_cpu_is_chosen_once() {
        let madt = cpus(&[(0, true), (4, true), (2, true), (6, false), (4, true), (9, true)]);
        let choice = madt.choose_cpus(2, 64, 254);
        assert_eq!(choice, CpuChoice { others: vec![0, 4, 9], over_limit: 0, out_of_reach: 0 });
    }

    #[test]
    fn cpus_beyond_the_limit_or_out_of_reach_are_counted() {
        let madt = cpus(&[(0, true), (1, true), (300, true), (2, true), (3, true)]);
        let choice = madt.choose_cpus(0, 3, 254);
        assert_eq!(choice, CpuChoice { others: vec![1, 2], over_limit: 1, out_of_reach: 1 });
        assert!(madt.choose_cpus(0, 1, u32::MAX).others.is_empty());
        assert_eq!(madt.choose_cpus(0, 9, u32::MAX).others, [1, 300, 2, 3]);
        assert_eq!(MadtInfo::default().choose_cpus(0, 9, u32::MAX), CpuChoice::default());
    }

    #[test]
    fn an_override_moves_an_isa_interrupt() {
        let mode = GsiMode { trigger: Trigger::Level, polarity: Polarity::ActiveHigh };
        let madt = MadtInfo { overrides: vec![IsaOverride { irq: 0, gsi: 2, mode }], ..MadtInfo::default() };
        assert_eq!(madt.isa(0), (2, mode));
        assert_eq!(madt.isa(4), (4, GsiMode::ISA));
    }
}
