//! Jobs: commands that run beside the prompt, each in a task of its own.

use super::arguments::Arguments;
use super::call::{Call, Sink};
use super::commands::Command;
use super::failure::{Failure, Outcome};
use crate::drivers::console;
use crate::sync::Mutex;
use crate::task::{self, SpawnError, TaskId, WaitQueue};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::Errno;
use spin::Once;

/// Ended jobs beyond this many are forgotten: those somebody waited for first, and never a failure nobody waited for.
const ENDED_KEPT: usize = 64;

/// A command in the background, or one that was.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) number: u64,
    /// The command as it was typed.
    pub(crate) line: String,
    task: TaskId,
    /// How it ended; empty while it runs. Shared, so that who waits for it needs no lock to look.
    end: Arc<Once<Outcome>>,
    /// Somebody has been told of its end by `wait`.
    waited_for: bool,
    /// Its task is gone, too.
    is_gone: bool,
}

impl Job {
    /// How it ended; `None` while it runs.
    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        self.end.get()
    }
}

struct Table {
    jobs: VecDeque<Job>,
    next_number: u64,
}

static JOBS: Mutex<Table> = Mutex::new(Table { jobs: VecDeque::new(), next_number: 1 });

/// Woken whenever a job ends.
static ENDED: WaitQueue = WaitQueue::new();

/// Starts a command as a job and returns its number.
pub(crate) fn start(command: &'static Command, arguments: Arguments, line: String) -> Result<u64, Failure> {
    let mut table = JOBS.lock();
    make_room(&mut table)?;
    let number = table.next_number;
    let name = alloc::format!("job {number}");
    let end = Arc::new(Once::new());
    let report = Arc::clone(&end);
    let task = task::try_spawn(&name, move || run(number, command, &arguments, &report))
        .map_err(|error| Failure::new(errno_of(error), format_args!("no job can be started: {error}")))?;
    table.next_number += 1;
    table.jobs.push_back(Job { number, line, task, end, waited_for: false, is_gone: false });
    Ok(number)
}

fn errno_of(error: SpawnError) -> Errno {
    match error {
        SpawnError::NoSlot => Errno::Again,
        SpawnError::NoStack => Errno::NoMemory,
    }
}

/// What the task of a job does.
fn run(number: u64, command: &Command, arguments: &Arguments, end: &Once<Outcome>) {
    let outcome = (command.run)(&mut Call::new(arguments, &mut JobOutput { number, line_open: false }));
    end.call_once(|| outcome.clone());
    let area = alloc::format!("job {number}");
    match outcome {
        Ok(()) => log::info!(target: &area, "ok"),
        Err(failure) => log::info!(target: &area, "{failure}"),
    }
    ENDED.wake_all();
}

/// Forgets what need not be remembered, or says that a new job would be too many.
fn make_room(table: &mut Table) -> Outcome {
    let mut surplus = table.jobs.iter().filter(|job| job.outcome().is_some()).count().saturating_sub(ENDED_KEPT);
    let waited_for = |job: &Job| job.outcome().is_some() && job.waited_for;
    let went_well = |job: &Job| job.outcome().is_some_and(Result::is_ok);
    for forgettable in [&waited_for as &dyn Fn(&Job) -> bool, &went_well] {
        table.jobs.retain(|job| {
            let forget = surplus > 0 && forgettable(job);
            surplus -= usize::from(forget);
            !forget
        });
    }
    if surplus > 0 {
        let sentence = "too many jobs have failed that nobody waited for; `wait` tells of them";
        return Err(Failure::new(Errno::Again, sentence));
    }
    Ok(())
}

/// Output of a job goes above the line being edited, and never into a line that a command is printing. Each of its lines
/// begins with whose it is: nobody takes it for what the command at the prompt prints.
struct JobOutput {
    number: u64,
    /// Of the last line, more is to come.
    line_open: bool,
}

impl Sink for JobOutput {
    fn write(&mut self, text: &str) {
        let mut marked = String::new();
        for piece in text.split_inclusive('\n') {
            if !self.line_open {
                marked += &alloc::format!("job {}: ", self.number);
            }
            marked += piece;
            self.line_open = !piece.ends_with('\n');
        }
        console::write_above(&marked);
    }
}

/// Waits until the jobs that have ended, and all other tasks that have, have given back what they had: what is counted next
/// does not contain it any more.
pub(crate) fn settle() {
    for job in list().into_iter().filter(|job| job.outcome().is_some() && !job.is_gone) {
        // It has said how it ended, and goes at once; a wish to stop is for whoever comes next.
        if task::join(job.task).is_ok()
            && let Some(entry) = JOBS.lock().jobs.iter_mut().find(|entry| entry.number == job.number)
        {
            entry.is_gone = true;
        }
    }
    task::settle();
}

/// Every job that is remembered, oldest first.
pub(crate) fn list() -> Vec<Job> {
    JOBS.lock().jobs.iter().cloned().collect()
}

/// The job of this number.
pub(crate) fn find(number: u64) -> Result<Job, Failure> {
    let table = JOBS.lock();
    let job = table.jobs.iter().find(|job| job.number == number);
    job.cloned().ok_or_else(|| Failure::new(Errno::NoEntry, format_args!("there is no job {number}")))
}

/// Waits for a job to end, and fails as it failed.
pub(crate) fn wait(number: u64) -> Outcome {
    let job = find(number)?;
    if job.task == task::current() {
        return Err(Failure::invalid(format_args!("job {number} cannot wait for itself")));
    }
    wait_for(&job)
}

fn wait_for(job: &Job) -> Outcome {
    ENDED.wait_until_cancellable(|| job.outcome().is_some()).map_err(|_| Failure::cancelled())?;
    if let Some(entry) = JOBS.lock().jobs.iter_mut().find(|entry| entry.number == job.number) {
        entry.waited_for = true;
    }
    job.outcome().expect("the wait ends with an outcome").clone()
}

/// Waits for every job that nobody has waited for, and fails as the first of them that failed.
pub(crate) fn wait_all() -> Outcome {
    let own = task::current();
    let mut first_failure = Ok(());
    for job in list().into_iter().filter(|job| !job.waited_for && job.task != own) {
        match wait_for(&job) {
            Err(failure) if failure.errno == Errno::Canceled && task::cancelled() => return Err(failure),
            Err(failure) if first_failure.is_ok() => {
                first_failure = Err(failure.within(format_args!("job {}", job.number)));
            }
            _ => {}
        }
    }
    first_failure
}

/// Asks a job to stop; it ends with ECANCELED, having given back what it took.
pub(crate) fn kill(number: u64) -> Outcome {
    let job = find(number)?;
    let running = job.outcome().is_none() && task::cancel(job.task);
    if running { Ok(()) } else { Err(Failure::invalid(format_args!("job {number} has ended already"))) }
}
