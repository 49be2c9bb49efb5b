//! `./x doctor`: what this machine has and what is missing, with nothing installed.

use std::process::Command;

use crate::accelerator::Accelerator;
use crate::qemu::BINARY;
use crate::{build, firmware, workspace};

/// One line of the report.
#[derive(Debug)]
pub struct Finding {
    pub what: &'static str,
    pub state: Result<String, String>,
}

/// Looks at everything the host tool uses.
pub fn findings() -> Vec<Finding> {
    vec![
        Finding { what: "toolchain", state: version("rustc", "rustup installs what rust-toolchain.toml names") },
        Finding { what: "llvm-tools", state: found(build::llvm_tool("llvm-strip")) },
        Finding { what: "C linker", state: version("cc", "install gcc") },
        Finding { what: "QEMU", state: version(BINARY, "install qemu-system-x86") },
        Finding { what: "OVMF", state: found(firmware::ovmf().map(|ovmf| ovmf.code)) },
    ]
}

/// What is useful but not needed.
pub fn extras() -> Vec<(&'static str, String)> {
    let accelerator = match Accelerator::best() {
        Accelerator::Kvm => "KVM works",
        Accelerator::Tcg => "KVM does not work here; TCG runs everything, slower",
    };
    let images = if workspace::artifacts().join("bios.img").exists() { "made" } else { "not made yet: ./x image" };
    let debugger = version("gdb", "not installed; only --gdb wants it").unwrap_or_else(|missing| missing);
    vec![("accelerator", accelerator.to_owned()), ("images", images.to_owned()), ("gdb", debugger)]
}

fn version(program: &str, remedy: &str) -> Result<String, String> {
    let output = Command::new(program).arg("--version").current_dir(workspace::root()).output();
    let output = output.ok().filter(|output| output.status.success()).ok_or_else(|| format!("missing: {remedy}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn found(path: anyhow::Result<std::path::PathBuf>) -> Result<String, String> {
    path.map(|path| path.display().to_string()).map_err(|error| format!("missing: {error:#}"))
}
