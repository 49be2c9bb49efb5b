//! Kernel tasks: flows of control with a stack of their own.
//!
//! A task runs until it blocks, yields, or others have waited for a tick; it may go on on another CPU. Tasks live in a
//! fixed table, so that waking one never allocates and an interrupt handler may do it. The flow in which a CPU comes to life
//! becomes that CPU's idle task.
#![deny(unsafe_code)]

mod cpu_set;
mod idle;
mod queue;
mod scheduler;
mod signal;
mod wait;
pub(crate) mod work;

pub(crate) use idle::{IdleTask, prepare_idle};
pub(crate) use scheduler::{freeze_others, longest_wait, preempt, tick};
pub(crate) use signal::Signal;
pub(crate) use wait::{Cancelled, WaitQueue, sleep, sleep_cancellable};

use crate::arch::{self, Context, Root};
use crate::memory::{self, Stack};
use crate::shim::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use crate::sync::SpinLock;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use thiserror::Error;

/// Slots in the table of tasks.
const TASKS_MAX: usize = 256;

/// Names longer than this are cut.
const NAME_MAX: usize = 32;

/// Names a task; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TaskId(u64);

impl TaskId {
    pub(crate) fn as_u64(self) -> u64 {
        self.0
    }
}

impl From<u64> for TaskId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a task does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskState {
    Running,
    Ready,
    Waiting,
    Sleeping,
    Ended,
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Ready => "ready",
            Self::Waiting => "waiting",
            Self::Sleeping => "sleeping",
            Self::Ended => "ended",
        })
    }
}

/// One line of the task list.
#[derive(Clone, Debug)]
pub(crate) struct TaskReport {
    pub(crate) id: TaskId,
    pub(crate) name: String,
    pub(crate) state: TaskState,
    pub(crate) cpu_ns: u64,
}

/// Why a task could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum SpawnError {
    #[error("all {TASKS_MAX} task slots are taken")]
    NoSlot,
    #[error("no memory for the stack")]
    NoStack,
}

/// What a slot of the table holds beside the scheduler's own state.
struct Task {
    context: Context,
    cancelled: AtomicBool,
    /// The stack, as far as it is the task's own; the boot flow has the one that it began on. Read without a lock at every switch.
    stack_bottom: AtomicUsize,
    stack_top: AtomicUsize,
    body: SpinLock<Body>,
}

/// The parts of a task that exist only while it does.
struct Body {
    name: heapless::String<NAME_MAX>,
    stack: Option<Stack>,
    entry: Option<Box<dyn FnOnce() + Send>>,
}

impl Task {
    fn stack_bounds(&self) -> (usize, usize) {
        (self.stack_bottom.load(Relaxed), self.stack_top.load(Relaxed))
    }

    fn set_stack(&self, stack: Stack) {
        let (bottom, top) = stack.bounds();
        self.stack_bottom.store(bottom, Relaxed);
        self.stack_top.store(top, Relaxed);
        self.body.lock().stack = Some(stack);
    }
}

static TASKS: [Task; TASKS_MAX] = [const {
    Task {
        context: Context::running(),
        cancelled: AtomicBool::new(false),
        stack_bottom: AtomicUsize::new(0),
        stack_top: AtomicUsize::new(0),
        body: SpinLock::new(Body { name: heapless::String::new(), stack: None, entry: None }),
    }
}; TASKS_MAX];

/// Woken whenever a task has ended.
static ENDED: WaitQueue = WaitQueue::new();

/// Makes the boot flow a task, so that others can run beside it.
pub(crate) fn init() {
    set_name(queue::BOOT_SLOT, "idle");
    scheduler::adopt_flow(queue::BOOT_SLOT);
    spawn("worker", work::run);
}

/// Becomes the idle task: everything that is left to do happens in other tasks.
pub(crate) fn start() -> ! {
    scheduler::idle()
}

/// Starts a task; panics when there is no room, so only for tasks that the kernel cannot do without.
pub(crate) fn spawn(name: &str, entry: impl FnOnce() + Send + 'static) -> TaskId {
    try_spawn(name, entry).expect("there is room for a kernel task")
}

