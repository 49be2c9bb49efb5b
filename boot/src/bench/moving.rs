//! Memory goes that is in use: a block full of pages, and a module with data in it, on altmap and on Linux.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::counted::{BLOCK, Counted};
use super::hotplug::{Kernel, command};
use super::memory::Memory;
use super::report::Unit;
use super::samples::{Row, Samples};
use crate::size::{Bytes, gib, mib};

pub(super) const OFFLINE: &str = "Taking a block offline that is full of data";
pub(super) const REMOVE: &str = "Removing a DIMM of 1 GiB that is online, with 200 MiB of data in it";

const GONE: &str = "from device_del to DEVICE_DELETED";
const GONE_PER_PAGE: &str = "from device_del to DEVICE_DELETED, per 4 KiB of data";
const MOVED: &str = "pages moved, in 4 KiB";

const MODULE: Bytes = gib(1);
const DATA: Bytes = mib(200);

/// Rounds after the first.
const ROUNDS: u32 = 2;

const PAGE: u64 = 4 << 10;

/// A word an instruction, and a tenth more for everything else.
const COPY: f64 = 512.0;
const COPY_AND_A_TENTH: f64 = COPY * 1.1;

/// Pages of one size, and where moving them is reported.
struct Pages {
    size: u64,
    option: &'static str,
    command: &'static str,
    per_page: &'static str,
    inside: &'static str,
    moved: &'static str,
}

const SMALL: Pages = Pages {
    size: PAGE,
    option: "",
    command: "pages of 4 KiB, the whole command",
    per_page: "pages of 4 KiB, the whole command, per page moved",
    inside: "pages of 4 KiB, inside the operation, per page moved",
    moved: "pages of 4 KiB, moved",
};

const LARGE: Pages = Pages {
    size: 2 << 20,
    option: " --huge",
    command: "pages of 2 MiB, the whole command",
    per_page: "pages of 2 MiB, the whole command, per 4 KiB moved",
    inside: "pages of 2 MiB, inside the operation, per 4 KiB moved",
    moved: "pages of 2 MiB, moved, in 4 KiB",
};

/// What altmap promises.
pub(super) fn limit(row: &Row) -> Option<f64> {
    match (row.table, row.what) {
        (OFFLINE, what) if what == SMALL.per_page => Some(3000.0),
        (OFFLINE, what) if what == LARGE.per_page => Some(COPY_AND_A_TENTH),
        // Each of them once.
        (REMOVE, MOVED) => Some((DATA.0 / PAGE) as f64),
        _ => None,
    }
}

/// What a reader must know.
pub(super) const REMARKS: [(&str, &str); 2] = [
    (
        OFFLINE,
        "As much data as the block has room for, all of it anonymous memory; it goes to memory elsewhere, and is as written \
         afterwards. The copy alone takes 512 instructions for 4 KiB.",
    ),
    (REMOVE, "No block of it is taken offline before. There is room for the data elsewhere."),
];

/// Lets blocks and modules go, again and again.
pub(super) fn measure(machine: &mut Counted, kernel: Kernel, samples: &mut Samples) -> Result<()> {
    machine.command("auto_online offline")?;
    let mut trial = Trial { machine, kernel, samples };
    for _ in 0..=ROUNDS {
        for pages in [SMALL, LARGE] {
            trial.full_block(&pages).with_context(|| format!("a block full of {} bytes each", pages.size))?;
        }
        trial.module_with_data()?;
    }
    Ok(())
}

struct Trial<'a> {
    machine: &'a mut Counted,
    kernel: Kernel,
    samples: &'a mut Samples,
}

