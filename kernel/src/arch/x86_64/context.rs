//! Suspended flows of control, and the switch from one to another.
//!
//! A suspended flow keeps its callee-saved registers on its own stack; all we hold is the stack pointer. It is zero
//! while the flow runs, and whoever wants to resume a flow takes it: two CPUs can never resume the same one, and a
//! CPU that takes a flow which another is just leaving waits for those few instructions. It waits after it has published
//! its own flow, so two CPUs that change places do not wait for each other; from then on it touches no stack.

use super::root::{self, Root, RootCell};
use super::{cpu, irq};
use core::arch::naked_asm;
use core::sync::atomic::{AtomicUsize, Ordering};

/// A flow of control: running somewhere, or suspended with everything it needs on its stack.
#[derive(Debug)]
pub(crate) struct Context {
    stack_pointer: AtomicUsize,
    /// What it sees in the lower half of the address space.
    root: RootCell,
}

impl Context {
    /// The flow that runs now; it gets a stack pointer when it is switched away from.
    pub(crate) const fn running() -> Self {
        Self { stack_pointer: AtomicUsize::new(0), root: RootCell::new() }
    }

    /// The top-level table that it runs with.
    pub(crate) fn root(&self) -> Root {
        self.root.get()
    }

    /// Makes the flow, which is the one that runs now, run with another top-level table.
    pub(crate) fn set_root(&self, root: Root) {
        let _off = irq::irq_off();
        self.root.set(root);
        root::load(root);
    }

    /// Gives a flow that runs with one top-level table another one. All CPUs but this one stand still, and look anew when
    /// they go on.
    pub(crate) fn replace_root(&self, old: Root, new: Root) {
        if self.root.get() == old {
            self.root.set(new);
        }
    }

    /// Whether the flow has left its CPU, so that its stack lies still.
    pub(crate) fn is_suspended(&self) -> bool {
        // Acquire pairs with the Release in `start_over`, and with the store in `switch_stacks`, which is one on this CPU.
        self.stack_pointer.load(Ordering::Acquire) != 0
    }

    /// Forgets a suspended flow and makes this one that will begin with `entry` on `stack`, interrupts off.
    pub(crate) fn start_over(&self, stack: &mut [u8], entry: extern "C" fn() -> !) {
        const WORD: usize = size_of::<usize>();
        let top = stack.as_mut_ptr_range().end.expose_provenance() & !0xf;
        // From the top: a zero return address that ends backtraces, the entry point, then the six callee-saved registers
        // that `switch_stacks` pops. The entry sees the stack as after a call.
        let image = [0, 0, 0, 0, 0, 0, entry as usize, 0];
        let bytes = image.map(usize::to_ne_bytes);
        let start = top - image.len() * WORD;
        let offset = start - stack.as_ptr().addr();
        stack[offset..offset + image.len() * WORD].copy_from_slice(bytes.as_flattened());
        self.root.set(Root::KERNEL);
        // Release pairs with the Acquire in `is_suspended`, and with the exchange in `switch_stacks`, which is one on this CPU.
        self.stack_pointer.store(start, Ordering::Release);
    }
}

/// Suspends the current flow into `from` and resumes `to`, from inside exactly one critical section.
///
/// That section belongs to the flow: the resumed one is inside its own, with its own memory of what comes after.
pub(crate) fn switch(from: &Context, to: &Context) {
    let irqs_were_on = cpu::suspend_critical();
    // Before anybody else can go on with the flow that leaves, and give its tables back.
    root::load(to.root());
    // SAFETY: `from` belongs to the flow that runs now, which writes its pointer once its registers are saved, and `to` is
    // another one that is suspended or about to be.
    unsafe { switch_stacks(from.stack_pointer.as_ptr(), to.stack_pointer.as_ptr()) };
    cpu::resume_critical(irqs_were_on);
}

/// The first act of a flow set up by `Context::start_over`: leaves the critical section of the switch, interrupts on.
pub(crate) fn begin_flow() {
    cpu::resume_critical(true);
    irq::pop_off();
}

/// Saves the callee-saved registers, publishes the stack pointer in `save`, takes the one that `resume` has or will have,
/// and continues there.
#[unsafe(naked)]
unsafe extern "C" fn switch_stacks(save: *mut usize, resume: *mut usize) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        // Whoever takes this flow now is on its stack, so this CPU has left it for good.
        "2:",
        "xor eax, eax",
        "xchg [rsi], rax",
        "test rax, rax",
        "jnz 3f",
        "pause",
        "jmp 2b",
        "3:",
        "mov rsp, rax",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}
