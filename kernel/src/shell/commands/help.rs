//! `help`: the commands, and the ideas behind them.

use super::super::arguments::{Count, JSON, Kind, Operand, Syntax};
use super::super::call::Call;
use super::super::failure::{Failure, Outcome, Quoted};
use super::{Command, FAMILIES, all, find};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::Serialize;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "help",
    syntax: Syntax {
        options: &[JSON],
        operands: &[Operand { name: "COMMAND|TOPIC", kind: Kind::CommandOrTopic, count: Count::Optional }],
    },
    summary: "list the commands, or explain one of them or a topic",
    details: "\
Topics: memory (how it is kept), hotplug (how it comes and goes), shell (what
can be typed), errors (what failures mean).",
    example: "help offline",
    run: help,
}];

/// A text that is not about one command.
struct Topic {
    name: &'static str,
    text: &'static str,
}

const TOPICS: &[Topic] = &[
    Topic {
        name: "hotplug",
        text: "\
How memory comes and goes

A machine's memory is cut into blocks of 128 MiB. A block that was plugged goes
through two doors:

  add      makes it known: it gets a place in a node, it is mapped, and it gets
           a memmap, the array of struct pages (32 bytes for each 4 KiB frame).
           The memmap lies in the first frames of the block itself, the altmap,
           so that adding takes nothing from the memory in use.
  online   brings it into use: its zone grows, its struct pages are written, its
           frames go to the allocator.

offline and remove are the ways back, in that order. add and remove follow the
device: a DIMM that is plugged is added, one that is to be unplugged is taken
offline and removed, if nobody uses it. online and offline are yours, or those
of `auto_online`.

Whether a block can go offline again depends on who uses it. Memory of the
kernel itself stays where it is; so what shall be able to go should be in zone
Movable, where only memory lies that can be moved away.

Try, with a DIMM plugged:
  lsmem                   its blocks are offline, VALID_ZONES says what they may be
  page 0x1_0000_0000      its first frame: the altmap of block 32
  online_movable dimm0    meminfo grows
  fill 64M --in 32        somebody uses it
  offline dimm0           what is in use moves elsewhere; see `verify`
  free 1; remove dimm0
  events                  what happened, and what took how long
",
    },
    Topic {
        name: "memory",
        text: "\
How memory is kept

frame     4 KiB of physical memory; `page` tells everything about one. Its
          number, the pfn, is its address / 4096.
memmap    the struct pages, 32 bytes for each frame: what it is, whose, and how
          many refer to it.
block     128 MiB, the unit in which memory comes and goes (`lsmem`).
node      memory and processors that are close to each other (`srat`).
zone      the memory of a node, by what may use it (`zoneinfo`):
            Normal   everything, also what the kernel can never move
            Movable  only what can be moved elsewhere, so that its blocks can
                     go offline
pageblock 2 MiB. Free memory is kept in whole ones, and in partly used ones
          that each serve one kind of use (`buddyinfo`). Each CPU has a few
          frames at hand (`zoneinfo`).
untouched what a block is that is online and that nobody has used: it is
          free, and its struct pages are neither mapped nor written.
group     the device that blocks came with; they go together (`groups`).

Kernel memory is taken from boot memory first and from added memory last, so
that what came last can go first.
",
    },
    Topic {
        name: "shell",
        text: "\
What can be typed

  a; b              one command after the other
  a &               a as a job; see `jobs`, `wait`, `kill`
  'a b' \"a b\"       one word with blanks in it
  # ...             a comment

  sizes             4096  4K  128M  1G  1.5G
  addresses         0x1_0000_0000  4294967296  4G  pfn:1048576
  blocks            34  32-39  32,34-36  or a group: dimm0

  arrows, Home, End, Ctrl-A, Ctrl-E     move; Up and Down recall earlier lines
  Ctrl-U, Ctrl-K, Ctrl-W                erase to the start, the end, a word
  Tab                                   complete commands, options, blocks
  Ctrl-L                                clear the screen
  Ctrl-C                                give up the line, or cancel the command

Every command that shows something takes -J: one line of JSON for scripts, with
sizes in bytes and times in nanoseconds.
",
    },
    Topic {
        name: "errors",
        text: "\
What failures mean

A command that fails prints one line, `error: ERRNO: sentence`, and has changed
nothing, unless the sentence says otherwise.

  EINVAL      it makes no sense: an unknown word, a number too large, a block in
              that state already
  ENOENT      there is no such block, group, fill, job, listener
  EEXIST      it is there already
  EBUSY       somebody uses it or refuses; the sentence says who
  ENOMEM      there is not enough free memory
  ENODEV      no device backs such a range
  ETIMEDOUT   it could not be done in time
  ECANCELED   Ctrl-C or `kill`
  EOPNOTSUPP  this kernel cannot do that
  EIO         content or counters are not what they should be
  EAGAIN      not now; try again
",
    },
];

