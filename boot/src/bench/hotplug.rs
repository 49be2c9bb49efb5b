//! A module of a certain size comes, goes online and offline in pieces and as a whole, and leaves: the same on altmap and on
//! Linux, which has altmap's console for it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::counted::{BLOCK, Counted, Unusable};
use super::memory::Memory;
use super::moving;
use super::report::Unit;
use super::resize;
use super::samples::{Row, Samples};
use super::start;
use crate::size::Bytes;

/// The tables, in the order of a machine's, a module's and a device's life.
pub(super) const TABLES: [&str; 14] = [
    start::START,
    PLUG,
    ADD,
    ONLINE,
    ONE,
    USE,
    INSIDE,
    OFFLINE,
    moving::OFFLINE,
    REMOVE,
    moving::REMOVE,
    resize::GROW,
    resize::SHRINK,
    resize::SHRINK_USED,
];

pub(super) const ADD: &str = "Adding a DIMM that stays offline";
pub(super) const ONLINE: &str = "Bringing a whole DIMM online by one command";
pub(super) const ONE: &str = "Bringing one block online by its own command";
pub(super) const USE: &str = "First use of a section";
pub(super) const INSIDE: &str = "Taking frames, as the kernel itself counts it";
pub(super) const OFFLINE: &str = "Taking memory offline";
pub(super) const REMOVE: &str = "Removing a DIMM that is offline";
pub(super) const PLUG: &str = "Plugging a DIMM that goes online by itself";

/// Everything between two moments at which the host can see the guest.
pub(super) const EVENT: &str = "from device_add to the event handled";
pub(super) const TAKEN: &str = "existing memory of the guest taken";
pub(super) const HOST: &str = "memory of the host taken";
pub(super) const MEMMAP: &str = "struct pages written";
pub(super) const PER_SECTION: &str = "the whole command, per section";
pub(super) const FILL_UNTOUCHED: &str = "filling 4 KiB of an untouched section, the whole command";
pub(super) const FILL_OPEN: &str = "filling 4 KiB of an open section, the whole command";
pub(super) const OPENING: &str = "opening a section, per byte of struct pages";
pub(super) const OVERHEAD: &str = "struct pages of an open section";
pub(super) const IRQS_OFF: &str = "longest time without interrupts since the start";
pub(super) const GONE: &str = "from device_del to DEVICE_DELETED";

/// Every operation on blocks is seen from outside as a whole command, and inside.
const ALL: Rows = Rows { table: ONLINE, command: "the whole command", inside: "inside the operation" };
pub(super) const EARLY: Rows =
    Rows { table: ONE, command: "the 10th block, the whole command", inside: "the 10th block, inside the operation" };
pub(super) const LATE: Rows =
    Rows { table: ONE, command: "a late block, the whole command", inside: "a late block, inside the operation" };
pub(super) const NEVER_USED: Rows = Rows {
    table: OFFLINE,
    command: "one block, never used, the whole command",
    inside: "one block, never used, inside the operation",
};
pub(super) const FREED: Rows = Rows {
    table: OFFLINE,
    command: "one block, used and free again, the whole command",
    inside: "one block, used and free again, inside the operation",
};
const WHOLE: Rows = Rows {
    table: OFFLINE,
    command: "the whole DIMM, the whole command",
    inside: "the whole DIMM, inside the operation",
};

const ONLINE_VERB: &str = "online_movable";
const OFFLINE_VERB: &str = "offline";

/// How many blocks are online before an early one, and before a late one of every 32768: the 30000th of 4 TiB.
const BEFORE_EARLY: u64 = 9;
const BEFORE_LATE: u64 = 29_999;

/// What runs in the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    Altmap,
    /// It has no journal, no sections that are online but untouched, and no command to use memory of a certain block.
    Linux,
}

/// One module size on one machine.
pub(super) struct Trial<'a> {
    pub machine: &'a mut Counted,
    pub kernel: Kernel,
    pub size: Bytes,
    pub samples: &'a mut Samples,
    /// The operations of this round.
    noted: Vec<Noted>,
}

/// Where an operation is reported: as a whole command, and inside.
pub(super) struct Rows {
    table: &'static str,
    command: &'static str,
    pub(super) inside: &'static str,
}

