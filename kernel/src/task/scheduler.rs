//! Who runs next.
//!
//! All CPUs take their tasks from one queue, in turn. One lock guards it and the state of all slots. It is not held across
//! the switch itself: a task that is leaving may already be taken by another CPU, which then waits for its context (see
//! `arch::switch`). A CPU that finds nothing to do rests in its idle task, which is never in the queue, until an interrupt;
//! whoever makes a task ready sends one to a CPU that rests.
#![deny(unsafe_code)]

use super::{ENDED, TASKS, TASKS_MAX, TaskId, TaskState};
use crate::arch::CPUS_MAX;
use crate::sync::{SpinLock, SpinLockGuard};
use crate::{arch, time};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use core::time::Duration;

/// The slot of the flow that booted; the idle task of the boot CPU.
pub(super) const BOOT_SLOT: usize = 0;

/// A task in one of the slots, as the scheduler sees it.
#[derive(Clone, Copy)]
struct Entry {
    id: TaskId,
    state: State,
    /// The CPU that runs it; a task that is about to wait still has one.
    on_cpu: Option<usize>,
    /// When that began, or when it became ready.
    since_ns: u64,
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
    /// The idle task of every CPU.
    idle: [usize; CPUS_MAX],
    /// CPUs that wait for an interrupt, one bit each.
    resting: u64,
    /// The only task that may run, while there is one.
    frozen_for: Option<usize>,
}

const _: () = assert!(CPUS_MAX <= u64::BITS as usize);

static SCHEDULER: SpinLock<Scheduler> = SpinLock::new(Scheduler {
    entries: [Entry { id: TaskId(0), state: State::Free, on_cpu: None, since_ns: 0 }; TASKS_MAX],
    ready: heapless::Deque::new(),
    next_id: 1,
    idle: [BOOT_SLOT; CPUS_MAX],
    resting: 0,
    frozen_for: None,
});

/// No task has a deadline before this; spares the tick the walk through the table.
static NEXT_DEADLINE_NS: AtomicU64 = AtomicU64::new(u64::MAX);

static STARTED: AtomicBool = AtomicBool::new(false);

/// Whether there are tasks at all; before, and in host tests, waiting means spinning.
pub(super) fn has_started() -> bool {
    STARTED.load(Relaxed)
}

/// Makes the flow that calls this the idle task of its CPU.
pub(super) fn adopt_flow(slot: usize) {
    let mut scheduler = SCHEDULER.lock();
    let cpu = arch::cpu_id();
    scheduler.idle[cpu] = slot;
    if slot != BOOT_SLOT {
        scheduler.entries[slot].id = scheduler.new_id();
    }
    let entry = &mut scheduler.entries[slot];
    entry.state = State::Running;
    entry.on_cpu = Some(cpu);
    entry.since_ns = time::now_ns();
    arch::set_current_task(slot);
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
    let id = scheduler.new_id();
    scheduler.entries[slot].id = id;
    scheduler.wake(slot);
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
    let running_ns = entry.on_cpu.map_or(0, |_| now.saturating_sub(entry.since_ns));
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
    if scheduler.next().is_some() || scheduler.is_out_of_turn(current_slot()) {
        scheduler.make_room();
        switch_away(scheduler);
    }
}

/// Lets others have the CPU, from an interrupt handler that is done. A task that is just about to wait, or to end, gives it
/// up by itself.
pub(crate) fn preempt() {
    if !has_started() {
        return;
    }
    let _off = arch::irq_off();
    let mut scheduler = SCHEDULER.lock();
    let current = current_slot();
    let wanted = scheduler.next().is_some() || scheduler.is_out_of_turn(current);
    // The idle task looks by itself, right after the interrupt.
    if wanted && scheduler.entries[current].state == State::Running && !scheduler.is_idle(current) {
        scheduler.make_room();
        switch_away(scheduler);
    }
}

/// Runs what is ready, and rests when there is nothing.
pub(super) fn idle() -> ! {
    loop {
        arch::push_off();
        let mut scheduler = SCHEDULER.lock();
        if scheduler.next().is_some() {
            drop(scheduler);
            arch::pop_off();
            yield_now();
        } else {
            scheduler.resting |= 1 << arch::cpu_id();
            drop(scheduler);
            arch::pop_off_and_halt();
        }
    }
}

/// No task but one runs while this lives.
#[must_use = "the others run again as soon as this is dropped"]
pub(crate) struct Frozen(());

/// Stops every other task where it is, outside of critical sections, and returns when all stand still. What they hold they
/// keep: whoever calls this must not need it. Interrupts go on.
pub(crate) fn freeze_others() -> Frozen {
    loop {
        let mut scheduler = SCHEDULER.lock();
        if scheduler.frozen_for.is_none() {
            scheduler.frozen_for = Some(current_slot());
            break;
        }
        drop(scheduler);
        yield_now();
    }
    loop {
        let scheduler = SCHEDULER.lock();
        if scheduler
            .entries
            .iter()
            .enumerate()
            .all(|(slot, entry)| entry.on_cpu.is_none() || !scheduler.is_out_of_turn(slot))
        {
            return Frozen(());
        }
        drop(scheduler);
        // Those that were about to wait when they were asked are asked again.
        let own = arch::cpu_id();
        arch::online_cpus().filter(|cpu| *cpu != own).for_each(arch::kick);
        arch::busy_wait(FREEZE_PATIENCE);
    }
}

