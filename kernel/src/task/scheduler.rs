//! Switching between tasks.
//!
//! What is decided in [`Queue`] happens here. One lock guards the queue. It is not held across the switch itself: a task
//! that is leaving may already be taken by another CPU, which then waits for its context (see `arch::switch`).
#![deny(unsafe_code)]

use super::queue::{Here, Leaving, Queue, State};
use super::{ENDED, TASKS, TaskId, TaskState};
use crate::shim::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use crate::shim::hint;
use crate::sync::{SpinLock, SpinLockGuard};
use crate::{arch, time};
use core::time::Duration;

static QUEUE: SpinLock<Queue> = SpinLock::new(Queue::new());

/// No task has a deadline before this; spares the tick the walk through the table.
static NEXT_DEADLINE_NS: AtomicU64 = AtomicU64::new(u64::MAX);

static STARTED: AtomicBool = AtomicBool::new(false);

/// Whether there are tasks at all; before, and in host tests, waiting means spinning.
pub(super) fn has_started() -> bool {
    STARTED.load(Relaxed)
}

/// This CPU, now. The caller holds the queue, so it stays on this CPU.
fn here() -> Here {
    Here { cpu: arch::cpu_id(), now_ns: time::now_ns() }
}

/// Makes the flow that calls this the idle task of its CPU.
pub(super) fn adopt_flow(slot: usize) {
    let mut queue = QUEUE.lock();
    queue.adopt(slot, here());
    arch::set_current_task(slot);
    STARTED.store(true, Relaxed);
}

pub(super) fn current_slot() -> usize {
    arch::current_task()
}

pub(super) fn claim_slot() -> Option<usize> {
    QUEUE.lock().claim()
}

pub(super) fn make_ready(slot: usize) -> TaskId {
    let mut queue = QUEUE.lock();
    let (id, resting) = queue.start(slot, here());
    resting.for_each(arch::kick);
    id
}

pub(super) fn slot_of(id: TaskId) -> Option<usize> {
    QUEUE.lock().slot_of(id)
}

pub(super) fn id_of(slot: usize) -> TaskId {
    QUEUE.lock().entry(slot).id
}

/// The id and state of the task in a slot, and how long it has run.
pub(super) fn state_of(slot: usize) -> Option<(TaskId, TaskState, u64)> {
    let now = time::now_ns();
    let entry = QUEUE.lock().entry(slot);
    let state = match entry.state {
        State::Free | State::Claimed | State::Leaving => return None,
        State::Ready => TaskState::Ready,
        State::Running => TaskState::Running,
        State::Waiting { deadline_ns: Some(_), .. } => TaskState::Sleeping,
        State::Waiting { .. } => TaskState::Waiting,
        State::Ended => TaskState::Ended,
    };
    let running_ns = entry.on_cpu.map_or(0, |_| now.saturating_sub(entry.since_ns));
    Some((entry.id, state, entry.cpu_ns + running_ns))
}

/// Announces that the current task is about to wait; from here on a wake-up is not lost.
pub(super) fn prepare_to_wait(address: usize, deadline_ns: Option<u64>) {
    let mut queue = QUEUE.lock();
    queue.prepare_to_wait(current_slot(), address, deadline_ns);
    if let Some(deadline) = deadline_ns {
        NEXT_DEADLINE_NS.fetch_min(deadline, Relaxed);
    }
}

/// The current task need not wait after all.
pub(super) fn stay_running() {
    QUEUE.lock().stay_running(current_slot());
}

/// Waits as announced, unless a wake-up came meanwhile.
pub(super) fn wait() {
    let _off = arch::irq_off();
    let queue = QUEUE.lock();
    let current = current_slot();
    if queue.entry(current).state.is_waiting() {
        assert!(!queue.is_idle(current), "a CPU's idle task cannot wait");
        switch_away(queue);
    }
}

pub(super) fn yield_now() {
    if !has_started() {
        hint::spin_loop();
        return;
    }
    let _off = arch::irq_off();
    let mut queue = QUEUE.lock();
    let current = current_slot();
    if queue.should_make_room(current) {
        queue.make_room(current, here());
        switch_away(queue);
    }
}

/// Lets others have the CPU, from an interrupt handler that is done. A task that is just about to wait, or to end, gives it
/// up by itself.
pub(crate) fn preempt() {
    if !has_started() {
        return;
    }
    let _off = arch::irq_off();
    // A tick that finds the queue locked leaves it to the next: whatever happens, ticks go on.
    let Some(mut queue) = QUEUE.try_lock() else { return };
    let current = current_slot();
    // The idle task looks by itself, right after the interrupt.
    if queue.should_make_room(current) && queue.entry(current).state == State::Running && !queue.is_idle(current) {
        queue.make_room(current, here());
        switch_away(queue);
    }
}

