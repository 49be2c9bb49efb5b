//! KVM where it works, TCG otherwise, unless somebody says which.

use std::fs::OpenOptions;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::emulator;
use crate::qemu::{self, Exit};

/// Names the accelerator, `tcg` or `kvm`, where nothing on the command line does.
pub const VARIABLE: &str = "ALTMAP_ACCEL";

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    Tcg,
    /// TCG that counts what it executes: the guest's clocks advance by a nanosecond with every instruction. They follow real
    /// time only while the guest idles, so that its idle ticks do not pile up.
    Counting,
}

impl Accelerator {
    /// What runs the guests of this process, as [`Choice::made`] says.
    ///
    /// # Panics
    ///
    /// If the environment names an accelerator that is none.
    pub fn best() -> Self {
        Choice::made().unwrap_or_else(|error| panic!("{error}")).accelerator
    }

    /// As `-accel` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
            Self::Counting => "tcg,thread=single",
        }
    }
}

/// Which accelerator is used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub accelerator: Accelerator,
    pub why: String,
}

impl Choice {
    /// The choice for this machine: what [`VARIABLE`] names, else KVM where it works. Tried once in a process.
    ///
    /// # Errors
    ///
    /// The variable names something else.
    pub fn made() -> Result<Self> {
        static MADE: OnceLock<Result<Choice, String>> = OnceLock::new();
        let made = MADE.get_or_init(|| {
            let named = std::env::var_os(VARIABLE);
            let named = named.as_ref().map(|name| name.to_string_lossy());
            Self::by(named.as_deref(), obstacle).map_err(|error| error.to_string())
        });
        made.clone().map_err(anyhow::Error::msg)
    }

    fn by(named: Option<&str>, obstacle: impl FnOnce() -> Option<Obstacle>) -> Result<Self> {
        let (accelerator, why) = match named {
            Some("tcg") => (Accelerator::Tcg, format!("{VARIABLE} says so")),
            Some("kvm") => (Accelerator::Kvm, format!("{VARIABLE} says so")),
            Some("") | None => match obstacle() {
                None => (Accelerator::Kvm, "a guest ran".to_owned()),
                Some(obstacle) => (Accelerator::Tcg, format!("{obstacle}, so no KVM")),
            },
            Some(other) => bail!("{VARIABLE}={other}: it is tcg or kvm"),
        };
        Ok(Self { accelerator, why })
    }
}

/// Why KVM is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Obstacle {
    #[error("/dev/kvm does not open")]
    NoDevice,
    /// Such a device interprets privileged code: it is slower than TCG, and gives up where an exception is raised on purpose.
    #[error("/dev/kvm opens, but the CPU shows neither vmx nor svm")]
    NotInHardware,
    #[error("/dev/kvm opens, but a guest does not run")]
    GuestFails,
}

/// A device file that opens proves little: in containers and nested machines a guest still may not run. Run one.
fn obstacle() -> Option<Obstacle> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        Some(Obstacle::NoDevice)
    } else if !virtualises(&cpu) {
        Some(Obstacle::NotInHardware)
    } else if !runs_a_guest(Accelerator::Kvm) {
        Some(Obstacle::GuestFails)
    } else {
        None
    }
}

/// Whether the first CPU of a `/proc/cpuinfo` has Intel's or AMD's virtualization.
fn virtualises(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")?.trim_start().strip_prefix(':'));
    flags.is_some_and(|flags| flags.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm")))
}

/// A firmware whose first instructions leave through the debug exit with success: `mov al, 0x10; out 0xf4, al; hlt`.
const LEAVES_AT_ONCE: [u8; 5] = [0xb0, 0x10, 0xe6, 0xf4, 0xf4];

const FIRMWARE_BYTES: usize = 64 << 10;
const RESET_VECTOR: usize = FIRMWARE_BYTES - 16;

fn runs_a_guest(accelerator: Accelerator) -> bool {
    let mut firmware = vec![0; FIRMWARE_BYTES];
    firmware[RESET_VECTOR..][..LEAVES_AT_ONCE.len()].copy_from_slice(&LEAVES_AT_ONCE);
    let Ok(file) = tempfile::NamedTempFile::new() else {
        return false;
    };
    if std::fs::write(file.path(), &firmware).is_err() {
        return false;
    }
    let qemu = Command::new(emulator::program())
        .args(["-machine", "q35", "-accel", accelerator.name(), "-cpu", "max", "-m", "16M", "-nodefaults"])
        .args(["-display", "none", "-device", qemu::DEBUG_EXIT, "-bios"])
        .arg(file.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut qemu) = qemu else { return false };
    match qemu::wait_at_most(&mut qemu, Duration::from_secs(5)) {
        Some(status) => Exit::of(status) == Exit::Success,
        None => {
            // It hangs; nothing of it is needed any more.
            qemu.kill().and_then(|()| qemu.wait()).ok();
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcg_runs_a_guest() {
        assert!(runs_a_guest(Accelerator::Tcg));
    }

    #[test]
    fn a_device_without_a_cpu_behind_it_is_not_kvm() {
        let cpu = |flags| format!("processor\t: 0\nvmx flags\t: vnmi\nflags\t\t: {flags}\nbugs\t\t: svm\n");
        assert!(virtualises(&cpu("fpu vme vmx ssse3")));
        assert!(virtualises(&cpu("fpu svm")));
        assert!(!virtualises(&cpu("fpu svm_lock vmxnet hypervisor")));
        assert!(!virtualises(""));
    }

    #[test]
    fn an_accelerator_that_is_named_is_used_without_a_look_at_the_machine() {
        for (name, accelerator) in [("tcg", Accelerator::Tcg), ("kvm", Accelerator::Kvm)] {
            let choice = Choice::by(Some(name), || panic!("looked")).expect("a name");
            assert_eq!((choice.accelerator, choice.why.as_str()), (accelerator, "ALTMAP_ACCEL says so"));
        }
        let error = Choice::by(Some("hvf"), || None).expect_err("no such accelerator").to_string();
        assert_eq!(error, "ALTMAP_ACCEL=hvf: it is tcg or kvm");
    }

    #[test]
    fn what_stands_in_the_way_of_kvm_is_the_reason_for_tcg() {
        for named in [None, Some("")] {
            let choice = Choice::by(named, || Some(Obstacle::NotInHardware)).expect("a choice");
            assert_eq!(choice.accelerator, Accelerator::Tcg);
            assert_eq!(choice.why, "/dev/kvm opens, but the CPU shows neither vmx nor svm, so no KVM");
        }
        assert_eq!(Choice::by(None, || None).expect("a choice").accelerator, Accelerator::Kvm);
    }
}