/// Starts a task.
pub(crate) fn try_spawn(name: &str, entry: impl FnOnce() + Send + 'static) -> Result<TaskId, SpawnError> {
    reap();
    let mut stack = memory::alloc_stack().ok_or(SpawnError::NoStack)?;
    let entry = Box::new(entry);
    let slot = scheduler::claim_slot().ok_or(SpawnError::NoSlot)?;
    let task = &TASKS[slot];
    set_name(slot, name);
    task.cancelled.store(false, Relaxed);
    task.context.start_over(stack.bytes(), first_act);
    task.set_stack(stack);
    task.body.lock().entry = Some(entry);
    Ok(scheduler::make_ready(slot))
}

/// Lets other ready tasks run first.
pub(crate) fn yield_now() {
    scheduler::yield_now();
}

/// Waits until the tasks that have ended so far have given back what they had.
pub(crate) fn settle() {
    let leaving = scheduler::leaving();
    ENDED.wait_until(|| scheduler::have_left(&leaving));
}

/// The name of the task in a slot, for reports of trouble; `None` if it is locked.
pub(crate) fn try_name(slot: usize) -> Option<heapless::String<NAME_MAX>> {
    Some(TASKS.get(slot)?.body.try_lock()?.name.clone())
}

/// The task that runs this.
pub(crate) fn current() -> TaskId {
    scheduler::id_of(scheduler::current_slot())
}

/// Every task, by id.
pub(crate) fn list() -> Vec<TaskReport> {
    let mut reports = Vec::with_capacity(TASKS_MAX);
    for (slot, task) in TASKS.iter().enumerate() {
        if let Some((id, state, cpu_ns)) = scheduler::state_of(slot) {
            let name = task.body.lock().name.clone();
            // Its slot may be another's by now.
            if scheduler::id_of(slot) != id {
                continue;
            }
            reports.push(TaskReport { id, name: name.as_str().into(), state, cpu_ns });
        }
    }
    reports.sort_unstable_by_key(|report| report.id);
    reports
}

/// What the current task sees in the lower half of the address space.
pub(crate) fn root() -> Root {
    TASKS[scheduler::current_slot()].context.root()
}

/// From now on the current task sees another lower half, wherever it runs.
pub(crate) fn set_root(root: Root) {
    TASKS[scheduler::current_slot()].context.set_root(root);
}

/// Gives the tasks that see one lower half another one. For work that is done while all other CPUs stand still.
pub(crate) fn replace_root(old: Root, new: Root) {
    TASKS.iter().for_each(|task| task.context.replace_root(old, new));
}

/// Asks a task to stop what it does; says whether there is such a task. It ends when it looks at `cancelled`.
pub(crate) fn cancel(id: TaskId) -> bool {
    scheduler::cancel(id)
}

/// Whether the current task was asked to stop.
pub(crate) fn cancelled() -> bool {
    TASKS[scheduler::current_slot()].cancelled.load(Relaxed)
}

/// Forgets a request to stop the current task; says whether there was one.
pub(crate) fn take_cancelled() -> bool {
    TASKS[scheduler::current_slot()].cancelled.swap(false, Relaxed)
}

/// Waits until a task has ended, or the waiting one is asked to stop.
pub(crate) fn join(id: TaskId) -> Result<(), Cancelled> {
    ENDED.wait_until_cancellable(|| scheduler::slot_of(id).is_none())
}

/// Waits until a task has ended, also if the waiting one is asked to stop.
pub(crate) fn wait_for_end(id: TaskId) {
    ENDED.wait_until(|| scheduler::slot_of(id).is_none());
}

fn set_name(slot: usize, name: &str) {
    let mut body = TASKS[slot].body.lock();
    body.name.clear();
    for letter in name.chars() {
        if body.name.push(letter).is_err() {
            break;
        }
    }
}

/// Where every task begins.
extern "C" fn first_act() -> ! {
    arch::begin_flow();
    let entry = TASKS[scheduler::current_slot()].body.lock().entry.take();
    entry.expect("a task starts once, with its entry in place")();
    scheduler::end()
}

/// Gives back the stacks of tasks that have ended; says whether there were any.
fn reap() -> bool {
    let mut any = false;
    while let Some(slot) = scheduler::claim_ended() {
        let stack = TASKS[slot].body.lock().stack.take();
        drop(stack);
        scheduler::release_ended(slot);
        any = true;
    }
    any
}
