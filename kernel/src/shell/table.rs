//! Tables for people: columns as wide as their widest cell, numbers to the right.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

/// Which edge a column keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// What stands in one place of a table that is printed row by row.
pub(crate) type Cell = heapless::String<40>;

/// The cell that shows a value; what does not fit is cut.
pub(crate) fn cell(value: impl fmt::Display) -> Cell {
    let mut cell = Cell::new();
    let _ = write!(Cut(&mut cell), "{value}");
    cell
}

struct Cut<'a>(&'a mut Cell);

impl Write for Cut<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|letter| self.0.push(letter)).map_err(|_| fmt::Error)
    }
}

/// The columns of a table, which every row is fitted into before the first is printed.
#[derive(Debug)]
pub(crate) struct Columns {
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    title: String,
    align: Align,
    width: usize,
}

impl Columns {
    pub(crate) fn new(titles: &[(&str, Align)]) -> Self {
        let column = |(title, align): &(&str, Align)| Column {
            title: (*title).into(),
            align: *align,
            width: title.chars().count(),
        };
        Self { columns: titles.iter().map(column).collect() }
    }

    /// Makes room for a row; a missing cell is empty.
    pub(crate) fn fit(&mut self, row: &[impl AsRef<str>]) {
        for (column, cell) in self.columns.iter_mut().zip(row) {
            column.width = column.width.max(cell.as_ref().chars().count());
        }
    }

    /// The line of titles.
    pub(crate) fn titles(&self) -> String {
        self.line_of(self.columns.iter().map(|column| column.title.as_str()))
    }

    /// The line of a row that was fitted.
    pub(crate) fn line(&self, row: &[impl AsRef<str>]) -> String {
        self.line_of(row.iter().map(AsRef::as_ref))
    }

    fn line_of<'a>(&self, mut cells: impl Iterator<Item = &'a str>) -> String {
        let mut line = String::with_capacity(self.columns.iter().map(|column| column.width + 1).sum());
        for (index, column) in self.columns.iter().enumerate() {
            let cell = cells.next().unwrap_or_default();
            // A row may have grown since it was fitted.
            let padding = column.width.saturating_sub(cell.chars().count());
            let (before, after) = if column.align == Align::Left { (0, padding) } else { (padding, 0) };
            line.extend(core::iter::repeat_n(' ', before + usize::from(index > 0)));
            line.push_str(cell);
            line.extend(core::iter::repeat_n(' ', after));
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}

/// A table under construction.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Columns,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(titles: &[(&str, Align)]) -> Self {
        Self { columns: Columns::new(titles), rows: Vec::new() }
    }

    /// Adds a row; a missing cell is empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let row: Vec<String> = cells.into_iter().collect();
        self.columns.fit(&row);
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.columns.titles())?;
        self.rows.iter().try_for_each(|row| f.write_str(&self.columns.line(row)))
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

    #[test]
    fn a_cell_holds_what_fits() {
        assert_eq!(cell(format_args!("{}-{}", 1, 2)).as_str(), "1-2");
        assert_eq!(cell("x".repeat(100)).as_str(), "x".repeat(40));
    }
}
