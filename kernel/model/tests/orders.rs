//! Every scenario, on machines of several sizes, in many orders.

use kernel_model::{run, scenarios};

/// On several CPUs there is more to try than on one.
const SEEDS: u64 = 150;

macro_rules! on_machines {
    ($($scenario:ident),* $(,)?) => {
        $(mod $scenario {
            #[test]
            fn on_one_cpu() {
                super::run(concat!(stringify!($scenario), "::on_one_cpu"), 1, super::SEEDS / 5, super::scenarios::$scenario);
            }

            #[test]
            fn on_three_cpus() {
                super::run(concat!(stringify!($scenario), "::on_three_cpus"), 3, super::SEEDS, super::scenarios::$scenario);
            }
        })*
    };
}

#[test]
fn a_ready_task_gets_a_cpu_that_rests() {
    run("a_ready_task_gets_a_cpu_that_rests", 3, SEEDS, scenarios::a_ready_task_gets_a_cpu_that_rests);
}

on_machines! {
    a_mutex_lets_in_one_at_a_time,
    a_spin_lock_lets_in_one_at_a_time,
    nobody_misses_a_wake_up,
    a_cancelled_task_stops_waiting,
    a_deadline_ends_a_wait,
    what_tasks_had_comes_back,
    work_is_done_in_order,
    frozen_tasks_stand_still,
    one_freezes_at_a_time,
    an_address_space_goes_where_its_task_goes,
    a_top_level_table_moves_under_its_tasks,
    a_flush_reaches_every_cpu,
    a_meeting_waits_for_critical_sections,
    what_moves_while_the_machine_is_stopped_loses_nothing,
}
