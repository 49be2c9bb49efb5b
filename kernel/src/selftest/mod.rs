//! Tests that need the real machine, run inside the kernel by the parameter `selftest[=FILTER]`.
//!
//! The name is printed before a test and `ok` after it, so a hang or a panic names its test. Where the machine has nothing for a
//! test to work on, it says `skipped` and why.
#![deny(unsafe_code)]

mod cpus;
mod firmware;
mod fixture;
mod heap;
mod kernel_frames;
mod listener;
mod machine;
mod memory;
mod poison;
mod vm;

use crate::power::{self, Outcome};
use crate::sync::Mutex;
use crate::{print, println, task};

/// A claim and the code that checks it; it fails by panicking.
pub(crate) struct Test {
    /// `area::claim`.
    pub(crate) name: &'static str,
    pub(crate) run: fn(),
}

/// Every area's tests, in the order in which they run.
const SUITES: &[&[Test]] = &[
    machine::TESTS,
    cpus::TESTS,
    heap::TESTS,
    memory::TESTS,
    vm::TESTS,
    vm::moving::TESTS,
    vm::tables::TESTS,
    poison::TESTS,
    listener::TESTS,
    firmware::TESTS,
];

/// Why the test under way has nothing to work on, if it said so.
static SKIPPED: Mutex<Option<&str>> = Mutex::new(None);

/// To be said by a test, or the part of one, that ends without having tested anything on this machine.
fn skip(why: &'static str) {
    *SKIPPED.lock() = Some(why);
}

fn is_wanted(name: &str, filter: &str) -> bool {
    filter.split(',').any(|part| name.contains(part))
}

/// Runs the tests whose names contain `filter`, or one of its parts between commas, and ends the machine with their verdict.
pub(crate) fn run(filter: &str) -> ! {
    let all = || SUITES.iter().copied().flatten();
    let missing = filter.split(',').find(|part| all().all(|test| !test.name.contains(part)));
    if let Some(part) = missing {
        println!("test result: FAILED. no test's name contains '{part}'");
        power::exit(Outcome::Failure);
    }
    let (mut passed, mut skipped) = (0, 0);
    for test in all().filter(|test| is_wanted(test.name, filter)) {
        print!("test {} ... ", test.name);
        (test.run)();
        // What its tasks had does not come back during the next one.
        task::settle();
        let why = SKIPPED.lock().take();
        match why {
            None => {
                println!("ok");
                passed += 1;
            }
            Some(why) => {
                println!("skipped ({why})");
                skipped += 1;
            }
        }
    }
    println!("test result: ok. {passed} passed; 0 failed; {skipped} skipped");
    power::exit(Outcome::Success)
}