/// How long tasks get to stand still before they are asked again.
const FREEZE_PATIENCE: Duration = Duration::from_micros(100);

impl Drop for Frozen {
    fn drop(&mut self) {
        let mut scheduler = SCHEDULER.lock();
        scheduler.frozen_for = None;
        let now = time::now_ns();
        for entry in scheduler.entries.iter_mut().filter(|entry| entry.state == State::Ready) {
            entry.since_ns = now;
        }
        for _ in 0..scheduler.ready.len() {
            scheduler.rouse();
        }
    }
}

/// The task that has been ready for longest without a turn, and since when. Nobody has a turn while others are frozen.
pub(crate) fn longest_wait() -> Option<(TaskId, u64)> {
    let scheduler = SCHEDULER.lock();
    let ready = scheduler.ready.iter().filter(|_| scheduler.frozen_for.is_none());
    ready.map(|slot| (scheduler.entries[*slot].id, scheduler.entries[*slot].since_ns)).min_by_key(|(_, since)| *since)
}

/// Ends the current task.
pub(super) fn end() -> ! {
    ENDED_COUNT.fetch_add(1, Relaxed);
    LEAVING_COUNT.fetch_add(1, Relaxed);
    SCHEDULER.lock().entries[current_slot()].state = State::Ended;
    ENDED.wake_all();
    super::work::wake();
    let _off = arch::irq_off();
    switch_away(SCHEDULER.lock());
    unreachable!("nobody resumes a task that has ended")
}

/// Tasks that have ended and whose stacks are still there.
static ENDED_COUNT: AtomicU64 = AtomicU64::new(0);

/// The same, with those whose stacks are just being freed.
static LEAVING_COUNT: AtomicU64 = AtomicU64::new(0);

/// Whether every task that has ended has given back what it had.
pub(super) fn is_settled() -> bool {
    LEAVING_COUNT.load(Relaxed) == 0
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

/// The same for one that `claim_ended` gave.
pub(super) fn release_ended(slot: usize) {
    release_slot(slot);
    LEAVING_COUNT.fetch_sub(1, Relaxed);
    ENDED.wake_all();
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
    fn new_id(&mut self) -> TaskId {
        let id = TaskId(self.next_id);
        self.next_id += 1;
        id
    }

    fn is_idle(&self, slot: usize) -> bool {
        slot == BOOT_SLOT || self.entries[slot].on_cpu.is_some_and(|cpu| self.idle[cpu] == slot)
    }

    /// Whether a task that has a CPU should not.
    fn is_out_of_turn(&self, slot: usize) -> bool {
        self.frozen_for.is_some_and(|only| only != slot) && !self.is_idle(slot)
    }

    /// Who runs next, if anybody wants to. The one that others are frozen for queues in front.
    fn next(&self) -> Option<usize> {
        let first = self.ready.front().copied();
        first.filter(|slot| self.frozen_for.is_none_or(|only| only == *slot))
    }

    fn enqueue(&mut self, slot: usize) {
        let entry = &mut self.entries[slot];
        entry.state = State::Ready;
        entry.since_ns = time::now_ns();
        let queued =
            if self.frozen_for == Some(slot) { self.ready.push_front(slot) } else { self.ready.push_back(slot) };
        queued.expect("the queue has room for every slot once");
    }

    /// The current task goes to the end of the queue.
    fn make_room(&mut self) {
        let current = current_slot();
        if self.is_idle(current) {
            self.entries[current].state = State::Ready;
        } else {
            self.charge(current);
            self.enqueue(current);
        }
    }

    /// A task that still has its CPU simply goes on; another one queues for it.
    fn wake(&mut self, slot: usize) {
        if self.entries[slot].on_cpu.is_some() {
            self.entries[slot].state = State::Running;
        } else {
            self.enqueue(slot);
            self.rouse();
        }
    }

    /// Makes a CPU that rests look at the queue, unless this one is about to.
    fn rouse(&mut self) {
        let own = arch::cpu_id();
        if self.resting & 1 << own != 0 {
            self.resting &= !(1 << own);
        } else if self.resting != 0 {
            let cpu = self.resting.trailing_zeros() as usize;
            self.resting &= !(1 << cpu);
            arch::kick(cpu);
        }
    }

    /// Counts what a task has run since it got its CPU.
    fn charge(&mut self, slot: usize) {
        let now = time::now_ns();
        let entry = &mut self.entries[slot];
        TASKS[slot].cpu_ns.fetch_add(now.saturating_sub(entry.since_ns), Relaxed);
        entry.since_ns = now;
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
    let cpu = arch::cpu_id();
    let from = current_slot();
    if scheduler.entries[from].state != State::Ready || scheduler.is_idle(from) {
        scheduler.charge(from);
    }
    let to = match scheduler.next() {
        Some(next) => scheduler.ready.pop_front().unwrap_or(next),
        None => scheduler.idle[cpu],
    };
    scheduler.resting &= !(1 << cpu);
    scheduler.entries[from].on_cpu = None;
    let coming = &mut scheduler.entries[to];
    coming.state = State::Running;
    coming.on_cpu = Some(cpu);
    coming.since_ns = time::now_ns();
    drop(scheduler);
    if from == to {
        return;
    }
    arch::set_current_task(to);
    let (bottom, top) = TASKS[to].stack_bounds();
    arch::set_current_stack(bottom, top);
    arch::switch(&TASKS[from].context, &TASKS[to].context);
}