/// Runs what is ready, and rests when there is nothing.
pub(super) fn idle() -> ! {
    loop {
        arch::push_off();
        let rests = QUEUE.lock().rest(arch::cpu_id());
        if rests {
            arch::pop_off_and_halt();
        } else {
            arch::pop_off();
            yield_now();
        }
    }
}

/// No task but one runs while this lives.
#[must_use = "the others run again as soon as this is dropped"]
pub(crate) struct Frozen(());

/// Stops every other task where it is, outside of critical sections, and returns when all stand still. What they hold they
/// keep: whoever calls this must not need it. Interrupts go on.
pub(crate) fn freeze_others() -> Frozen {
    while !QUEUE.lock().freeze_for(current_slot()) {
        yield_now();
    }
    while !QUEUE.lock().stands_still() {
        // Those that were about to wait when they were asked are asked again.
        let own = arch::cpu_id();
        arch::online_cpus().filter(|cpu| *cpu != own).for_each(arch::kick);
        arch::busy_wait(FREEZE_PATIENCE);
    }
    Frozen(())
}

/// How long tasks get to stand still before they are asked again.
const FREEZE_PATIENCE: Duration = Duration::from_micros(100);

impl Drop for Frozen {
    fn drop(&mut self) {
        let mut queue = QUEUE.lock();
        queue.thaw(here()).for_each(arch::kick);
    }
}

/// The task that has been ready for longest without a turn, and since when, unless the queue is locked. Nobody has a turn
/// while others are frozen.
pub(crate) fn longest_wait() -> Option<(TaskId, u64)> {
    QUEUE.try_lock()?.longest_wait()
}

/// Ends the current task.
pub(super) fn end() -> ! {
    ENDED_COUNT.fetch_add(1, Relaxed);
    QUEUE.lock().end(current_slot());
    ENDED.wake_all();
    super::work::wake();
    let _off = arch::irq_off();
    switch_away(QUEUE.lock());
    unreachable!("nobody resumes a task that has ended")
}

/// Tasks that have ended and whose stacks are still there.
static ENDED_COUNT: AtomicU64 = AtomicU64::new(0);

/// The tasks that have ended and have not given back all they had.
pub(super) fn leaving() -> Leaving {
    QUEUE.lock().leaving()
}

/// Whether all of them have.
pub(super) fn have_left(leaving: &Leaving) -> bool {
    let queue = QUEUE.lock();
    leaving.iter().all(|(slot, id)| !queue.is_leaving(*slot, *id))
}

/// Whether `claim_ended` may find something.
pub(super) fn any_ended() -> bool {
    ENDED_COUNT.load(Relaxed) > 0
}

/// A slot whose task has ended and left its stack; the caller frees that.
pub(super) fn claim_ended() -> Option<usize> {
    if !any_ended() {
        return None;
    }
    let slot = QUEUE.lock().claim_ended(|slot| TASKS[slot].context.is_suspended())?;
    ENDED_COUNT.fetch_sub(1, Relaxed);
    Some(slot)
}

pub(super) fn release_slot(slot: usize) {
    QUEUE.lock().release(slot);
}

/// The same for one that `claim_ended` gave.
pub(super) fn release_ended(slot: usize) {
    release_slot(slot);
    ENDED.wake_all();
}

/// Wakes every task that waits on a queue. May be called by an interrupt handler.
pub(super) fn wake_queue(address: usize) {
    let mut queue = QUEUE.lock();
    queue.wake_queue(address, here()).for_each(arch::kick);
}

/// Asks a task to stop and wakes it, whatever it waits for; says whether there is such a task.
pub(super) fn cancel(id: TaskId) -> bool {
    let mut queue = QUEUE.lock();
    let Some(slot) = queue.slot_of(id) else { return false };
    // Under the lock: the slot is that task's until it is given up.
    TASKS[slot].cancelled.store(true, Relaxed);
    queue.wake_task(slot, id, here()).for_each(arch::kick);
    true
}

/// Wakes the tasks whose deadline has passed; the timer interrupt calls this.
pub(crate) fn tick(now_ns: u64) {
    if now_ns < NEXT_DEADLINE_NS.load(Relaxed) {
        return;
    }
    let Some(mut queue) = QUEUE.try_lock() else { return };
    queue.wake_due(Here { now_ns, ..here() }).for_each(arch::kick);
    NEXT_DEADLINE_NS.store(queue.next_deadline_ns().unwrap_or(u64::MAX), Relaxed);
}

/// Gives the CPU to the next ready task, else to the idle one. The caller is in one critical section of its own.
fn switch_away(mut queue: SpinLockGuard<'_, Queue>) {
    let from = current_slot();
    let to = queue.switch(from, here());
    drop(queue);
    if from == to {
        return;
    }
    arch::set_current_task(to);
    let (bottom, top) = TASKS[to].stack_bounds();
    arch::set_current_stack(bottom, top);
    arch::switch(&TASKS[from].context, &TASKS[to].context);
}
