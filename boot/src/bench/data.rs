//! Data that a guest has in certain memory, and how much of it the guest moves.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::counted::Counted;
use super::hotplug::Kernel;
use super::memory::Memory;

pub(super) const PAGE: u64 = 4 << 10;

/// Anonymous memory that is as it was written.
#[must_use = "the guest keeps it"]
pub(super) struct Fill(String);

impl Fill {
    /// Brings data into blocks. Under Linux, they must be the only ones in Movable, which it fills first.
    pub(super) fn new(
        machine: &mut Counted,
        kernel: Kernel,
        size: u64,
        option: &str,
        (first, last): (u64, u64),
    ) -> Result<Self> {
        let place = match kernel {
            Kernel::Altmap => format!(" --in {first}-{last}"),
            Kernel::Linux => String::new(),
        };
        let free = Memory::of(machine)?.movable;
        let line = format!("fill {size}{option}{place}");
        let printed = machine.command(&line)?;
        let taken = free.saturating_sub(Memory::of(machine)?.movable);
        ensure!(taken > size / 10 * 9, "`{line}` took {taken} bytes of Movable");
        let id = printed.trim().strip_prefix("fill ").with_context(|| format!("`{line}` printed {printed:?}"))?;
        Ok(Self(id.to_owned()))
    }

    pub(super) fn check_and_free(self, machine: &mut Counted) -> Result<()> {
        machine.command(&format!("verify {}", self.0))?;
        machine.command(&format!("free {}", self.0)).map(drop)
    }
}

/// The moment from which on is looked what a guest moves.
pub(super) enum Mark {
    /// When the last event in altmap's journal ended.
    Event(u64),
    /// Linux's count of all pages.
    Count(u64),
}

/// What a guest has moved since.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moved {
    /// In 4 KiB.
    pub pages: u64,
    /// The instructions of all operations, where the guest tells: a nanosecond of its clock is an instruction.
    pub inside: Option<u64>,
}

impl Mark {
    pub(super) fn now(machine: &mut Counted, kernel: Kernel) -> Result<Self> {
        match kernel {
            Kernel::Altmap => {
                let journal = machine.json("events")?;
                let last = events(&journal)?.last().and_then(|event| event["t"].as_u64());
                last.map(Self::Event).context("no event, although a module came")
            }
            Kernel::Linux => migrated(machine).map(Self::Count),
        }
    }

    pub(super) fn moved_since(&self, machine: &mut Counted) -> Result<Moved> {
        match *self {
            Self::Event(last) => moved_after(last, &machine.json("events")?),
            Self::Count(before) => Ok(Moved { pages: migrated(machine)? - before, inside: None }),
        }
    }
}

fn moved_after(last: u64, journal: &Value) -> Result<Moved> {
    let new = || events(journal).map(|all| all.iter().filter(|event| event["t"].as_u64() > Some(last)));
    let pages = new()?.filter_map(|event| event["moved"].as_u64()).sum();
    let phases = new()?.filter_map(|event| event["phases"].as_array()).flatten();
    Ok(Moved { pages, inside: Some(phases.filter_map(|phase| phase["ns"].as_u64()).sum()) })
}

fn events(journal: &Value) -> Result<&Vec<Value>> {
    journal["events"].as_array().context("no events")
}

/// Pages of 4 KiB, those of larger ones included.
fn migrated(machine: &mut Counted) -> Result<u64> {
    machine.json("vmstat")?["pgmigrate_success"].as_u64().context("Linux does not count the pages that it moves")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_moved_is_in_all_events_after_the_mark() {
        let phases = |ns: [u64; 2]| json!([{"name": "isolate", "ns": ns[0]}, {"name": "migrate", "ns": ns[1]}]);
        let journal = json!({"events": [
            {"t": 10, "op": "online", "moved": 0, "phases": phases([1, 2])},
            {"t": 20, "op": "offline", "moved": 500, "phases": phases([30, 400])},
            {"t": 30, "op": "remove", "moved": 7, "phases": []},
        ]});
        assert_eq!(moved_after(10, &journal).expect("a journal"), Moved { pages: 507, inside: Some(430) });
        assert_eq!(moved_after(30, &journal).expect("a journal"), Moved { pages: 0, inside: Some(0) });
        assert!(moved_after(0, &json!({})).is_err());
    }
}
