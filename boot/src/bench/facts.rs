//! What a number means depends on the machine and the versions: these.

use std::fs;

use super::report::Fact;
use crate::accelerator::Accelerator;
use crate::doctor;
use crate::emulator;

/// The machine and the tools that every part uses.
pub(super) fn of_machine() -> Vec<Fact> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let accelerator = match Accelerator::best() {
        Accelerator::Kvm => "KVM works",
        Accelerator::Tcg | Accelerator::Counting => "none: TCG emulates",
    };
    vec![
        Fact::new("CPU", first("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned())),
        Fact::new("cores", cores.to_string()),
        Fact::new("memory", memory().unwrap_or_else(|| "unknown".to_owned())),
        Fact::new("accelerator", accelerator),
        Fact::new("rustc", version("rustc")),
        Fact::new("QEMU", version(emulator::program())),
    ]
}

/// The first line of what a program says of its version.
pub(super) fn version(program: &str) -> String {
    doctor::version(program).unwrap_or_else(|| "not installed".to_owned())
}

fn memory() -> Option<String> {
    let total = first("/proc/meminfo", "MemTotal")?;
    let kibibytes: f64 = total.strip_suffix(" kB")?.parse().ok()?;
    Some(format!("{:.1} GiB", kibibytes / f64::from(1 << 20)))
}

/// The value of the first line `key : value` of a file in `/proc`.
fn first(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'))?;
    Some(line.trim().to_owned())
}
