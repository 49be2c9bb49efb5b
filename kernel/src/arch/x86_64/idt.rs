//! The interrupt descriptor table, and the stubs that every exception and interrupt enters through.
//!
//! All 256 stubs do the same: complete the frame that the CPU began (error code, vector, registers) and call
//! `traps::dispatch` with it. So a handler is a plain function, and an exception can show every register.

use super::gdt::EmergencyStack;
use super::traps::{self, TrapFrame};
use core::arch::global_asm;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, Segment};
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

const VECTORS: usize = 256;
const STUB_BYTES: usize = 16;

/// One descriptor: an interrupt gate, so interrupts are off in every handler.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Gate {
    offset_low: u16,
    selector: u16,
    stack: u8,
    kind: u8,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<Gate>() == 16);

impl Gate {
    const PRESENT_INTERRUPT: u8 = 0x8e;

    fn new(handler: usize, selector: u16, stack: Option<EmergencyStack>) -> Self {
        Self {
            offset_low: handler as u16,
            selector,
            // The hardware counts from 1; 0 means the current stack.
            stack: stack.map_or(0, |stack| stack.index() as u8 + 1),
            kind: Self::PRESENT_INTERRUPT,
            offset_middle: (handler >> 16) as u16,
            offset_high: (handler >> 32) as u32,
            reserved: 0,
        }
    }
}

static TABLE: Once<[Gate; VECTORS]> = Once::new();

/// Makes this CPU use our table; the segments are already ours.
pub(super) fn load() {
    let table = TABLE.call_once(|| {
        let stubs = (&raw const altmap_trap_stubs).addr();
        let selector = CS::get_reg().0;
        core::array::from_fn(|vector| Gate::new(stubs + vector * STUB_BYTES, selector, traps::emergency_stack(vector)))
    });
    let pointer = DescriptorTablePointer { limit: (size_of_val(table) - 1) as u16, base: VirtAddr::from_ptr(table) };
    // SAFETY: The table lives forever, and every gate leads to a stub that keeps the interrupted flow's state.
    unsafe { lidt(&pointer) };
}

unsafe extern "C" {
    /// The first of the stubs below.
    static altmap_trap_stubs: u8;
}

// The CPU pushes an error code for vectors 8, 10-14, 17, 21, 29 and 30; the others get a zero. At `dispatch` the stack is
// aligned to 16 bytes: the CPU aligns it before it pushes, and we complete 22 words.
global_asm!(
    ".text",
    ".balign 16",
    ".global altmap_trap_stubs",
    ".hidden altmap_trap_stubs",
    "altmap_trap_stubs:",
    ".set vector, 0",
    ".rept 256",
    "    .balign 16",
    "    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30",
    "    .else",
    "    push 0",
    "    .endif",
    "    push vector",
    "    jmp 2f",
    "    .set vector, vector + 1",
    ".endr",
    "2:",
    "    push rax",
    "    push rbx",
    "    push rcx",
    "    push rdx",
    "    push rsi",
    "    push rdi",
    "    push rbp",
    "    push r8",
    "    push r9",
    "    push r10",
    "    push r11",
    "    push r12",
    "    push r13",
    "    push r14",
    "    push r15",
    "    cld",
    "    mov rdi, rsp",
    "    call {dispatch}",
    "    pop r15",
    "    pop r14",
    "    pop r13",
    "    pop r12",
    "    pop r11",
    "    pop r10",
    "    pop r9",
    "    pop r8",
    "    pop rbp",
    "    pop rdi",
    "    pop rsi",
    "    pop rdx",
    "    pop rcx",
    "    pop rbx",
    "    pop rax",
    "    add rsp, 16",
    "    iretq",
    dispatch = sym dispatch,
);

extern "C" fn dispatch(frame: &TrapFrame) {
    traps::dispatch(frame);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_spreads_the_address() {
        let gate = Gate::new(0x1122_3344_5566_7788, 8, Some(EmergencyStack::DoubleFault));
        assert_eq!((gate.offset_high, gate.offset_middle, gate.offset_low), (0x1122_3344, 0x5566, 0x7788));
        assert_eq!(gate.stack, 1);
    }
}
