//! The outcome of the trial, kept with the build: for this machine, and this QEMU.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Choice;
use crate::{doctor, emulator, workspace};

#[derive(Serialize, Deserialize)]
struct Kept {
    machine: String,
    qemu: String,
    choice: Choice,
}

/// What was kept, if it was of this machine and this QEMU.
pub(super) fn choice() -> Option<Choice> {
    let kept: Kept = serde_json::from_str(&fs::read_to_string(file()).ok()?).ok()?;
    (kept.machine == machine() && kept.qemu == qemu()).then_some(kept.choice)
}

pub(super) fn keep(choice: &Choice) -> Result<()> {
    let kept = Kept { machine: machine(), qemu: qemu(), choice: choice.clone() };
    fs::write(file(), serde_json::to_string_pretty(&kept)?)
        .with_context(|| format!("cannot write {}", file().display()))
}

fn file() -> PathBuf {
    workspace::artifacts().join("accelerator.json")
}

/// The host's name, kernel and processor: what KVM does depends on the last two, and a directory may be carried elsewhere.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find(|line| line.starts_with("model name")).unwrap_or_default();
    let words = [&read("/proc/sys/kernel/hostname"), &read("/proc/sys/kernel/osrelease"), model];
    words.map(str::trim).join("; ")
}

fn qemu() -> String {
    doctor::version(emulator::program()).unwrap_or_default()
}
