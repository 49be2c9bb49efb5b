//! `stress`: random work of all kinds at once, with what it leaves checked all the time.

use super::super::arguments::{Count, JSON, Kind, Operand, OptionSpec, Syntax};
use super::super::call::Call;
use super::super::failure::{Failure, Outcome, Quoted};
use super::super::table::{Align, Table};
use super::super::values::{Human, number};
use super::Command;
use crate::arch;
use crate::stress::{self, Plan, StressError};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;
use serde::Serialize;

/// A seed that nobody chose is short enough to be typed again.
const CLOCK_SEED_BITS: u32 = 24;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "stress",
    syntax: Syntax {
        options: &[
            OptionSpec {
                name: "--seed",
                value: Some(("N", Kind::Free)),
                help: "what is random follows from it (by the clock)",
            },
            OptionSpec { name: "--cpus", value: Some(("N", Kind::Free)), help: "two workers for each of N CPUs (all)" },
            JSON,
        ],
        operands: &[Operand { name: "SECONDS", kind: Kind::Free, count: Count::One }],
    },
    summary: "do random work of all kinds, and check what it leaves",
    details: "\
Workers take memory of all sizes, write to it, check it and give it back; bring
blocks online and offline, remove groups and add them again; change settings;
look frames up. Each holds a bounded part of what is free. Every second all
content is checked and all memory recounted (`memcheck`).

At the end, and after Ctrl-C, everything is given back, blocks, groups and
settings are as they were, and so must all totals be, unless DIMMs came or went
or others use memory. What is wrong is an EIO that names the seed. How often
each kind of work was done and how often refused is shown; a refusal for want of
memory, or because another worker was there first, is no failure.",
    example: "stress 60 --seed 7; stress 10 -J",
    run: stress,
}];

/// What `stress -J` prints; the field names are a contract.
#[derive(Serialize)]
struct Report {
    seed: u64,
    seconds: u64,
    cpus: usize,
    workers: usize,
    /// How often each kind of work was done, and how often refused.
    operations: BTreeMap<&'static str, u64>,
    refused: BTreeMap<&'static str, u64>,
    memchecks: u64,
    /// Bytes of content that were found as written by the checks of every second.
    checked: u64,
    /// Whether totals at the end could be compared with those at the start.
    compared: bool,
}

fn stress(call: &mut Call<'_>) -> Outcome {
    let arguments = call.arguments;
    let word = arguments.operand(0).unwrap_or_default();
    let seconds = number(word, "a number of seconds")?;
    if seconds == 0 {
        return Err(Failure::invalid(format_args!("{} seconds are no time at all", Quoted(word))));
    }
    let seed = match arguments.value("--seed") {
        Some(word) => number(word, "a seed")?,
        None => arch::ticks() % (1 << CLOCK_SEED_BITS),
    };
    let cpus = cpus(arguments.value("--cpus"))?;
    let plan = Plan { duration: Duration::from_secs(seconds), seed, cpus };
    // The seed comes first, so that it is known whatever happens.
    let begun = || {
        if !arguments.has("-J") {
            call.line(format_args!("seed {seed}"));
        }
    };
    let report = stress::run(&plan, begun).map_err(|error| failure(&error))?;
    let counts = report.counts.iter();
    let report = Report {
        seed,
        seconds,
        cpus,
        workers: report.workers,
        operations: counts.clone().map(|count| (count.operation.name(), count.done)).collect(),
        refused: counts.map(|count| (count.operation.name(), count.refused)).collect(),
        memchecks: report.memchecks,
        checked: report.checked,
        compared: report.compared,
    };
    call.show(&report, people);
    Ok(())
}

/// How many CPUs shall work.
fn cpus(word: Option<&str>) -> Result<usize, Failure> {
    let online = arch::cpu_reports().count();
    let Some(word) = word else { return Ok(online) };
    match usize::try_from(number(word, "a number of CPUs")?) {
        Ok(0) => Err(Failure::invalid("no work is done on 0 CPUs")),
        Ok(cpus) if cpus <= online => Ok(cpus),
        _ => Err(Failure::invalid(format_args!("there are no {} CPUs, only {online}", Quoted(word)))),
    }
}

fn failure(error: &StressError) -> Failure {
    Failure::new(error.errno(), error)
}

fn people(report: &Report) -> String {
    let mut table = Table::new(&[("OPERATION", Align::Left), ("DONE", Align::Right), ("REFUSED", Align::Right)]);
    for (name, done) in &report.operations {
        table.row([(*name).into(), done.to_string(), report.refused[name].to_string()]);
    }
    let totals = if report.compared { "as before" } else { "not compared, as others changed them" };
    format!(
        "{table}seconds {}, CPUs {}, workers {}, recounts {}, content checked {}, totals {totals}\n",
        report.seconds,
        report.cpus,
        report.workers,
        report.memchecks,
        Human(report.checked)
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::json;
    use super::*;

    fn report() -> Report {
        Report {
            seed: 7,
            seconds: 10,
            cpus: 1,
            workers: 2,
            operations: [("fill", 3)].into(),
            refused: [("fill", 1)].into(),
            memchecks: 11,
            checked: 4096,
            compared: true,
        }
    }

    #[test]
    fn the_report_in_json_has_the_fields_scripts_rely_on() {
        assert_eq!(
            json::line(&report()),
            r#"{"seed":7,"seconds":10,"cpus":1,"workers":2,"operations":{"fill":3},"refused":{"fill":1},"memchecks":11,"checked":4096,"compared":true}"#
        );
    }

    #[test]
    fn people_read_one_line_for_each_kind_of_work() {
        let text = people(&report());
        assert!(text.lines().any(|line| line.split_whitespace().eq(["fill", "3", "1"])), "{text}");
    }
}
