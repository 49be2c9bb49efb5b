//! A virtio-mem device grows to a certain size and shrinks to nothing, unused and with data in it: on altmap and on Linux.

use anyhow::{Context, Result, ensure};

use super::counted::{BLOCK, Counted, Resized};
use super::data::{Fill, Mark, PAGE};
use super::hotplug::Kernel;
use super::memory::Memory;
use super::report::Unit;
use super::samples::{Row, Samples};
use crate::qemu::VirtioMem;
use crate::size::{Bytes, gib, mib};

pub(super) const GROW: &str = "Growing a virtio-mem device from nothing";
pub(super) const SHRINK: &str = "Shrinking a virtio-mem device to nothing that nobody has used";
pub(super) const SHRINK_USED: &str = "Shrinking a virtio-mem device of 1 GiB to nothing, with 512 MiB of data in it";

const WHOLE: &str = "from qom-set to the size requested";
pub(super) const PER_GIB: &str = "from qom-set to the size requested, per GiB";
const PER_PIECE: &str = "from qom-set to the size requested, per piece of 2 MiB";
const PER_PAGE: &str = "from qom-set to the size requested, per 4 KiB of data";
const REQUESTS: &str = "requests to the device";
pub(super) const TAKEN: &str = "existing memory of the guest taken";
const TAKEN_PER_GIB: &str = "existing memory of the guest taken, per GiB";
const KEPT: &str = "existing memory of the guest taken, and not given back by shrinking";
const HOST: &str = "memory of the host taken";
const MOVED: &str = "pages moved, in 4 KiB";

const GIB: Bytes = gib(1);
const PIECE: Bytes = mib(2);
const DATA: Bytes = mib(512);

/// Rounds after the first of a device with data in it.
const ROUNDS: u32 = 1;

/// The device, which can become as large as any that is measured.
pub(super) const fn device() -> VirtioMem {
    VirtioMem { size: gib(64), requested: Bytes(0), node: None, block: Some(PIECE), standby: false }
}

/// What altmap promises.
pub(super) fn limit(row: &Row) -> Option<f64> {
    match (row.table, row.what) {
        (GROW, PER_GIB) => Some(300_000.0),
        (SHRINK, PER_GIB) => Some(600_000.0),
        (SHRINK_USED, PER_PAGE) => Some(3000.0),
        (GROW, TAKEN) => Some(65_536.0),
        _ => None,
    }
}

/// What a reader must know.
pub(super) const REMARKS: [(&str, &str); 5] = [
    (
        GROW,
        "`auto_online` is `online_movable`; the device has blocks of 2 MiB and a region of 64 GiB. Instructions are all that \
         the guest executes from `qom-set requested-size` until QEMU's size is that and the guest is idle: noticing the \
         change, each request and the wait for its answer, the port and memory accesses among them, adding and onlining.",
    ),
    (GROW, "A request is for one range of blocks; how many there were, QEMU's trace tells."),
    (
        GROW,
        "The host backs memory by 2 MiB at a time where it can: a single word at the head of each block of 128 MiB makes 16 \
         MiB of 1 GiB.",
    ),
    (SHRINK, "Right after growing: nobody has taken a frame of it."),
    (
        SHRINK_USED,
        "All data is in pages of 4 KiB and moves to memory elsewhere; afterwards it is as written. The copy alone takes 512 \
         instructions for each. Giving back the half that is empty is in the number, too.",
    ),
];

/// The device on one machine.
pub(super) struct Trial<'a> {
    pub machine: &'a mut Counted,
    pub kernel: Kernel,
    pub samples: &'a mut Samples,
}

