//! Flows of control: threads, of which those that no CPU was handed to stand still.
//!
//! The switch does what the kernel's does, in its order: take the other's top-level table, publish the flow that leaves,
//! then take the other.

use super::cpu::{self, this};
use super::irq;
use super::root::{self, Root, RootCell};
use crate::shim::atomic::{AtomicBool, Ordering::SeqCst};
use shuttle::thread::{self, Thread};
use std::sync::{Arc, Mutex};

pub(crate) struct Context {
    suspended: AtomicBool,
    flow: Mutex<Flow>,
    root: RootCell,
}

enum Flow {
    /// There has been none.
    None,
    Running,
    New(extern "C" fn() -> !),
    Suspended(Arc<Suspended>),
}

/// A thread that stands still, until a CPU is handed to it. One whose task has ended does so for ever.
struct Suspended {
    thread: Thread,
    cpu: Mutex<Option<usize>>,
}

impl Context {
    pub(crate) const fn running() -> Self {
        Self { suspended: AtomicBool::new(false), flow: Mutex::new(Flow::None), root: RootCell::new() }
    }

    pub(crate) fn root(&self) -> Root {
        self.root.get()
    }

    pub(crate) fn set_root(&self, root: Root) {
        let _off = irq::irq_off();
        self.root.set(root);
        root::load(root);
    }

    pub(crate) fn replace_root(&self, old: Root, new: Root) {
        if self.root.get() == old {
            self.root.set(new);
        }
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended.load(SeqCst)
    }

    pub(crate) fn start_over(&self, _stack: &mut [u8], entry: extern "C" fn() -> !) {
        let was_left = self.suspended.swap(false, SeqCst);
        let before = core::mem::replace(&mut *self.flow.lock().expect("nobody panics"), Flow::New(entry));
        assert!(was_left || matches!(before, Flow::None), "the stack of a flow is taken away while a CPU is on it");
        self.root.set(Root::KERNEL);
        self.suspended.store(true, SeqCst);
    }

    fn resume_on(&self, cpu: usize) {
        let flow = core::mem::replace(&mut *self.flow.lock().expect("nobody panics"), Flow::Running);
        match flow {
            Flow::None | Flow::Running => panic!("a flow is resumed that has not been left"),
            Flow::New(entry) => {
                thread::spawn(move || {
                    cpu::adopt(cpu);
                    entry()
                });
            }
            Flow::Suspended(suspended) => {
                *suspended.cpu.lock().expect("nobody panics") = Some(cpu);
                suspended.thread.unpark();
            }
        }
    }
}

impl Suspended {
    fn wait_for_cpu(&self) -> usize {
        loop {
            if let Some(cpu) = self.cpu.lock().expect("nobody panics").take() {
                return cpu;
            }
            thread::park();
        }
    }
}

pub(crate) fn switch(from: &Context, to: &Context) {
    assert_eq!(this().critical_depth.load(SeqCst), 1, "a task blocked inside a critical section");
    let irqs_were_on = this().irqs_were_on.load(SeqCst);
    root::load(to.root());
    let cpu = cpu::cpu_id();
    let suspended = Arc::new(Suspended { thread: thread::current(), cpu: Mutex::new(None) });
    *from.flow.lock().expect("nobody panics") = Flow::Suspended(Arc::clone(&suspended));
    assert!(!from.suspended.swap(true, SeqCst), "a flow is left that does not run");
    while !to.suspended.swap(false, SeqCst) {
        shuttle::hint::spin_loop();
    }
    to.resume_on(cpu);
    cpu::adopt(suspended.wait_for_cpu());
    this().irqs_were_on.store(irqs_were_on, SeqCst);
}

pub(crate) fn begin_flow() {
    this().irqs_were_on.store(true, SeqCst);
    irq::pop_off();
}
