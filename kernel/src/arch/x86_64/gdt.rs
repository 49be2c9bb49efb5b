//! Segments, of which long mode needs few, and the task-state segment, which holds the emergency stacks.
//!
//! Double fault, NMI and machine check each get a stack of their own: they may come when the current one is unusable.

use super::cpu;
use core::cell::UnsafeCell;
use core::sync::atomic::Ordering::Relaxed;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

/// Which of the task-state segment's stacks an exception runs on.
#[derive(Clone, Copy)]
pub(super) enum EmergencyStack {
    DoubleFault,
    Nmi,
    MachineCheck,
}

impl EmergencyStack {
    const ALL: [Self; 3] = [Self::DoubleFault, Self::Nmi, Self::MachineCheck];

    /// Its place in the task-state segment, from 0.
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

const STACK_BYTES: usize = 16 * 1024;
/// What the emergency stacks of one CPU take together.
pub(super) const STACKS_BYTES: usize = STACK_BYTES * EmergencyStack::ALL.len();

/// The emergency stacks of one CPU.
#[repr(C, align(4096))]
struct Stacks(UnsafeCell<[[u8; STACK_BYTES]; EmergencyStack::ALL.len()]>);

// SAFETY: Only the CPU whose task-state segment names them touches the bytes, through its stack pointer.
unsafe impl Sync for Stacks {}

/// Everything that the CPU keeps pointers to.
struct Tables {
    gdt: GlobalDescriptorTable,
    code: SegmentSelector,
    data: SegmentSelector,
    tss: SegmentSelector,
}

/// What one CPU needs for ever.
pub(super) struct Segments {
    tss: Once<TaskStateSegment>,
    tables: Once<Tables>,
}

impl Segments {
    pub(super) const fn new() -> Self {
        Self { tss: Once::new(), tables: Once::new() }
    }
}

static BOOT_STACKS: Stacks = Stacks(UnsafeCell::new([[0; STACK_BYTES]; EmergencyStack::ALL.len()]));
static BOOT_SEGMENTS: Segments = Segments::new();

/// Replaces the bootloader's descriptors, which lie in memory that will not stay mapped.
pub(super) fn load_on_boot_cpu() {
    load(&BOOT_SEGMENTS, BOOT_STACKS.0.get().expose_provenance());
}

/// Makes this CPU use `segments`, and the [`STACKS_BYTES`] from `bottom` on as its emergency stacks; both are its own.
pub(super) fn load(segments: &'static Segments, bottom: usize) {
    let tss = segments.tss.call_once(|| {
        let mut tss = TaskStateSegment::new();
        for stack in EmergencyStack::ALL {
            let top = bottom + (stack.index() + 1) * STACK_BYTES;
            tss.interrupt_stack_table[stack.index()] = VirtAddr::new(top as u64);
        }
        tss
    });
    let tables = segments.tables.call_once(|| {
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        let tss = gdt.append(Descriptor::tss_segment(tss));
        Tables { gdt, code, data, tss }
    });
    tables.gdt.load();
    // SAFETY: The selector is that of a 64-bit code segment in the table just loaded.
    unsafe { CS::set_reg(tables.code) };
    // SAFETY: The selector is that of a writable data segment in the table just loaded.
    unsafe { SS::set_reg(tables.data) };
    // SAFETY: As above; long mode ignores the segment.
    unsafe { DS::set_reg(tables.data) };
    // SAFETY: As above.
    unsafe { ES::set_reg(tables.data) };
    // SAFETY: The selector is that of a task-state segment that lives forever and is loaded once.
    unsafe { load_tss(tables.tss) };

    let cpu = cpu::this();
    cpu.emergency_bottom.store(bottom, Relaxed);
    cpu.emergency_top.store(bottom + STACKS_BYTES, Relaxed);
}
