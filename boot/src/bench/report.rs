//! What was measured, as plain data.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Where something was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// `mm` alone, on this machine.
    Host,
    /// The whole kernel, in QEMU.
    Guest,
    /// Linux, in the same QEMU.
    Linux,
}

impl Part {
    /// Every part, in the order of the document.
    pub const ALL: [Self; 3] = [Self::Host, Self::Guest, Self::Linux];

    /// Its word on the command line and the name of its file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Guest => "guest",
            Self::Linux => "linux",
        }
    }
}

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Instructions of the guest, or of the program under callgrind.
    Instructions,
    /// Instructions for each byte that the operation is about.
    InstructionsPerByte,
    /// Nanoseconds.
    Nanoseconds,
    /// Bytes.
    Bytes,
    /// Frames of 4 KiB.
    Frames,
    /// What a guest asks of a device.
    Requests,
    /// Hundredths.
    Percent,
}

impl Unit {
    /// How a table writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::InstructionsPerByte => "instructions/byte",
            Self::Nanoseconds => "ns",
            Self::Bytes => "bytes",
            Self::Frames => "frames",
            Self::Requests => "requests",
            Self::Percent => "%",
        }
    }
}

/// One number: a cell of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// The heading of its table.
    pub table: String,
    /// Its row: the operation.
    pub what: String,
    /// Its column: `altmap`, `Linux 6.1`, the name of a crate.
    pub who: String,
    /// How much memory the operation is about, in bytes, where that is what varies between rows.
    pub size: Option<u64>,
    /// The number.
    pub value: f64,
    /// What it counts.
    pub unit: Unit,
    /// What it shall not exceed.
    pub limit: Option<f64>,
    /// What a reader must know of this very number.
    pub note: Option<String>,
}

impl Measurement {
    /// A number without size, limit and note.
    pub fn new(table: &str, what: &str, who: &str, value: f64, unit: Unit) -> Self {
        let (table, what, who) = (table.to_owned(), what.to_owned(), who.to_owned());
        Self { table, what, who, size: None, value, unit, limit: None, note: None }
    }

    /// Whether it keeps its limit; `None` without one.
    #[must_use]
    pub fn passes(&self) -> Option<bool> {
        self.limit.map(|limit| self.value <= limit)
    }
}

/// What a reader must know of a whole table: how it was measured, who is not in it and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remark {
    /// The heading of the table.
    pub table: String,
    /// Markdown, one paragraph.
    pub text: String,
}

/// Something about the machine or a version, such as `CPU`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What.
    pub name: String,
    /// Which.
    pub value: String,
}

impl Fact {
    /// A fact.
    pub fn new(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: value.into() }
    }
}

/// Everything that one part measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Which part.
    pub part: Part,
    /// The day, as in 2026-01-31.
    pub date: String,
    /// Whether nothing was left out or cut short.
    pub complete: bool,
    /// The machine and the versions.
    pub facts: Vec<Fact>,
    /// The numbers; tables, rows and columns come in the order of their first number.
    pub measurements: Vec<Measurement>,
    /// What to know of the tables.
    pub remarks: Vec<Remark>,
}

impl Report {
    /// A report of today, nothing measured yet.
    pub fn new(part: Part, complete: bool, facts: Vec<Fact>) -> Self {
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let date = now.split_once('T').map_or(now.as_str(), |(date, _)| date).to_owned();
        Self { part, date, complete, facts, measurements: Vec::new(), remarks: Vec::new() }
    }

    /// Adds a number.
    pub fn add(&mut self, measurement: Measurement) {
        self.measurements.push(measurement);
    }

    /// Adds what to know of a table.
    pub fn remark(&mut self, table: &str, text: impl Into<String>) {
        self.remarks.push(Remark { table: table.to_owned(), text: text.into() });
    }

    /// Adds something about the machine or a version.
    pub fn fact(&mut self, name: &str, value: impl Into<String>) {
        self.facts.push(Fact::new(name, value));
    }

    /// The headings of the tables.
    #[must_use]
    pub fn tables(&self) -> Vec<&str> {
        distinct(self.measurements.iter().map(|measurement| measurement.table.as_str()))
    }

    /// The numbers of one table.
    pub fn of_table<'a>(&'a self, table: &'a str) -> impl Iterator<Item = &'a Measurement> + Clone {
        self.measurements.iter().filter(move |measurement| measurement.table == table)
    }

    /// Writes it into `directory`, for [`load`](Self::load).
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let path = file(directory, self.part);
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What the last run left in `directory`; `None` if there was none.
    ///
    /// # Errors
    /// What is there is no report.
    pub fn load(directory: &Path, part: Part) -> Result<Option<Self>> {
        let path = file(directory, part);
        let Ok(text) = fs::read_to_string(&path) else { return Ok(None) };
        let report = serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))?;
        Ok(Some(report))
    }
}

fn file(directory: &Path, part: Part) -> PathBuf {
    directory.join(part.name()).with_extension("json")
}

/// Each value once, in the order of its first appearance.
pub(super) fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for value in values {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_its_file() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(Report::load(directory.path(), Part::Host).expect("nothing is no error"), None);
        let mut report = Report::new(Part::Host, true, vec![Fact::new("CPU", "one")]);
        let cell = Measurement::new("frames", "order 0", "altmap", 119.5, Unit::Instructions);
        report.add(Measurement { limit: Some(120.0), size: Some(1 << 30), note: Some("warm".to_owned()), ..cell });
        report.remark("frames", "Nobody else is here.");
        report.save(directory.path()).expect("written");
        assert_eq!(Report::load(directory.path(), Part::Host).expect("read"), Some(report));
    }

    #[test]
    fn a_limit_is_kept_up_to_itself() {
        let cell = Measurement::new("frames", "order 0", "altmap", 120.0, Unit::Instructions);
        assert_eq!(cell.passes(), None);
        assert_eq!(Measurement { limit: Some(120.0), ..cell.clone() }.passes(), Some(true));
        assert_eq!(Measurement { limit: Some(119.0), ..cell }.passes(), Some(false));
    }
}
