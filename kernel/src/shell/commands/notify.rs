//! `notify` and `notifiers`: who is asked and told when memory comes or goes, and listeners made for a test.

use super::super::arguments::{Count, JSON, Kind, Operand, Syntax};
use super::super::call::Call;
use super::super::failure::{Failure, Outcome, Quoted};
use super::super::listeners::{self, Call as Heard, CallKind, Script};
use super::super::table::{Align, Table};
use super::Command;
use crate::memory::mm;
use crate::sources;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use mm::record::notifier::{Accept, ChainError, Direction, LISTENER_LIMIT, ListenerReport, Name};
use serde::Serialize;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "notifiers",
        syntax: Syntax { options: &[JSON], operands: &[] },
        summary: "list the listeners, the one asked first first",
        details: "\
A part of the kernel that must know of memory coming and going is a listener.
It is asked before a change (prepare) and may refuse; then everybody is told
that it happened (committed) or not (cancelled).",
        example: "notifiers",
        run: notifiers,
    },
    Command {
        name: "notify",
        syntax: Syntax {
            options: &[JSON],
            operands: &[
                Operand {
                    name: "add|veto|allow|remove|log",
                    kind: Kind::OneOf(&["add", "veto", "allow", "remove", "log"]),
                    count: Count::One,
                },
                Operand { name: "NAME", kind: Kind::Listener, count: Count::Optional },
                Operand {
                    name: "PRIO|online|offline",
                    kind: Kind::OneOf(&["online", "offline"]),
                    count: Count::Optional,
                },
            ],
        },
        summary: "make listeners for a test, and read what they heard",
        details: "\
notify add NAME PRIO             a listener that accepts everything
notify veto NAME online|offline  it refuses such changes from now on
notify allow NAME                it accepts everything again
notify remove NAME               it goes
notify log                       every call they got since the last `log`

A higher PRIO is asked first. After a refusal those that had accepted hear
`cancelled` in reverse order, when the memory is available again.",
        example: "notify add guard 10; notify veto guard offline; notify log",
        run: notify,
    },
];

/// What `notifiers -J` prints.
#[derive(Serialize)]
struct Listeners {
    listeners: Vec<Listener>,
}

#[derive(Serialize)]
struct Listener {
    name: String,
    priority: i32,
    scripted: bool,
    vetoes: Vec<&'static str>,
}

/// Every listener, the one asked first first.
pub(super) fn chain() -> Vec<ListenerReport> {
    // Room is made beforehand: nothing may be allocated while the chain is held.
    let mut chain = Vec::with_capacity(LISTENER_LIMIT);
    mm().for_each_listener(|listener| chain.push(listener));
    chain
}

fn notifiers(call: &mut Call<'_>) -> Outcome {
    let listener_of = |listener: ListenerReport| {
        let script = listeners::with_script(listener.name, |script| *script);
        let vetoes = script.map(|script| [(script.vetoes_online, "online"), (script.vetoes_offline, "offline")]);
        let refused = vetoes.into_iter().flatten().filter_map(|(refuses, change)| refuses.then_some(change));
        Listener {
            name: listener.name.to_string(),
            priority: listener.priority,
            scripted: script.is_some(),
            vetoes: refused.collect(),
        }
    };
    let report = Listeners { listeners: chain().into_iter().map(listener_of).collect() };
    call.show(&report, |report| {
        let mut table = Table::new(&[
            ("LISTENER", Align::Left),
            ("PRIO", Align::Right),
            ("MADE BY", Align::Left),
            ("REFUSES", Align::Left),
        ]);
        for listener in &report.listeners {
            table.row([
                listener.name.clone(),
                listener.priority.to_string(),
                if listener.scripted { "notify" } else { "kernel" }.into(),
                if listener.vetoes.is_empty() { "-".into() } else { listener.vetoes.join(" ") },
            ]);
        }
        table.to_string()
    });
    Ok(())
}

/// What `notify log -J` prints; the field names are a contract.
#[derive(Serialize)]
struct Log {
    calls: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    listener: String,
    change: &'static str,
    call: &'static str,
    first: u32,
    last: u32,
    answer: &'static str,
}

