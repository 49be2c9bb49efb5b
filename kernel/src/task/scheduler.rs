//! Who runs next.
//!
//! One lock guards the state of all slots and the queue of ready ones. It is not held across the switch itself: a task
//! that is leaving may already be taken by another CPU, which then waits for its context (see `arch::switch`).
#![deny(unsafe_code)]

use super::{ENDED, TASKS, TASKS_MAX, TaskId, TaskState};
use crate::sync::{SpinLock, SpinLockGuard};
use crate::{arch, time};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The slot of the flow that booted; the idle task of the boot CPU.
pub(super) const BOOT_SLOT: usize = 0;

/// A task in one of the slots, as the scheduler sees it.
#[derive(Clone, Copy)]
struct Entry {
    id: TaskId,
    state: State,
    /// The CPU that runs it; a task that is about to wait still has one.
    on_cpu: Option<usize>,
    /// When that began.
    running_since_ns: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The slot is free, or somebody is filling or emptying it.
    Free,
    Claimed,
    Ready,
    Running,
    /// Until the queue with this address is woken, or the deadline passes.
    Waiting {
        queue: usize,
        deadline_ns: Option<u64>,
    },
    Ended,
}

struct Scheduler {
    entries: [Entry; TASKS_MAX],
    ready: heapless::Deque<usize, TASKS_MAX>,
    next_id: u64,
}

static SCHEDULER: SpinLock<Scheduler> = SpinLock::new(Scheduler {
    entries: [Entry { id: TaskId(0), state: State::Free, on_cpu: None, running_since_ns: 0 }; TASKS_MAX],
    ready: heapless::Deque::new(),
    next_id: 1,
});

/// No task has a deadline before this; spares the tick the walk through the table.
static NEXT_DEADLINE_NS: AtomicU64 = AtomicU64::new(u64::MAX);

static STARTED: AtomicBool = AtomicBool::new(false);

/// Whether there are tasks at all; before, and in host tests, waiting means spinning.
pub(super) fn has_started() -> bool {
    STARTED.load(Relaxed)
}

pub(super) fn adopt_boot_flow() {
    let mut scheduler = SCHEDULER.lock();
    let entry = &mut scheduler.entries[BOOT_SLOT];
    entry.state = State::Running;
    entry.on_cpu = Some(arch::cpu_id());
    entry.running_since_ns = time::now_ns();
    arch::set_current_task(BOOT_SLOT);
    STARTED.store(true, Relaxed);
}

pub(super) fn current_slot() -> usize {
    arch::current_task()
}

pub(super) fn claim_slot() -> Option<usize> {
    let mut scheduler = SCHEDULER.lock();
    let slot = scheduler.entries.iter().position(|entry| entry.state == State::Free)?;
    scheduler.entries[slot].state = State::Claimed;
    Some(slot)
}

pub(super) fn make_ready(slot: usize) -> TaskId {
    let mut scheduler = SCHEDULER.lock();
    let id = TaskId(scheduler.next_id);
    scheduler.next_id += 1;
    scheduler.entries[slot].id = id;
    scheduler.enqueue(slot);
    id
}

pub(super) fn slot_of(id: TaskId) -> Option<usize> {
    let scheduler = SCHEDULER.lock();
    scheduler.entries.iter().position(|entry| entry.id == id && entry.state.is_alive())
}

pub(super) fn id_of(slot: usize) -> TaskId {
    SCHEDULER.lock().entries[slot].id
}

/// The id and state of the task in a slot, and how long its current run has lasted.
pub(super) fn state_of(slot: usize) -> Option<(TaskId, TaskState, u64)> {
    let now = time::now_ns();
    let entry = SCHEDULER.lock().entries[slot];
    let state = match entry.state {
        State::Free | State::Claimed => return None,
        State::Ready => TaskState::Ready,
        State::Running => TaskState::Running,
        State::Waiting { deadline_ns: Some(_), .. } => TaskState::Sleeping,
        State::Waiting { .. } => TaskState::Waiting,
        State::Ended => TaskState::Ended,
    };
    let running_ns = entry.on_cpu.map_or(0, |_| now.saturating_sub(entry.running_since_ns));
    Some((entry.id, state, running_ns))
}

/// Announces that the current task is about to wait; from here on a wake-up is not lost.
pub(super) fn prepare_to_wait(queue: usize, deadline_ns: Option<u64>) {
    let mut scheduler = SCHEDULER.lock();
    scheduler.entries[current_slot()].state = State::Waiting { queue, deadline_ns };
    if let Some(deadline) = deadline_ns {
        NEXT_DEADLINE_NS.fetch_min(deadline, Relaxed);
    }
}

/// The current task need not wait after all.
pub(super) fn stay_running() {
    SCHEDULER.lock().entries[current_slot()].state = State::Running;
}

/// Waits as announced, unless a wake-up came meanwhile.
pub(super) fn wait() {
    let _off = arch::irq_off();
    let scheduler = SCHEDULER.lock();
    if matches!(scheduler.entries[current_slot()].state, State::Waiting { .. }) {
        switch_away(scheduler);
    }
}

