//! `./x bench --quick host`, as a user runs it: that it tells the truth about itself, not how fast anything is.

use std::path::Path;
use std::process::Command;

use boot::bench::report::{Measurement, Part, Report, Unit};

/// Every row with its size, and how many of the five allocators have it.
const ROWS: [(&str, Option<u64>, usize); 13] = [
    ("order-0 take + free, hot", None, 5),
    ("order-0 take + free, one of two CPUs", None, 1),
    ("order-0 take + free, both CPUs", None, 1),
    ("order-9 take + free, hot", None, 5),
    ("order-10 take + free, hot", None, 5),
    ("order-0 take + free, in random order", None, 5),
    ("mixed orders 0 to 9, a step", None, 5),
    ("make allocatable", Some(128 << 20), 5),
    ("make allocatable", Some(1 << 30), 5),
    ("make allocatable", Some(8 << 30), 5),
    ("take out, wholly free, never used", Some(128 << 20), 4),
    ("take out, wholly free, used before", Some(128 << 20), 4),
    ("isolate, every second frame in use", Some(128 << 20), 3),
];

fn bench(output: &Path, words: &[&str]) -> (String, Report) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boot"));
    command.args(["bench", "--quick", "host"]).args(words).arg("--output").arg(output);
    let run = command.output().expect("it starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let report = Report::load(output, Part::Host).expect("it is a report").expect("it is there");
    (String::from_utf8(run.stdout).expect("text"), report)
}

/// The cells of the rows of every table in a terminal's output.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with('│'));
    rows.map(|row| row.trim_matches('│').split('┆').map(str::trim).collect()).collect()
}

/// As the table rounds it: to the unit from 100 on, to three digits below.
fn is_the_same(cell: &str, value: f64) -> bool {
    let shown: f64 = cell.replace(' ', "").parse().expect("a number");
    (shown - value).abs() <= if value < 100.0 { value * 0.005 } else { 0.5 }
}

#[test]
fn every_operation_is_measured_and_the_table_shows_what_the_json_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let (text, report) = bench(directory.path(), &[]);
    assert!(!report.complete, "a quick run is not for the document");
    assert!(report.measurements.iter().all(|cell| cell.value > 0.0), "{report:?}");
    let targets = report.measurements.iter().filter(|cell| cell.limit.is_some());
    assert!(targets.clone().all(|cell| cell.who == "altmap"));
    assert_eq!(targets.count(), 4, "the largest size is not for a quick run");

    let rows = rows(&text);
    let (header, rows) = rows.split_first().expect("there is a table");
    assert_eq!(rows.len(), 2 * ROWS.len(), "{text}");
    for (what, size, allocators) in ROWS {
        for unit in [Unit::Instructions, Unit::Nanoseconds] {
            let is_here = |cell: &&Measurement| (cell.what.as_str(), cell.size, cell.unit) == (what, size, unit);
            let cells: Vec<_> = report.measurements.iter().filter(is_here).collect();
            assert_eq!(cells.len(), allocators, "{what}");
            let name = size.map_or(what.to_owned(), |size| format!("{what}, {}", boot::size::Bytes(size)));
            let row = rows.iter().find(|row| row[0] == name && row[1] == unit.name()).expect(&name);
            for cell in cells {
                let column = header.iter().position(|column| *column == cell.who).expect("it has a column");
                assert!(
                    is_the_same(row[column], cell.value),
                    "{name}, {}: {} is shown for {cell:?}",
                    cell.who,
                    row[column]
                );
            }
        }
    }
}

#[test]
fn instructions_are_the_same_every_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let count = || {
        let (_, report) = bench(directory.path(), &["order-0 take + free, hot"]);
        report.measurements.into_iter().filter(|cell| cell.unit == Unit::Instructions).collect::<Vec<_>>()
    };
    let (first, second) = (count(), count());
    assert_eq!(first.len(), 5);
    for (one, other) in first.iter().zip(&second) {
        assert!((one.value - other.value).abs() <= one.value / 100.0, "{one:?} and {other:?}");
    }
}
