//! That `./x bench` measures something: what the numbers are is for people to judge.

use anyhow::{Context, Result, ensure};
use boot::bench::report::{Part, Report, Unit};
use boot::bench::{self, Options};

/// Every step of a module's life has a table, and no cell is nonsense.
pub(crate) fn a_quick_bench_measures_every_step() -> Result<()> {
    let output = tempfile::tempdir().context("cannot make a directory")?;
    let options =
        Options { quick: true, output: output.path().to_owned(), ..Options::new(&["guest".to_owned()], false) };
    bench::run(&options)?;
    let report = Report::load(output.path(), Part::Guest)?.context("no report")?;
    let tables = ["Plugging", "Adding", "a whole DIMM online", "one block online", "First use", "offline", "Removing"];
    for table in tables.into_iter().chain(["full of data", "with 200 MiB of data"]) {
        ensure!(report.tables().iter().any(|heading| heading.contains(table)), "no table `{table}`");
    }
    for cell in &report.measurements {
        let is_possible = match cell.unit {
            Unit::Bytes => cell.value >= 0.0,
            _ => cell.value > 0.0,
        };
        ensure!(is_possible && cell.value.is_finite(), "{cell:?}");
    }
    let written = report.measurements.iter().filter(|cell| cell.what == "struct pages written");
    let written: Vec<_> = written.map(|cell| cell.value).collect();
    ensure!(!written.is_empty() && written.iter().all(|bytes| *bytes == 0.0), "struct pages at rest: {written:?}");
    Ok(())
}
