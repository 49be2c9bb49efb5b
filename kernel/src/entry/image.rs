//! The kernel's own image: where it lies, the stack in it that every way in continues on, and the symbol table behind it.
//! `kernel.ld` lays it out.
#![expect(unsafe_code, reason = "places in the image are symbols of the linker, and a stack is changed in assembly")]

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::ops::Range;

/// Where the image is linked to.
const LINKED_AT: u64 = 0xffff_ffff_8000_0000;
/// Where a loader that goes by physical addresses puts it.
pub(super) const LOADED_AT: u64 = 0x20_0000;

/// The boot stack later carries the idle task.
pub(super) const STACK_BYTES: usize = 128 * 1024;

/// The table begins with a magic number of eight bytes, the number of entries and the length of the strings.
const SYMBOL_HEADER_BYTES: usize = 16;
const SYMBOL_ENTRY_BYTES: usize = 12;

// Empty until the host tool replaces it. The compiler must not know what is in it.
global_asm!(
    ".section .symbols, \"a\"",
    ".balign 4096",
    ".globl altmap_symbols",
    "altmap_symbols:",
    ".fill 16",
    ".text"
);

unsafe extern "C" {
    static altmap_symbols: u8;
}

#[repr(C, align(4096))]
pub(super) struct BootStack(UnsafeCell<[u8; STACK_BYTES]>);

// SAFETY: Nobody reads or writes the bytes under this name; only its address is used.
unsafe impl Sync for BootStack {}

#[unsafe(link_section = ".boot_stack")]
pub(super) static STACK: BootStack = BootStack(UnsafeCell::new([0; STACK_BYTES]));

/// The addresses of the boot stack; a page on either side of it is not mapped.
pub(crate) fn boot_stack() -> Range<usize> {
    let bottom = STACK.0.get().addr();
    bottom..bottom + STACK_BYTES
}

/// Goes on in `next` on the boot stack, whose content is lost.
pub(super) fn continue_on_boot_stack(next: extern "C" fn(u64) -> !, argument: u64) -> ! {
    // SAFETY: The stack is mapped, nobody is on it yet, and nothing on the old one is used any more. Above the first frame is
    // none, and its return address is zero.
    unsafe {
        asm!(
            "mov rsp, {stack}",
            "xor ebp, ebp",
            "push 0",
            "jmp {next}",
            stack = in(reg) boot_stack().end,
            next = in(reg) next,
            in("rdi") argument,
            options(noreturn),
        )
    }
}

/// The symbol table, as long as it says; one that was not put in place has neither magic nor length.
pub(crate) fn symbol_table() -> &'static [u8] {
    let start = &raw const altmap_symbols;
    // SAFETY: The header is a part of the image, and nobody writes it.
    let header = unsafe { core::slice::from_raw_parts(start, SYMBOL_HEADER_BYTES) };
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    let bytes = SYMBOL_HEADER_BYTES + word(8) * SYMBOL_ENTRY_BYTES + word(12);
    // SAFETY: The host tool made the segment as long as the header that it wrote says.
    unsafe { core::slice::from_raw_parts(start, bytes) }
}

/// The physical addresses of an image that lies at [`LOADED_AT`].
pub(super) fn loaded() -> Range<u64> {
    let end = symbol_table().as_ptr_range().end.addr() as u64;
    LOADED_AT..LOADED_AT + (end - LINKED_AT)
}
