//! What tasks do on the model. Each is run in many orders; it fails by a panic, or when nobody can go on.

use crate::arch::{self, Root};
use crate::memory;
use crate::shim::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use crate::sync::{Mutex, SpinLock};
use crate::task::{self, TaskId, WaitQueue};

/// Starts tasks that all do the same.
fn start<const COUNT: usize>(work: fn()) -> [TaskId; COUNT] {
    core::array::from_fn(|_| task::spawn("helper", work))
}

fn join_all(ids: &[TaskId]) {
    for id in ids {
        task::join(*id).expect("nobody cancels");
    }
}

/// Reads and writes with a gap between, which only a lock makes whole.
fn add_one(counter: &AtomicU64) {
    let before = counter.load(SeqCst);
    task::yield_now();
    counter.store(before + 1, SeqCst);
}

/// A mutex keeps tasks apart, even those that give up their CPU inside, and wakes all who wait for it.
pub fn a_mutex_lets_in_one_at_a_time() {
    static COUNTER: Mutex<AtomicU64> = Mutex::new(AtomicU64::new(0));
    join_all(&start::<4>(|| (0..3).for_each(|_| add_one(&COUNTER.lock()))));
    assert_eq!(COUNTER.lock().load(SeqCst), 12);
}

/// A spin lock keeps CPUs apart.
pub fn a_spin_lock_lets_in_one_at_a_time() {
    static COUNTER: SpinLock<(AtomicU64, AtomicU64)> = SpinLock::new((AtomicU64::new(0), AtomicU64::new(0)));
    join_all(&start::<4>(|| {
        for _ in 0..3 {
            let both = COUNTER.lock();
            let before = both.0.load(SeqCst);
            both.0.store(before + 1, SeqCst);
            assert_eq!(both.1.fetch_add(1, SeqCst), before);
        }
    }));
    assert_eq!(COUNTER.lock().0.load(SeqCst), 12);
}

/// Two tasks that wait for each other in turn never miss a wake-up.
pub fn nobody_misses_a_wake_up() {
    static TURN: AtomicU64 = AtomicU64::new(0);
    static CHANGED: WaitQueue = WaitQueue::new();
    fn take_turns(parity: u64) {
        for turn in (parity..8).step_by(2) {
            CHANGED.wait_until(|| TURN.load(SeqCst) == turn);
            TURN.store(turn + 1, SeqCst);
            CHANGED.wake_all();
        }
    }
    join_all(&[task::spawn("even", || take_turns(0)), task::spawn("odd", || take_turns(1))]);
}

/// Whoever is asked to stop stops waiting, whenever that comes.
pub fn a_cancelled_task_stops_waiting() {
    static NEVER: WaitQueue = WaitQueue::new();
    let ids = start::<3>(|| assert!(NEVER.wait_until_cancellable(|| false).is_err()));
    ids.iter().for_each(|id| assert!(task::cancel(*id)));
    join_all(&ids);
}

/// A deadline ends a wait when the tick sees it.
pub fn a_deadline_ends_a_wait() {
    static NEVER: WaitQueue = WaitQueue::new();
    static LEFT: AtomicU64 = AtomicU64::new(2);
    let ids = start::<2>(|| {
        let deadline = crate::time::now_ns() + 100;
        assert!(!NEVER.wait_until_deadline(|| false, deadline));
        LEFT.fetch_sub(1, SeqCst);
    });
    while LEFT.load(SeqCst) > 0 {
        let off = arch::irq_off();
        task::tick(crate::time::now_ns());
        drop(off);
        task::yield_now();
        crate::shim::hint::spin_loop();
    }
    join_all(&ids);
}

/// Tasks come and go in the slots of others, and all give back their stacks.
pub fn what_tasks_had_comes_back() {
    let before = memory::stacks();
    join_all(&start::<4>(|| join_all(&start::<2>(task::yield_now))));
    task::settle();
    // That of this task is among them.
    assert_eq!(memory::stacks(), before);
}

/// Work is done once, in order.
pub fn work_is_done_in_order() {
    static DONE: AtomicU64 = AtomicU64::new(0);
    static CHANGED: WaitQueue = WaitQueue::new();
    for number in 0..6 {
        task::work::submit("step", move || {
            assert_eq!(DONE.fetch_add(1, SeqCst), number);
            CHANGED.wake_all();
        });
    }
    CHANGED.wait_until(|| DONE.load(SeqCst) == 6);
}

/// While others are frozen they do nothing, and afterwards they go on.
pub fn frozen_tasks_stand_still() {
    static STEPS: AtomicU64 = AtomicU64::new(0);
    static STOP: AtomicBool = AtomicBool::new(false);
    let ids = start::<3>(|| {
        while !STOP.load(SeqCst) {
            STEPS.fetch_add(1, SeqCst);
            crate::shim::hint::spin_loop();
            task::yield_now();
        }
    });
    for _ in 0..2 {
        let frozen = task::freeze_others();
        let before = STEPS.load(SeqCst);
        (0..20).for_each(|_| crate::shim::hint::spin_loop());
        assert_eq!(STEPS.load(SeqCst), before);
        drop(frozen);
    }
    STOP.store(true, SeqCst);
    join_all(&ids);
}

