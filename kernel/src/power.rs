//! Leaving: power off, reboot, and the exit code for whoever runs the machine.
#![deny(unsafe_code)]

use crate::arch;
use crate::arch::ports::{self, PortRange};
use crate::drivers::console;
use core::time::Duration;
use spin::Once;

/// What the firmware says about switching off and starting anew.
#[derive(Debug, Default)]
pub(crate) struct PowerControls {
    pub(crate) soft_off: Option<SoftOff>,
    pub(crate) reset: Option<ResetRegister>,
}

/// How to enter ACPI's state S5 (ACPI 6.5 §4.8.3.2).
#[derive(Debug)]
pub(crate) struct SoftOff {
    pub(crate) pm1a_control: PortRange,
    pub(crate) pm1b_control: Option<PortRange>,
    /// The sleep types that the DSDT's `_S5` names for the two.
    pub(crate) type_a: u8,
    pub(crate) type_b: u8,
}

/// The FADT's reset register, when it is a port.
#[derive(Debug)]
pub(crate) struct ResetRegister {
    pub(crate) port: PortRange,
    pub(crate) value: u8,
}

/// How a run ended, as the host is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure,
}

static CONTROLS: Once<PowerControls> = Once::new();

/// Remembers what the firmware says.
pub(crate) fn init(controls: PowerControls) {
    if controls.soft_off.is_none() {
        log::warn!(target: "power", "the firmware does not say how to switch off");
    }
    CONTROLS.call_once(|| controls);
}

/// Ends the run: through QEMU's debug-exit device where that is, else by switching off.
pub(crate) fn exit(outcome: Outcome) -> ! {
    console::flush();
    arch::debug_exit(match outcome {
        Outcome::Success => 0x10,
        Outcome::Failure => 0x20,
    });
    off()
}

/// Switches the machine off.
fn off() -> ! {
    log::info!(target: "power", "off");
    console::flush();
    if let Some(soft_off) = CONTROLS.get().and_then(|controls| controls.soft_off.as_ref()) {
        soft_off.enter();
        arch::busy_wait(PATIENCE);
    }
    log::error!(target: "power", "the machine stays on; it is safe to switch it off");
    console::flush();
    // The others would wait for this one.
    arch::stop_others();
    arch::halt_forever()
}

/// Starts the machine anew, by whichever way works.
pub(crate) fn reboot() -> ! {
    log::info!(target: "power", "reboot");
    console::flush();
    if let Some(reset) = CONTROLS.get().and_then(|controls| controls.reset.as_ref()) {
        reset.port.write_u8(0, reset.value);
        arch::busy_wait(PATIENCE);
    }
    reset_by_chipset();
    reset_by_keyboard_controller();
    arch::triple_fault()
}

/// The hardware acts within microseconds; an emulator may need to be scheduled first.
const PATIENCE: Duration = Duration::from_millis(200);

impl SoftOff {
    fn enter(&self) {
        const SLEEP_TYPE: u16 = 0b111 << 10;
        const SLEEP_ENABLE: u16 = 1 << 13;
        let ports = [(Some(&self.pm1a_control), self.type_a), (self.pm1b_control.as_ref(), self.type_b)];
        for (port, sleep_type) in ports {
            if let Some(port) = port {
                let others = port.read_u16(0) & !(SLEEP_TYPE | SLEEP_ENABLE);
                port.write_u16(0, others | u16::from(sleep_type) << 10 & SLEEP_TYPE | SLEEP_ENABLE);
            }
        }
    }
}

/// Port 0xcf9 of Intel's chipsets, which most others imitate.
fn reset_by_chipset() {
    const FULL_RESET: u8 = 0x0e;
    ports::chipset_reset().write_u8(0, FULL_RESET);
    arch::busy_wait(PATIENCE);
}

/// The oldest way: a line of the keyboard controller is wired to the CPU's reset.
fn reset_by_keyboard_controller() {
    const PULSE_RESET: u8 = 0xfe;
    ports::keyboard_controller().write_u8(0, PULSE_RESET);
    arch::busy_wait(PATIENCE);
}