pub(super) fn yield_now() {
    if !has_started() {
        core::hint::spin_loop();
        return;
    }
    let _off = arch::irq_off();
    let mut scheduler = SCHEDULER.lock();
    if scheduler.ready.is_empty() {
        return;
    }
    let current = current_slot();
    if current == BOOT_SLOT {
        scheduler.entries[current].state = State::Ready;
    } else {
        scheduler.enqueue(current);
    }
    switch_away(scheduler);
}

/// Runs what is ready, else sleeps until an interrupt.
pub(super) fn idle() {
    arch::push_off();
    let any_ready = !SCHEDULER.lock().ready.is_empty();
    if any_ready {
        arch::pop_off();
        yield_now();
    } else {
        arch::pop_off_and_halt();
    }
}

/// Ends the current task.
pub(super) fn end() -> ! {
    ENDED_COUNT.fetch_add(1, Relaxed);
    SCHEDULER.lock().entries[current_slot()].state = State::Ended;
    ENDED.wake_all();
    super::work::wake();
    let _off = arch::irq_off();
    switch_away(SCHEDULER.lock());
    unreachable!("nobody resumes a task that has ended")
}

/// Tasks that have ended and whose stacks are still there.
static ENDED_COUNT: AtomicU64 = AtomicU64::new(0);

/// Whether `claim_ended` may find something.
pub(super) fn any_ended() -> bool {
    ENDED_COUNT.load(Relaxed) > 0
}

/// A slot whose task has ended and left its stack; the caller frees that.
pub(super) fn claim_ended() -> Option<usize> {
    if !any_ended() {
        return None;
    }
    let mut scheduler = SCHEDULER.lock();
    let slot = (0..TASKS_MAX).find(|&slot| {
        let entry = &scheduler.entries[slot];
        entry.state == State::Ended && entry.on_cpu.is_none() && TASKS[slot].context.is_suspended()
    })?;
    scheduler.entries[slot].state = State::Claimed;
    ENDED_COUNT.fetch_sub(1, Relaxed);
    Some(slot)
}

pub(super) fn release_slot(slot: usize) {
    SCHEDULER.lock().entries[slot].state = State::Free;
}

/// Wakes everybody who waits on a queue. May be called by an interrupt handler.
pub(super) fn wake_queue(address: usize) {
    SCHEDULER.lock().wake_where(|state| matches!(state, State::Waiting { queue, .. } if *queue == address));
}

/// Wakes one task, whatever it waits for.
pub(super) fn wake_slot(slot: usize, id: TaskId) {
    let mut scheduler = SCHEDULER.lock();
    let entry = scheduler.entries[slot];
    if entry.id == id && matches!(entry.state, State::Waiting { .. }) {
        scheduler.wake(slot);
    }
}

/// Wakes the tasks whose deadline has passed; the timer interrupt calls this.
pub(crate) fn tick(now_ns: u64) {
    if now_ns < NEXT_DEADLINE_NS.load(Relaxed) {
        return;
    }
    let mut scheduler = SCHEDULER.lock();
    scheduler
        .wake_where(|state| matches!(state, State::Waiting { deadline_ns: Some(deadline), .. } if *deadline <= now_ns));
    let next = scheduler.entries.iter().filter_map(|entry| match entry.state {
        State::Waiting { deadline_ns, .. } => deadline_ns,
        _ => None,
    });
    NEXT_DEADLINE_NS.store(next.min().unwrap_or(u64::MAX), Relaxed);
}

impl State {
    fn is_alive(self) -> bool {
        matches!(self, Self::Ready | Self::Running | Self::Waiting { .. })
    }
}

impl Scheduler {
    fn enqueue(&mut self, slot: usize) {
        self.entries[slot].state = State::Ready;
        self.ready.push_back(slot).expect("the queue has room for every slot once");
    }

    /// A task that still has its CPU simply goes on; another one queues for it.
    fn wake(&mut self, slot: usize) {
        if self.entries[slot].on_cpu.is_some() {
            self.entries[slot].state = State::Running;
        } else {
            self.enqueue(slot);
        }
    }

    fn wake_where(&mut self, wanted: impl Fn(&State) -> bool) {
        for slot in 0..TASKS_MAX {
            if wanted(&self.entries[slot].state) {
                self.wake(slot);
            }
        }
    }
}

/// Gives the CPU to the next ready task, else to the idle one. The caller is in one critical section of its own.
fn switch_away(mut scheduler: SpinLockGuard<'_, Scheduler>) {
    let now = time::now_ns();
    let from = current_slot();
    let to = scheduler.ready.pop_front().unwrap_or(BOOT_SLOT);
    let leaving = &mut scheduler.entries[from];
    let ran_ns = now.saturating_sub(leaving.running_since_ns);
    TASKS[from].cpu_ns.fetch_add(ran_ns, Relaxed);
    leaving.on_cpu = None;
    let coming = &mut scheduler.entries[to];
    coming.state = State::Running;
    coming.on_cpu = Some(arch::cpu_id());
    coming.running_since_ns = now;
    drop(scheduler);
    if from == to {
        return;
    }
    arch::set_current_task(to);
    let (bottom, top) = TASKS[to].stack_bounds();
    arch::set_current_stack(bottom, top);
    arch::switch(&TASKS[from].context, &TASKS[to].context);
}
