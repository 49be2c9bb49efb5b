//! `iomem` and `srat`: what lies where in the physical address space, and what the firmware said of it.

use super::super::arguments::{JSON, OptionSpec, Syntax};
use super::super::call::Call;
use super::super::failure::Outcome;
use super::super::json;
use super::super::resource_tree::{Resource, Step, merged, sorted, walk};
use super::super::table::{Align, Table};
use super::super::values::Human;
use super::{Command, resolve};
use crate::drivers::pci;
use crate::entry::{self, MemoryRegion, RegionKind};
use crate::firmware;
use crate::firmware::owners::MemoryAffinity;
use crate::firmware::srat::Srat;
use crate::firmware::window;
use crate::memory::host::Fate;
use crate::memory::{self, mm};
use crate::sources::dimm;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use mm::addr::{PAGE_SIZE, SectionId};
use mm::frame::page::MEMMAP_PAGES;
use mm::section::kind::MemmapPlace;
use serde::Serialize;

/// Registers of an IOAPIC, a local APIC and an HPET take less than a page each.
const IO_APIC_BYTES: u64 = 0x400;
const LOCAL_APIC_BYTES: u64 = 0x1000;
const HPET_BYTES: u64 = 0x400;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "iomem",
        syntax: Syntax {
            options: &[
                OptionSpec { name: "-a", value: None, help: "the altmap of every block, however many there are" },
                JSON,
            ],
            operands: &[],
        },
        summary: "show who owns which physical addresses, nested",
        details: "\
Memory from boot, the windows in which memory may come, the devices in them,
and in each added block its altmap: the struct pages of the block, at its head.
More than 64 blocks in a row whose altmaps lie alike are one line.

System RAM         memory that the kernel has, of boot or of a group
Unused RAM         memory that it has not: hidden by mem=, or left out because
                   its block has no room for its own struct pages
Part of a DIMM     what is no block of it, and why
Persistent Memory  NVDIMMs that were there at boot
PCI ECAM           the configuration space of PCI
PCI Bus            what a bridge passes on to its bus
0000:BB:DD.F       what a PCI function decodes since boot",
        example: "iomem",
        run: iomem,
    },
    Command {
        name: "srat",
        syntax: Syntax { options: &[JSON], operands: &[] },
        summary: "show what the firmware said about nodes and memory",
        details: "\
The ACPI tables SRAT and SLIT, read once at boot: which range belongs to which
node, where memory may be plugged later (hotpluggable), and how far the nodes
are from each other (10 is local). Nodes are numbered without gaps; one without
a range may get memory later. Of ranges that overlap the smaller one is
believed, and the other is shown without that part. The hotplug window is what
of the hotpluggable ranges the CPU reaches; where the SRAT has none, it is all
above RAM if the machine has slots for DIMMs. A window's node is only a
default: a DIMM tells its own.",
        example: "srat",
        run: srat,
    },
];

/// Blocks in a row whose altmaps are told one by one.
const FEW_BLOCKS: u64 = 64;

fn iomem(call: &mut Call<'_>) -> Outcome {
    let mut ranges = boot_regions();
    ranges.extend(devices());
    ranges.extend(pci());
    ranges
        .extend(memory::host::windows().iter().map(|window| Resource::new(window.start, window.len, "Hotplug window")));
    for (_, group) in resolve::groups() {
        // Boot memory is told by its regions, holes and all.
        if group.is_removable() {
            ranges.push(Resource::new(
                group.window.first().address(),
                group.window.size_bytes(),
                format!("System RAM ({})", group.name),
            ));
        }
    }
    ranges.extend(dimm::leftovers().into_iter().map(|leftover| {
        let name = format!("Part of {}, unused: {}", leftover.name, leftover.why);
        Resource::new(leftover.start, leftover.len, name)
    }));
    let few = if call.arguments.has("-a") { u64::MAX } else { FEW_BLOCKS };
    let steps = walk(merged(sorted(ranges), altmaps(few)));
    if call.arguments.has("-J") { map_json(call, steps) } else { map_lines(call, steps) }
}

