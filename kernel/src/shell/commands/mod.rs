//! The commands. Each declares what it takes and what help says of it; help, completion and refusals follow from that.

mod bench;
mod blocks;
mod change;
mod events;
mod frame;
mod help;
mod jobs;
mod load;
mod map;
mod notify;
mod pins;
mod resolve;
mod settings;
mod stress;
mod system;
mod testing;
mod usage;
mod virtio_mem;
mod why;

pub(crate) use resolve::candidates;
pub(crate) use system::VERSION;

use super::arguments::Syntax;
use super::call::Call;
use super::failure::Outcome;

/// A command of the shell.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    pub(crate) syntax: Syntax,
    /// One line of `help`.
    pub(crate) summary: &'static str,
    /// What `help NAME` says beyond that.
    pub(crate) details: &'static str,
    /// A line somebody could type.
    pub(crate) example: &'static str,
    pub(crate) run: fn(&mut Call<'_>) -> Outcome,
}

/// Commands that belong together.
pub(crate) struct Family {
    pub(crate) title: &'static str,
    pub(crate) commands: &'static [Command],
}

/// Every command, as `help` lists them.
pub(crate) const FAMILIES: &[Family] = &[
    Family { title: "Which memory there is", commands: blocks::COMMANDS },
    Family { title: "How much of it is used", commands: usage::COMMANDS },
    Family { title: "What lies where", commands: map::COMMANDS },
    Family { title: "One frame", commands: frame::COMMANDS },
    Family { title: "What has happened", commands: events::COMMANDS },
    Family { title: "Bringing memory in and out", commands: change::COMMANDS },
    Family { title: "Memory beyond DIMMs", commands: virtio_mem::COMMANDS },
    Family { title: "What is in the way", commands: why::COMMANDS },
    Family { title: "How that is decided", commands: settings::COMMANDS },
    Family { title: "Using memory", commands: load::COMMANDS },
    Family { title: "Keeping memory in place", commands: pins::COMMANDS },
    Family { title: "Listeners of changes", commands: notify::COMMANDS },
    Family { title: "Looking for trouble", commands: testing::COMMANDS },
    Family { title: "Random work", commands: stress::COMMANDS },
    Family { title: "Measuring", commands: bench::COMMANDS },
    Family { title: "Jobs", commands: jobs::COMMANDS },
    Family { title: "The machine", commands: system::COMMANDS },
    Family { title: "Help", commands: help::COMMANDS },
];

/// Every command, in the order of `help`.
pub(crate) fn all() -> impl Iterator<Item = &'static Command> {
    FAMILIES.iter().flat_map(|family| family.commands)
}

/// The command of this name.
pub(crate) fn find(name: &str) -> Option<&'static Command> {
    all().find(|command| command.name == name)
}

#[cfg(test)]
mod tests {
    use super::super::grammar;
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    #[test]
    fn every_name_is_there_once() {
        let names: BTreeSet<&str> = all().map(|command| command.name).collect();
        assert_eq!(names.len(), all().count());
    }

    #[test]
    fn every_example_is_something_the_command_takes() {
        for command in all() {
            for line in command.example.lines() {
                for statement in grammar::parse(line).expect(line) {
                    let called = find(&statement.words[0].text).expect(line);
                    called.syntax.parse(called.name, &statement.words[1..]).expect(line);
                }
            }
            assert!(command.example.contains(command.name), "{}", command.name);
        }
    }

    #[test]
    fn what_help_says_fits_a_terminal() {
        for command in all() {
            for line in command.details.lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", command.name);
            }
            let shown = command.name.len() + command.syntax.usage().len();
            assert!(shown <= 80, "{}", command.name);
            assert!(command.summary.len() <= 60, "{}", command.name);
        }
    }

    #[test]
    fn operands_that_may_be_missing_come_last() {
        for command in all() {
            let counts: Vec<_> = command.syntax.operands.iter().map(|operand| operand.count).collect();
            assert!(counts.is_sorted_by_key(|count| *count == super::super::arguments::Count::Optional));
        }
    }
}
