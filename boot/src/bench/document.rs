//! The report that is kept with the source: what the last whole run of every part left, in one document.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::report::{Fact, Part, Report};
use super::{plot, table};
use crate::workspace;

/// The document, at the top of the workspace.
pub(super) const NAME: &str = "BENCHMARKS.md";
/// Its plots.
const PLOTS: &str = "docs/benchmarks";

/// Writes the document from the reports in `measured`.
pub(super) fn write(measured: &Path) -> Result<()> {
    let mut reports = Vec::new();
    for part in Part::ALL {
        reports.extend(Report::load(measured, part)?);
    }
    if let Some(report) = reports.iter().find(|report| !report.complete) {
        let part = report.part.name();
        bail!("the last run of `{part}` was not whole, so nothing is written; ./x bench {part} --write");
    }
    let directory = workspace::root().join(PLOTS);
    // What is not measured any more shall not stay.
    fs::remove_dir_all(&directory).ok();
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    plot::draw(&plot::of_reports(&reports), &directory)?;
    let path = workspace::root().join(NAME);
    fs::write(&path, text(&reports)).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", workspace::short(&path).display());
    Ok(())
}

fn text(reports: &[Report]) -> String {
    let mut text = String::from(
        "# Benchmarks\n\nWritten by `./x bench --linux --write`; do not edit. `README.md` tells how to repeat it. \
         `-` means that there is no such operation, or that a remark tells why it was not measured.\n\n",
    );
    let mut plots = plot::of_reports(reports);
    for report in reports {
        let title = match report.part {
            Part::Host => "On the host: `mm` and published frame allocators",
            Part::Guest => "In the guest: altmap",
            Part::Linux => "In the guest: Linux",
        };
        write!(text, "## {title}\n\nMeasured on {}.\n\n{}\n", report.date, facts(&report.facts))
            .expect("a string grows");
        for heading in report.tables() {
            text += &table::in_markdown(report, heading);
            // Where several parts have the same table, its plots show all of them and stand with the first.
            for plot in plots.extract_if(.., |plot| plot.table == heading) {
                let path = plot.path(Path::new(PLOTS));
                writeln!(text, "![{}, {}]({})\n", plot.title(), plot.unit.name(), path.display())
                    .expect("a string grows");
            }
        }
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

fn facts(facts: &[Fact]) -> String {
    facts.iter().fold(String::new(), |text, fact| text + &format!("- {}: {}\n", fact.name, fact.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::{Measurement, Unit};

    #[test]
    fn the_document_tells_when_and_where() {
        let mut report = Report::new(Part::Host, true, vec![Fact::new("CPU", "a fast one")]);
        report.add(Measurement::new("frames", "order 0", "altmap", 119.0, Unit::Instructions));
        let text = text(&[report.clone()]);
        for part in [report.date.as_str(), "- CPU: a fast one\n", "### frames\n", "|    119 |"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(text.ends_with("|\n"));
    }

    #[test]
    fn a_part_that_is_not_whole_does_not_vanish_from_the_document() {
        let directory = tempfile::tempdir().expect("a directory");
        Report::new(Part::Host, false, Vec::new()).save(directory.path()).expect("saved");
        let error = write(directory.path()).expect_err("refused").to_string();
        assert!(error.contains("./x bench host --write"), "{error}");
    }
}
