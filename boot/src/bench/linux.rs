//! Linux in the same QEMU, for comparison.

use anyhow::Result;

use super::Options;
use super::column::{Column, Extent, Extra, MEMORY, ROOM, SMALL_MEMORY};
use super::debian;
use super::guest::{self, COUNTED, in_small};
use super::hotplug::{self, Kernel};
use super::moving;
use super::report::{Measurement, Part, Report};
use super::resize;
use super::samples::{self, Samples};
use super::start;
use crate::qemu::Software;
use crate::size::{gib, mib};

/// Rounds after the first, and those of a module that takes Linux minutes.
const ROUNDS: u32 = 3;
const FEW_ROUNDS: u32 = 1;

/// What Linux is told: where its console is, to say nothing there but errors, and to end when it cannot go on.
const PARAMS: [&str; 3] = ["console=ttyS0", "quiet", "panic=-1"];
const MEMMAP_ON_MEMORY: &str = "memory_hotplug.memmap_on_memory=1";

/// Debian's Linux clears each page when it is taken, even if it is written at once.
const NOT_CLEARED: &str = "init_on_alloc=0";

pub(super) fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let debian = debian::get()?;
    report.fact("instructions", COUNTED);
    report.fact("Linux", &debian.package);
    let altmap = Report::load(&options.output, Part::Guest)?;
    report.measurements.extend(altmap.iter().flat_map(|altmap| &altmap.measurements).cloned().map(without_limit));
    let mut samples = Samples::default();
    let params = PARAMS.map(str::to_owned).to_vec();
    let rounds = if options.quick { 1 } else { ROUNDS };
    start::linux(Software::Linux(&debian.linux), params, rounds, &mut samples)?;
    samples.report(&debian.name, options, |_| None, report);
    for column in columns(&debian.name, options.quick) {
        let mut samples = Samples::default();
        let end = column.measure(Software::Linux(&debian.linux), &mut samples)?;
        samples.report(&column.who, options, |_| None, report);
        if let Some(end) = end {
            report.remark(column.extent.table(), format!("{end}. Nothing larger was tried."));
        }
    }
    keep_what_linux_does(report);
    samples::explain_first(report);
    guest::explain(report);
    explain(altmap.as_ref(), report);
    Ok(())
}

fn columns(name: &str, quick: bool) -> [Column; 7] {
    let rounds = if quick { 1 } else { ROUNDS };
    let usual = [(mib(128), rounds), (gib(1), rounds), (gib(8), rounds), (gib(64), FEW_ROUNDS)];
    let usual = if quick { &usual[..2] } else { &usual };
    let column = |who: String, memory, param: Option<&str>, extent, sizes: &[_], extras: &[Extra]| Column {
        who,
        kernel: Kernel::Linux,
        memory,
        room: ROOM,
        params: PARAMS.into_iter().chain(param).map(str::to_owned).collect(),
        extent,
        sizes: sizes.to_vec(),
        extras: extras.to_vec(),
    };
    let not_cleared = format!("{name}, {NOT_CLEARED}");
    let on_memory = &usual[..usual.len().min(3)];
    let cleared = [(gib(1), rounds), (gib(8), FEW_ROUNDS)];
    let cleared = if quick { &cleared[..1] } else { &cleared };
    [
        column(name.to_owned(), MEMORY, None, Extent::Everything, usual, &[Extra::Moving]),
        column(format!("{name}, memmap_on_memory"), MEMORY, Some(MEMMAP_ON_MEMORY), Extent::Everything, on_memory, &[]),
        column(not_cleared.clone(), MEMORY, Some(NOT_CLEARED), Extent::Everything, &[], &[Extra::Moving]),
        column(in_small(name), SMALL_MEMORY, None, Extent::Plug, &usual[1..], &[]),
        column(name.to_owned(), MEMORY, None, Extent::Resize, cleared, &[Extra::Shrinking]),
        column(not_cleared, MEMORY, Some(NOT_CLEARED), Extent::Resize, &usual[1..], &[Extra::Shrinking]),
        column(in_small(name), SMALL_MEMORY, None, Extent::Resize, &usual[1..], &[]),
    ]
}

/// altmap keeps its promises in its own report.
fn without_limit(measurement: Measurement) -> Measurement {
    Measurement { limit: None, note: None, ..measurement }
}

/// Leaves out the rows of altmap beside which there is nothing.
fn keep_what_linux_does(report: &mut Report) {
    let row = |cell: &Measurement| (cell.table.clone(), cell.what.clone(), cell.size, cell.unit);
    let of_linux: Vec<_> = report.measurements.iter().filter(|cell| cell.who.starts_with("Linux")).map(row).collect();
    report.measurements.retain(|cell| of_linux.contains(&row(cell)));
}

/// What a reader must know of the comparison.
fn explain(altmap: Option<&Report>, report: &mut Report) {
    let altmap = altmap.map_or_else(
        || "altmap was not measured: `./x bench guest` does.".to_owned(),
        |altmap| format!("altmap was measured on {}.", altmap.date),
    );
    report.remark(hotplug::PLUG, format!("{altmap} Both kernels run on the same machine, one after the other."));
    report.remark(
        hotplug::PLUG,
        "Linux writes 64 bytes for each page before the memory is usable: 1 GiB for a DIMM of 64 GiB, 64 GiB for one of \
         4 TiB, all of which the host must give. It got no larger one than 64 GiB.",
    );
    report.remark(
        hotplug::ONLINE,
        "The same commands on both: under Linux our own first program takes them and writes to each block's `state` in \
         sysfs. Linux has no count of what is inside: its clock goes on while it waits.",
    );
    report.remark(
        moving::OFFLINE,
        "Linux has no command to fill a certain block: it is the only one in Movable, which Linux uses first. Data is memory \
         of our own first program there. What moved is `pgmigrate_success` of `/proc/vmstat`.",
    );
    report.remark(
        moving::OFFLINE,
        "Debian's Linux clears each page that it takes, also those that a copy overwrites; one column is without that. It \
         does so by `rep stosb`, of which each of 4096 bytes counts as an instruction here.",
    );
    report.remark(
        moving::REMOVE,
        "Linux takes one block offline after the other, and moves what is in it to the blocks of the same DIMM, too.",
    );
    report.remark(
        resize::GROW,
        "Linux has Debian's modules for it, which nothing but such a device makes it load. Its struct pages are in existing \
         memory, 16 MiB for each GiB, and Debian's clears them once more than needed; one column is without that. Where a \
         row is absent it came no nearer for a minute, in which it tries once more, or nobody tried.",
    );
    for table in [resize::SHRINK, resize::SHRINK_USED] {
        report.remark(
            table,
            "Linux takes what it gives back out of its allocator as if somebody would use it, and Debian's clears it \
             then, at an instruction a byte. One column is without that, and only there is 64 GiB: the \
             other would execute some 75 billion instructions.",
        );
    }
    report.remark(
        hotplug::ADD,
        "`memmap_on_memory` is for memory of a single block in this version of Linux; what is larger takes existing memory.",
    );
}