impl Trial<'_> {
    fn full_block(&mut self, pages: &Pages) -> Result<()> {
        self.machine.plug(Bytes(BLOCK))?;
        let block = self.machine.first_block()?;
        self.machine.command(&command("online_movable", (block, block)))?;
        let room = Memory::of(self.machine)?.movable / pages.size * pages.size;
        let id = self.fill(room, pages.option, (block, block))?;

        let mark = Mark::now(self.machine, self.kernel)?;
        let (instructions, _) = self.machine.count_command(&command("offline", (block, block)))?;
        let moved = mark.moved_since(self.machine)?;
        ensure!(moved.pages * PAGE > room / 10 * 9, "{moved:?} of {room} bytes");
        let mut add = |what, instructions| self.add(OFFLINE, what, Unit::Instructions, instructions);
        add(pages.command, instructions as f64);
        add(pages.per_page, instructions as f64 / moved.pages as f64);
        if let Some(inside) = moved.inside {
            add(pages.inside, inside as f64 / moved.pages as f64);
        }
        self.add(OFFLINE, pages.moved, Unit::Frames, moved.pages as f64);

        self.check_and_free(&id)?;
        self.machine.unplug().map(drop)
    }

    fn module_with_data(&mut self) -> Result<()> {
        self.machine.plug(MODULE)?;
        let first = self.machine.first_block()?;
        let blocks = (first, first + MODULE.0 / BLOCK - 1);
        self.machine.command(&command("online_movable", blocks))?;
        let id = self.fill(DATA.0, "", blocks)?;

        let mark = Mark::now(self.machine, self.kernel)?;
        let instructions = self.machine.unplug()? as f64;
        let moved = mark.moved_since(self.machine)?;
        ensure!(moved.pages * PAGE > DATA.0 / 10 * 9, "{moved:?} of {DATA}");
        self.add(REMOVE, GONE, Unit::Instructions, instructions);
        self.add(REMOVE, GONE_PER_PAGE, Unit::Instructions, instructions / (DATA.0 / PAGE) as f64);
        self.add(REMOVE, MOVED, Unit::Frames, moved.pages as f64);
        self.check_and_free(&id)
    }

    /// Brings data into blocks and returns its id. Under Linux, they must be the only ones in Movable, which it fills first.
    fn fill(&mut self, size: u64, option: &str, (first, last): (u64, u64)) -> Result<String> {
        let place = match self.kernel {
            Kernel::Altmap => format!(" --in {first}-{last}"),
            Kernel::Linux => String::new(),
        };
        let free = Memory::of(self.machine)?.movable;
        let line = format!("fill {size}{option}{place}");
        let printed = self.machine.command(&line)?;
        let taken = free.saturating_sub(Memory::of(self.machine)?.movable);
        ensure!(taken > size / 10 * 9, "`{line}` took {taken} bytes of Movable");
        let id = printed.trim().strip_prefix("fill ").with_context(|| format!("`{line}` printed {printed:?}"))?;
        Ok(id.to_owned())
    }

    fn check_and_free(&mut self, id: &str) -> Result<()> {
        self.machine.command(&format!("verify {id}"))?;
        self.machine.command(&format!("free {id}")).map(drop)
    }

    fn add(&mut self, table: &'static str, what: &'static str, unit: Unit, value: f64) {
        self.samples.add(Row { table, what, size: None, unit }, value);
    }
}

/// The moment from which on is looked what a guest moves.
enum Mark {
    /// When the last event in altmap's journal ended.
    Event(u64),
    /// Linux's count of all pages.
    Count(u64),
}

/// What a guest has moved since.
#[derive(Debug, PartialEq, Eq)]
struct Moved {
    /// In 4 KiB.
    pages: u64,
    /// The instructions of all operations, where the guest tells: a nanosecond of its clock is an instruction.
    inside: Option<u64>,
}

impl Mark {
    fn now(machine: &mut Counted, kernel: Kernel) -> Result<Self> {
        match kernel {
            Kernel::Altmap => {
                let journal = machine.json("events")?;
                let last = events(&journal)?.last().and_then(|event| event["t"].as_u64());
                last.map(Self::Event).context("no event, although a module came")
            }
            Kernel::Linux => migrated(machine).map(Self::Count),
        }
    }

    fn moved_since(&self, machine: &mut Counted) -> Result<Moved> {
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

    #[test]
    fn only_what_altmap_promises_has_a_limit() {
        let row = |table, what| Row { table, what, size: None, unit: Unit::Instructions };
        assert_eq!(limit(&row(OFFLINE, SMALL.per_page)), Some(3000.0));
        assert_eq!(limit(&row(REMOVE, MOVED)), Some(51_200.0));
        assert_eq!(limit(&row(OFFLINE, SMALL.inside)), None);
    }
}
