//! What the Multiple APIC Description Table says of processors and interrupt controllers. ACPI 6.5 §5.2.12.

use acpi::sdt::madt::{Madt, MadtEntry, Polarity as SaidPolarity, TriggerMode, parse_mps_inti_flags};
use core::pin::Pin;

use super::table;
use crate::arch::{CpuInfo, GsiMode, IoApicInfo, IsaOverride, MadtInfo, Polarity, Trigger};

/// Header, address of the local APIC and flags.
const FIXED_BYTES: usize = 44;
/// The types of entry that the crate knows, and so hands out.
const KNOWN_TYPES: core::ops::RangeInclusive<u8> = 0..=0x10;

const CPU_ENABLED: u32 = 1 << 0;

/// Reads the table, of which `bytes` are the same bytes.
pub(crate) fn info(madt: Pin<&Madt>, bytes: &[u8]) -> MadtInfo {
    let mut info = MadtInfo { local_apic_address: u64::from(madt.local_apic_address), ..MadtInfo::default() };
    // The crate's iterator stands still at an entry without length, and reads entries shorter than they should be past
    // their end, so it is stopped before it gets there.
    let sound = sound_entries(bytes);
    if sound > 0 {
        for entry in madt.entries().take(sound) {
            take(&mut info, entry);
        }
    }
    info
}

/// How many entries of known type come before the first that makes no sense.
fn sound_entries(bytes: &[u8]) -> usize {
    let Some(table) = table::open(bytes, b"APIC", FIXED_BYTES, |problem| log::warn!(target: "acpi", "MADT: {problem}"))
    else {
        return 0;
    };
    let mut count = 0;
    let mut rest = &table.bytes[FIXED_BYTES..];
    while let [kind, len, ..] = *rest {
        let Some(behind) = rest.get(usize::from(len)..).filter(|_| len >= needed_bytes(kind)) else {
            log::warn!(target: "acpi", "MADT: entry of type {kind} with a length of {len}; the rest of the table is ignored");
            break;
        };
        rest = behind;
        count += usize::from(KNOWN_TYPES.contains(&kind));
    }
    count
}

/// How long an entry must be for what we read of it.
fn needed_bytes(kind: u8) -> u8 {
    match kind {
        0 => 8,
        1 | 5 => 12,
        2 => 10,
        9 => 16,
        _ => 2,
    }
}

fn take(info: &mut MadtInfo, entry: MadtEntry<'_>) {
    match entry {
        MadtEntry::LocalApic(cpu) => info.cpus.push(cpu_info(u32::from(cpu.apic_id), cpu.flags)),
        MadtEntry::LocalX2Apic(cpu) => info.cpus.push(cpu_info(cpu.x2apic_id, cpu.flags)),
        MadtEntry::IoApic(ioapic) => info.io_apics.push(IoApicInfo {
            id: ioapic.io_apic_id,
            address: u64::from(ioapic.io_apic_address),
            gsi_base: ioapic.global_system_interrupt_base,
        }),
        MadtEntry::InterruptSourceOverride(said) => info.overrides.push(IsaOverride {
            irq: said.irq,
            gsi: said.global_system_interrupt,
            mode: mode(said.flags),
        }),
        MadtEntry::LocalApicAddressOverride(said) => info.local_apic_address = said.local_apic_address,
        _ => {}
    }
}

fn cpu_info(apic_id: u32, flags: u32) -> CpuInfo {
    CpuInfo { apic_id, enabled: flags & CPU_ENABLED != 0 }
}

/// What an override says of the line; what it leaves open is as on the ISA bus.
fn mode(flags: u16) -> GsiMode {
    let Ok((polarity, trigger)) = parse_mps_inti_flags(flags) else {
        log::warn!(target: "acpi", "MADT: senseless interrupt flags {flags:#x}, taken as those of the ISA bus");
        return GsiMode::ISA;
    };
    GsiMode {
        trigger: match trigger {
            TriggerMode::Level => Trigger::Level,
            TriggerMode::Edge => Trigger::Edge,
            TriggerMode::SameAsBus => GsiMode::ISA.trigger,
        },
        polarity: match polarity {
            SaidPolarity::ActiveLow => Polarity::ActiveLow,
            SaidPolarity::ActiveHigh => Polarity::ActiveHigh,
            SaidPolarity::SameAsBus => GsiMode::ISA.polarity,
        },
    }
}
