//! The local APIC of each CPU and the IOAPICs, by memory-mapped registers (Intel SDM volume 3, chapter 11; Intel 82093AA).

use super::irq;
use super::madt::{GsiMode, IoApicInfo, Polarity, Trigger};
use crate::memory;
use crate::sync::SpinLock;
use x86_64::registers::model_specific::Msr;

/// The registers of a device.
struct Registers {
    base: *mut u8,
    length: usize,
}

// SAFETY: The registers are mapped for good and may be reached from every CPU.
unsafe impl Send for Registers {}
// SAFETY: Accesses are single volatile loads and stores; what needs an order between them has a lock.
unsafe impl Sync for Registers {}

impl Registers {
    fn map(physical: u64, length: usize) -> Self {
        Self { base: memory::map_mmio(physical, length), length }
    }

    fn read(&self, offset: usize) -> u32 {
        // SAFETY: `register` checked the offset, and the registers stay mapped.
        unsafe { self.register(offset).read_volatile() }
    }

    fn write(&self, offset: usize, value: u32) {
        // SAFETY: As for `read`; what the device does with the value concerns interrupts only.
        unsafe { self.register(offset).write_volatile(value) };
    }

    fn register(&self, offset: usize) -> *mut u32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.length, "no register at {offset:#x}");
        self.base.wrapping_add(offset).cast()
    }
}

/// The local APIC, reached the same way on every CPU.
pub(super) struct LocalApic {
    registers: LocalRegisters,
}

/// Firmware that starts many CPUs leaves the local APICs in x2APIC mode, where registers are MSRs.
enum LocalRegisters {
    Mapped(Registers),
    X2Apic,
}

impl LocalRegisters {
    const X2APIC_BASE: u32 = 0x800;

    fn read(&self, offset: usize) -> u32 {
        match self {
            Self::Mapped(registers) => registers.read(offset),
            Self::X2Apic => {
                let register = Msr::new(Self::X2APIC_BASE + offset as u32 / 16);
                // SAFETY: The CPU is in x2APIC mode, and the offsets below are those of readable registers.
                unsafe { register.read() as u32 }
            }
        }
    }

    fn write(&self, offset: usize, value: u32) {
        match self {
            Self::Mapped(registers) => registers.write(offset, value),
            Self::X2Apic => {
                let mut register = Msr::new(Self::X2APIC_BASE + offset as u32 / 16);
                // SAFETY: As for `read`; the values concern interrupts only.
                unsafe { register.write(value.into()) };
            }
        }
    }
}

impl LocalApic {
    const ID: usize = 0x20;
    const TASK_PRIORITY: usize = 0x80;
    const END_OF_INTERRUPT: usize = 0xb0;
    const SPURIOUS: usize = 0xf0;
    const ENABLE: u32 = 1 << 8;
    const LINT0: usize = 0x350;
    const LINT1: usize = 0x360;
    const ERROR: usize = 0x370;
    const MASKED: u32 = 1 << 16;
    const DELIVER_NMI: u32 = 0b100 << 8;
    /// Two registers; in x2APIC mode they are one.
    const COMMAND: usize = 0x300;
    const COMMAND_TARGET: usize = 0x310;
    const COMMAND_PENDING: u32 = 1 << 12;
    const COMMAND_ASSERT: u32 = 1 << 14;
    const DELIVER_INIT: u32 = 0b101 << 8;
    const DELIVER_START_UP: u32 = 0b110 << 8;
    const TIMER: usize = 0x320;
    const TIMER_PERIODIC: u32 = 1 << 17;
    const TIMER_INITIAL: usize = 0x380;
    const TIMER_CURRENT: usize = 0x390;
    const TIMER_DIVIDE: usize = 0x3e0;
    const DIVIDE_BY_16: u32 = 0b0011;

    const BASE: u32 = 0x1b;
    const BASE_X2APIC: u64 = 1 << 10;
    const BASE_ENABLED: u64 = 1 << 11;

    pub(super) fn map(physical: u64) -> Self {
        // SAFETY: Every x86_64 CPU with a local APIC has this register.
        let base = unsafe { Msr::new(Self::BASE).read() };
        let registers = if base & Self::BASE_X2APIC != 0 {
            LocalRegisters::X2Apic
        } else {
            LocalRegisters::Mapped(Registers::map(physical, 0x1000))
        };
        Self { registers }
    }

    /// The highest number of a CPU that can be sent anything.
    pub(super) fn reach(&self) -> u32 {
        match self.registers {
            // The highest number means everybody.
            LocalRegisters::Mapped(_) => 0xfe,
            LocalRegisters::X2Apic => u32::MAX - 1,
        }
    }

    /// Turns this CPU's local APIC on, in the mode that the boot CPU's is in.
    pub(super) fn enable(&self, spurious_vector: u8) {
        let registers = &self.registers;
        if matches!(registers, LocalRegisters::X2Apic) {
            let mut register = Msr::new(Self::BASE);
            // SAFETY: Every x86_64 CPU with a local APIC has this register.
            let base = unsafe { register.read() };
            // SAFETY: The boot CPU is in this mode, so every CPU has it, and the way there is allowed from any other.
            unsafe { register.write(base | Self::BASE_ENABLED | Self::BASE_X2APIC) };
        }
        registers.write(Self::TASK_PRIORITY, 0);
        registers.write(Self::LINT0, Self::MASKED);
        registers.write(Self::LINT1, Self::DELIVER_NMI);
        registers.write(Self::TIMER, Self::MASKED);
        registers.write(Self::ERROR, Self::MASKED);
        registers.write(Self::SPURIOUS, Self::ENABLE | u32::from(spurious_vector));
    }