/// The names of all topics.
pub(super) fn topics() -> impl Iterator<Item = &'static str> {
    TOPICS.iter().map(|topic| topic.name)
}

#[derive(Serialize)]
struct Help {
    commands: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: &'static str,
    usage: String,
    summary: &'static str,
}

fn help(call: &mut Call<'_>) -> Outcome {
    let word = call.arguments.operand(0);
    if call.arguments.has("-J") {
        let wanted = match word {
            None => all().collect(),
            Some(word) if topics().any(|topic| topic == word) => {
                return Err(Failure::invalid(format_args!("{} is a topic, and -J lists commands only", Quoted(word))));
            }
            Some(word) => Vec::from([find(word).ok_or_else(|| unknown(word))?]),
        };
        let entry_of = |command: &Command| Entry {
            name: command.name,
            usage: format!("{}{}", command.name, command.syntax.usage()),
            summary: command.summary,
        };
        call.show(&Help { commands: wanted.into_iter().map(entry_of).collect() }, |_| String::new());
        return Ok(());
    }
    let text = match word {
        None => overview(),
        Some(word) => {
            let topic = TOPICS.iter().find(|topic| topic.name == word).map(|topic| topic.text.into());
            topic.or_else(|| find(word).map(explain)).ok_or_else(|| unknown(word))?
        }
    };
    call.text(&text);
    Ok(())
}

fn unknown(word: &str) -> Failure {
    Failure::invalid(format_args!("there is no command or topic {}, see `help`", Quoted(word)))
}

fn overview() -> String {
    let mut text = String::from("altmap is a kernel about memory that comes and goes while the machine runs.\n");
    for family in FAMILIES {
        text += &format!("\n{}\n", family.title);
        for command in family.commands {
            text += &format!("  {:<17} {}\n", command.name, command.summary);
        }
    }
    text + "\n`help COMMAND` explains a command; the rest is in `help memory`, `help hotplug`,\n`help shell` and `help errors`.\n"
}

fn explain(command: &Command) -> String {
    let mut text = format!("{}{}\n{}\n\n", command.name, command.syntax.usage(), command.summary);
    text += command.details;
    text += "\n";
    if !command.syntax.options.is_empty() {
        text += "\n";
    }
    for option in command.syntax.options {
        let form = match option.value {
            Some((value, _)) => format!("{} {value}", option.name),
            None => option.name.into(),
        };
        text += &format!("  {form:<20} {}\n", option.help);
    }
    text += "\nExample:\n";
    for line in command.example.lines() {
        text += &format!("  {line}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_help_is_wider_than_a_terminal_or_looks_like_an_error() {
        let texts = TOPICS.iter().map(|topic| topic.text.into()).chain(all().map(explain)).chain([overview()]);
        for text in texts {
            for line in text.lines() {
                assert!(line.chars().count() < 100 && !line.starts_with("error: "), "{line}");
            }
        }
    }
}