/// An operation of which the guest's own journal tells; it may be there only for the next.
struct Noted {
    op: &'static str,
    blocks: (u64, u64),
    row: Option<(&'static str, &'static str)>,
}

impl<'a> Trial<'a> {
    pub(super) fn new(machine: &'a mut Counted, kernel: Kernel, size: Bytes, samples: &'a mut Samples) -> Self {
        Self { machine, kernel, size, samples, noted: Vec::new() }
    }

    /// Every operation once.
    pub(super) fn round(&mut self) -> Result<()> {
        // Before everything else: nothing of what it needs of the host is there already.
        self.plug_online()?;
        self.machine.command("auto_online offline")?;
        self.plug(ADD)?;
        let first = self.machine.first_block()?;
        let last = first + self.size.0 / BLOCK - 1;
        self.online_all(first, last)?;
        self.measure(OFFLINE_VERB, (first, last), &WHOLE)?;

        let early = last.min(first + BEFORE_EARLY);
        self.online_last_of(first, early, &EARLY)?;
        self.measure(OFFLINE_VERB, (early, early), &NEVER_USED)?;
        self.run(ONLINE_VERB, (early, early))?;
        let late = first + (last + 1 - first) * BEFORE_LATE / 32_768;
        if late > early {
            self.online_last_of(early + 1, late, &LATE)?;
        }
        if self.kernel == Kernel::Altmap {
            self.use_block(early)?;
            self.measure(OFFLINE_VERB, (early, early), &FREED)?;
            self.run(ONLINE_VERB, (early, early))?;
        }
        self.run(OFFLINE_VERB, (first, late.max(early)))?;
        if self.kernel == Kernel::Altmap {
            self.look_inside()?;
        }
        let gone = self.machine.unplug()?;
        self.count(REMOVE, GONE, gone);
        Ok(())
    }

    /// A module that goes online by itself, and leaves.
    pub(super) fn plug_online(&mut self) -> Result<()> {
        self.machine.command("auto_online online_movable")?;
        let before = Memory::of(self.machine)?;
        self.plug(PLUG)?;
        let after = Memory::of(self.machine)?;
        // Struct pages may take a little of it.
        let usable = after.movable.saturating_sub(before.movable);
        if usable < self.size.0 / 10 * 9 {
            let (before, after) = (before.existing, after.existing);
            return Err(Unusable::Missing { usable, size: self.size, before, after }.into());
        }
        let first = self.machine.first_block()?;
        self.machine.command(&command("offline", (first, first + self.size.0 / BLOCK - 1)))?;
        self.machine.unplug().map(drop)
    }

    fn plug(&mut self, table: &'static str) -> Result<()> {
        let before = Memory::of(self.machine)?;
        let plugged = self.machine.plug(self.size)?;
        if !plugged.success {
            return Err(Unusable::Refused.into());
        }
        let after = Memory::of(self.machine).context("after the firmware was told success")?;
        self.count(table, EVENT, plugged.instructions);
        self.bytes(table, TAKEN, before.existing.saturating_sub(after.existing));
        if table == PLUG {
            self.bytes(table, HOST, plugged.host_memory);
            self.memmap_written(table, before, after);
        }
        Ok(())
    }

    fn online_all(&mut self, first: u64, last: u64) -> Result<()> {
        let before = Memory::of(self.machine)?;
        let instructions = self.measure(ONLINE_VERB, (first, last), &ALL)?;
        let after = Memory::of(self.machine)?;
        self.add(ONLINE, PER_SECTION, Unit::Instructions, instructions as f64 / (last + 1 - first) as f64);
        self.memmap_written(ONLINE, before, after);
        Ok(())
    }

    /// Brings the blocks from `first` on online, the last of them by a command of its own.
    fn online_last_of(&mut self, first: u64, last: u64, rows: &Rows) -> Result<()> {
        if first < last {
            self.run(ONLINE_VERB, (first, last - 1))?;
        }
        self.measure(ONLINE_VERB, (last, last), rows).map(drop)
    }

