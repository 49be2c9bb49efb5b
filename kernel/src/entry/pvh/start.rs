//! The first instructions of a PVH boot: from 32-bit protected mode to long mode, on the image's own addresses and stack.
//!
//! The loader finds the entry by an ELF note of type 18 (Xen's XEN_ELFNOTE_PHYS32_ENTRY). It has put the image where its
//! physical addresses say, with zeros where the file has nothing, and sets up no more than flat segments: paging and interrupts
//! are off, and EBX holds the address of a start info (xen/include/public/arch-x86/hvm/start_info.h).
//!
//! What the kernel expects of whatever starts it is made here: the image in pages of 4 KiB with their final rights, and an entry
//! of the top-level table that points to that table. Beside that the first 4 GiB are mapped where they lie; this ends
//! with these tables.
#![expect(unsafe_code, reason = "a CPU in 32-bit mode understands no Rust")]

use super::super::image::{LOADED_AT, STACK, STACK_BYTES};
use super::{RECURSIVE_INDEX, enter};
use core::arch::global_asm;

// In AT&T's syntax, in which far jumps and 32-bit code are unambiguous. `PHYSICAL`, added to an address of the image, wraps around
// to where it was loaded.
global_asm!(
    ".set PHYSICAL, {loaded_at} + 0x80000000",
    //
    ".section .note.Xen, \"a\", @note",
    ".balign 4",
    "    .long 4, 4, 18",
    "    .asciz \"Xen\"",
    "    .long altmap_pvh_start + PHYSICAL",
    //
    ".section .data.altmap_pvh, \"aw\"",
    ".balign 4096",
    "altmap_pvh_top:",
    "    .quad altmap_pvh_low + PHYSICAL + 3",
    "    .fill {recursive_index} - 1, 8, 0",
    "    .quad altmap_pvh_top + PHYSICAL + 3",
    "    .quad altmap_pvh_high + PHYSICAL + 3",
    "altmap_pvh_low:",
    "    .irp number, 0, 1, 2, 3",
    "    .quad altmap_pvh_identity + PHYSICAL + 4096 * \\number + 3",
    "    .endr",
    "    .fill 512 - 4, 8, 0",
    "altmap_pvh_high:",
    "    .fill 510, 8, 0",
    "    .quad altmap_pvh_directory + PHYSICAL + 3",
    "    .quad 0",
    "altmap_pvh_directory:",
    "    .irp number, 0, 1, 2, 3, 4, 5, 6, 7",
    "    .quad altmap_pvh_tables + PHYSICAL + 4096 * \\number + 3",
    "    .endr",
    "    .fill 512 - 8, 8, 0",
    ".section .bss.altmap_pvh, \"aw\", @nobits",
    ".balign 4096",
    "altmap_pvh_identity: .skip 4 * 4096",
    "altmap_pvh_tables: .skip 8 * 4096",
    //
    ".section .rodata.altmap_pvh, \"a\"",
    ".balign 8",
    "altmap_pvh_gdt:",
    "    .quad 0",
    "    .quad 0x00af9b000000ffff", // 64-bit code
    "altmap_pvh_gdt_pointer:",
    "    .word 15",
    "    .long altmap_pvh_gdt + PHYSICAL",
    "altmap_pvh_no_long_mode: .asciz \"altmap cannot run: this CPU has no long mode\\r\\n\"",
    "altmap_pvh_no_nx: .asciz \"altmap cannot run: this CPU has no NX bit, or it is switched off\\r\\n\"",
    //
    ".section .text.altmap_pvh, \"ax\"",
    ".code32",
    "altmap_pvh_start:",
    "    cli",
    "    cld",
    "    movl $({stack} + PHYSICAL + {stack_bytes}), %esp",
    "    movl %ebx, %ebp", // CPUID overwrites EBX.
    "    movl $0x80000000, %eax",
    "    cpuid",
    "    xorl %edx, %edx",
    "    cmpl $0x80000001, %eax",
    "    jb 1f",
    "    movl $0x80000001, %eax",
    "    cpuid",
    "1:  movl $(altmap_pvh_no_long_mode + PHYSICAL), %esi",
    "    testl $(1 << 29), %edx",
    "    jz altmap_pvh_refuse",
    "    movl $(altmap_pvh_no_nx + PHYSICAL), %esi",
    "    testl $(1 << 20), %edx",
    "    jz altmap_pvh_refuse",
    // The first 4 GiB in pages of 2 MiB.
    "    movl $(altmap_pvh_identity + PHYSICAL), %edi",
    "    movl $0x83, %eax",
    "1:  movl %eax, (%edi)",
    "    addl $8, %edi",
    "    addl $0x200000, %eax",
    "    jnc 1b",
    // The image: from EAX to ECX, with the rights in EBX and, of the upper half of an entry, EDI.
    "    movl $0x80000000, %edi",
    "    movl $1, %ebx",
    "    movl $(altmap_constants + PHYSICAL), %eax",
    "    movl $(altmap_code + PHYSICAL), %ecx",
    "    call altmap_pvh_map",
    "    movl $(altmap_symbols + PHYSICAL), %eax",
    "    imull $12, 8(%eax), %ecx", // Its entries, and the bytes of its strings.
    "    addl 12(%eax), %ecx",
    "    leal 16(%eax, %ecx), %ecx",
    "    call altmap_pvh_map",
    "    movl $3, %ebx",
    "    movl $(altmap_variables + PHYSICAL), %eax",
    "    movl $(altmap_variables_end + PHYSICAL), %ecx",
    "    call altmap_pvh_map",
    "    movl $({stack} + PHYSICAL), %eax",
    "    movl $({stack} + PHYSICAL + {stack_bytes}), %ecx",
    "    call altmap_pvh_map",
    "    xorl %edi, %edi",
    "    movl $1, %ebx",
    "    movl $(altmap_code + PHYSICAL), %eax",
    "    movl $(altmap_variables + PHYSICAL), %ecx",
    "    call altmap_pvh_map",
    // To long mode.
    "    movl $(altmap_pvh_top + PHYSICAL), %eax",
    "    movl %eax, %cr3",
    "    movl %cr4, %eax",
    "    orl $(1 << 5), %eax", // PAE
    "    movl %eax, %cr4",
    "    movl $0xc0000080, %ecx", // EFER
    "    rdmsr",
    "    orl $(1 << 8 | 1 << 11), %eax", // long mode, no-execute
    "    wrmsr",
    "    movl %cr0, %eax",
    "    orl $(1 << 31 | 1 << 16), %eax", // paging, write protection
    "    movl %eax, %cr0",
    "    lgdtl altmap_pvh_gdt_pointer + PHYSICAL",
    "    ljmpl $8, $(altmap_pvh_long + PHYSICAL)",
    //
    "altmap_pvh_map:",
    "    cmpl %ecx, %eax",
    "    jae 2f",
    "    movl %eax, %edx",
    "    subl ${loaded_at}, %edx",
    "    shrl $9, %edx", // eight bytes of table for each page
    "    orl %eax, %ebx",
    "    movl %ebx, altmap_pvh_tables + PHYSICAL(%edx)",
    "    xorl %eax, %ebx",
    "    movl %edi, altmap_pvh_tables + PHYSICAL + 4(%edx)",
    "    addl $0x1000, %eax",
    "    jmp altmap_pvh_map",
    "2:  ret",
    // Writes the text at ESI to COM1 and leaves through QEMU's debug exit, with the code of a panic.
    "altmap_pvh_refuse:",
    "    lodsb",
    "    testb %al, %al",
    "    jz 2f",
    "    movb %al, %ah",
    "    movw $0x3fd, %dx",
    "1:  inb %dx, %al",
    "    testb $0x20, %al", // room for a byte
    "    jz 1b",
    "    movw $0x3f8, %dx",
    "    movb %ah, %al",
    "    outb %al, %dx",
    "    jmp altmap_pvh_refuse",
    "2:  movb $0x20, %al",
    "    outb %al, $0xf4",
    "3:  hlt",
    "    jmp 3b",
    //
    ".code64",
    "altmap_pvh_long:",
    "    movabsq $1f, %rax",
    "    jmpq *%rax",
    "1:  xorl %eax, %eax",
    "    movw %ax, %ds",
    "    movw %ax, %es",
    "    movw %ax, %ss",
    "    movq $({stack} + {stack_bytes}), %rsp",
    "    movl %ebp, %edi",
    "    xorl %ebp, %ebp",
    "    pushq $0",
    "    jmp {enter}",
    ".text",
    options(att_syntax),
    loaded_at = const LOADED_AT,
    recursive_index = const RECURSIVE_INDEX,
    stack = sym STACK,
    stack_bytes = const STACK_BYTES,
    enter = sym enter,
);