fn notify(call: &mut Call<'_>) -> Outcome {
    let arguments = call.arguments;
    let action = arguments.operand(0).unwrap_or_default();
    if arguments.has("-J") && action != "log" {
        return Err(Failure::invalid("-J goes with `notify log`"));
    }
    let wanted = match action {
        "add" | "veto" => 3,
        "allow" | "remove" => 2,
        "log" => 1,
        _ => return Err(Failure::invalid(format_args!("{} is none of add, veto, allow, remove, log", Quoted(action)))),
    };
    if let Some(extra) = arguments.operand(wanted) {
        return Err(Failure::invalid(format_args!("{} is one word too many for notify {action}", Quoted(extra))));
    }
    if action == "log" {
        show_log(call);
        return Ok(());
    }
    let name = listener_name(arguments.operand(1), action)?;
    let last = arguments.operand(2);
    match action {
        "add" => add(name, priority(last)?),
        "veto" => {
            let direction = direction(last)?;
            script(name, |script| script.veto(direction))
        }
        "allow" => script(name, Script::allow).inspect(|()| sources::relieve()),
        _ => remove(name),
    }
}

fn add(name: Name, priority: i32) -> Outcome {
    let listener = listeners::claim(name)?;
    mm().register_listener(name, priority, listener).inspect_err(|_| listeners::release(name))?;
    Ok(())
}

fn remove(name: Name) -> Outcome {
    script(name, |_| ())?;
    mm().unregister_listener(name)?;
    listeners::release(name);
    sources::relieve();
    Ok(())
}

/// Changes the script of a listener, if it has one.
fn script(name: Name, change: impl FnOnce(&mut Script)) -> Outcome {
    listeners::with_script(name, change).ok_or_else(|| {
        if chain().iter().any(|listener| listener.name == name) {
            Failure::invalid("that listener belongs to the kernel")
        } else {
            ChainError::Unknown.into()
        }
    })
}

fn listener_name(word: Option<&str>, action: &str) -> Result<Name, Failure> {
    let word = word.ok_or_else(|| Failure::invalid(format_args!("notify {action} needs the NAME of a listener")))?;
    Name::new(word).ok_or_else(|| {
        Failure::invalid(format_args!("{} is no name: 1 to {} letters, digits, - _ .", Quoted(word), Name::LIMIT))
    })
}

fn priority(word: Option<&str>) -> Result<i32, Failure> {
    let word = word.ok_or_else(|| Failure::invalid("notify add needs a PRIO: notify add NAME PRIO"))?;
    word.parse().map_err(|_| Failure::invalid(format_args!("{} is not a priority like 10 or -5", Quoted(word))))
}

fn direction(word: Option<&str>) -> Result<Direction, Failure> {
    match word {
        Some("online") => Ok(Direction::Online),
        Some("offline") => Ok(Direction::Offline),
        Some(word) => Err(Failure::invalid(format_args!("{} is neither online nor offline", Quoted(word)))),
        None => Err(Failure::invalid("notify veto needs what to refuse: notify veto NAME online|offline")),
    }
}

fn show_log(call: &mut Call<'_>) {
    let mut calls = Vec::new();
    while let Some(heard) = listeners::next_call() {
        calls.push(entry_of(&heard));
    }
    call.show(&Log { calls }, |report| {
        let mut table = Table::new(&[
            ("LISTENER", Align::Left),
            ("CHANGE", Align::Left),
            ("CALL", Align::Left),
            ("BLOCK", Align::Right),
            ("ANSWER", Align::Left),
        ]);
        for entry in &report.calls {
            let blocks = super::super::values::Span(entry.first.into(), entry.last.into());
            let cells = [&entry.listener, entry.change, entry.call, &blocks.to_string(), entry.answer];
            table.row(cells.map(Into::into));
        }
        table.to_string()
    });
}

fn entry_of(heard: &Heard) -> Entry {
    let (call, answer) = match heard.kind {
        CallKind::Prepare(Accept::Yes) => ("prepare", "ok"),
        CallKind::Prepare(Accept::No) => ("prepare", "veto"),
        CallKind::Committed => ("committed", "ok"),
        CallKind::Cancelled => ("cancelled", "ok"),
    };
    Entry {
        listener: heard.listener.to_string(),
        change: heard.about.direction.name(),
        call,
        first: heard.about.blocks.first().number(),
        last: heard.about.blocks.last().number(),
        answer,
    }
}
