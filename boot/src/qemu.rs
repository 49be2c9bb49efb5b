//! From the description of a machine to a QEMU process.
//!
//! - [`machine`]: what a machine is made of.
//! - [`mod@arguments`]: every QEMU flag of the project.
//! - [`process`]: a QEMU that runs, and how it ended.

mod arguments;
mod machine;
mod process;

use arguments::arguments;
pub use arguments::backend;
pub use machine::{Board, Debugger, Dimm, Machine, VirtioMem, Way};
pub(crate) use process::QUIT;
pub use process::{Exit, Qemu};

use std::fs;
use std::os::linux::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::accelerator::Accelerator;
use crate::emulator;
use crate::firmware::{self, Ovmf};
use crate::giving_up::{Told, Watch};
use crate::image::Images;

/// Where the first serial port ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serial {
    /// On our terminal, together with QEMU's own keys: Ctrl-A X, Ctrl-A H.
    Terminal,
    /// On a Unix socket that somebody listens on already.
    Socket(PathBuf),
    /// Nowhere: it is only tried whether the machine runs.
    Nowhere,
}

/// What a machine boots.
#[derive(Clone, Copy, Debug)]
pub enum Software<'a> {
    Altmap(&'a Images),
    Linux(&'a Linux),
}

/// A Linux that QEMU itself loads, from BIOS only. The machine's parameters are its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linux {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
}

impl<'a> From<&'a Images> for Software<'a> {
    fn from(images: &'a Images) -> Self {
        Self::Altmap(images)
    }
}

/// Where the software comes from in one run of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Medium {
    Disk(PathBuf),
    Elf(PathBuf),
    Linux(Linux),
}

/// The files and sockets of one run of a machine.
#[derive(Clone, Debug)]
struct Wiring {
    medium: Medium,
    /// The firmware's code, and this run's own copy of its variables.
    ovmf: Option<Ovmf>,
    serial: Serial,
    qmp: PathBuf,
    accelerator: Accelerator,
}

/// Starts `machine` with `software`.
pub fn start(
    machine: &Machine,
    software: Software<'_>,
    accelerator: Accelerator,
    serial: Serial,
    qmp: PathBuf,
) -> Result<Qemu> {
    let (medium, ovmf, variables) = match (software, machine.way) {
        (Software::Linux(linux), _) => (Medium::Linux(linux.clone()), None, None),
        (Software::Altmap(images), Way::SeaBios) => (Medium::Disk(images.bios.clone()), None, None),
        (Software::Altmap(images), Way::Pvh) => (Medium::Elf(images.elf.clone()), None, None),
        (Software::Altmap(images), Way::Ovmf) => {
            let (ovmf, directory) = own_variables(firmware::ovmf()?)?;
            (Medium::Disk(images.uefi.clone()), Some(ovmf), Some(directory))
        }
    };
    let (stdin, told) = match serial {
        Serial::Terminal => (Stdio::inherit(), Told::User),
        Serial::Socket(_) => (Stdio::null(), Told::User),
        Serial::Nowhere => (Stdio::null(), Told::Nobody),
    };
    let arguments = arguments(machine, &Wiring { medium, ovmf, serial, qmp, accelerator });
    let program = emulator::program();
    let mut child = Command::new(program)
        .args(&arguments)
        .stdin(stdin)
        .stderr(Stdio::piped())
        .create_pidfd(true)
        .spawn()
        .with_context(|| format!("{program} does not start; is it installed (./x doctor)?"))?;
    let watch = Watch::start(&mut child, told)?;
    let words = arguments.iter().map(|word| quoted(word));
    let command_line = std::iter::once(program.to_owned()).chain(words).collect::<Vec<_>>().join(" ");
    Ok(Qemu { child, watch, command_line, _variables: variables })
}

/// A machine writes its firmware's variables; each run gets a copy.
fn own_variables(ovmf: Ovmf) -> Result<(Ovmf, TempDir)> {
    let directory = tempfile::tempdir().context("cannot make a directory for the UEFI variables")?;
    let variables = directory.path().join("vars.fd");
    fs::copy(&ovmf.variables, &variables).with_context(|| format!("cannot copy {}", ovmf.variables.display()))?;
    Ok((Ovmf { variables, ..ovmf }, directory))
}

/// A word as a shell would want it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,.:/+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_line_can_be_typed() {
        assert_eq!(quoted("format=raw,file=a.img"), "format=raw,file=a.img");
        assert_eq!(quoted("run=\"a b\""), "'run=\"a b\"'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
