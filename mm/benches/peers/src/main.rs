//! Frame allocators, measured alike: that of `mm` and those of published crates.
//!
//! ```text
//! peers                               names the allocators
//! peers NAME [--quick] [--once] [WORD...]   measures one: all operations, or those whose names contain a word
//! ```
//!
//! A line of output tells of one operation: what, the bytes that it is about or `-`, how often it was done at a time, and
//! the median of the nanoseconds of thread time that one took. With `--once` every operation is measured a single time, for
//! callgrind, which counts what [`measured`](runner::measured) does.

mod allocators;
mod frames;
mod operations;
mod runner;
mod several_cpus;

use allocators::{Altmap, Bitmap, BuddySystem, FrameAlloc, One, Ranges};
use anyhow::{Result, bail};
use frames::Frames;
use runner::Runner;

/// One allocator and all its operations.
type Contestant = (&'static str, fn(&mut Runner));

const fn contestant<F: Frames>() -> Contestant {
    (F::NAME, operations::all::<F>)
}

/// Only the allocator of a kernel with several CPUs knows them.
fn altmap(runner: &mut Runner) {
    operations::all::<Altmap>(runner);
    several_cpus::all(runner);
}

const CONTESTANTS: [Contestant; 5] = [
    (Altmap::<One>::NAME, altmap),
    contestant::<FrameAlloc>(),
    contestant::<BuddySystem>(),
    contestant::<Bitmap>(),
    contestant::<Ranges>(),
];

/// Some allocators are larger than an ordinary stack, and are built there before they move to the heap.
const STACK_BYTES: usize = 256 << 20;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let Some(name) = words.next() else {
        CONTESTANTS.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    };
    let Some((name, measure)) = CONTESTANTS.into_iter().find(|(known, _)| *known == name) else {
        bail!("no allocator is called `{name}`");
    };
    let mut runner = Runner::new(name, words);
    let work = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || measure(&mut runner))?;
    if work.join().is_err() {
        bail!("{name} did not get through");
    }
    Ok(())
}
