//! The drivers that Linux has as modules: they lie beside us.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::system::finit_module;

/// Whose devices need them, as PCI says it: virtio's.
const VENDOR: &str = "0x1af4";
const PCI_DEVICES: &str = "/sys/bus/pci/devices";

/// Loads all of them, in the order of their names, where there is a device for them. A machine without one is as it would be
/// without us.
pub(crate) fn load() -> Result<()> {
    if !is_needed()? {
        return Ok(());
    }
    let files = fs::read_dir("/")?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    let mut modules: Vec<_> = files.into_iter().filter(|file| file.extension() == Some(OsStr::new("ko"))).collect();
    modules.sort();
    for module in modules {
        finit_module(File::open(&module)?, c"", 0)
            .with_context(|| format!("Linux does not load {}", module.display()))?;
    }
    Ok(())
}

fn is_needed() -> Result<bool> {
    for device in fs::read_dir(PCI_DEVICES).context("no PCI here")? {
        if fs::read_to_string(device?.path().join("vendor"))?.trim() == VENDOR {
            return Ok(true);
        }
    }
    Ok(false)
}