/// Two blanks deeper at each level.
fn map_lines(call: &mut Call<'_>, steps: impl Iterator<Item = Step>) -> Outcome {
    for step in steps {
        if let Step::Enter(range, depth) = step {
            let (start, last, indent) = (range.start, range.last(), 2 * depth);
            call.part(format_args!("{:indent$}{start:012x}-{last:012x} : {}\n", "", range.name))?;
        }
    }
    Ok(())
}

/// `{"ranges": [..]}`, each range with its `start`, `size`, `name` and `children`.
fn map_json(call: &mut Call<'_>, steps: impl Iterator<Item = Step>) -> Outcome {
    call.part(format_args!("{{\"ranges\":["))?;
    let mut separator = "";
    for step in steps {
        match step {
            Step::Enter(range, _) => {
                let fields = json::line(&range);
                let fields = fields.strip_suffix('}').expect("a range is an object");
                call.part(format_args!("{separator}{fields},\"children\":["))?;
                separator = "";
            }
            Step::Leave => {
                call.part(format_args!("]}}"))?;
                separator = ",";
            }
        }
    }
    call.line("]}");
    Ok(())
}

fn boot_regions() -> Vec<Resource> {
    let Some(facts) = entry::facts() else {
        return Vec::new();
    };
    facts.memory.iter().flat_map(boot_region).collect()
}

/// A region of the boot loader's, in parts if the kernel has not all of it.
fn boot_region(region: &MemoryRegion) -> Vec<Resource> {
    let MemoryRegion { start, end, kind } = *region;
    let kept = match kind {
        RegionKind::Usable => "System RAM",
        RegionKind::Bootloader => "System RAM (kernel and boot tables)",
        RegionKind::Firmware => return Vec::from([Resource::new(start, end - start, "Firmware")]),
    };
    let parts = memory::host::fates(start, end).into_iter().map(|(start, end, fate)| {
        let name = match fate {
            Fate::Kept => kept,
            Fate::Hidden => "Unused RAM (hidden by mem=)",
            Fate::LeftOut => "Unused RAM (left out)",
        };
        Resource::new(start, end - start, name)
    });
    parts.collect()
}

fn devices() -> Vec<Resource> {
    let firmware = firmware::get();
    let mut devices: Vec<Resource> = firmware
        .madt
        .io_apics
        .iter()
        .map(|io_apic| Resource::new(io_apic.address, IO_APIC_BYTES, format!("IOAPIC {}", io_apic.id)))
        .collect();
    devices.push(Resource::new(firmware.madt.local_apic_address, LOCAL_APIC_BYTES, "Local APIC"));
    devices.extend(firmware.hpet.map(|address| Resource::new(address, HPET_BYTES, "HPET")));
    devices.extend(firmware.nfit.ranges.iter().map(|range| Resource::new(range.start, range.len, "Persistent Memory")));
    devices
}

/// What the firmware has set up of PCI, what passes on first: of equal ranges that holds the other.
fn pci() -> Vec<Resource> {
    let spaces = firmware::get().config_spaces().iter().map(|space| {
        let (first, last) = (space.first_bus, space.last_bus);
        let name = format!("PCI ECAM {:04x} [bus {first:02x}-{last:02x}]", space.segment);
        Resource::new(space.start, space.len(), name)
    });
    let functions = pci::functions();
    let windows = functions.iter().filter_map(|function| function.bridge.as_ref()).flat_map(|bridge| {
        let name = move || format!("PCI Bus 0000:{:02x}", bridge.bus);
        bridge.windows.iter().map(move |window| Resource::new(window.start, window.len, name()))
    });
    let bars = functions.iter().flat_map(|function| {
        let name = move || function.address.to_string();
        function.bars.iter().map(move |bar| Resource::new(bar.start, bar.len, name()))
    });
    spaces.chain(windows).chain(bars).collect()
}

/// What the heads of blocks hold: page tables of the group, then the block's own struct pages. At most `few` blocks of which the same is to be
/// said are told one by one.
fn altmaps(few: u64) -> impl Iterator<Item = Resource> {
    let ready = mm().block_runs().filter(|(_, section)| section.ready);
    let heads = ready.filter(|(_, section)| section.memmap == MemmapPlace::Head);
    let alike = resolve::joined(heads.map(|(run, section)| (run, (section.group, section.table_frames()))));
    alike.flat_map(move |(run, (_, table_frames))| {
        let together = (run.count() > few).then(|| {
            let (first, last, each) = (run.first(), run.last(), Human(MEMMAP_PAGES * PAGE_SIZE));
            let name = format!("altmaps of blocks {first}-{last}, in the first {each} of each");
            Resource::new(first.address(), run.size_bytes(), name)
        });
        let blocks = run.iter().take(if together.is_some() { 0 } else { usize::MAX });
        blocks.flat_map(move |id| altmap(id, table_frames)).chain(together)
    })
}

