//! What a kernel does under KVM, and how fast, beside TCG.
//!
//! A device file that opens, and a firmware that runs, prove little: there are machines whose KVM interprets privileged code, gives up
//! at a breakpoint, or is several times slower than TCG. So the kernel itself is run, and those of its tests that take exceptions,
//! interrupts, page faults and a second CPU.

use std::fs::OpenOptions;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Accelerator, Choice};
use crate::image::Images;
use crate::qemu::{self, Exit, Machine, Serial, Way};
use crate::size::mib;

/// Names of in-kernel tests.
const TESTS: &str = "trap::a_breakpoint,time::the_tick,cpus::every_cpu,memory::a_memmap,vm::a_page_comes_zeroed,vm::no_write_is_lost_while_pages_move";

/// TCG has this long, on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(60);

/// How often each is run: the machine may have just had something else to do.
const ROUNDS: usize = 2;

pub(super) fn has_device() -> bool {
    OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

/// KVM if it passes, and is not slower than TCG; `run` says how long a run took. What is much slower is not waited for.
///
/// # Errors
///
/// The kernel does not run under TCG either.
pub(super) fn choice(run: impl Fn(Accelerator, Duration) -> Result<Duration>) -> Result<Choice> {
    let tcg = |why| Choice { accelerator: Accelerator::Tcg, why };
    let best = |accelerator, limit| {
        let runs = (0..ROUNDS).map(|_| run(accelerator, limit));
        runs.collect::<Result<Vec<_>>>().map(|times| times.into_iter().min().unwrap_or(limit))
    };
    let emulated = best(Accelerator::Tcg, LIMIT).context("the kernel does not run even without KVM")?;
    Ok(match best(Accelerator::Kvm, emulated * 4) {
        Ok(time) if time <= emulated => Choice {
            accelerator: Accelerator::Kvm,
            why: format!("a kernel ran in {time:.1?}; TCG took {emulated:.1?}"),
        },
        Ok(time) => tcg(format!("a kernel took {time:.1?} under KVM, and {emulated:.1?} without")),
        Err(error) => tcg(format!("a kernel does not run under KVM: {error:#}; TCG took {emulated:.1?}")),
    })
}

/// From QEMU's start to its end, if the kernel's tests pass.
pub(super) fn run(images: &Images, accelerator: Accelerator, limit: Duration) -> Result<Duration> {
    let machine = Machine {
        way: Way::Pvh,
        memory: mib(256),
        slots: 0,
        params: vec![format!("selftest={TESTS}")],
        ..Machine::default()
    };
    let directory = tempfile::tempdir().context("cannot make a directory for a socket")?;
    let begun = Instant::now();
    let mut qemu = qemu::start(&machine, images.into(), accelerator, Serial::Nowhere, directory.path().join("qmp"))?;
    let exit = qemu.wait(limit).with_context(|| format!("it was not done after {limit:.1?}"))?;
    let time = begun.elapsed();
    match exit {
        Exit::Success => Ok(time),
        Exit::GivenUp => anyhow::bail!("QEMU stopped with an internal error"),
        other => anyhow::bail!("{other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    fn chosen(tcg: &[u64], kvm: &[Option<u64>]) -> Result<(Accelerator, String)> {
        let (tcg, kvm) = (std::cell::RefCell::new(tcg.to_vec()), std::cell::RefCell::new(kvm.to_vec()));
        let choice = choice(|accelerator, limit| {
            let time =
                if accelerator == Accelerator::Kvm { kvm.borrow_mut().pop().flatten() } else { tcg.borrow_mut().pop() };
            match time.map(Duration::from_millis) {
                Some(time) if time <= limit => Ok(time),
                _ => bail!("it fails"),
            }
        });
        choice.map(|choice| (choice.accelerator, choice.why))
    }

    #[track_caller]
    fn assert_chosen(tcg: &[u64], kvm: &[Option<u64>], expected: Accelerator, part: &str) {
        let (accelerator, why) = chosen(tcg, kvm).expect("TCG runs");
        assert_eq!(accelerator, expected);
        assert!(why.contains(part), "{why}");
    }

    #[test]
    fn kvm_is_used_where_it_passes_and_is_not_slower() {
        let (kvm, tcg) = (Accelerator::Kvm, Accelerator::Tcg);
        assert_chosen(&[500, 600], &[Some(700), Some(400)], kvm, "ran in 400.0ms; TCG took 500.0ms");
        assert_chosen(&[500, 600], &[Some(700), Some(900)], tcg, "took 700.0ms under KVM, and 500.0ms without");
        assert_chosen(&[500, 600], &[Some(3000), Some(400)], tcg, "does not run under KVM");
        assert_chosen(&[500, 600], &[None, Some(100)], tcg, "does not run under KVM: it fails");
        assert!(chosen(&[], &[]).is_err(), "nothing is known of a machine where nothing runs");
    }
}
