//! `./x demo`: a tour of what the kernel does, told while it happens.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::accelerator::Accelerator;
use crate::guest::Guest;
use crate::qemu::{Dimm, Machine};
use crate::qmp::Qmp;
use crate::size::{Bytes, gib, mib};
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
        self.told("plugging", before)?;

        say("Bring it online as movable: the blocks can be emptied, and so removed, again.");
        self.type_line(&format!("online_movable {first}-{last}"))?;
        self.type_line("lsmem")?;
        let online = self.told("bringing it online", before)?;

        say("Use a part of it, every page with its own content, and check every byte.");
        let command = format!("fill 64M --in {}", first + 1);
        let fill = self.guest.console.json(&command)?["id"].clone();
        indented(&format!("altmap> {command}\n    fill {fill}"));
        self.type_line(&format!("verify {fill}"))?;
        self.type_line(&format!("free {fill}"))?;
        self.told("giving it back", online)?;

        say("Take it offline again, and pull the module.");
        self.type_line(&format!("offline {first}-{last}"))?;
        println!("    {}", plug::unplug(&mut self.qmp, "dimm0", &mut indented)?.into_result()?);
        self.type_line("lsmem")?;
        self.told("pulling it", before)?;

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

    /// Says what an action changed in the guest's free memory.
    fn told(&mut self, action: &str, before: u64) -> Result<u64> {
        let now = self.free()?;
        println!("    free memory: {} before, {} after {action}", readable(before), readable(now));
        Ok(now)
    }
}

fn say(text: &str) {
    println!("\n== {text}");
}

fn indented(text: &str) {
    println!("    {text}");
}

/// With the change of a few pages still visible.
fn readable(bytes: u64) -> Bytes {
    Bytes(bytes & !((1 << 10) - 1))
}
