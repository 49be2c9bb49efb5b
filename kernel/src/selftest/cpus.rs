//! Several CPUs: that they run, that they hear each other, and that nobody keeps one for himself.

use super::{Test, skip};
use crate::{arch, memory, task};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use core::time::Duration;

pub(super) const TESTS: &[Test] = &[
    Test { name: "cpus::every_cpu_runs_tasks", run: every_cpu_runs_tasks },
    Test { name: "cpus::a_busy_task_is_no_obstacle", run: a_busy_task_is_no_obstacle },
    Test { name: "cpus::a_meeting_waits_for_critical_sections", run: a_meeting_waits_for_critical_sections },
    Test { name: "cpus::nobody_runs_while_others_are_frozen", run: nobody_runs_while_others_are_frozen },
    Test { name: "cpus::another_cpu_tells_where_it_is", run: another_cpu_tells_where_it_is },
    Test { name: "cpus::many_tasks_change_places", run: many_tasks_change_places },
    Test { name: "cpus::a_cpu_that_is_not_there_is_given_up", run: a_cpu_that_is_not_there_is_given_up },
];

fn every_cpu_runs_tasks() {
    let seen = Arc::new(AtomicU64::new(0));
    let all = arch::online_cpus().fold(0, |all, cpu| all | 1 << cpu);
    let tasks: Vec<_> = arch::online_cpus()
        .map(|_| {
            let seen = Arc::clone(&seen);
            task::spawn("seen", move || {
                while seen.fetch_or(1 << arch::cpu_id(), SeqCst) != all {
                    core::hint::spin_loop();
                }
            })
        })
        .collect();
    for task in tasks {
        task::join(task).expect("nobody cancels the tests");
    }
    assert_eq!(seen.load(SeqCst), all);
}

/// Tasks, one more than there are CPUs, that only count until this is dropped.
struct Busy {
    stop: Arc<AtomicBool>,
    counts: Vec<Arc<AtomicU64>>,
    tasks: Vec<task::TaskId>,
}

impl Busy {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut busy = Self { stop, counts: Vec::new(), tasks: Vec::new() };
        for _ in 0..=arch::online_cpus().count() {
            let (count, stop) = (Arc::new(AtomicU64::new(0)), Arc::clone(&busy.stop));
            busy.counts.push(Arc::clone(&count));
            busy.tasks.push(task::spawn("busy", move || {
                while !stop.load(SeqCst) {
                    count.fetch_add(1, SeqCst);
                }
            }));
        }
        busy
    }

    fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(SeqCst)).collect()
    }

    fn wait_for_progress_since(&self, before: &[u64]) {
        while self.counts().iter().zip(before).any(|(now, before)| now <= before) {
            task::yield_now();
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        for task in &self.tasks {
            task::join(*task).expect("nobody cancels the tests");
        }
    }
}

fn a_busy_task_is_no_obstacle() {
    let busy = Busy::start();
    busy.wait_for_progress_since(&busy.counts());
    // One that sleeps gets its CPU back, too.
    task::sleep(Duration::from_millis(20));
    busy.wait_for_progress_since(&busy.counts());
}

fn a_meeting_waits_for_critical_sections() {
    if arch::online_cpus().count() == 1 {
        return skip("there is one CPU");
    }
    for _ in 0..20 {
        let inside = Arc::new(AtomicUsize::new(0));
        let task = task::spawn("inside", {
            let inside = Arc::clone(&inside);
            move || {
                let _off = arch::irq_off();
                inside.store(1, SeqCst);
                arch::busy_wait(Duration::from_millis(1));
                inside.store(2, SeqCst);
            }
        });
        while inside.load(SeqCst) == 0 {
            task::yield_now();
        }
        arch::wait_for_grace_period();
        assert_eq!(inside.load(SeqCst), 2, "the critical section is over");
        task::join(task).expect("nobody cancels the tests");
    }
}

fn nobody_runs_while_others_are_frozen() {
    let busy = Busy::start();
    for _ in 0..5 {
        busy.wait_for_progress_since(&busy.counts());
        let frozen = task::freeze_others();
        let before = busy.counts();
        arch::busy_wait(Duration::from_millis(30));
        assert_eq!(busy.counts(), before);
        drop(frozen);
        busy.wait_for_progress_since(&before);
    }
}

fn another_cpu_tells_where_it_is() {
    let busy = Busy::start();
    for cpu in arch::online_cpus() {
        // This task may move there meanwhile, and then be the one that is told of.
        arch::ask_where(cpu);
        let trace = loop {
            if let Some(trace) = arch::trace_of(cpu) {
                break trace;
            }
            task::yield_now();
        };
        assert!(trace.place >= 0xffff_ffff_8000_0000, "{:#x} is in the kernel", trace.place);
    }
    busy.wait_for_progress_since(&busy.counts());
}

/// Pairs of tasks hand the turn to each other, so that every switch leaves and enters one that has just been left.
fn many_tasks_change_places() {
    const ROUNDS: usize = 200;
    let pairs: Vec<_> = (0..2 * arch::online_cpus().count())
        .flat_map(|_| {
            let turn = Arc::new((task::WaitQueue::new(), AtomicUsize::new(0)));
            [0, 1].map(|own| {
                let turn = Arc::clone(&turn);
                task::spawn("pair", move || {
                    let (queue, turn) = &*turn;
                    for _ in 0..ROUNDS {
                        queue.wait_until(|| turn.load(SeqCst) % 2 == own);
                        turn.fetch_add(1, SeqCst);
                        queue.wake_all();
                    }
                    assert!(turn.load(SeqCst) >= 2 * ROUNDS - 1);
                })
            })
        })
        .collect();
    for task in pairs {
        task::join(task).expect("nobody cancels the tests");
    }
}

fn a_cpu_that_is_not_there_is_given_up() {
    const NUMBER: usize = arch::CPUS_MAX - 1;
    /// Firmware numbers CPUs from the bottom.
    const NOBODY: u32 = 0xf0;
    if arch::online_cpus().any(|cpu| cpu == NUMBER) {
        return skip("all CPUs are there");
    }
    let found = || (memory::mm().memory_report().free, task::list().len());
    let before = found();
    let mut results = Vec::new();
    arch::smp::start(NUMBER, &[NOBODY], |number, apic_id, result| results.push((number, apic_id, result)));
    assert_eq!(results, [(NUMBER, NOBODY, Err(arch::smp::StartError::Silent))]);
    assert!(arch::online_cpus().all(|cpu| cpu != NUMBER));
    assert_eq!(found(), before);
}
