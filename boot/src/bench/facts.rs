//! What a number means depends on the machine and the versions: these.

use std::fs;

use super::report::Fact;
use crate::accelerator::Accelerator;
use crate::doctor;
use crate::qemu::BINARY;

/// The machine and the tools that every part uses.
pub(super) fn of_machine() -> Vec<Fact> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let accelerator = match Accelerator::best() {
        Accelerator::Kvm => "KVM works",
        Accelerator::Tcg => "none: TCG emulates",
    };
    vec![
        Fact::new("CPU", first("/proc/cpuinfo", "model name")),
        Fact::new("cores", cores.to_string()),
        Fact::new("memory", first("/proc/meminfo", "MemTotal")),
        Fact::new("accelerator", accelerator),
        Fact::new("host kernel", fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim()),
        Fact::new("rustc", version("rustc")),
        Fact::new("QEMU", version(BINARY)),
    ]
}

/// The first line of what a program says of its version.
pub(super) fn version(program: &str) -> String {
    doctor::version(program).unwrap_or_else(|| "not installed".to_owned())
}

/// The value of the first line `key : value` of a file in `/proc`.
fn first(path: &str, key: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'));
    line.unwrap_or("unknown").trim().to_owned()
}
