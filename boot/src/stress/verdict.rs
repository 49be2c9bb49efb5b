//! Whether everything is as it must be when it is over.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::serial;

/// Log lines of a kernel that is in trouble begin so, behind the time.
const TROUBLE: [&str; 2] = ["panic", "watchdog"];

/// Totals of the guest's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    total: u64,
    free: u64,
    page_tables: u64,
    /// It grows and never shrinks.
    heap_size: u64,
}

impl Totals {
    /// What `meminfo -J` says.
    pub(super) fn of(meminfo: &Value) -> Result<Self> {
        let number = |key: &str| meminfo[key].as_u64().with_context(|| format!("no {key} in {meminfo}"));
        let [total, free] = [number("total")?, number("free")?];
        Ok(Self { total, free, page_tables: number("page_tables")?, heap_size: number("heap_size")? })
    }

    /// Fails unless they are as they were, but for what the heap has grown by.
    pub(super) fn compare(&self, before: &Self) -> Result<()> {
        let rest = |totals: &Self| totals.free + totals.page_tables + totals.heap_size;
        let same = if self.heap_size == before.heap_size {
            self == before
        } else {
            self.total == before.total && rest(self) == rest(before)
        };
        ensure!(same, "totals were {before:?} and are {self:?}");
        Ok(())
    }
}

/// Fails if the console's text tells of trouble.
pub(super) fn check_log(log: &str) -> Result<()> {
    let tells = |line: &&str| {
        let said = line.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(*line, |(_, said)| said);
        TROUBLE.iter().any(|area| said.strip_prefix(area).is_some_and(|rest| rest.starts_with(':')))
            || said.contains("panicked at")
    };
    match log.lines().find(tells) {
        Some(line) => bail!("the kernel says: {line}"),
        None => Ok(()),
    }
}

/// What the guest's own stress printed.
pub(super) fn guest_report(log: &str) -> Result<Value> {
    let mut told = log.lines().rev().filter_map(serial::of_job);
    let line = told.find(|text| text.starts_with("{\"seed\":")).context("the guest printed no report")?;
    serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))
}

/// One line about a run in which nothing was wrong.
pub(super) fn summary(report: &Value) -> String {
    let sum =
        |counts: &Value| -> u64 { counts.as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum() };
    let (guest, modules) = (&report["guest"], &report["modules"]);
    format!(
        "seed {}: {} s on {} CPUs, {} operations and {} refusals in the guest, {} recounts, {} modules plugged \
         ({} not taken), {} unplugged ({} kept), {} resizes, totals as before",
        report["seed"],
        report["seconds"],
        guest["cpus"],
        sum(&guest["operations"]),
        sum(&guest["refused"]),
        guest["memchecks"],
        modules["plugged"],
        modules["not_taken"],
        modules["unplugged"],
        modules["kept"],
        report["resizes"]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const BEFORE: Totals = Totals { total: 1000, free: 900, page_tables: 10, heap_size: 20 };

    #[test]
    fn only_the_heap_may_have_grown() {
        assert!(BEFORE.compare(&BEFORE).is_ok());
        assert!(Totals { free: 880, heap_size: 40, ..BEFORE }.compare(&BEFORE).is_ok());
        for after in [
            Totals { total: 999, ..BEFORE },
            Totals { free: 899, ..BEFORE },
            Totals { page_tables: 11, ..BEFORE },
            Totals { free: 881, heap_size: 40, ..BEFORE },
            Totals { free: 899, page_tables: 11, ..BEFORE },
        ] {
            assert!(after.compare(&BEFORE).is_err(), "{after:?}");
        }
    }

    #[test]
    fn trouble_is_told_from_what_only_mentions_it() {
        for line in ["panic: out of luck", "[1.5] watchdog: CPU 1 stands still", "kernel panicked at src/x.rs:1:1"] {
            assert!(check_log(&format!("altmap> lsmem\n{line}\n")).is_err(), "{line}");
        }
        for line in ["  panic   end in a panic", "[1.5] dimm: dimm0: online", "help watchdog"] {
            assert!(check_log(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_run_is_told_in_one_line_with_its_seed_first() {
        let log = "altmap> jobs\njob 1: {\"seed\":7,\"cpus\":2,\"operations\":{\"fill\":2,\"free\":3},\"refused\":{\"fill\":1}}\n";
        let guest = guest_report(log).expect("it is there");
        let line = summary(&json!({"seed": 7, "seconds": 5, "modules": {"plugged": 4}, "guest": guest}));
        assert!(line.starts_with("seed 7: 5 s on 2 CPUs, 5 operations and 1 refusals"), "{line}");
        assert!(!line.contains('\n'));
    }
}
