//! What was measured round by round, and what of it is reported: the first round apart, then the median of the others.

use super::Options;
use super::hotplug::TABLES;
use super::report::{Measurement, Report, Unit, distinct};

/// The heading of what the first round cost.
const FIRST: &str = "The first time";

/// A first round that differs by less than this from the later ones is not told apart.
const NOTABLE: f64 = 0.1;

/// One row of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub table: &'static str,
    pub what: &'static str,
    pub size: Option<u64>,
    pub unit: Unit,
}

/// The rounds of each row.
#[derive(Debug, Default)]
pub(super) struct Samples(Vec<(Row, Vec<f64>)>);

impl Samples {
    /// Adds what one round cost.
    pub(super) fn add(&mut self, row: Row, value: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == row) {
            Some((_, values)) => values.push(value),
            None => self.0.push((row, vec![value])),
        }
    }

    /// Keeps the larger of `value` and what is there.
    pub(super) fn add_worst(&mut self, row: Row, value: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == row) {
            Some((_, values)) => values.iter_mut().for_each(|known| *known = known.max(value)),
            None => self.0.push((row, vec![value])),
        }
    }

    /// Reports what `options` want of it: rows of one operation stay together, whatever their size.
    pub(super) fn report(
        &self,
        who: &str,
        options: &Options,
        limit: impl Fn(&Row) -> Option<f64>,
        report: &mut Report,
    ) {
        let mut kinds = distinct(self.0.iter().map(|(row, _)| (row.table, row.what, row.unit)));
        kinds.sort_by_key(|(table, _, _)| TABLES.iter().position(|known| known == table));
        let rows =
            kinds.iter().flat_map(|kind| self.0.iter().filter(|(row, _)| (row.table, row.what, row.unit) == *kind));
        for (row, values) in rows.filter(|(row, _)| options.wants(row.what, who)) {
            let (first, later) = values.split_first().expect("a row begins with a value");
            let value = match row.unit {
                // What was taken once is there already the next time.
                Unit::Bytes => values.iter().copied().fold(0.0, f64::max),
                _ => median(if later.is_empty() { values } else { later }),
            };
            let cell = Measurement { size: row.size, ..Measurement::new(row.table, row.what, who, value, row.unit) };
            if row.unit == Unit::Instructions && (first - value).abs() > NOTABLE * value {
                let what = format!("{}: {}", row.table, row.what);
                report.add(Measurement { table: FIRST.to_owned(), what, value: *first, ..cell.clone() });
            }
            report.add(Measurement { limit: limit(row), ..cell });
        }
    }
}

/// Puts the table of first rounds last and says what it is, if there is one.
pub(super) fn explain_first(report: &mut Report) {
    report.measurements.sort_by_key(|cell| cell.table == FIRST);
    if report.of_table(FIRST).next().is_some() {
        report.remark(
            FIRST,
            "The first round of each size. Everywhere else instructions are the median of the later rounds (and bytes the \
             most of all rounds); where they differ by less than a tenth, nothing is listed here.",
        );
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], sorted[middle]) } else { sorted[middle] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::Part;

    const ROW: Row = Row { table: "online", what: "a block", size: None, unit: Unit::Instructions };

    fn reported(values: &[f64], filters: &[&str]) -> Vec<(String, f64, Option<f64>)> {
        let mut samples = Samples::default();
        values.iter().for_each(|value| samples.add(ROW, *value));
        let words: Vec<_> = filters.iter().map(|word| (*word).to_owned()).collect();
        let mut report = Report::new(Part::Guest, true, Vec::new());
        samples.report("altmap", &Options::new(&words, false), |_| Some(3.0), &mut report);
        report.measurements.into_iter().map(|cell| (cell.table, cell.value, cell.limit)).collect()
    }

    #[test]
    fn the_first_round_is_told_apart_where_it_is_an_outlier() {
        let usual = ("online".to_owned(), 2.0, Some(3.0));
        assert_eq!(reported(&[9.0, 2.0, 1.0, 3.0], &[]), [("The first time".to_owned(), 9.0, None), usual.clone()]);
        assert_eq!(reported(&[2.1, 2.0, 2.0], &[]), [usual]);
    }

    #[test]
    fn a_single_round_and_an_even_number_have_a_median_too() {
        assert_eq!(reported(&[5.0], &[])[0].1, 5.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
    }

    #[test]
    fn of_memory_taken_the_most_counts() {
        let mut samples = Samples::default();
        for bytes in [4096.0, 8192.0, 0.0] {
            samples.add(Row { unit: Unit::Bytes, ..ROW }, bytes);
        }
        let mut report = Report::new(Part::Guest, true, Vec::new());
        samples.report("altmap", &Options::new(&[], false), |_| None, &mut report);
        assert_eq!(report.measurements[0].value, 8192.0);
    }

    #[test]
    fn what_is_not_wanted_is_not_reported() {
        assert!(reported(&[5.0], &["offline"]).is_empty());
        assert_eq!(reported(&[5.0], &["block"]).len(), 1);
    }
}
