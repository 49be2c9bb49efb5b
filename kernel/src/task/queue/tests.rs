use super::*;
use proptest::prelude::*;

const CPUS: usize = 3;
const EVENT: usize = 7;

/// CPUs that do what a queue says.
struct Machine {
    queue: Queue,
    now_ns: u64,
    /// The task on every CPU.
    running: [usize; CPUS],
    /// Whether it waits for an interrupt.
    halted: [bool; CPUS],
}

/// What happens on a CPU; one that is halted is interrupted first.
#[derive(Clone, Copy, Debug)]
enum Step {
    Spawn,
    Wait,
    WaitUntil(u64),
    Wake,
    Tick,
    Yield,
    Rest,
    End,
    Reap,
    Freeze,
    Thaw,
}

impl Machine {
    fn new() -> Self {
        let mut machine = Self { queue: Queue::new(), now_ns: 0, running: [0; CPUS], halted: [false; CPUS] };
        for cpu in 0..CPUS {
            let slot = if cpu == 0 { BOOT_SLOT } else { cpu };
            machine.queue.entries[slot].state = State::Claimed;
            machine.queue.adopt(slot, Here { cpu, now_ns: 0 });
            machine.running[cpu] = slot;
        }
        machine
    }

    fn here(&mut self, cpu: usize) -> Here {
        self.now_ns += 1;
        Here { cpu, now_ns: self.now_ns }
    }

    fn kick(&mut self, cpus: CpuSet) {
        for cpu in cpus {
            assert_eq!(self.running[cpu], self.queue.idle[cpu], "cpu {cpu} was kicked and does not rest");
            self.halted[cpu] = false;
        }
    }

    fn switch(&mut self, cpu: usize) {
        let here = self.here(cpu);
        self.running[cpu] = self.queue.switch(self.running[cpu], here);
    }

    fn make_room(&mut self, cpu: usize) {
        if self.queue.should_make_room(self.running[cpu]) {
            let here = self.here(cpu);
            self.queue.make_room(self.running[cpu], here);
            self.switch(cpu);
        }
    }

    fn spawn(&mut self, cpu: usize) -> Option<TaskId> {
        let slot = self.queue.claim()?;
        let here = self.here(cpu);
        let (id, kicked) = self.queue.start(slot, here);
        self.kick(kicked);
        Some(id)
    }

    fn step(&mut self, cpu: usize, step: Step) {
        self.halted[cpu] = false;
        let current = self.running[cpu];
        let is_idle = self.queue.is_idle(current);
        let here = self.here(cpu);
        match step {
            Step::Spawn => {
                self.spawn(cpu);
            }
            Step::Wake => {
                let kicked = self.queue.wake_queue(EVENT, here);
                self.kick(kicked);
            }
            Step::Tick => {
                let kicked = self.queue.wake_due(here);
                self.kick(kicked);
                assert!(self.queue.next_deadline_ns().is_none_or(|deadline| deadline > here.now_ns));
            }
            Step::Yield => self.make_room(cpu),
            Step::Reap => {
                if let Some(slot) = self.queue.claim_ended(|_| true) {
                    self.queue.release(slot);
                }
            }
            Step::Rest if is_idle => self.halted[cpu] = self.queue.rest(cpu),
            Step::Wait if !is_idle => {
                self.queue.prepare_to_wait(current, EVENT, None);
                self.switch(cpu);
            }
            Step::WaitUntil(patience) if !is_idle => {
                self.queue.prepare_to_wait(current, EVENT, Some(here.now_ns + patience));
                self.switch(cpu);
            }
            Step::End if !is_idle && self.queue.frozen_for != Some(current) => {
                self.queue.end(current);
                self.switch(cpu);
            }
            Step::Freeze if !is_idle => {
                self.queue.freeze_for(current);
            }
            Step::Thaw if self.queue.frozen_for == Some(current) => {
                let kicked = self.queue.thaw(here);
                self.kick(kicked);
            }
            _ => {}
        }
    }

    fn validate(&self) {
        let Queue { entries, ready, idle, frozen_for, .. } = &self.queue;
        for (slot, entry) in entries.iter().enumerate() {
            let queued = ready.iter().filter(|queued| **queued == slot).count();
            let is_idle = idle[..CPUS].contains(&slot);
            assert_eq!(queued, usize::from(entry.state == State::Ready && !is_idle), "slot {slot}: {entry:?}");
            assert_eq!(entry.on_cpu, self.running.iter().position(|running| *running == slot), "slot {slot}");
            assert_eq!(entry.state == State::Running, entry.on_cpu.is_some(), "slot {slot}: {entry:?}");
        }
        let can_run = match frozen_for {
            Some(only) => ready.iter().filter(|slot| *slot == only).count(),
            None => ready.len(),
        };
        assert_eq!(self.queue.next().is_some(), can_run > 0);
        // Whoever is idle and does not rest is about to look.
        let looking = (0..CPUS).filter(|cpu| self.running[*cpu] == idle[*cpu] && !self.halted[*cpu]).count();
        assert!(can_run <= looking || !self.halted.contains(&true), "a task is ready, and a CPU rests");
    }

    /// All CPUs do what their idle tasks and interrupts do, until nothing changes.
    fn look_everywhere(&mut self) {
        for _ in 0..2 {
            for cpu in 0..CPUS {
                self.make_room(cpu);
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Spawn),
        2 => Just(Step::Wait),
        1 => (0_u64..20).prop_map(Step::WaitUntil),
        3 => Just(Step::Wake),
        1 => Just(Step::Tick),
        4 => Just(Step::Yield),
        4 => Just(Step::Rest),
        1 => Just(Step::End),
        1 => Just(Step::Reap),
        1 => Just(Step::Freeze),
        1 => Just(Step::Thaw),
    ]
}

proptest! {
    #[test]
    fn no_task_is_lost_and_no_cpu_rests_beside_work(steps in prop::collection::vec((0..CPUS, step()), 1..200)) {
        let mut machine = Machine::new();
        for (cpu, step) in steps {
            machine.step(cpu, step);
            machine.validate();
        }
        machine.look_everywhere();
        machine.validate();
        prop_assert!(machine.queue.stands_still(), "somebody runs while he is frozen");
    }
}

#[test]
fn tasks_have_their_turns_in_order() {
    let mut machine = Machine::new();
    let ids: Vec<_> = (0..4).map(|_| machine.spawn(0).expect("there are slots")).collect();
    for turn in 0..12 {
        machine.make_room(0);
        assert_eq!(machine.queue.entry(machine.running[0]).id, ids[turn % ids.len()]);
    }
}

#[test]
fn whoever_waits_for_longest_is_told_but_for_frozen_tasks() {
    let mut machine = Machine::new();
    let first = machine.spawn(0).expect("there are slots");
    let second = machine.spawn(0).expect("there are slots");
    assert_eq!(machine.queue.longest_wait().map(|(id, _)| id), Some(first));
    machine.make_room(0);
    assert_eq!(machine.queue.longest_wait().map(|(id, _)| id), Some(second));
    assert!(machine.queue.freeze_for(machine.running[0]));
    assert_eq!(machine.queue.longest_wait(), None);
    assert!(!machine.queue.freeze_for(machine.running[1]), "one at a time");
}
