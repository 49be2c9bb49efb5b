//! Who runs next: the decisions, without the machine.
//!
//! The state of every slot, the queue that all CPUs take their tasks from in turn, and the CPUs that rest. A CPU that finds
//! nothing to do rests in its idle task, which is never in the queue; whoever makes a task ready is told which CPU to kick.
#![deny(unsafe_code)]

use super::cpu_set::CpuSet;
use super::{TASKS_MAX, TaskId};
use crate::arch::CPUS_MAX;

/// The slot of the flow that booted; the idle task of the boot CPU.
pub(super) const BOOT_SLOT: usize = 0;

/// A task in one of the slots.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) id: TaskId,
    pub(super) state: State,
    /// The CPU that runs it; a task that is about to wait still has one.
    pub(super) on_cpu: Option<usize>,
    /// When that began, or when it became ready.
    pub(super) since_ns: u64,
    /// How long it has run, up to then.
    pub(super) cpu_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Free,
    /// The slot is being filled.
    Claimed,
    Ready,
    Running,
    /// Until the queue with this address is woken, or the deadline passes.
    Waiting {
        queue: usize,
        deadline_ns: Option<u64>,
    },
    Ended,
    /// The slot is being emptied.
    Leaving,
}

/// Where and when something is decided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here {
    pub(super) cpu: usize,
    pub(super) now_ns: u64,
}

/// Slots, with the tasks that are leaving them.
pub(super) type Leaving = heapless::Vec<(usize, TaskId), TASKS_MAX>;

#[derive(Debug)]
pub(super) struct Queue {
    entries: [Entry; TASKS_MAX],
    ready: heapless::Deque<usize, TASKS_MAX>,
    next_id: u64,
    /// The idle task of every CPU.
    idle: [usize; CPUS_MAX],
    /// CPUs that wait for an interrupt.
    resting: CpuSet,
    /// The only task that may run, while there is one.
    frozen_for: Option<usize>,
}

impl Queue {
    pub(super) const fn new() -> Self {
        Self {
            entries: [Entry { id: TaskId(0), state: State::Free, on_cpu: None, since_ns: 0, cpu_ns: 0 }; TASKS_MAX],
            ready: heapless::Deque::new(),
            next_id: 1,
            idle: [BOOT_SLOT; CPUS_MAX],
            resting: CpuSet::EMPTY,
            frozen_for: None,
        }
    }

    // Slots.

    pub(super) fn claim(&mut self) -> Option<usize> {
        let slot = self.entries.iter().position(|entry| entry.state == State::Free)?;
        self.entries[slot].state = State::Claimed;
        Some(slot)
    }

    /// Makes what runs here the idle task of this CPU.
    pub(super) fn adopt(&mut self, slot: usize, here: Here) {
        self.idle[here.cpu] = slot;
        let id = if slot == BOOT_SLOT { TaskId(0) } else { self.new_id() };
        self.entries[slot] =
            Entry { id, state: State::Running, on_cpu: Some(here.cpu), since_ns: here.now_ns, cpu_ns: 0 };
    }

    /// Makes the new task in a claimed slot ready.
    pub(super) fn start(&mut self, slot: usize, here: Here) -> (TaskId, CpuSet) {
        let id = self.new_id();
        self.entries[slot].id = id;
        self.entries[slot].cpu_ns = 0;
        (id, self.wake(slot, here))
    }

    /// The task has nothing left to do but to switch away.
    pub(super) fn end(&mut self, slot: usize) {
        self.entries[slot].state = State::Ended;
    }

    /// A slot whose task has ended and, as far as `is_gone` knows, left its stack.
    pub(super) fn claim_ended(&mut self, is_gone: impl Fn(usize) -> bool) -> Option<usize> {
        let slot = (0..TASKS_MAX).find(|&slot| {
            let entry = &self.entries[slot];
            entry.state == State::Ended && entry.on_cpu.is_none() && is_gone(slot)
        })?;
        self.entries[slot].state = State::Leaving;
        Some(slot)
    }

