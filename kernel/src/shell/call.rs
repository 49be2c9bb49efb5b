//! One run of a command: the words it got, where its output goes, and whether it shall stop.

use super::arguments::Arguments;
use super::failure::{Failure, Outcome};
use super::json;
use super::table::{Align, Cell, Columns};
use crate::pace::TaskPace;
use alloc::string::String;
use core::fmt::{self, Write};
use mm::machine::tasks::Pace;
use serde::Serialize;

/// Where the output of a command goes.
pub(crate) trait Sink {
    /// Takes text; a line may come in pieces.
    fn write(&mut self, text: &str);
}

/// Output that is gathered before it is shown.
const GATHERED_BYTES: usize = 2048;

/// What a command works with. A line that it has begun is ended with it.
pub(crate) struct Call<'a> {
    pub(crate) arguments: &'a Arguments,
    sink: &'a mut dyn Sink,
    /// Printed, but not shown yet.
    gathered: String,
    line_open: bool,
}

impl<'a> Call<'a> {
    pub(crate) fn new(arguments: &'a Arguments, sink: &'a mut dyn Sink) -> Self {
        Self { arguments, sink, gathered: String::new(), line_open: false }
    }

    /// Prints a line.
    pub(crate) fn line(&mut self, line: impl fmt::Display) {
        self.text(&alloc::format!("{line}\n"));
    }

    /// Prints a text that ends its own lines.
    pub(crate) fn text(&mut self, text: &str) {
        for line in text.split_inclusive('\n') {
            self.gather(line);
        }
        self.show_gathered();
    }

    /// Prints a part of what is too long to be built, and lets others run. Fails if the command shall stop.
    pub(crate) fn part(&mut self, part: fmt::Arguments<'_>) -> Outcome {
        self.gather(part);
        breathe()
    }

    /// Prints a report: as JSON if `-J` was given, else as `people` shows it.
    pub(crate) fn show<R: Serialize>(&mut self, report: &R, people: impl FnOnce(&R) -> String) {
        if self.arguments.has("-J") {
            self.line(json::line(report));
        } else {
            self.text(&people(report));
        }
    }

    /// Prints a list of JSON, item by item.
    pub(crate) fn json_list<T: Serialize>(&mut self, items: impl Iterator<Item = T>) -> Outcome {
        let mut separator = "[";
        for item in items {
            self.part(format_args!("{separator}{}", json::line(&item)))?;
            separator = ",";
        }
        self.part(format_args!("{}]", if separator == "[" { "[" } else { "" }))
    }

    /// Prints a table row by row, going through the rows twice: to see how wide they are, then to print them.
    pub(crate) fn table<const N: usize, R>(&mut self, titles: &[(&str, Align); N], rows: impl Fn() -> R) -> Outcome
    where
        R: Iterator<Item = [Cell; N]>,
    {
        let mut columns = Columns::new(titles);
        for row in rows() {
            columns.fit(&row);
            breathe()?;
        }
        self.part(format_args!("{}", columns.titles()))?;
        for row in rows() {
            self.part(format_args!("{}", columns.line(&row)))?;
        }
        Ok(())
    }

    fn gather(&mut self, part: impl fmt::Display) {
        // Writing to a string cannot fail; a `Display` that fails leaves shorter text.
        let _ = write!(self.gathered, "{part}");
        if self.gathered.len() >= GATHERED_BYTES {
            self.show_gathered();
        }
    }

    fn show_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.sink.write(&self.gathered);
            self.line_open = !self.gathered.ends_with('\n');
            self.gathered.clear();
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.show_gathered();
        if self.line_open {
            self.sink.write("\n");
        }
    }
}

/// Between the steps of a long loop: lets others run, and says whether to go on.
pub(crate) fn breathe() -> Result<(), Failure> {
    TaskPace::untimed().pause().map_err(|_| Failure::cancelled())
}