impl Trial<'_> {
    /// It grows to `size` and shrinks to nothing.
    pub(super) fn round(&mut self, size: Bytes) -> Result<()> {
        self.machine.command("auto_online online_movable")?;
        let before = Memory::of(self.machine)?;
        let grown = self.machine.resize(size)?;
        let after = Memory::of(self.machine)?;
        let usable = after.movable.saturating_sub(before.movable);
        ensure!(usable > size.0 / 10 * 9, "{size} are plugged, of which {usable} bytes became usable");
        let shrunk = self.machine.resize(Bytes(0))?;
        let end = Memory::of(self.machine)?;

        let taken = before.existing.saturating_sub(after.existing) as f64;
        let kept = before.existing.saturating_sub(end.existing) as f64;
        self.resized(GROW, size, grown);
        self.add(GROW, TAKEN, Some(size), Unit::Bytes, taken);
        self.add(GROW, TAKEN_PER_GIB, Some(size), Unit::Bytes, taken / gibs(size));
        self.add(GROW, HOST, Some(size), Unit::Bytes, grown.host_memory as f64);
        self.resized(SHRINK, size, shrunk);
        self.add(SHRINK, KEPT, Some(size), Unit::Bytes, kept);
        Ok(())
    }

    /// It shrinks, again and again, while half of it is in use.
    pub(super) fn with_data(&mut self) -> Result<()> {
        self.machine.command("auto_online online_movable")?;
        (0..=ROUNDS).try_for_each(|_| self.shrink_used())
    }

    fn shrink_used(&mut self) -> Result<()> {
        self.machine.resize(GIB)?;
        let first = self.machine.first_block()?;
        let blocks = (first, first + GIB.0 / BLOCK - 1);
        let fill = Fill::new(self.machine, self.kernel, DATA.0, "", blocks)?;

        let mark = Mark::now(self.machine, self.kernel)?;
        let shrunk = self.machine.resize(Bytes(0)).context("with data in it")?;
        let moved = mark.moved_since(self.machine)?;
        ensure!(moved.pages * PAGE > DATA.0 / 10 * 9, "{moved:?} of {DATA}");
        let instructions = shrunk.instructions as f64;
        self.add(SHRINK_USED, WHOLE, None, Unit::Instructions, instructions);
        self.add(SHRINK_USED, PER_PAGE, None, Unit::Instructions, instructions / (DATA.0 / PAGE) as f64);
        self.add(SHRINK_USED, MOVED, None, Unit::Frames, moved.pages as f64);
        self.requests(SHRINK_USED, None, shrunk);
        fill.check_and_free(self.machine)
    }

    fn resized(&mut self, table: &'static str, size: Bytes, resized: Resized) {
        let instructions = resized.instructions as f64;
        let pieces = (size.0 / PIECE.0) as f64;
        for (what, of) in [(WHOLE, 1.0), (PER_GIB, gibs(size)), (PER_PIECE, pieces)] {
            self.add(table, what, Some(size), Unit::Instructions, instructions / of);
        }
        self.requests(table, Some(size), resized);
    }

    /// Nothing changes without a request: of none, QEMU does not tell.
    fn requests(&mut self, table: &'static str, size: Option<Bytes>, resized: Resized) {
        if resized.requests > 0 {
            self.add(table, REQUESTS, size, Unit::Requests, resized.requests as f64);
        }
    }

    fn add(&mut self, table: &'static str, what: &'static str, size: Option<Bytes>, unit: Unit, value: f64) {
        self.samples.add(Row { table, what, size: size.map(|size| size.0), unit }, value);
    }
}

fn gibs(size: Bytes) -> f64 {
    size.0 as f64 / GIB.0 as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growing_costs_the_same_for_each_gib_whatever_the_size() {
        let row = |table, what, size| Row { table, what, size, unit: Unit::Instructions };
        for size in [gib(1), gib(64)] {
            assert_eq!(limit(&row(GROW, PER_GIB, Some(size.0))), Some(300_000.0));
        }
        assert_eq!(limit(&row(SHRINK_USED, PER_PAGE, None)), Some(3000.0));
        assert_eq!(limit(&row(SHRINK, KEPT, Some(GIB.0))), None);
    }
}