    /// The tasks that have ended and whose slots are not free.
    pub(super) fn leaving(&self) -> Leaving {
        let entries = self.entries.iter().enumerate();
        entries.filter(|(slot, entry)| self.is_leaving(*slot, entry.id)).map(|(slot, entry)| (slot, entry.id)).collect()
    }

    pub(super) fn is_leaving(&self, slot: usize, id: TaskId) -> bool {
        let entry = &self.entries[slot];
        entry.id == id && matches!(entry.state, State::Ended | State::Leaving)
    }

    pub(super) fn release(&mut self, slot: usize) {
        self.entries[slot].state = State::Free;
    }

    pub(super) fn entry(&self, slot: usize) -> Entry {
        self.entries[slot]
    }

    pub(super) fn slot_of(&self, id: TaskId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.id == id && entry.state.is_alive())
    }

    // Waiting.

    pub(super) fn prepare_to_wait(&mut self, slot: usize, queue: usize, deadline_ns: Option<u64>) {
        self.entries[slot].state = State::Waiting { queue, deadline_ns };
    }

    pub(super) fn stay_running(&mut self, slot: usize) {
        self.entries[slot].state = State::Running;
    }

    /// Wakes every task that waits on a queue.
    pub(super) fn wake_queue(&mut self, address: usize, here: Here) -> CpuSet {
        self.wake_where(here, |state| matches!(state, State::Waiting { queue, .. } if *queue == address))
    }

    /// Wakes one task, whatever it waits for.
    pub(super) fn wake_task(&mut self, slot: usize, id: TaskId, here: Here) -> CpuSet {
        let entry = self.entries[slot];
        if entry.id == id && entry.state.is_waiting() { self.wake(slot, here) } else { CpuSet::EMPTY }
    }

    /// Wakes the tasks whose deadline has passed.
    pub(super) fn wake_due(&mut self, here: Here) -> CpuSet {
        self.wake_where(here, |state| state.deadline_ns().is_some_and(|deadline| deadline <= here.now_ns))
    }

    /// The earliest deadline of a task that waits.
    pub(super) fn next_deadline_ns(&self) -> Option<u64> {
        self.entries.iter().filter_map(|entry| entry.state.deadline_ns()).min()
    }

    // Turns.

    /// Whether the task that runs should let others have its CPU.
    pub(super) fn should_make_room(&self, slot: usize) -> bool {
        self.next().is_some() || self.is_out_of_turn(slot)
    }

    pub(super) fn is_idle(&self, slot: usize) -> bool {
        slot == BOOT_SLOT || self.entries[slot].on_cpu.is_some_and(|cpu| self.idle[cpu] == slot)
    }

    /// The task that runs here goes to the end of the queue.
    pub(super) fn make_room(&mut self, slot: usize, here: Here) {
        if self.is_idle(slot) {
            self.entries[slot].state = State::Ready;
        } else {
            self.charge(slot, here);
            self.enqueue(slot, here);
        }
    }

    /// Takes this CPU from one task and gives it to the next that is ready, else to the idle one; says which.
    pub(super) fn switch(&mut self, from: usize, here: Here) -> usize {
        if self.entries[from].state != State::Ready || self.is_idle(from) {
            self.charge(from, here);
        }
        let to = match self.next() {
            Some(next) => self.ready.pop_front().unwrap_or(next),
            None => self.idle[here.cpu],
        };
        self.resting.remove(here.cpu);
        self.entries[from].on_cpu = None;
        let coming = &mut self.entries[to];
        coming.state = State::Running;
        coming.on_cpu = Some(here.cpu);
        coming.since_ns = here.now_ns;
        to
    }

    /// Lets a CPU rest, unless there is something to do; says which.
    pub(super) fn rest(&mut self, cpu: usize) -> bool {
        let nothing = self.next().is_none();
        if nothing {
            self.resting.insert(cpu);
        }
        nothing
    }

    /// The task that has been ready for longest without a turn, and since when. Nobody has a turn while others are frozen.
    pub(super) fn longest_wait(&self) -> Option<(TaskId, u64)> {
        let ready = self.ready.iter().filter(|_| self.frozen_for.is_none());
        ready.map(|slot| (self.entries[*slot].id, self.entries[*slot].since_ns)).min_by_key(|(_, since)| *since)
    }

    // Freezing.

    /// From now on only this task gets a turn, unless that holds for another one; says which.
    pub(super) fn freeze_for(&mut self, slot: usize) -> bool {
        let can = self.frozen_for.is_none();
        if can {
            self.frozen_for = Some(slot);
        }
        can
    }

    /// Whether all that should not have a CPU have none.
    pub(super) fn stands_still(&self) -> bool {
        self.entries.iter().enumerate().all(|(slot, entry)| entry.on_cpu.is_none() || !self.is_out_of_turn(slot))
    }

    /// Everybody gets turns again. Nobody has waited for one meanwhile.
    pub(super) fn thaw(&mut self, here: Here) -> CpuSet {
        self.frozen_for = None;
        for entry in self.entries.iter_mut().filter(|entry| entry.state == State::Ready) {
            entry.since_ns = here.now_ns;
        }
        let mut kicked = CpuSet::EMPTY;
        for _ in 0..self.ready.len() {
            kicked.extend(self.rouse(here.cpu));
        }
        kicked
    }

    // The steps of these.

    fn new_id(&mut self) -> TaskId {
        let id = TaskId(self.next_id);
        self.next_id += 1;
        id
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

    fn enqueue(&mut self, slot: usize, here: Here) {
        let entry = &mut self.entries[slot];
        entry.state = State::Ready;
        entry.since_ns = here.now_ns;
        let queued =
            if self.frozen_for == Some(slot) { self.ready.push_front(slot) } else { self.ready.push_back(slot) };
        queued.expect("the queue has room for every slot once");
    }

    fn wake_where(&mut self, here: Here, wanted: impl Fn(&State) -> bool) -> CpuSet {
        let mut kicked = CpuSet::EMPTY;
        for slot in 0..TASKS_MAX {
            if wanted(&self.entries[slot].state) {
                kicked.extend(self.wake(slot, here));
            }
        }
        kicked
    }

    /// A task that still has its CPU simply goes on; another one queues for it.
    fn wake(&mut self, slot: usize, here: Here) -> CpuSet {
        if self.entries[slot].on_cpu.is_some() {
            self.entries[slot].state = State::Running;
            CpuSet::EMPTY
        } else {
            self.enqueue(slot, here);
            self.rouse(here.cpu)
        }
    }

    /// Has a CPU that rests look at the queue, unless this one is about to.
    fn rouse(&mut self, own: usize) -> CpuSet {
        if self.resting.remove(own) {
            return CpuSet::EMPTY;
        }
        let mut kicked = CpuSet::EMPTY;
        if let Some(cpu) = self.resting.next() {
            kicked.insert(cpu);
        }
        kicked
    }

    /// Counts what a task has run since it got its CPU.
    fn charge(&mut self, slot: usize, here: Here) {
        let entry = &mut self.entries[slot];
        entry.cpu_ns += here.now_ns.saturating_sub(entry.since_ns);
        entry.since_ns = here.now_ns;
    }
}

impl State {
    fn is_alive(self) -> bool {
        matches!(self, Self::Ready | Self::Running | Self::Waiting { .. })
    }

    pub(super) fn is_waiting(self) -> bool {
        matches!(self, Self::Waiting { .. })
    }

    fn deadline_ns(self) -> Option<u64> {
        match self {
            Self::Waiting { deadline_ns, .. } => deadline_ns,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
