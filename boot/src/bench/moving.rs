//! Memory goes that is in use: a block full of pages, and a module with data in it, on altmap and on Linux.

use anyhow::{Context, Result, ensure};

use super::counted::{BLOCK, Counted};
use super::data::{Fill, Mark, PAGE};
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
        let fill = Fill::new(self.machine, self.kernel, room, pages.option, (block, block))?;

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

        fill.check_and_free(self.machine)?;
        self.machine.unplug().map(drop)
    }

    fn module_with_data(&mut self) -> Result<()> {
        self.machine.plug(MODULE)?;
        let first = self.machine.first_block()?;
        let blocks = (first, first + MODULE.0 / BLOCK - 1);
        self.machine.command(&command("online_movable", blocks))?;
        let fill = Fill::new(self.machine, self.kernel, DATA.0, "", blocks)?;

        let mark = Mark::now(self.machine, self.kernel)?;
        let instructions = self.machine.unplug()? as f64;
        let moved = mark.moved_since(self.machine)?;
        ensure!(moved.pages * PAGE > DATA.0 / 10 * 9, "{moved:?} of {DATA}");
        self.add(REMOVE, GONE, Unit::Instructions, instructions);
        self.add(REMOVE, GONE_PER_PAGE, Unit::Instructions, instructions / (DATA.0 / PAGE) as f64);
        self.add(REMOVE, MOVED, Unit::Frames, moved.pages as f64);
        fill.check_and_free(self.machine)
    }

    fn add(&mut self, table: &'static str, what: &'static str, unit: Unit, value: f64) {
        self.samples.add(Row { table, what, size: None, unit }, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_altmap_promises_has_a_limit() {
        let row = |table, what| Row { table, what, size: None, unit: Unit::Instructions };
        assert_eq!(limit(&row(OFFLINE, SMALL.per_page)), Some(3000.0));
        assert_eq!(limit(&row(REMOVE, MOVED)), Some(51_200.0));
        assert_eq!(limit(&row(OFFLINE, SMALL.inside)), None);
    }
}
