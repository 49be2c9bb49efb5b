//! One kernel on one kind of machine: a column of the tables.

use anyhow::{Context, Result};

use super::counted::{Counted, Unusable};
use super::hotplug::{self, Kernel, Trial};
use super::inside;
use super::moving;
use super::report::Unit;
use super::resize;
use super::samples::{Row, Samples};
use crate::qemu::{Machine, Software, VirtioMem};
use crate::size::{Bytes, gib, mib};

/// The usual guest, and one whose memory could not hold the struct pages of what it gets.
pub(super) const MEMORY: Bytes = gib(8);
pub(super) const SMALL_MEMORY: Bytes = mib(256);

/// Room to grow. Beyond about 1 TiB QEMU moves all memory above that, and Linux then makes its blocks larger.
pub(super) const ROOM: Bytes = gib(512);
pub(super) const MUCH_ROOM: Bytes = gib(8 << 10);

/// What is measured of a module, or of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Everything,
    /// That it comes, goes online by itself, and leaves.
    Plug,
    /// That a virtio-mem device grows to each size, and shrinks.
    Resize,
}

impl Extent {
    /// The machine's devices.
    fn devices(self) -> Vec<VirtioMem> {
        match self {
            Self::Everything | Self::Plug => Vec::new(),
            Self::Resize => vec![resize::device()],
        }
    }

    /// What has the sizes.
    const fn thing(self) -> &'static str {
        match self {
            Self::Everything | Self::Plug => "a DIMM",
            Self::Resize => "a virtio-mem device",
        }
    }

    /// The table that tells what became of a guest that did not cope.
    pub(super) const fn table(self) -> &'static str {
        match self {
            Self::Everything | Self::Plug => hotplug::PLUG,
            Self::Resize => resize::GROW,
        }
    }
}

/// A machine, and the modules it gets or the sizes of its device.
pub(super) struct Column {
    pub who: String,
    pub kernel: Kernel,
    pub memory: Bytes,
    pub room: Bytes,
    pub params: Vec<String>,
    pub extent: Extent,
    /// Each size, and how often it is measured after the first time.
    pub sizes: Vec<(Bytes, u32)>,
    /// In the end.
    pub extras: Vec<Extra>,
}

impl Column {
    /// Measures one size after the other on one machine. Returns what became of a guest that did not cope; what was
    /// measured until then is in `samples`.
    pub(super) fn measure(&self, software: Software<'_>, samples: &mut Samples) -> Result<Option<String>> {
        let Self { memory, room, .. } = *self;
        let params = self.params.clone();
        let virtio_mems = self.extent.devices();
        let machine = Machine { memory, maxmem: room, slots: 16, cpus: 1, virtio_mems, params, ..Machine::default() };
        let mut machine = Counted::boot(&machine, software).with_context(|| self.who.clone())?;
        for (size, rounds) in &self.sizes {
            let thing = format!("{}: {} of {size}", self.who, self.extent.thing());
            eprintln!("{thing}");
            for _ in 0..=*rounds {
                let Err(error) = self.round(&mut machine, *size, samples) else { continue };
                let last_words = machine.last_words();
                if last_words.is_none() && !error.is::<Unusable>() {
                    return Err(error.context(thing));
                }
                let end = last_words.map_or_else(String::new, |words| format!("; its last words: `{words}`"));
                return Ok(Some(format!("{thing}: {error:#}{end}")));
            }
        }
        for extra in &self.extras {
            extra.measure(&mut machine, self.kernel, samples).with_context(|| format!("{}: {extra:?}", self.who))?;
        }
        Ok(None)
    }

    fn round(&self, machine: &mut Counted, size: Bytes, samples: &mut Samples) -> Result<()> {
        match self.extent {
            Extent::Everything => Trial::new(machine, self.kernel, size, samples).round(),
            Extent::Plug => Trial::new(machine, self.kernel, size, samples).plug_online(),
            Extent::Resize => resize::Trial { machine, kernel: self.kernel, samples }.round(size),
        }
    }
}

/// What does not depend on the size of a module. Only altmap tells all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extra {
    /// What it costs to take memory out that is in use.
    Moving,
    /// What it costs that a device shrinks that is in use.
    Shrinking,
    /// What taking frames costs.
    Frames,
    /// Whether scattered memory comes back whole.
    Scatter,
    /// The longest time in which the guest heard no interrupt, since it started.
    InterruptsOff,
}

impl Extra {
    fn measure(self, machine: &mut Counted, kernel: Kernel, samples: &mut Samples) -> Result<()> {
        match self {
            Self::Moving => moving::measure(machine, kernel, samples),
            Self::Shrinking => resize::Trial { machine, kernel, samples }.with_data(),
            Self::Frames => inside::measure(&mut Trial::new(machine, Kernel::Altmap, gib(1), samples)),
            Self::Scatter => inside::scatter(machine, samples),
            Self::InterruptsOff => {
                let cpus = machine.json("cpus")?;
                let worst = cpus["cpus"][0]["worst_irqs_off_ns"].as_u64().context("cpus -J does not tell")?;
                let row = Row { table: hotplug::USE, what: hotplug::IRQS_OFF, size: None, unit: Unit::Instructions };
                samples.add_worst(row, worst as f64);
                Ok(())
            }
        }
    }
}
