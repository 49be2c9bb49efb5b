//! `./x demo`: a tour of what the kernel does, told while it happens.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::accelerator::Accelerator;
use crate::guest::Guest;
use crate::qemu::{Dimm, Machine};
use crate::qmp::Qmp;
use crate::size::{gib, mib};
use crate::{image, plug, workspace};

/// Runs the tour from boot to power-off.
pub fn run(accelerator: Accelerator) -> Result<()> {
    let images = image::up_to_date()?;
    say("A machine with two NUMA nodes, 512M each, and eight empty slots for memory modules.");
    let machine = Machine { memory: gib(1), nodes: 2, ..Machine::default() };
    let mut guest = Guest::start(&machine, &images, accelerator, None)?;
    let root = format!("{}/", workspace::root().display());
    indented(&guest.qemu.command_line.replace(&root, ""));
    guest.console.expect_prompt(Instant::now() + Duration::from_secs(300)).context("the machine did not boot")?;
    let qmp = guest.connect_qmp()?;
    Tour { guest, qmp }.walk()
}

struct Tour {
    guest: Guest,
    qmp: Qmp,
}

impl Tour {
    fn walk(mut self) -> Result<()> {
        say("It booted. This is its memory: every range, by the node and zone it belongs to.");
        self.type_line("lsmem")?;
        let before = self.free()?;

        say("Now somebody plugs a module of 512M into node 1, while the machine runs.");
        let dimm = Dimm { size: mib(512), id: None, node: Some(1), address: None };
        println!("    {}", plug::plug(&mut self.qmp, &dimm, &mut indented)?.into_result()?);
        say("The kernel knows the memory: four blocks of 128M, offline. Their struct pages lie in their own heads.");
        self.type_line("lsmem")?;
        self.type_line("groups")?;
        let (first, last) = self.blocks_of("dimm0")?;
        self.told(before)?;

        say("Bring it online as movable: the blocks can be emptied, and so removed, again.");
        self.type_line(&format!("online_movable {first}-{last}"))?;
        self.type_line("lsmem")?;
        self.told(before)?;

        say("Use a part of it, every page with its own content, and check every byte.");
        let fill = self.fill(&format!("fill 64M --in {}", first + 1))?;
        self.type_line(&format!("verify {fill}"))?;

        say("Take that block offline while it is in use: its pages move elsewhere, and every byte is still there.");
        self.type_line(&format!("why {}", first + 1))?;
        self.type_line(&format!("offline {}", first + 1))?;
        self.type_line(&format!("verify {fill}"))?;
        self.type_line("lsmem")?;
        self.type_line(&format!("online_movable {}", first + 1))?;
        self.type_line(&format!("free {fill}"))?;
        self.told(before)?;

        say("Now let the kernel itself use the last block: what lies there cannot move away any more.");
        self.type_line(&format!("offline {last}"))?;
        self.type_line(&format!("online_kernel {last}"))?;
        let kernel_fill = self.fill(&format!("kfill 4M --in {last}"))?;

        self.type_line(&format!("why {last}"))?;

        say("Somebody wants the module back. The kernel tries, says why not, and leaves every block as it was.");
        match plug::unplug(&mut self.qmp, "dimm0", &mut indented)? {
            plug::Verdict::Refused(sentence) => indented(&sentence),
            other => bail!("the guest should have refused, but: {other:?}"),
        }
        self.type_line("lsmem")?;

        say("Give the kernel's memory back, and the module can go, without another word.");
        self.type_line(&format!("free {kernel_fill}"))?;
        indented(&plug::unplug(&mut self.qmp, "dimm0", &mut indented)?.into_result()?);
        self.type_line("lsmem")?;
        self.told(before)?;

        say("What happened, with the time each phase took; and a recount of every frame.");
        self.type_line("events")?;
        self.type_line("memcheck")?;
        self.guest.console.submit("poweroff")?;
        let exit = self.guest.qemu.wait(Duration::from_secs(60)).context("the machine does not power off")?;
        say("That was the tour. ./x run gives you the same machine to play with.");
        exit.check()
    }

    /// Types a command and shows what the guest says.
    fn type_line(&mut self, line: &str) -> Result<()> {
        println!("    altmap> {line}");
        self.guest.console.command(line)?.lines().for_each(indented);
        Ok(())
    }

    /// The numbers of a group's first and last block.
    fn blocks_of(&mut self, name: &str) -> Result<(u64, u64)> {
        let groups = self.guest.console.json("groups")?;
        let group = groups["groups"].as_array().and_then(|groups| groups.iter().find(|group| group["name"] == name));
        let block = |key: &str| group.and_then(|group| group[key].as_u64());
        block("first").zip(block("last")).with_context(|| format!("the guest knows no group {name}"))
    }

    fn free(&mut self) -> Result<u64> {
        self.guest.console.json("meminfo")?["free"].as_u64().context("meminfo names no free memory")
    }

    /// Runs a command that fills memory, and returns the number to free it by.
    fn fill(&mut self, command: &str) -> Result<Value> {
        let fill = self.guest.console.json(command)?["id"].clone();
        indented(&format!("altmap> {command}"));
        indented(&format!("fill {fill}"));
        Ok(fill)
    }

    /// Says how the guest's free memory differs from what it was.
    fn told(&mut self, before: u64) -> Result<()> {
        let now = self.free()?;
        let difference = match now.cmp(&before) {
            Ordering::Less => format!("{} less than before", mebibytes(before - now)),
            Ordering::Equal => "exactly as before".to_owned(),
            Ordering::Greater => format!("{} more than before", mebibytes(now - before)),
        };
        indented(&format!("-> free memory: {difference}"));
        Ok(())
    }
}

fn say(text: &str) {
    println!("\n== {text}");
}

fn indented(text: &str) {
    println!("    {text}");
}

/// Small differences matter here, and exact ones are hard to read.
fn mebibytes(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    if bytes < MIB {
        return format!("{} KiB", bytes / KIB);
    }
    let tenths = bytes * 10 / MIB;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}
