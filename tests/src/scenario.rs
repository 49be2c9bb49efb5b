//! A scenario: a machine, what is done to it, and what must hold afterwards whatever was done.

use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use boot::accelerator::Accelerator;
use boot::image::{self, Images};
use boot::qemu::{Machine, Way};
use boot::size::gib;

use crate::vm::Vm;

/// The machine of most scenarios: two nodes of 1 GiB, room for sixteen modules. Boot memory is blocks 0 to 15, and the
/// first module lands at 4 GiB: [`FIRST_HOT`].
pub fn two_nodes() -> Machine {
    Machine { memory: gib(2), maxmem: gib(16), slots: 16, nodes: 2, ..Machine::default() }
}

/// The block at 4 GiB.
pub const FIRST_HOT: u64 = 32;

/// One test: its machine boots, the body runs, the final checks pass.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// A claim, after the name of its topic.
    pub name: String,
    machine: Machine,
    params: Vec<String>,
    body: fn(&mut Vm) -> Result<()>,
    accelerator: Option<Accelerator>,
    /// By BIOS, for that is what is tested.
    is_by_bios: bool,
    beginning: Beginning,
    ending: Ending,
}

/// Where the body takes over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Beginning {
    /// At the prompt.
    Prompt,
    /// When the machine is switched on.
    PowerOn,
}

/// What is left of the machine after the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// A shell that answers and memory that adds up.
    Alive,
    /// Nothing: the body saw its end.
    Gone,
}

impl Scenario {
    /// A scenario on [`two_nodes`]; `path` is the full path of a function.
    pub fn new(path: &str, body: fn(&mut Vm) -> Result<()>) -> Self {
        let name = path.split_once("::").map_or(path, |(_, name)| name).to_owned();
        Self {
            name,
            machine: two_nodes(),
            params: Vec::new(),
            body,
            accelerator: None,
            is_by_bios: false,
            beginning: Beginning::Prompt,
            ending: Ending::Alive,
        }
    }

    /// The same on another machine.
    pub fn on(self, machine: Machine) -> Self {
        Self { machine, ..self }
    }

    /// The same under a name that tells which machine it is on.
    pub fn with(self, variant: &str) -> Self {
        Self { name: format!("{}_{variant}", self.name), ..self }
    }

    /// From a disk by the BIOS. A machine that names no way in boots by PVH, which is fastest, but for a share of the scenarios.
    pub fn by_bios(self) -> Self {
        Self { is_by_bios: true, ..self }
    }

    /// How the kernel gets into the machine.
    pub fn way(&self) -> Way {
        match self.machine.way {
            Way::SeaBios if !self.is_by_bios => any_way(&self.name),
            way => way,
        }
    }

    /// With kernel parameters, on whatever machine.
    pub fn params(self, params: &[&str]) -> Self {
        Self { params: params.iter().map(|word| (*word).to_owned()).collect(), ..self }
    }

    /// On an emulated CPU, which has what the host's may lack.
    pub fn emulated(self) -> Self {
        self.accelerated_by(Accelerator::Tcg)
    }

    /// With something else than the best that this host has.
    pub fn accelerated_by(self, accelerator: Accelerator) -> Self {
        Self { accelerator: Some(accelerator), ..self }
    }

    /// The body sees the machine boot.
    pub fn unbooted(self) -> Self {
        Self { beginning: Beginning::PowerOn, ..self }
    }

    /// The machine ends in the body: nothing is left to check.
    pub fn ends(self) -> Self {
        Self { ending: Ending::Gone, ..self }
    }

    /// Runs it. The error carries everything the guest said.
    pub fn run(&self) -> Result<()> {
        let machine = Machine { params: self.params.clone(), way: self.way(), ..self.machine.clone() };
        let accelerator = self.accelerator.unwrap_or_else(Accelerator::best);
        let mut vm = match self.beginning {
            Beginning::Prompt => Vm::boot(&machine, images()?, accelerator)?,
            Beginning::PowerOn => Vm::start(&machine, images()?, accelerator)?,
        };
        let result = (self.body)(&mut vm).and_then(|()| match self.ending {
            Ending::Alive => still_sound(&mut vm).context("after the scenario"),
            Ending::Gone => Ok(()),
        });
        result.map_err(|error| vm.explain(error))
    }
}

/// Of the scenarios in which it does not matter how the kernel gets into the machine, one in so many boots from a disk by the BIOS, and
/// one by UEFI.
const SHARE: u64 = 16;

/// The way of such a scenario, always the same.
fn any_way(name: &str) -> Way {
    match fnv1a(name) % SHARE {
        0 => Way::SeaBios,
        1 => Way::Ovmf,
        _ => Way::Pvh,
    }
}

/// The hash of Fowler, Noll and Vo, which is the same on every machine for ever (RFC 9923).
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// A scenario named after its function: `scenario!(a_function)`.
#[macro_export]
macro_rules! scenario {
    ($body:ident) => {
        $crate::scenario::Scenario::new(concat!(module_path!(), "::", stringify!($body)), $body)
    };
}

/// Starts another machine, for a scenario that needs two.
pub fn start(machine: &Machine) -> Result<Vm> {
    Vm::start(machine, images()?, Accelerator::best())
}

/// The images of the newest kernel, built once for all scenarios.
fn images() -> Result<&'static Images> {
    static IMAGES: OnceLock<Result<Images>> = OnceLock::new();
    let images = IMAGES.get_or_init(image::up_to_date);
    images.as_ref().map_err(|error| anyhow::anyhow!("no images: {error:#}"))
}

/// What holds at any time: the shell answers, memory adds up, nothing panicked.
fn still_sound(vm: &mut Vm) -> Result<()> {
    vm.memcheck()?;
    let version = vm.cmd("version")?;
    ensure!(version.contains("altmap"), "`version` printed: {version}");
    let log = vm.console.log();
    // A list of commands may begin with `panic`, too.
    let says_so = |line: &&str| ["panic:", "panic while"].iter().any(|start| line.starts_with(start));
    let panicked = log.lines().find(|line| says_so(line) || line.contains("panicked at"));
    ensure!(panicked.is_none(), "the kernel panicked: {panicked:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_in_has_its_share() {
        let count = |way| (0..1600).filter(|number| any_way(&format!("topic::claim_{number}")) == way).count();
        let [bios, uefi, pvh] = [Way::SeaBios, Way::Ovmf, Way::Pvh].map(count);
        assert!((60..140).contains(&bios) && (60..140).contains(&uefi) && pvh > 1200, "{bios}, {uefi}, {pvh}");
    }
}
