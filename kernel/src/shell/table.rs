//! Tables for people: columns as wide as their widest cell, numbers to the right.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Which edge a column keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A table under construction.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&str, Align)]) -> Self {
        let columns = columns.iter().map(|(title, align)| ((*title).into(), *align)).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row; a missing cell is empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        let title = &self.columns[column].0;
        cells.chain([title]).map(|cell| cell.chars().count()).max().unwrap_or(0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: Vec<usize> = (0..self.columns.len()).map(|column| self.width(column)).collect();
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| title.clone()).collect();
        for row in core::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for (index, (width, (_, align))) in widths.iter().zip(&self.columns).enumerate() {
                let cell = row.get(index).map_or("", String::as_str);
                if index > 0 {
                    line.push(' ');
                }
                match align {
                    Align::Left => line += &alloc::format!("{cell:<width$}"),
                    Align::Right => line += &alloc::format!("{cell:>width$}"),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[("RANGE", Align::Left), ("SIZE", Align::Right), ("ZONE", Align::Left)]);
        table.row(["0x0".into(), "128M".into(), "Normal".into()]);
        table.row(["0x80000000".into(), "1G".into()]);
        assert_eq!(table.to_string(), "RANGE      SIZE ZONE\n0x0        128M Normal\n0x80000000   1G\n");
    }
}
