//! `events`: the journal of hotplug operations.

use super::super::arguments::{JSON, OptionSpec, Syntax};
use super::super::call::Call;
use super::super::failure::{Failure, Outcome};
use super::super::json;
use super::super::table::{Align, Table};
use super::super::values::{Human, Span};
use super::Command;
use crate::memory::mm;
use crate::task;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use mm::record::journal;
use serde::Serialize;

/// How often `events -f` looks for news.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "events",
    syntax: Syntax {
        options: &[OptionSpec { name: "-f", value: None, help: "follow: go on with new events until Ctrl-C" }, JSON],
        operands: &[],
    },
    summary: "list hotplug operations and where their time went",
    details: "\
Every add, online, offline and remove is kept, oldest first, with its result
and the time each of its phases took. An add makes memory known, an online
brings it into use, offline and remove undo them. One that failed tells the
phases up to the one it ended in, and `undo`, the undoing of them, if there
was any.

With -f and -J every event is a JSON object on its own line.",
    example: "events -J",
    run: events,
}];

/// What `events -J` prints; the field names are a contract.
#[derive(Serialize)]
struct Events {
    events: Vec<Event>,
}

#[derive(Serialize)]
struct Event {
    t: u64,
    op: &'static str,
    start: u64,
    size: u64,
    first: u32,
    last: u32,
    result: &'static str,
    moved: u64,
    phases: Vec<Phase>,
}

#[derive(Serialize)]
struct Phase {
    name: &'static str,
    ns: u64,
}

fn events(call: &mut Call<'_>) -> Outcome {
    let mut next = 0;
    let report = Events { events: since(&mut next) };
    if !call.arguments.has("-f") {
        call.show(&report, |report| table(&report.events).to_string());
        return Ok(());
    }
    let json = call.arguments.has("-J");
    let mut new = report.events;
    loop {
        for event in new {
            if json {
                call.line(json::line(&event));
            } else {
                call.line(cells(&event).join("  "));
            }
        }
        task::sleep_cancellable(LOOK_EVERY).map_err(|_| Failure::cancelled())?;
        new = since(&mut next);
    }
}

/// The events from number `next` on, which then counts past them.
fn since(next: &mut u64) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = mm().event_since(*next) {
        *next = event.number + 1;
        events.push(event_of(&event));
    }
    events
}

fn event_of(event: &journal::Event) -> Event {
    Event {
        t: event.t_ns,
        op: event.op.name(),
        start: event.range.first().address(),
        size: event.range.size_bytes(),
        first: event.range.first().number(),
        last: event.range.last().number(),
        result: event.result.map_or_else(|errno| errno.name(), |()| "ok"),
        moved: event.moved,
        phases: event.phases.iter().map(|phase| Phase { name: phase.name, ns: phase.ns }).collect(),
    }
}

fn table(events: &[Event]) -> Table {
    let mut table = Table::new(&[
        ("TIME", Align::Right),
        ("OP", Align::Left),
        ("BLOCK", Align::Right),
        ("SIZE", Align::Right),
        ("RESULT", Align::Left),
        ("MOVED", Align::Right),
        ("TOOK", Align::Right),
        ("PHASES", Align::Left),
    ]);
    for event in events {
        table.row(cells(event));
    }
    table
}

fn cells(event: &Event) -> [String; 8] {
    let phases: Vec<String> = event.phases.iter().map(|phase| format!("{} {}", phase.name, Took(phase.ns))).collect();
    [
        format!("{}.{:06}", event.t / 1_000_000_000, event.t / 1000 % 1_000_000),
        event.op.into(),
        Span(event.first.into(), event.last.into()).to_string(),
        Human(event.size).to_string(),
        event.result.into(),
        event.moved.to_string(),
        Took(event.phases.iter().map(|phase| phase.ns).sum()).to_string(),
        phases.join(", "),
    ]
}

/// A time for people.
struct Took(u64);

impl core::fmt::Display for Took {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            ns @ 0..1_000 => write!(f, "{ns}ns"),
            ns @ 1_000..1_000_000 => write!(f, "{}.{}us", ns / 1_000, ns / 100 % 10),
            ns @ 1_000_000..1_000_000_000 => write!(f, "{}.{}ms", ns / 1_000_000, ns / 100_000 % 10),
            ns => write!(f, "{}.{}s", ns / 1_000_000_000, ns / 100_000_000 % 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_for_people_have_one_decimal() {
        for (ns, text) in
            [(0, "0ns"), (999, "999ns"), (1_250, "1.2us"), (2_000_000, "2.0ms"), (61_500_000_000, "61.5s")]
        {
            assert_eq!(Took(ns).to_string(), text);
        }
    }
}
