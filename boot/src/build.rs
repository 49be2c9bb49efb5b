//! Building the kernel: cargo, called from inside.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// The bare-metal target.
pub const TARGET: &str = "x86_64-unknown-none";

/// A cargo that works in the workspace as if it were typed there: our own caller may be a cargo that set the
/// directory of bootloader's stages for us.
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(workspace::root()).env_remove("CARGO_TARGET_DIR");
    command
}

/// How the kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// As it ships.
    Release,
    /// With its assertions, such as the order of locks.
    Checked,
}

impl Profile {
    /// As cargo calls it; its directory too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Checked => "checked",
        }
    }
}

/// Builds the kernel, with cargo's own progress on standard error, and returns the ELF with all its symbols.
pub fn kernel(profile: Profile) -> Result<PathBuf> {
    let status = cargo()
        .args(["build", "--package", "kernel", "--profile", profile.name(), "--target", TARGET])
        .status()
        .context("cargo does not start")?;
    if !status.success() {
        bail!("the kernel does not build");
    }
    Ok(workspace::root().join("target").join(TARGET).join(profile.name()).join("kernel"))
}

/// A program of the toolchain's `llvm-tools` component.
pub fn llvm_tool(name: &str) -> Result<PathBuf> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir"])
        .current_dir(workspace::root())
        .output()
        .context("rustc does not start")?;
    let libdir = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    let tool = libdir.with_file_name("bin").join(name);
    if !tool.exists() {
        bail!("{} is missing: rustup component add llvm-tools", tool.display());
    }
    Ok(tool)
}
