//! KVM where it works, TCG otherwise.

use std::fs::OpenOptions;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::qemu::{self, BINARY, Exit};

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
    /// The best one that works on this machine.
    pub fn best() -> Self {
        static KVM_WORKS: OnceLock<bool> = OnceLock::new();
        if *KVM_WORKS.get_or_init(kvm_works) { Self::Kvm } else { Self::Tcg }
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

/// A firmware whose first instructions leave through the debug exit with success: `mov al, 0x10; out 0xf4, al; hlt`.
const LEAVES_AT_ONCE: [u8; 5] = [0xb0, 0x10, 0xe6, 0xf4, 0xf4];

const FIRMWARE_BYTES: usize = 64 << 10;
const RESET_VECTOR: usize = FIRMWARE_BYTES - 16;

/// A device file that opens proves little: in containers and nested machines a guest still may not run. Run one.
fn kvm_works() -> bool {
    OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok() && probe(Accelerator::Kvm)
}

fn probe(accelerator: Accelerator) -> bool {
    let mut firmware = vec![0; FIRMWARE_BYTES];
    firmware[RESET_VECTOR..][..LEAVES_AT_ONCE.len()].copy_from_slice(&LEAVES_AT_ONCE);
    let Ok(file) = tempfile::NamedTempFile::new() else {
        return false;
    };
    if std::fs::write(file.path(), &firmware).is_err() {
        return false;
    }
    let qemu = Command::new(BINARY)
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
    fn a_guest_that_runs_is_told_from_one_that_does_not() {
        assert!(probe(Accelerator::Tcg));
    }
}
