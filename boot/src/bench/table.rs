//! Reports as tables: a row for every operation, a column for everybody who was measured.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::report::{Measurement, Report, Unit, distinct};
use crate::size::Bytes;

/// The columns that are nobody's.
const OPERATION: &str = "operation";
const UNIT: &str = "counted in";
const TARGET: &str = "target";

/// What identifies a row.
type Row<'a> = (&'a str, Option<u64>, Unit);

fn row_of(measurement: &Measurement) -> Row<'_> {
    (&measurement.what, measurement.size, measurement.unit)
}

/// All tables of `report`, for people at a terminal.
pub(super) fn for_terminal(report: &Report) -> String {
    let mut text = String::new();
    for heading in report.tables() {
        writeln!(text, "\n{heading}\n{}", table(report, heading).load_style(presets::UTF8_FULL_CONDENSED))
            .expect("a string grows");
        for remark in remarks(report, heading) {
            writeln!(text, "- {remark}").expect("a string grows");
        }
    }
    text
}

/// One table of `report` in Markdown, under a heading of the third level.
pub(super) fn in_markdown(report: &Report, heading: &str) -> String {
    let table = table(report, heading).load_style(presets::ASCII_MARKDOWN).to_string();
    let mut text = format!("### {heading}\n\n{}\n\n", with_numbers_to_the_right(&table));
    let remarks = remarks(report, heading);
    for remark in &remarks {
        writeln!(text, "- {remark}").expect("a string grows");
    }
    if !remarks.is_empty() {
        text.push('\n');
    }
    text
}

/// Markdown aligns a column to the right where the line below the header ends in a colon.
fn with_numbers_to_the_right(table: &str) -> String {
    let mut lines = table.splitn(3, '\n');
    let (Some(header), Some(line), Some(rows)) = (lines.next(), lines.next(), lines.next()) else {
        return table.to_owned();
    };
    let names = header.split('|').map(str::trim);
    let cells = names.zip(line.split('|')).map(|(name, dashes)| match name {
        "" | OPERATION | UNIT | TARGET => dashes.to_owned(),
        _ => format!("{}:", &dashes[..dashes.len() - 1]),
    });
    format!("{header}\n{}\n{rows}", cells.collect::<Vec<_>>().join("|"))
}

fn table(report: &Report, heading: &str) -> Table {
    let cells = report.of_table(heading);
    let columns = distinct(cells.clone().map(|cell| cell.who.as_str()));
    let has_limits = cells.clone().any(|cell| cell.limit.is_some());
    let mut table = Table::new();
    let mut header = vec![OPERATION, UNIT];
    header.extend(&columns);
    header.extend(has_limits.then_some(TARGET));
    table.set_header(header);
    for row in distinct(cells.clone().map(row_of)) {
        let in_row = cells.clone().filter(|cell| row_of(cell) == row);
        let (what, size, unit) = row;
        let size = size.map_or_else(String::new, |size| format!(", {}", Bytes(size)));
        let mut line = vec![Cell::new(format!("{what}{size}")), Cell::new(unit.name())];
        for column in &columns {
            let value = in_row.clone().find(|cell| cell.who == *column).map(|cell| number(cell.value));
            line.push(Cell::new(value.as_deref().unwrap_or("-")).set_alignment(CellAlignment::Right));
        }
        if has_limits {
            line.push(Cell::new(in_row.clone().find_map(verdict).unwrap_or_default()));
        }
        table.add_row(line);
    }
    table
}

fn verdict(cell: &Measurement) -> Option<String> {
    let word = if cell.passes()? { "PASS" } else { "MISS" };
    Some(format!("≤ {} {word}", number(cell.limit?)))
}

/// What to know of a table, then of its cells.
fn remarks(report: &Report, heading: &str) -> Vec<String> {
    let of_table = report.remarks.iter().filter(|remark| remark.table == heading).map(|remark| remark.text.clone());
    let of_cells = report.of_table(heading).filter_map(|cell| {
        let note = cell.note.as_ref()?;
        Some(format!("{}, {}: {note}", cell.what, cell.who))
    });
    distinct(of_table.chain(of_cells))
}

/// Whole from 100 on, in groups of three digits; three significant digits below.
pub(super) fn number(value: f64) -> String {
    if value != 0.0 && value.abs() < 99.5 {
        let decimals = if value.abs() < 0.995 {
            3
        } else if value.abs() < 9.95 {
            2
        } else {
            1
        };
        let text = format!("{value:.decimals$}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && !text.ends_with('-') {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::{Fact, Part};

    fn report() -> Report {
        let mut report = Report::new(Part::Host, true, Vec::<Fact>::new());
        let pair = |who: &str, value| Measurement::new("frames", "order 0", who, value, Unit::Instructions);
        report.add(Measurement { limit: Some(120.0), ..pair("altmap", 119.0) });
        report.add(Measurement { note: Some("it splits".to_owned()), ..pair("other", 7790.0) });
        let add = Measurement::new("frames", "make allocatable", "altmap", 4.0e6, Unit::Nanoseconds);
        report.add(Measurement { size: Some(1 << 40), limit: Some(3.0e6), ..add });
        report.remark("frames", "Hot.");
        report
    }

    #[test]
    fn a_table_has_a_row_for_every_operation_and_a_verdict_for_every_target() {
        let expected = "\
### frames

| operation            | counted in   | altmap    | other | target           |
|----------------------|--------------|----------:|------:|------------------|
| order 0              | instructions |       119 | 7 790 | ≤ 120 PASS       |
| make allocatable, 1T | ns           | 4 000 000 |     - | ≤ 3 000 000 MISS |

- Hot.
- order 0, other: it splits

";
        assert_eq!(in_markdown(&report(), "frames"), expected);
    }

    #[test]
    fn the_terminal_gets_the_same_cells() {
        let text = for_terminal(&report());
        for cell in ["7 790", "4 000 000", "≤ 120 PASS", "- order 0, other: it splits"] {
            assert!(text.contains(cell), "{cell} is not in\n{text}");
        }
    }

    #[test]
    fn numbers_are_for_reading() {
        let cases = [(0.0, "0"), (0.1472, "0.147"), (2.0, "2"), (9.96, "10"), (12.34, "12.3"), (99.6, "100")];
        let large = [(999.4, "999"), (1000.0, "1 000"), (-1234567.0, "-1 234 567")];
        for (value, text) in cases.into_iter().chain(large) {
            assert_eq!(number(value), text);
        }
    }
}