/// A task that becomes ready while its maker keeps his CPU runs on one that rested.
pub fn a_ready_task_gets_a_cpu_that_rests() {
    static GOAL: AtomicU64 = AtomicU64::new(0);
    static RAN: AtomicU64 = AtomicU64::new(0);
    static CHANGED: WaitQueue = WaitQueue::new();
    fn wait_for(steps: u64) {
        while RAN.load(SeqCst) < steps {
            crate::shim::hint::spin_loop();
        }
    }
    let id = task::spawn("helper", || {
        for step in 0..4 {
            CHANGED.wait_until(|| GOAL.load(SeqCst) > step);
            RAN.store(step + 1, SeqCst);
        }
    });
    for step in 1..=4 {
        let frozen = (step % 2 == 0).then(task::freeze_others);
        GOAL.store(step, SeqCst);
        CHANGED.wake_all();
        (0..20).for_each(|_| crate::shim::hint::spin_loop());
        drop(frozen);
        wait_for(step);
    }
    join_all(&[id]);
}

/// Two that want to freeze each other do so in turn.
pub fn one_freezes_at_a_time() {
    static FREEZERS: AtomicU64 = AtomicU64::new(0);
    join_all(&start::<3>(|| {
        let frozen = task::freeze_others();
        assert_eq!(FREEZERS.fetch_add(1, SeqCst), 0);
        crate::shim::hint::spin_loop();
        FREEZERS.fetch_sub(1, SeqCst);
        drop(frozen);
    }));
}

/// A task sees its address space wherever it runs, and once it has left it no CPU does.
pub fn an_address_space_goes_where_its_task_goes() {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    join_all(&start::<4>(|| {
        let own = Root::numbered(NEXT.fetch_add(1, SeqCst));
        for _ in 0..3 {
            assert_eq!(arch::root::loaded(), Root::KERNEL);
            task::set_root(own);
            for _ in 0..3 {
                assert_eq!(arch::root::loaded(), own);
                task::yield_now();
                assert_eq!(arch::root::loaded(), own);
            }
            task::set_root(Root::KERNEL);
            assert!(!arch::root::is_loaded_anywhere(own));
            task::yield_now();
        }
    }));
}

/// While others stand, tasks get other top-level tables, and when they go on no CPU has the old one.
pub fn a_top_level_table_moves_under_its_tasks() {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    fn root() -> Root {
        Root::numbered(NUMBER.load(SeqCst))
    }
    let ids = start::<3>(|| {
        let off = arch::irq_off();
        task::set_root(root());
        drop(off);
        for _ in 0..3 {
            let off = arch::irq_off();
            assert_eq!(arch::root::loaded(), root());
            drop(off);
            task::yield_now();
        }
        let old = arch::stop_machine(|| {
            let old = root();
            NUMBER.fetch_add(1, SeqCst);
            task::replace_root(old, root());
            old
        });
        assert!(!arch::root::is_loaded_anywhere(old));
        task::set_root(Root::KERNEL);
    });
    join_all(&ids);
}

/// When a flush is over every CPU has forgotten what was changed before it, even one that came meanwhile.
pub fn a_flush_reaches_every_cpu() {
    join_all(&start::<3>(|| {
        for _ in 0..3 {
            let number = arch::tlb::change();
            arch::flush_tlb_everywhere();
            arch::tlb::assert_forgotten(number);
        }
    }));
}

/// Whoever waited for all CPUs to be outside of critical sections may take away what such sections look at.
pub fn a_meeting_waits_for_critical_sections() {
    static THERE: AtomicBool = AtomicBool::new(true);
    static GONE: AtomicBool = AtomicBool::new(false);
    let ids = start::<3>(|| {
        for _ in 0..4 {
            let off = arch::irq_off();
            if THERE.load(SeqCst) {
                assert!(!GONE.load(SeqCst), "it was taken away under somebody who looks at it");
            }
            drop(off);
        }
    });
    THERE.store(false, SeqCst);
    arch::wait_for_grace_period();
    GONE.store(true, SeqCst);
    join_all(&ids);
}

/// What is moved while others stand loses no write, and whoever stood uses the new translation.
pub fn what_moves_while_the_machine_is_stopped_loses_nothing() {
    static PLACE: AtomicUsize = AtomicUsize::new(0);
    static FRAMES: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    let ids = start::<3>(|| {
        for round in 0..6 {
            // An instruction translates and writes in one go.
            let off = arch::irq_off();
            FRAMES[PLACE.load(SeqCst)].fetch_add(1, SeqCst);
            drop(off);
            if round % 3 == 0 {
                let number = arch::stop_machine(|| {
                    let place = PLACE.load(SeqCst);
                    FRAMES[1 - place].store(FRAMES[place].load(SeqCst), SeqCst);
                    PLACE.store(1 - place, SeqCst);
                    arch::tlb::change()
                });
                arch::tlb::assert_forgotten(number);
            }
        }
    });
    join_all(&ids);
    assert_eq!(FRAMES[PLACE.load(SeqCst)].load(SeqCst), 18);
}
