//! What happens at an exception or interrupt.
//!
//! A breakpoint is logged and returns, and so does an NMI that another CPU sent. A page that is missing in the address
//! space of the current task is brought, see [`vm`]. Every other exception is a bug or broken hardware: it is shown with
//! all registers and stops the kernel. Interrupts go to `interrupts`.

use super::backtrace::Frames;
use super::gdt::EmergencyStack;
use super::{cpu, interrupts, irq, nmi};
use crate::{panic, vm};
use core::fmt;
use core::sync::atomic::Ordering::Relaxed;
use x86_64::registers::control::{Cr0, Cr2, Cr3, Cr4, Cr4Flags};
use x86_64::registers::rflags::RFlags;

const NMI: u64 = 2;
const BREAKPOINT: u64 = 3;
const PAGE_FAULT: u64 = 14;

/// Vectors below this are the CPU's own.
pub(super) const EXCEPTIONS: u64 = 32;

/// Names by vector, as the manuals have them (Intel SDM volume 3, table 6-1).
const NAMES: [&str; EXCEPTIONS as usize] = [
    "divide error",
    "debug exception",
    "non-maskable interrupt",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor segment overrun",
    "invalid TSS",
    "segment not present",
    "stack-segment fault",
    "general protection fault",
    "page fault",
    "reserved exception 15",
    "x87 floating-point exception",
    "alignment check",
    "machine check",
    "SIMD floating-point exception",
    "virtualization exception",
    "control protection exception",
    "reserved exception 22",
    "reserved exception 23",
    "reserved exception 24",
    "reserved exception 25",
    "reserved exception 26",
    "reserved exception 27",
    "hypervisor injection exception",
    "VMM communication exception",
    "security exception",
    "reserved exception 31",
];

/// The interrupted flow's registers, in the order in which the stubs and the CPU push them.
#[derive(Debug)]
#[repr(C)]
pub(super) struct TrapFrame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rbp: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
    rcx: u64,
    rbx: u64,
    rax: u64,
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// The stack that an exception needs when the current one may be the problem.
pub(super) fn emergency_stack(vector: usize) -> Option<EmergencyStack> {
    match vector {
        2 => Some(EmergencyStack::Nmi),
        8 => Some(EmergencyStack::DoubleFault),
        18 => Some(EmergencyStack::MachineCheck),
        _ => None,
    }
}

/// Makes broken hardware raise an exception; else the CPU would shut down without a word.
pub(super) fn enable_machine_check() {
    // SAFETY: The exception has a handler and a stack.
    unsafe { Cr4::update(|flags| flags.insert(Cr4Flags::MACHINE_CHECK_EXCEPTION)) };
}

/// Every exception and interrupt comes here, interrupts off.
pub(super) fn dispatch(frame: &TrapFrame) {
    match frame.vector {
        BREAKPOINT => log::info!(target: "trap", "breakpoint at {:#018x}", frame.rip),
        NMI if nmi::on_nmi(frame.rip as usize, frame.rbp as usize) => {}
        PAGE_FAULT if brings_page(frame) => {}
        EXCEPTIONS.. => interrupts::on_interrupt(frame.vector as u8),
        _ => panic::stop(&Report(frame), Some(frame.rip as usize), Frames::from(frame.rbp as usize)),
    }
}

/// Has the address space of the current task bring a page that is not there; says whether that was all that was wrong. The
/// task may sleep meanwhile, on its own stack, so it must not be in a critical section.
fn brings_page(frame: &TrapFrame) -> bool {
    let is_absent = PageFault { address: 0, code: frame.error_code }.is_absent();
    let may_block = RFlags::from_bits_retain(frame.rflags).contains(RFlags::INTERRUPT_FLAG);
    if !is_absent || !may_block {
        return false;
    }
    let Some(missing) = vm::missing_page(Cr2::read_raw()) else { return false };
    irq::enable();
    missing.bring();
    true
}

