//! Leaving: power off, reboot, and the exit code for whoever runs the machine.
#![deny(unsafe_code)]

use crate::arch;
use crate::arch::ByteRegister;
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

/// How the machine is switched off.
#[derive(Debug)]
pub(crate) enum SoftOff {
    /// ACPI's state S5 by fixed hardware (ACPI 6.5 §4.8.3.2).
    Fixed {
        pm1a_control: PortRange,
        pm1b_control: Option<PortRange>,
        /// The sleep types that the DSDT's `_S5` names for the two.
        type_a: u8,
        type_b: u8,
    },
    /// The same where hardware is reduced (ACPI 6.5 §4.8.3.7).
    Reduced { sleep_control: ByteRegister, sleep_type: u8 },
    /// There is no ACPI. A CPU that gives up resets the machine, and whoever runs one of these takes that for its end.
    TripleFault,
}

/// The FADT's reset register.
#[derive(Debug)]
pub(crate) struct ResetRegister {
    pub(crate) register: ByteRegister,
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
        reset.register.write(reset.value);
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
        match self {
            Self::Fixed { pm1a_control, pm1b_control, type_a, type_b } => {
                enter_by_port(pm1a_control, *type_a);
                if let Some(pm1b_control) = pm1b_control {
                    enter_by_port(pm1b_control, *type_b);
                }
            }
            Self::Reduced { sleep_control, sleep_type } => {
                const SLEEP_ENABLE: u8 = 1 << 5;
                sleep_control.write(sleep_type << 2 | SLEEP_ENABLE);
            }
            Self::TripleFault => arch::triple_fault(),
        }
    }
}

fn enter_by_port(control: &PortRange, sleep_type: u8) {
    const SLEEP_TYPE: u16 = 0b111 << 10;
    const SLEEP_ENABLE: u16 = 1 << 13;
    let others = control.read_u16(0) & !(SLEEP_TYPE | SLEEP_ENABLE);
    control.write_u16(0, others | u16::from(sleep_type) << 10 & SLEEP_TYPE | SLEEP_ENABLE);
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
