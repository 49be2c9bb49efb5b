//! The whole kernel, in QEMU.

use anyhow::{Result, bail};

use super::Options;
use super::column::{Column, Extent, Extra, MEMORY, MUCH_ROOM, ROOM, SMALL_MEMORY};
use super::hotplug::{self, Kernel, Rows};
use super::moving;
use super::report::Report;
use super::resize;
use super::samples::{self, Row, Samples};
use super::start;
use crate::image;
use crate::size::{Bytes, gib, mib};

/// Rounds after the first.
const ROUNDS: u32 = 3;

pub(super) fn measure(options: &Options, report: &mut Report) -> Result<()> {
    report.fact("instructions", COUNTED);
    let images = image::up_to_date()?;
    let mut samples = Samples::default();
    start::altmap((&images).into(), rounds(options.quick), options.quick, &mut samples)?;
    samples.report("altmap", options, start::limit, report);
    let mut failed = Vec::new();
    for (who, columns, limit) in columns(options.quick) {
        let mut samples = Samples::default();
        for column in columns {
            failed.extend(column.measure((&images).into(), &mut samples)?);
        }
        samples.report(&who, options, limit, report);
    }
    samples::explain_first(report);
    explain(report);
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

/// How instructions are counted, for the list of facts.
pub(super) const COUNTED: &str = "counted by QEMU (-icount shift=0); the guest's clock advances by 1 ns for each";

/// How a column is called where the guest is the small one.
pub(super) fn in_small(who: &str) -> String {
    format!("{who} in {SMALL_MEMORY}")
}

type Limit = fn(&Row) -> Option<f64>;

const fn rounds(quick: bool) -> u32 {
    if quick { 1 } else { ROUNDS }
}

/// What makes up each column of the tables, and what it promises.
fn columns(quick: bool) -> [(String, Vec<Column>, Limit); 2] {
    let rounds = rounds(quick);
    let column = |memory, room, extent, sizes: &[Bytes], extras: &[Extra]| Column {
        who: "altmap".to_owned(),
        kernel: Kernel::Altmap,
        memory,
        room,
        params: Vec::new(),
        extent,
        sizes: sizes.iter().map(|size| (*size, rounds)).collect(),
        extras: extras.to_vec(),
    };
    let usual = [mib(128), gib(1), gib(8), gib(64), gib(256)];
    let (sizes, few) = if quick { (&usual[..2], &usual[1..2]) } else { (&usual[..], &usual[1..4]) };
    let extras = [Extra::Moving, Extra::Frames, Extra::InterruptsOff, Extra::Scatter];
    let extras = if quick { &extras[..3] } else { &extras };
    let mut large = vec![column(MEMORY, ROOM, Extent::Everything, sizes, extras)];
    if !quick {
        let sizes = [gib(1 << 10), gib(4 << 10)];
        large.push(column(MEMORY, MUCH_ROOM, Extent::Everything, &sizes, &[Extra::InterruptsOff]));
    }
    large.push(column(MEMORY, ROOM, Extent::Resize, few, &[Extra::Shrinking]));
    let small = [Extent::Plug, Extent::Resize].map(|extent| column(SMALL_MEMORY, ROOM, extent, few, &[]));
    [("altmap".to_owned(), large, limit), (in_small("altmap"), Vec::from(small), limit_in_small)]
}

/// What altmap promises.
fn limit(row: &Row) -> Option<f64> {
    let size = row.size.unwrap_or_default();
    let is_inside = |rows: &[Rows]| rows.iter().any(|rows| rows.inside == row.what);
    match (row.table, row.what) {
        _ if is_inside(&[hotplug::EARLY, hotplug::LATE, hotplug::NEVER_USED]) => Some(2000.0),
        _ if is_inside(&[hotplug::FREED]) => Some(60_000.0),
        // Of a small module the command itself is most.
        (_, hotplug::PER_SECTION) if size >= 1 << 40 => Some(300.0),
        (_, hotplug::OPENING) => Some(0.2),
        (_, hotplug::OVERHEAD) => Some(0.8),
        (_, hotplug::IRQS_OFF) => Some(50_000.0),
        (_, hotplug::MEMMAP) => Some(0.0),
        (hotplug::PLUG, what) if size == 4 << 40 => limit_of_plug(what),
        _ => moving::limit(row).or_else(|| resize::limit(row)),
    }
}

fn limit_in_small(row: &Row) -> Option<f64> {
    match row.table {
        hotplug::PLUG => limit_of_plug(row.what).filter(|_| row.size == Some(64 << 30)),
        _ => resize::limit(row),
    }
}

fn limit_of_plug(what: &str) -> Option<f64> {
    match what {
        hotplug::EVENT => Some(150e6),
        hotplug::TAKEN => Some(65_536.0),
        hotplug::HOST => Some((64 << 20) as f64),
        hotplug::MEMMAP => Some(0.0),
        _ => None,
    }
}

/// What a reader must know of the tables.
pub(super) fn explain(report: &mut Report) {
    let remarks = [
        start::REMARK,
        (
            hotplug::PLUG,
            "`auto_online` is `online_movable`. What the host gives is the growth of QEMU's memory from `device_add` on; \
             three bits for each page that QEMU itself keeps are not in it, but the guest's code that QEMU translates is.",
        ),
        (
            hotplug::ONLINE,
            "The whole command is everything from the first key on the serial line to the next prompt: echo, parsing and \
             printing, too. Inside the operation is what the kernel's own clock says.",
        ),
        (hotplug::INSIDE, "By the shell's `bench`; the first time is apart, because nothing is at hand then."),
        (hotplug::ONE, "A late block is the 30000th of a DIMM of 4 TiB, or the one as far along a smaller DIMM."),
    ];
    for (table, text) in remarks.into_iter().chain(moving::REMARKS).chain(resize::REMARKS) {
        report.remark(table, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::Unit;

    #[test]
    fn in_a_quick_run_a_device_grows_by_1_gib_only() {
        let columns = columns(true).into_iter().flat_map(|(_, columns, _)| columns);
        let resized: Vec<_> = columns.filter(|column| column.extent == Extent::Resize).collect();
        assert_eq!(resized.len(), 2);
        assert!(resized.iter().all(|column| column.sizes == [(gib(1), 1)]));
    }

    #[test]
    fn a_device_may_cost_the_same_in_both_guests() {
        let row = |what| Row { table: resize::GROW, what, size: Some(64 << 30), unit: Unit::Instructions };
        for what in [resize::PER_GIB, resize::TAKEN] {
            let of_usual = limit(&row(what));
            assert!(of_usual.is_some());
            assert_eq!(limit_in_small(&row(what)), of_usual);
        }
    }
}
