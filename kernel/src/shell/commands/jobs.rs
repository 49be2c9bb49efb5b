//! `jobs`, `wait` and `kill`: what runs beside the prompt.

use super::super::arguments::{Count, JSON, Kind, Operand, Syntax};
use super::super::call::Call;
use super::super::failure::{Failure, Outcome};
use super::super::jobs::{self, Job};
use super::super::table::{Align, Table};
use super::super::values::number;
use super::Command;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::Serialize;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "jobs",
        syntax: Syntax { options: &[JSON], operands: &[] },
        summary: "list the commands that run beside the prompt",
        details: "\
COMMAND & makes a job: `job N` is printed at once, the prompt returns, and the
end is a line in the log: `job N: ok` or `job N: ERRNO: sentence`.",
        example: "verify &\njobs",
        run: list,
    },
    Command {
        name: "wait",
        syntax: Syntax { options: &[], operands: &[Operand { name: "N", kind: Kind::Job, count: Count::Optional }] },
        summary: "wait for a job, or all of them; fail as it failed",
        details: "\
Without N it waits for every job not waited for yet, and fails as the first of
them that failed. Ctrl-C ends the waiting, not the jobs.",
        example: "wait 1",
        run: |call| match call.arguments.operand(0) {
            Some(word) => jobs::wait(number(word, "a job's number")?),
            None => jobs::wait_all(),
        },
    },
    Command {
        name: "kill",
        syntax: Syntax { options: &[], operands: &[Operand { name: "N", kind: Kind::Job, count: Count::One }] },
        summary: "cancel a job",
        details: "The job undoes what it was doing and ends with ECANCELED.",
        example: "kill 1",
        run: |call| jobs::kill(number(call.arguments.operand(0).unwrap_or_default(), "a job's number")?),
    },
];

/// The numbers of all jobs.
pub(super) fn numbers() -> Vec<u64> {
    jobs::list().iter().map(|job| job.number).collect()
}

/// What `jobs -J` prints.
#[derive(Serialize)]
struct Jobs {
    jobs: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    job: u64,
    state: &'static str,
    errno: Option<&'static str>,
    command: String,
}

fn list(call: &mut Call<'_>) -> Outcome {
    let entry_of = |job: Job| {
        let (state, errno) = match job.outcome() {
            None => ("running", None),
            Some(Ok(())) => ("ok", None),
            Some(Err(Failure { errno, .. })) => ("failed", Some(errno.name())),
        };
        Entry { job: job.number, state, errno, command: job.line }
    };
    let report = Jobs { jobs: jobs::list().into_iter().map(entry_of).collect() };
    call.show(&report, |report| {
        let mut table = Table::new(&[("JOB", Align::Right), ("STATE", Align::Left), ("COMMAND", Align::Left)]);
        for job in &report.jobs {
            table.row([job.job.to_string(), job.errno.unwrap_or(job.state).into(), job.command.clone()]);
        }
        table.to_string()
    });
    Ok(())
}
