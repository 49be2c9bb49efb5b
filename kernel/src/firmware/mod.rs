//! What the firmware says about the machine: ACPI tables, and the events of ACPI's fixed hardware.
//!
//! [`tables`] reads everything once, at boot; [`get`] is what it said. Tables are input: nothing in them, and no lack of them, can
//! stop the boot.
#![deny(unsafe_code)]

mod aml;
pub(crate) mod events;
mod fadt;
#[cfg(test)]
pub(crate) mod fixtures;
mod hpet;
mod madt;
mod mcfg;
mod nfit;
pub(crate) mod owners;
mod resources;
pub(crate) mod slit;
pub(crate) mod srat;
mod table;
pub(crate) mod window;

use acpi::sdt::fadt::Fadt;
use acpi::sdt::hpet::HpetTable;
use acpi::sdt::madt::Madt;
use acpi::{AcpiError, AcpiTables};
use alloc::vec::Vec;
use mm::plural::Plural;
use thiserror::Error;

use crate::arch::MadtInfo;
use crate::drivers::pci::{Ecam, HostBridge};
use crate::drivers::virtio::Slot;
use crate::memory::acpi_handler::{TableCopies, View, acpi_tables};
use crate::memory::map_firmware;
use crate::power::{self, PowerControls, SoftOff};
use crate::time::{ClockSource, PmTimerWidth};

use aml::{EjectPorts, SleepType};
use fadt::{FadtFacts, PortBlock};
use hpet::HpetProblem;
use mcfg::Mcfg;
use nfit::Nfit;
use slit::Slit;
use srat::Srat;

/// Everything that the tables say and somebody uses.
#[derive(Debug)]
pub(crate) struct Firmware {
    /// Whether there is a root pointer that leads somewhere.
    has_acpi: bool,
    /// `None` without ACPI, or where it is damaged.
    pub(crate) fadt: Option<FadtFacts>,
    pub(crate) madt: MadtInfo,
    /// Physical address of the HPET's registers, if there is one that can be used.
    pub(crate) hpet: Option<u64>,
    /// What is wrong with the HPET, to be logged.
    hpet_problem: Option<HpetProblem>,
    pub(crate) srat: Srat,
    pub(crate) slit: Option<Slit>,
    pub(crate) mcfg: Mcfg,
    pub(crate) nfit: Nfit,
    /// Where PCI's configuration space is, for want of an MCFG.
    config_space: Option<Ecam>,
    pub(crate) host_bridges: Vec<HostBridge>,
    pub(crate) virtio_slots: Vec<Slot>,
    /// `None` if functions of PCI are not ejected by ACPI.
    pub(crate) eject_ports: Option<EjectPorts>,
    /// How to switch off; `None` if the firmware does not say.
    pub(crate) sleep_type: Option<SleepType>,
    /// Slots of the memory-hotplug controller; `None` if there is no such controller.
    pub(crate) dimm_slots: Option<u32>,
}

/// Why the firmware says nothing.
#[derive(Clone, Debug, Error)]
pub(crate) enum FirmwareError {
    #[error("there is no ACPI root pointer")]
    NoRoot,
    #[error("the ACPI root pointer leads nowhere: {0:?}")]
    BadRoot(AcpiError),
}

static FIRMWARE: spin::Once<Firmware> = spin::Once::new();

/// Reads the tables, logs what is wrong with them, and keeps what they say.
pub(crate) fn tables(rsdp: Option<u64>) -> &'static Firmware {
    FIRMWARE.call_once(|| match rsdp.ok_or(FirmwareError::NoRoot).and_then(|rsdp| Firmware::read(view, rsdp)) {
        Ok(firmware) => {
            firmware.log();
            firmware
        }
        Err(error) => {
            log::warn!(target: "acpi", "{error}; one processor runs, and memory is what the memory map says");
            Firmware::silent()
        }
    })
}

/// The bytes of a table, at an address that another one names.
#[expect(unsafe_code, reason = "where its tables lie is what the firmware says")]
fn view(address: u64, bytes: usize) -> &'static [u8] {
    // SAFETY: Tables lie where the firmware says that it keeps something. They are read before the allocator has any memory.
    unsafe { map_firmware(address, bytes) }
}

/// What the tables said.
///
/// # Panics
/// [`tables`] was not called before, a mistake of the boot order.
pub(crate) fn get() -> &'static Firmware {
    FIRMWARE.get().expect("the boot order reads the tables first")
}

impl Firmware {
    fn read(view: View, rsdp: u64) -> Result<Self, FirmwareError> {
        let tables = acpi_tables(view, rsdp).map_err(FirmwareError::BadRoot)?;
        let fadt = tables.find_table::<Fadt>().map(|fadt| {
            report_damage(fadt.validate(), "FADT");
            FadtFacts::new(&fadt)
        });
        let madt = tables.find_table::<Madt>();
        let dsdt = fadt.as_ref().and_then(|fadt| whole_table(view, fadt.dsdt?)).unwrap_or_default();
        let hpet = tables.find_table::<HpetTable>().map(|table| hpet::registers(table.base_address));
        let bytes_of = |signature| find_bytes(view, &tables, signature);
        Ok(Self {
            has_acpi: true,
            madt: madt.map_or_else(MadtInfo::of_a_silent_pc, |madt| {
                madt::info(madt.get(), bytes_of(b"APIC").unwrap_or_default())
            }),
            hpet: hpet.and_then(Result::ok),
            hpet_problem: hpet.and_then(Result::err),
            srat: bytes_of(b"SRAT").map_or_else(Srat::absent, Srat::parse),
            slit: bytes_of(b"SLIT").map(Slit::parse),
            mcfg: bytes_of(b"MCFG").map(Mcfg::parse).unwrap_or_default(),
            nfit: bytes_of(b"NFIT").map(Nfit::parse).unwrap_or_default(),
            config_space: resources::config_space(dsdt),
            host_bridges: resources::host_bridges(dsdt),
            virtio_slots: resources::virtio_slots(dsdt),
            eject_ports: aml::eject_ports(dsdt),
            sleep_type: aml::sleep_type_s5(dsdt),
            dimm_slots: aml::dimm_slot_count(dsdt),
            fadt,
        })
    }

