//! The first instructions of another CPU: from real mode, in which it wakes, straight to long mode and into the kernel.
//!
//! A CPU that gets a start-up interrupt begins in real mode at a page below 1 MiB whose number is the interrupt's vector
//! (Intel SDM volume 3, §9.4). There lies a copy of the code below, and behind it what it needs: a GDT of its own and the
//! values of the control registers. While paging goes on, the code must be mapped where it lies, so it has page tables of
//! its own, in the pages behind it; the kernel's are loaded once it has arrived.

use crate::memory::{self, LowPages};
use core::arch::global_asm;
use x86_64::registers::control::{Cr0, Cr4};
use x86_64::registers::model_specific::{Efer, EferFlags};

unsafe extern "C" {
    static altmap_ap_start: u8;
    static altmap_ap_long: u8;
    static altmap_ap_parameters: u8;
    static altmap_ap_end: u8;
}

// In AT&T's syntax, in which far jumps and sizes of operands in 16-bit code are unambiguous. Addresses of data are relative
// to the page, to which DS points as CS does.
global_asm!(
    ".text",
    ".balign 16",
    ".code16",
    "altmap_ap_start:",
    "    cli",
    "    cld",
    "    movw %cs, %ax",
    "    movw %ax, %ds",
    "    lgdtl (altmap_ap_gdt_pointer - altmap_ap_start)",
    "    movl (altmap_ap_cr4 - altmap_ap_start), %eax",
    "    movl %eax, %cr4",
    "    movl (altmap_ap_cr3 - altmap_ap_start), %eax",
    "    movl %eax, %cr3",
    "    movl $0xc0000080, %ecx", // EFER
    "    movl (altmap_ap_efer - altmap_ap_start), %eax",
    "    xorl %edx, %edx",
    "    wrmsr",
    "    movl (altmap_ap_cr0 - altmap_ap_start), %eax",
    "    movl %eax, %cr0",
    "    ljmpl *(altmap_ap_far - altmap_ap_start)",
    ".code64",
    "altmap_ap_long:",
    "    leaq altmap_ap_parameters(%rip), %rdi",
    "    xorl %eax, %eax",
    "    movw %ax, %ds",
    "    movw %ax, %es",
    "    movw %ax, %ss",
    "    movq 32(%rdi), %rsp",
    "    movq 40(%rdi), %rax",
    "    xorl %ebp, %ebp",
    "    pushq $0",
    "    jmpq *%rax",
    ".balign 8",
    "altmap_ap_gdt:",
    "    .quad 0",
    "    .quad 0x00af9b000000ffff", // 64-bit code
    // `Parameters` below.
    "altmap_ap_parameters:",
    "altmap_ap_gdt_pointer:",
    "    .word 15",
    "    .long 0",
    "    .word 0",
    "altmap_ap_far:",
    "    .long 0",
    "    .word 8",
    "    .word 0",
    "altmap_ap_cr0: .long 0",
    "altmap_ap_cr3: .long 0",
    "altmap_ap_cr4: .long 0",
    "altmap_ap_efer: .long 0",
    "    .quad 0",
    "    .quad 0",
    "altmap_ap_end:",
    options(att_syntax),
);

/// What the code finds behind itself, in its order.
#[repr(C)]
struct Parameters {
    gdt_limit: u16,
    /// Not aligned in the GDT pointer, so in two halves.
    gdt_base: [u16; 2],
    unused: u16,
    long_mode: u32,
    code_selector: u32,
    cr0: u32,
    cr3: u32,
    cr4: u32,
    efer: u32,
    stack: u64,
    entry: u64,
}

const _: () = assert!(size_of::<Parameters>() == 48);

/// The copy below 1 MiB.
pub(super) struct Trampoline {
    pages: LowPages,
    parameters: Parameters,
}

impl Trampoline {
    /// Puts the code where a starting CPU finds it; `None` if the firmware leaves no room there.
    pub(super) fn new(entry: extern "C" fn() -> !) -> Option<Self> {
        let mut pages = memory::low_pages()?;
        let root = pages.map_themselves();
        let start = (&raw const altmap_ap_start).addr();
        let parameters_at = (&raw const altmap_ap_parameters).addr() - start;
        let base = pages.address();
        let gdt = base + parameters_at as u32 - GDT_BYTES;
        let parameters = Parameters {
            gdt_limit: GDT_BYTES as u16 - 1,
            gdt_base: [gdt as u16, (gdt >> 16) as u16],
            unused: 0,
            long_mode: base + ((&raw const altmap_ap_long).addr() - start) as u32,
            code_selector: 8,
            cr0: Cr0::read_raw() as u32,
            cr3: root,
            cr4: Cr4::read_raw() as u32,
            // The CPU sets this one itself when paging goes on.
            efer: (Efer::read() - EferFlags::LONG_MODE_ACTIVE).bits() as u32,
            stack: 0,
            entry: entry as usize as u64,
        };
        pages.write(0, code());
        Some(Self { pages, parameters })
    }

    /// The vector that sends a CPU there.
    pub(super) fn vector(&self) -> u8 {
        (self.pages.address() >> 12) as u8
    }

    /// The next CPU begins with this stack pointer.
    pub(super) fn set_stack(&mut self, top: usize) {
        self.parameters.stack = top as u64;
        let parameters: *const Parameters = &raw const self.parameters;
        // SAFETY: All fields are integers without gaps between them.
        let bytes = unsafe { core::slice::from_raw_parts(parameters.cast::<u8>(), size_of::<Parameters>()) };
        self.pages.write(code().len() - bytes.len(), bytes);
    }
}

/// The GDT lies right before the parameters.
const GDT_BYTES: u32 = 16;

/// The code, its GDT and the room for parameters.
fn code() -> &'static [u8] {
    let start = &raw const altmap_ap_start;
    // SAFETY: All of it is one piece of our image, which nobody writes to.
    unsafe { core::slice::from_raw_parts(start, (&raw const altmap_ap_end).addr() - start.addr()) }
}
