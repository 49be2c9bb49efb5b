//! `./x doctor`: what this machine has and what is missing, with nothing installed.

use std::process::Command;

use crate::accelerator::Choice;
use crate::{build, emulator, firmware, workspace};

/// One line of the report.
#[derive(Debug)]
pub struct Finding {
    pub what: &'static str,
    pub state: Result<String, String>,
}

/// Looks at everything the host tool uses.
pub fn findings() -> Vec<Finding> {
    vec![
        Finding { what: "toolchain", state: present("rustc", "rustup installs what rust-toolchain.toml names") },
        Finding { what: "llvm-tools", state: found(build::llvm_tool("llvm-strip")) },
        Finding { what: "C linker", state: present("cc", "install gcc") },
        Finding { what: "QEMU", state: present(emulator::program(), "install qemu-system-x86") },
        Finding { what: "OVMF", state: found(firmware::ovmf().map(|ovmf| ovmf.code)) },
    ]
}

/// What is useful but not needed.
pub fn extras() -> Vec<(&'static str, String)> {
    let images = if workspace::artifacts().join("bios.img").exists() { "made" } else { "not made yet: ./x image" };
    let optional = |program, user| version(program).unwrap_or_else(|| format!("not installed; only {user} wants it"));
    vec![
        ("images", images.to_owned()),
        ("gdb", optional("gdb", "--gdb")),
        ("valgrind", optional("valgrind", "./x bench")),
        ("accelerator", accelerator()),
    ]
}

/// Which one runs the guests, and why.
fn accelerator() -> String {
    match Choice::known() {
        Ok(Some(Choice { accelerator, why })) => format!("{}: {why}", accelerator.name()),
        Ok(None) => "/dev/kvm opens; the first machine that is started tries it".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn present(program: &str, remedy: &str) -> Result<String, String> {
    version(program).ok_or_else(|| format!("missing: {remedy}"))
}

/// The first line of what a program says of its version, if it is there.
pub fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").current_dir(workspace::root()).output();
    let output = output.ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.lines().next().unwrap_or_default().to_owned())
}

fn found(path: anyhow::Result<std::path::PathBuf>) -> Result<String, String> {
    path.map(|path| path.display().to_string()).map_err(|error| format!("missing: {error:#}"))
}
