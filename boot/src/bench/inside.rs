//! What the kernel measures of itself, by `bench`: too short to be seen from outside.

use anyhow::{Context, Result};

use super::counted::{BLOCK, Counted};
use super::hotplug::{INSIDE, Trial};
use super::report::Unit;
use super::samples::{Row, Samples};

/// What is measured, and what it is called in the table.
const PAIRS: [(&str, &str); 3] = [
    ("page", "taking a frame and giving it back"),
    ("pageblock", "taking 2 MiB and giving them back"),
    ("open", "taking the first frame of an untouched section and giving it back"),
];
const WHOLE: &str = "free pageblocks after all memory was taken frame by frame and given back in random order";

/// Measures with a module online that nobody has used.
pub(super) fn measure(trial: &mut Trial<'_>) -> Result<()> {
    trial.machine.command("auto_online online_movable")?;
    trial.machine.plug(trial.size)?;
    for (name, what) in PAIRS {
        for ticks in samples(trial.machine, name)? {
            trial.samples.add(row(what, Unit::Instructions), ticks);
        }
    }
    let first = trial.machine.first_block()?;
    trial.machine.command(&format!("offline {first}-{}", first + trial.size.0 / BLOCK - 1))?;
    trial.machine.unplug()?;
    Ok(())
}

/// Whether memory that was scattered comes back whole; it takes all there is.
pub(super) fn scatter(machine: &mut Counted, into: &mut Samples) -> Result<()> {
    let pageblocks = samples(machine, "scatter")?;
    let [before, after] = pageblocks[..] else { anyhow::bail!("bench scatter: {pageblocks:?}") };
    into.add(row(WHOLE, Unit::Percent), 100.0 * after / before);
    Ok(())
}

fn samples(machine: &mut Counted, name: &str) -> Result<Vec<f64>> {
    let measured = machine.json(&format!("bench {name}"))?;
    let samples = measured["samples"].as_array().with_context(|| format!("no samples in {measured}"))?;
    Ok(samples.iter().filter_map(serde_json::Value::as_f64).collect())
}

fn row(what: &'static str, unit: Unit) -> Row {
    Row { table: INSIDE, what, size: None, unit }
}