    /// This CPU's number on the interrupt bus.
    pub(super) fn id(&self) -> u32 {
        let id = self.registers.read(Self::ID);
        match self.registers {
            LocalRegisters::Mapped(_) => id >> 24,
            LocalRegisters::X2Apic => id,
        }
    }

    /// Interrupts a CPU. Interrupts are off here.
    pub(super) fn send(&self, apic_id: u32, vector: u8) {
        self.command(apic_id, Self::COMMAND_ASSERT | u32::from(vector));
    }

    /// Interrupts a CPU, whatever it does. Interrupts are off here.
    pub(super) fn send_nmi(&self, apic_id: u32) {
        self.command(apic_id, Self::COMMAND_ASSERT | Self::DELIVER_NMI);
    }

    /// Makes a CPU forget everything and wait for a start-up interrupt.
    pub(super) fn send_init(&self, apic_id: u32) {
        let _off = irq::irq_off();
        self.command(apic_id, Self::COMMAND_ASSERT | Self::DELIVER_INIT);
    }

    /// Lets a CPU that waits for it begin at page `vector`.
    pub(super) fn send_start_up(&self, apic_id: u32, vector: u8) {
        let _off = irq::irq_off();
        self.command(apic_id, Self::COMMAND_ASSERT | Self::DELIVER_START_UP | u32::from(vector));
    }

    fn command(&self, apic_id: u32, command: u32) {
        match &self.registers {
            LocalRegisters::Mapped(registers) => {
                // One at a time: what was sent before is on its way after a moment.
                while registers.read(Self::COMMAND) & Self::COMMAND_PENDING != 0 {
                    core::hint::spin_loop();
                }
                registers.write(Self::COMMAND_TARGET, apic_id << 24);
                registers.write(Self::COMMAND, command);
            }
            LocalRegisters::X2Apic => {
                let mut register = Msr::new(LocalRegisters::X2APIC_BASE + Self::COMMAND as u32 / 16);
                // SAFETY: The CPU is in x2APIC mode; what the command does is the caller's business.
                unsafe { register.write(u64::from(apic_id) << 32 | u64::from(command)) };
            }
        }
    }

    /// The current interrupt has been handled.
    pub(super) fn end_of_interrupt(&self) {
        self.registers.write(Self::END_OF_INTERRUPT, 0);
    }

    /// Lets the timer interrupt every `count` of its own ticks.
    pub(super) fn start_timer(&self, vector: u8, count: u32) {
        self.registers.write(Self::TIMER_DIVIDE, Self::DIVIDE_BY_16);
        self.registers.write(Self::TIMER, Self::TIMER_PERIODIC | u32::from(vector));
        self.registers.write(Self::TIMER_INITIAL, count);
    }

    /// Lets the timer count down from its highest value without an interrupt.
    pub(super) fn start_silent_timer(&self) {
        self.registers.write(Self::TIMER_DIVIDE, Self::DIVIDE_BY_16);
        self.registers.write(Self::TIMER, Self::MASKED);
        self.registers.write(Self::TIMER_INITIAL, u32::MAX);
    }

    /// Where the timer is on its way down.
    pub(super) fn timer_count(&self) -> u32 {
        self.registers.read(Self::TIMER_CURRENT)
    }
}

/// One IOAPIC; its lock orders the two accesses that reach a register.
pub(super) struct IoApic {
    gsi_base: u32,
    inputs: u32,
    registers: SpinLock<Registers>,
}

impl IoApic {
    const SELECT: usize = 0x00;
    const WINDOW: usize = 0x10;
    const VERSION: u32 = 1;
    const REDIRECTION: u32 = 0x10;
    const LEVEL: u32 = 1 << 15;
    const ACTIVE_LOW: u32 = 1 << 13;
    const MASKED: u32 = 1 << 16;

    /// Maps an IOAPIC and masks all its inputs.
    pub(super) fn map(info: &IoApicInfo) -> Self {
        let registers = Registers::map(info.address, 0x20);
        let inputs = (Self::read(&registers, Self::VERSION) >> 16 & 0xff) + 1;
        for input in 0..inputs {
            Self::write(&registers, Self::REDIRECTION + 2 * input, Self::MASKED);
        }
        Self { gsi_base: info.gsi_base, inputs, registers: SpinLock::new(registers) }
    }

    /// Whether a global system interrupt arrives here.
    pub(super) fn has(&self, gsi: u32) -> bool {
        (self.gsi_base..self.gsi_base + self.inputs).contains(&gsi)
    }

    /// Sends an input to one CPU; the boot CPU's number fits the eight bits that there are.
    pub(super) fn route(&self, gsi: u32, mode: GsiMode, vector: u8, apic_id: u32) {
        let trigger = match mode.trigger {
            Trigger::Edge => 0,
            Trigger::Level => Self::LEVEL,
        };
        let polarity = match mode.polarity {
            Polarity::ActiveHigh => 0,
            Polarity::ActiveLow => Self::ACTIVE_LOW,
        };
        let entry = Self::REDIRECTION + 2 * (gsi - self.gsi_base);
        let registers = self.registers.lock();
        Self::write(&registers, entry + 1, apic_id << 24);
        Self::write(&registers, entry, trigger | polarity | u32::from(vector));
    }

    /// Sends an input nowhere.
    pub(super) fn mask(&self, gsi: u32) {
        Self::write(&self.registers.lock(), Self::REDIRECTION + 2 * (gsi - self.gsi_base), Self::MASKED);
    }

    fn read(registers: &Registers, register: u32) -> u32 {
        registers.write(Self::SELECT, register);
        registers.read(Self::WINDOW)
    }

    fn write(registers: &Registers, register: u32, value: u32) {
        registers.write(Self::SELECT, register);
        registers.write(Self::WINDOW, value);
    }
}