    /// What is known of a machine without ACPI.
    fn silent() -> Self {
        Self {
            has_acpi: false,
            fadt: None,
            madt: MadtInfo::of_a_silent_pc(),
            hpet: None,
            hpet_problem: None,
            srat: Srat::absent(),
            slit: None,
            mcfg: Mcfg::default(),
            nfit: Nfit::default(),
            config_space: None,
            host_bridges: Vec::new(),
            virtio_slots: Vec::new(),
            eject_ports: None,
            sleep_type: None,
            dimm_slots: None,
        }
    }

    /// How many nodes there are. As in the SLIT there are no gaps between their numbers: who names a node means those below
    /// it, too, of which the SRAT tells nothing as long as they have neither memory nor processors.
    pub(crate) fn node_count(&self) -> u32 {
        let highest = self.srat.nodes().into_iter().max().unwrap_or(0);
        self.slit.as_ref().map_or(0, Slit::node_count).max(highest + 1)
    }

    /// Distances between all nodes, row by row.
    pub(crate) fn distances(&self) -> Vec<Vec<u8>> {
        let nodes = 0..self.node_count();
        let unknown = Slit::default();
        let slit = self.slit.as_ref().unwrap_or(&unknown);
        nodes.clone().map(|from| nodes.clone().map(|to| slit.distance(from, to)).collect()).collect()
    }

    /// Clocks of known rate, the better one first.
    pub(crate) fn clocks(&self) -> impl Iterator<Item = ClockSource> {
        let hpet = self.hpet.map(ClockSource::Hpet);
        let pm_timer = self.fadt.as_ref().and_then(|fadt| fadt.pm_timer).map(|timer| {
            let width = if timer.bits == 32 { PmTimerWidth::Bits32 } else { PmTimerWidth::Bits24 };
            ClockSource::PmTimer(timer.port.registers(), width)
        });
        hpet.into_iter().chain(pm_timer)
    }

    /// Where PCI's configuration space lies in memory.
    pub(crate) fn config_spaces(&self) -> &[Ecam] {
        match self.mcfg.regions.as_slice() {
            [] => self.config_space.as_slice(),
            regions => regions,
        }
    }

    /// How to switch off and to start anew.
    pub(crate) fn power_controls(&self) -> PowerControls {
        let Some(fadt) = &self.fadt else {
            let soft_off = (!self.has_acpi).then_some(SoftOff::TripleFault);
            return PowerControls { soft_off, reset: None };
        };
        let fixed = fadt.pm1a_control.zip(self.sleep_type).map(|(pm1a, sleep_type)| SoftOff::Fixed {
            pm1a_control: pm1a.registers(),
            pm1b_control: fadt.pm1b_control.map(PortBlock::registers),
            type_a: sleep_type.a,
            type_b: sleep_type.b,
        });
        let reduced = || {
            let (place, sleep_type) = fadt.sleep_control.zip(self.sleep_type)?;
            Some(SoftOff::Reduced { sleep_control: place.register(), sleep_type: sleep_type.a })
        };
        let register =
            |reset: fadt::ResetRegister| power::ResetRegister { register: reset.place.register(), value: reset.value };
        PowerControls { soft_off: fixed.or_else(reduced), reset: fadt.reset.map(register) }
    }

    fn log(&self) {
        for problem in self.fadt.iter().flat_map(|fadt| &fadt.problems) {
            log::warn!(target: "acpi", "FADT: {problem}");
        }
        if let Some(problem) = self.hpet_problem {
            log::warn!(target: "acpi", "HPET: {problem}");
        }
        for problem in &self.srat.problems {
            log::warn!(target: "acpi", "SRAT: {problem}");
        }
        for problem in self.slit.iter().flat_map(|slit| &slit.problems) {
            log::warn!(target: "acpi", "SLIT: {problem}");
        }
        for problem in &self.mcfg.problems {
            log::warn!(target: "acpi", "MCFG: {problem}");
        }
        for problem in &self.nfit.problems {
            log::warn!(target: "acpi", "NFIT: {problem}");
        }
        let cpus = Plural(self.madt.cpus.len() as u64, "processor");
        let nodes = Plural(self.node_count().into(), "node");
        let ranges = Plural(self.srat.ranges.len() as u64, "memory range");
        log::info!(target: "acpi", "{cpus}, {nodes}, {ranges}");
    }
}

/// The bytes of the first table with that signature.
fn find_bytes(view: View, tables: &AcpiTables<TableCopies>, signature: &[u8; 4]) -> Option<&'static [u8]> {
    tables.table_entries().find_map(|address| {
        let bytes = whole_table(view, address as u64)?;
        bytes.starts_with(signature).then_some(bytes)
    })
}

/// A table as long as it says, or as far as it can be read.
fn whole_table(view: View, address: u64) -> Option<&'static [u8]> {
    let header = view(address, table::HEADER_BYTES);
    let said = table::u32_at(header, 4)? as usize;
    Some(view(address, said.clamp(header.len(), table::LONGEST_TABLE_BYTES)))
}

fn report_damage(checked: Result<(), AcpiError>, name: &str) {
    if let Err(error) = checked {
        log::warn!(target: "acpi", "{name}: {error:?}; used all the same");
    }
}

#[cfg(test)]
#[path = "mod_tests.rs"]
mod tests;
