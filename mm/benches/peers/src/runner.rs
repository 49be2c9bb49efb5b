//! Doing an operation often enough, and telling what it took.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// An operation: its name, the memory that it is about, and how often it is done at a time.
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) size: Option<u64>,
    pub(crate) count: u64,
}

/// What the command line asked for.
pub(crate) struct Runner {
    who: &'static str,
    quick: bool,
    once: bool,
    filters: Vec<String>,
}

impl Runner {
    pub(crate) fn new(who: &'static str, words: impl Iterator<Item = String>) -> Self {
        let (flags, filters): (Vec<_>, Vec<_>) = words.partition(|word| word.starts_with("--"));
        let has = |name| flags.iter().any(|flag| flag == name);
        Self { who, quick: has("--quick"), once: has("--once"), filters }
    }

    /// Whether sizes shall be tiny.
    pub(crate) fn is_quick(&self) -> bool {
        self.quick
    }

    fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|word| name.contains(word) || self.who.contains(word))
    }

    fn repeats(&self, usually: usize) -> usize {
        if self.once {
            1
        } else if self.quick {
            usually.min(3)
        } else {
            usually
        }
    }

    /// Measures an operation that leaves everything as it was, warm.
    pub(crate) fn repeat<S>(&self, operation: Operation, prepare: impl FnOnce() -> S, mut act: impl FnMut(&mut S)) {
        if !self.wants(operation.name) {
            return;
        }
        let mut state = prepare();
        act(&mut state);
        let times = (0..self.repeats(21)).map(|_| timed(&mut state, &mut act)).collect();
        tell(operation, times);
    }

    /// Measures an operation that can be done only once to what `prepare` makes.
    pub(crate) fn fresh<S>(&self, operation: Operation, prepare: impl Fn() -> S, mut act: impl FnMut(&mut S)) {
        if !self.wants(operation.name) {
            return;
        }
        let times = (0..self.repeats(7)).map(|_| timed(&mut prepare(), &mut act)).collect();
        tell(operation, times);
    }
}

/// The operation and nothing else.
#[inline(never)]
pub(crate) fn measured<S>(state: &mut S, act: &mut impl FnMut(&mut S)) {
    act(state);
}

fn timed<S>(state: &mut S, act: &mut impl FnMut(&mut S)) -> Duration {
    let now = || {
        let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
        Duration::from(time.expect("every thread has this clock"))
    };
    let start = now();
    measured(state, act);
    now() - start
}

/// Callgrind writes down what it counted whenever this is called.
#[inline(never)]
fn tell(operation: Operation, mut times: Vec<Duration>) {
    times.sort_unstable();
    let median = times[times.len() / 2].as_nanos() as f64 / operation.count as f64;
    let size = operation.size.map_or_else(|| "-".to_owned(), |size| size.to_string());
    println!("{}\t{size}\t{}\t{median}", operation.name, operation.count);
}
