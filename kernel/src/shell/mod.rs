//! The shell: a line from the console becomes commands, and commands become words for people or JSON for scripts.
//!
//! ```text
//! bytes -> keys -> line_editor -> grammar -> arguments -> commands -> values, table, json, failure
//!                  history        (words)    (options)    (work)      (what goes in and out)
//!                  completion
//! ```
//!
//! Everything but `commands` is pure and tested on the host. Only this file and `jobs` speak to the console.
#![deny(unsafe_code)]

mod arguments;
mod call;
mod commands;
mod completion;
mod failure;
mod grammar;
mod history;
mod jobs;
mod json;
mod keys;
mod line_editor;
mod listeners;
mod resource_tree;
mod table;
mod values;

use crate::drivers::console;
use crate::memory::mm;
use crate::task;
use alloc::string::String;
use alloc::vec::Vec;
use call::{Call, Sink};
use failure::{Failure, Outcome, Quoted};
use grammar::{RunAs, Statement};
use line_editor::{Completion, Event, LineEditor, MAX_LINE, View};
use mm::Errno;
use mm::plural::Plural;
use values::Human;

const PROMPT: &str = "altmap> ";

/// The task of the shell: first the given commands, then what is typed.
pub(crate) fn run(commands: &str) -> ! {
    console::set_foreground(Some(task::current()));
    console::end_input_line("");
    banner();
    execute_echoed(commands);
    let mut editor = LineEditor::new(PROMPT);
    loop {
        match read_line(&mut editor) {
            Event::Line(line) => execute_line(&line),
            Event::Interrupted => {}
            Event::TooLong => complain(&Failure::invalid(format_args!(
                "the line is longer than {MAX_LINE} bytes, and all of it was dropped"
            ))),
        }
    }
}

/// Runs commands as if somebody typed them, one after another, and says which.
fn execute_echoed(commands: &str) {
    let statements = grammar::parse(commands).unwrap_or_else(|error| {
        console::write_str(&alloc::format!("{PROMPT}{commands}\n"));
        complain(&Failure::invalid(error));
        Vec::new()
    });
    for statement in &statements {
        // Without the prompt: whoever waits for that is served when all of them are done.
        console::write_str(&alloc::format!("run: {}\n", statement.text));
        if execute(statement) == Flow::Stop {
            break;
        }
    }
}

fn banner() {
    let total = mm().memory_report().total;
    let online = mm().block_runs().filter(|(_, section)| section.state.is_in_zone());
    let blocks = Plural(online.map(|(run, _)| run.count()).sum(), "block");
    console::write_str(&alloc::format!(
        "altmap {}: {} of memory in {blocks}; `help` lists the commands\n",
        commands::VERSION,
        Human(total)
    ));
}

/// Reads one line, keeping the console informed of what stands on it.
fn read_line(editor: &mut LineEditor) -> Event {
    show_edit(PROMPT, editor.view());
    // A Ctrl-C that came after the last command's end was too late for that one, and is not meant for the next.
    task::take_cancelled();
    console::take_interrupt();
    loop {
        let byte = console::read_byte();
        let mut drawn = String::new();
        match editor.feed(byte, complete, &mut drawn) {
            None => show_edit(&drawn, editor.view()),
            Some(event) => {
                console::end_input_line(&drawn);
                return event;
            }
        }
    }
}

fn show_edit(drawn: &str, view: View) {
    console::draw_input_line(drawn, &view.text, view.cursor);
}

fn complete(before: &str) -> Completion {
    let syntax = |name: &str| commands::find(name).map(|command| command.syntax);
    completion::complete(before, syntax, commands::candidates)
}

/// Runs the commands of a line, one after another; Ctrl-C ends the one that runs and drops the rest.
pub(crate) fn execute_line(line: &str) {
    match grammar::parse(line) {
        Ok(statements) => {
            for statement in &statements {
                if execute(statement) == Flow::Stop {
                    break;
                }
            }
        }
        Err(error) => complain(&Failure::invalid(error)),
    }
}

/// Whether the next command of the line is run.
#[derive(PartialEq, Eq)]
enum Flow {
    GoOn,
    Stop,
}

fn execute(statement: &Statement) -> Flow {
    let outcome = begin(statement);
    let cancelled = task::take_cancelled();
    let interrupted = console::take_interrupt();
    let gave_up = cancelled && outcome.as_ref().is_err_and(|failure| failure.errno == Errno::Canceled);
    if let Err(failure) = outcome {
        complain(&failure);
    }
    if interrupted || gave_up { Flow::Stop } else { Flow::GoOn }
}

/// Runs a command, or starts it as a job.
fn begin(statement: &Statement) -> Outcome {
    let (name, words) = statement.words.split_first().expect("a statement has a name");
    let command = commands::find(&name.text)
        .ok_or_else(|| Failure::invalid(format_args!("unknown command {}, see `help`", Quoted(&name.text))))?;
    let arguments = command.syntax.parse(command.name, words)?;
    jobs::settle();
    match statement.run_as {
        RunAs::Foreground => (command.run)(&mut Call::new(&arguments, &mut Foreground)),
        RunAs::Job => {
            let number = jobs::start(command, arguments, statement.text.clone())?;
            Foreground.write(&alloc::format!("job {number}\n"));
            Ok(())
        }
    }
}

/// The one line of a command that failed.
fn complain(failure: &Failure) {
    console::write_str(&alloc::format!("error: {failure}\n"));
}

/// Output of the command that the prompt waits for.
struct Foreground;

impl Sink for Foreground {
    fn write(&mut self, text: &str) {
        console::write_str(text);
    }
}