/// An exception, for reading.
struct Report<'a>(&'a TrapFrame);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = self.0;
        write!(f, "cpu {}: {}", cpu::cpu_id(), NAMES[frame.vector as usize])?;
        if frame.vector == PAGE_FAULT {
            write!(f, ": {}", PageFault { address: Cr2::read_raw(), code: frame.error_code })?;
        } else if frame.error_code != 0 {
            write!(f, ": {}", SelectorError(frame.error_code))?;
        }
        writeln!(f)?;
        let cpu = cpu::this();
        let bottom = cpu.stack_bottom.load(Relaxed) as u64;
        if bottom.checked_sub(frame.rsp).is_some_and(|below| below < 4096) {
            writeln!(f, "the stack overflowed: its lowest address is {bottom:#018x}")?;
        }
        writeln!(f, "rip {:016x} cs {:04x} rflags {:08x}", frame.rip, frame.cs, frame.rflags)?;
        writeln!(f, "rsp {:016x} ss {:04x} error code {:#x}", frame.rsp, frame.ss, frame.error_code)?;
        for row in [
            [("rax", frame.rax), ("rbx", frame.rbx), ("rcx", frame.rcx), ("rdx", frame.rdx)],
            [("rsi", frame.rsi), ("rdi", frame.rdi), ("rbp", frame.rbp), ("r8 ", frame.r8)],
            [("r9 ", frame.r9), ("r10", frame.r10), ("r11", frame.r11), ("r12", frame.r12)],
            [("r13", frame.r13), ("r14", frame.r14), ("r15", frame.r15), ("cr2", Cr2::read_raw())],
        ] {
            for (name, value) in row {
                write!(f, "{name} {value:016x} ")?;
            }
            writeln!(f)?;
        }
        let tables = Cr3::read().0.start_address().as_u64();
        write!(f, "cr0 {:08x} cr3 {tables:016x} cr4 {:08x}", Cr0::read_raw(), Cr4::read_raw())
    }
}

/// A page fault's error code and address.
struct PageFault {
    address: u64,
    code: u64,
}

impl PageFault {
    /// Whether the page was to be read or written, and there is none.
    const fn is_absent(&self) -> bool {
        const PRESENT_RESERVED_OR_FETCH: u64 = 1 | 1 << 3 | 1 << 4;
        self.code & PRESENT_RESERVED_OR_FETCH == 0
    }
}

impl fmt::Display for PageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |bit: u64| self.code & (1 << bit) != 0;
        let access = match (has(4), has(1)) {
            (true, _) => "instruction fetch from",
            (_, true) => "write to",
            _ => "read from",
        };
        let cause = match (has(3), has(0)) {
            (true, _) => "a reserved bit is set in the page tables",
            (_, true) => "the page forbids it",
            _ => "no page there",
        };
        let mode = if has(2) { ", in user mode" } else { "" };
        write!(f, "{access} {:#018x}: {cause}{mode}", self.address)
    }
}

/// The error code of the exceptions that concern a descriptor.
struct SelectorError(u64);

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = match self.0 >> 1 & 3 {
            0 => "GDT",
            2 => "LDT",
            _ => "IDT",
        };
        let origin = if self.0 & 1 != 0 { ", from outside the program" } else { "" };
        write!(f, "{table} entry {}{origin}", self.0 >> 3 & 0x1fff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_page_fault_says_what_was_tried_and_why_it_failed() {
        let text = |code| PageFault { address: 0x1000, code }.to_string();
        assert_eq!(text(0), "read from 0x0000000000001000: no page there");
        assert_eq!(text(0b11), "write to 0x0000000000001000: the page forbids it");
        assert_eq!(text(0x11), "instruction fetch from 0x0000000000001000: the page forbids it");
        assert_eq!(text(0b1011), "write to 0x0000000000001000: a reserved bit is set in the page tables");
    }

    #[test]
    fn only_a_page_that_is_not_there_may_be_brought() {
        let is_absent = |code| PageFault { address: 0, code }.is_absent();
        assert!(is_absent(0) && is_absent(0b10));
        assert!(![0b1, 0b11, 0b1010, 0b1_0000].into_iter().any(is_absent));
    }

    #[test]
    fn a_selector_error_names_the_table() {
        assert_eq!(SelectorError(0x18).to_string(), "GDT entry 3");
        assert_eq!(SelectorError(0x103).to_string(), "IDT entry 32, from outside the program");
    }
}