fn altmap(id: SectionId, table_frames: u64) -> impl Iterator<Item = Resource> {
    let (tables, memmap) = (table_frames * PAGE_SIZE, MEMMAP_PAGES * PAGE_SIZE);
    let ranges = [
        Resource::new(id.address(), tables, "page tables of the group"),
        Resource::new(id.address() + tables, memmap, format!("altmap of block {id}")),
    ];
    ranges.into_iter().filter(|range| range.size > 0)
}

/// What `srat -J` prints; the field names are a contract.
#[derive(Serialize)]
struct Affinity {
    nodes: Vec<u32>,
    ranges: Vec<Range>,
    window: Option<Window>,
    distances: Vec<Vec<u8>>,
}

#[derive(Serialize)]
struct Range {
    start: u64,
    size: u64,
    node: u32,
    hotpluggable: bool,
    nonvolatile: bool,
}

#[derive(Serialize)]
struct Window {
    start: u64,
    size: u64,
}

fn srat(call: &mut Call<'_>) -> Outcome {
    let firmware = firmware::get();
    // Windows that the SRAT does not tell of are none of the firmware's.
    let windows = if firmware.srat.windows.is_empty() { &[][..] } else { memory::host::windows() };
    let range_of = |range: &MemoryAffinity| Range {
        start: range.start,
        size: range.len,
        node: range.domain,
        hotpluggable: range.hotpluggable,
        nonvolatile: range.nonvolatile,
    };
    let report = Affinity {
        nodes: (0..firmware.node_count()).collect(),
        ranges: firmware.srat.ranges.iter().map(range_of).collect(),
        window: window::Window::span(windows).map(|span| Window { start: span.start, size: span.len }),
        distances: firmware.distances(),
    };
    call.show(&report, |report| srat_text(report, &firmware.srat));
    Ok(())
}

fn srat_text(report: &Affinity, srat: &Srat) -> String {
    let mut table =
        Table::new(&[("RANGE", Align::Left), ("SIZE", Align::Right), ("NODE", Align::Right), ("FLAGS", Align::Left)]);
    for range in &report.ranges {
        let flags = [(range.hotpluggable, "hotpluggable"), (range.nonvolatile, "nonvolatile")];
        let set: Vec<&str> = flags.into_iter().filter_map(|(set, name)| set.then_some(name)).collect();
        table.row([
            format!("{:#014x}-{:#014x}", range.start, range.start + (range.size - 1)),
            Human(range.size).to_string(),
            range.node.to_string(),
            if set.is_empty() { "-".into() } else { set.join(" ") },
        ]);
    }
    let mut text = match srat {
        Srat { is_there: false, .. } => String::from("the firmware has no SRAT: all memory is on one node\n"),
        _ if report.ranges.is_empty() => String::from("the firmware's SRAT names no memory\n"),
        _ => table.to_string(),
    };
    text += "\n";
    if srat.windows.is_empty() && !memory::host::windows().is_empty() {
        text += "the firmware names no hotplug window; the machine has slots, so memory may come above RAM\n";
    }
    for window in memory::host::windows() {
        text += &format!("hotplug window: {:#x}, {}\n", window.start, Human(window.len));
    }
    if memory::host::windows().is_empty() {
        text += "no hotplug window: no memory can come\n";
    }
    text += "\ndistance from node to node\n";
    let titles: Vec<String> = report.nodes.iter().map(ToString::to_string).collect();
    let columns: Vec<(&str, Align)> =
        [("NODE", Align::Right)].into_iter().chain(titles.iter().map(|node| (node.as_str(), Align::Right))).collect();
    let mut distances = Table::new(&columns);
    for (node, row) in titles.iter().zip(&report.distances) {
        distances.row([node.clone()].into_iter().chain(row.iter().map(ToString::to_string)));
    }
    text + &distances.to_string()
}