    /// Uses a little of an untouched block, then of the same block again, and gives it back.
    fn use_block(&mut self, block: u64) -> Result<()> {
        let before = Memory::of(self.machine)?;
        let fill = format!("fill 4K --in {block}");
        let (untouched, one) = self.machine.count_command(&fill)?;
        let after = Memory::of(self.machine)?;
        let (open, other) = self.machine.count_command(&fill)?;
        for printed in [one, other] {
            let id = printed.trim().strip_prefix("fill ").with_context(|| format!("`{fill}` printed {printed:?}"))?;
            self.machine.command(&format!("free {id}"))?;
        }
        self.count(USE, FILL_UNTOUCHED, untouched);
        self.count(USE, FILL_OPEN, open);
        if let (Some(before), Some(after)) = (before.memmap, after.memmap) {
            let written = after.saturating_sub(before) as f64;
            // The same whatever the size of the module.
            let row = |what, unit| Row { table: USE, what, size: None, unit };
            let per_byte = untouched.saturating_sub(open) as f64 / written;
            self.samples.add(row(OPENING, Unit::InstructionsPerByte), per_byte);
            self.samples.add(row(OVERHEAD, Unit::Percent), 100.0 * written / BLOCK as f64);
        }
        Ok(())
    }

    /// Changes blocks; what the whole command executed.
    fn measure(&mut self, verb: &str, blocks: (u64, u64), rows: &Rows) -> Result<u64> {
        let (instructions, _) = self.machine.count_command(&command(verb, blocks))?;
        self.count(rows.table, rows.command, instructions);
        self.note(verb, blocks, Some((rows.table, rows.inside)));
        Ok(instructions)
    }

    /// Changes blocks for what comes next.
    fn run(&mut self, verb: &str, blocks: (u64, u64)) -> Result<()> {
        self.machine.command(&command(verb, blocks))?;
        self.note(verb, blocks, None);
        Ok(())
    }

    fn note(&mut self, verb: &str, blocks: (u64, u64), row: Option<(&'static str, &'static str)>) {
        let op = if verb == OFFLINE_VERB { "offline" } else { "online" };
        self.noted.push(Noted { op, blocks, row });
    }

    /// What the guest's journal says of the operations of this round: they are its last ones.
    fn look_inside(&mut self) -> Result<()> {
        let journal = self.machine.json("events")?;
        let events = journal["events"].as_array().context("no events")?;
        let is_change = |event: &&Value| event["op"] == "online" || event["op"] == "offline";
        let changes: Vec<_> = events.iter().filter(is_change).collect();
        let noted = std::mem::take(&mut self.noted);
        let ours = changes.len().checked_sub(noted.len()).context("the journal forgot something")?;
        for (Noted { op, blocks, row }, event) in noted.into_iter().zip(&changes[ours..]) {
            let same = event["op"] == op && event["first"] == blocks.0 && event["last"] == blocks.1;
            ensure!(same, "{op} of {blocks:?} was next, but the journal says {event}");
            let phases = event["phases"].as_array().context("no phases")?;
            if let Some((table, what)) = row {
                // A nanosecond is an instruction.
                self.count(table, what, phases.iter().filter_map(|phase| phase["ns"].as_u64()).sum());
            }
        }
        Ok(())
    }

    fn memmap_written(&mut self, table: &'static str, before: Memory, after: Memory) {
        if let (Some(before), Some(after)) = (before.memmap, after.memmap) {
            self.bytes(table, MEMMAP, after.saturating_sub(before));
        }
    }

    fn count(&mut self, table: &'static str, what: &'static str, instructions: u64) {
        self.add(table, what, Unit::Instructions, instructions as f64);
    }

    fn bytes(&mut self, table: &'static str, what: &'static str, bytes: u64) {
        self.add(table, what, Unit::Bytes, bytes as f64);
    }

    fn add(&mut self, table: &'static str, what: &'static str, unit: Unit, value: f64) {
        self.samples.add(Row { table, what, size: Some(self.size.0), unit }, value);
    }
}

pub(super) fn command(verb: &str, (first, last): (u64, u64)) -> String {
    if first == last { format!("{verb} {first}") } else { format!("{verb} {first}-{last}") }
}
