//! The words after a command's name, checked against what the command says it takes.
//!
//! Unknown options and words too many are refused here, before the command runs, so that a refused line has changed
//! nothing. The same declarations feed help and completion.

use super::failure::{Failure, Quoted};
use super::grammar::Word;
use alloc::string::String;
use alloc::vec::Vec;

/// What kind of word stands somewhere, for completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing that could be guessed: a size, an address, a number.
    Free,
    /// One of these.
    OneOf(&'static [&'static str]),
    BlocksOrGroup(Among),
    /// One with memory online.
    Node,
    AnyNode,
    Command,
    CommandOrTopic,
    Fill,
    Job,
    FailurePoint,
    Errno,
    Listener,
}

/// Which blocks are worth offering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Among {
    Online,
    Offline,
}

/// An option of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OptionSpec {
    /// As it is typed: `-a`, `--node`.
    pub(crate) name: &'static str,
    /// What follows it: its name in the usage line, and what it is.
    pub(crate) value: Option<(&'static str, Kind)>,
    /// One line of help.
    pub(crate) help: &'static str,
}

/// `-J`, which every reading command takes.
pub(crate) const JSON: OptionSpec =
    OptionSpec { name: "-J", value: None, help: "print one line of JSON: sizes in bytes, times in nanoseconds" };

/// A word that a command takes by its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operand {
    /// Its name in the usage line.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) count: Count,
}

/// How often an operand stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    One,
    Optional,
    /// One or more; the last operand only.
    Some,
}

/// What a command takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Syntax {
    pub(crate) options: &'static [OptionSpec],
    pub(crate) operands: &'static [Operand],
}

impl Syntax {
    /// The usage line behind the command's name.
    pub(crate) fn usage(&self) -> String {
        let mut line = String::new();
        for operand in self.operands {
            let (before, after) = match operand.count {
                Count::One => ("", ""),
                Count::Optional => ("[", "]"),
                Count::Some => ("", "..."),
            };
            line += &alloc::format!(" {before}{}{after}", operand.name);
        }
        for option in self.options {
            match option.value {
                Some((value, _)) => line += &alloc::format!(" [{} {value}]", option.name),
                None => line += &alloc::format!(" [{}]", option.name),
            }
        }
        line
    }

    /// Sorts the words into options and operands.
    pub(crate) fn parse(&self, command: &str, words: &[Word]) -> Result<Arguments, Failure> {
        let mut arguments = Arguments { options: Vec::new(), operands: Vec::new() };
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            if word.quoted || word.text.len() < 2 || !word.text.starts_with('-') || is_negative_number(&word.text) {
                arguments.operands.push(word.text.clone());
            } else {
                self.take_option(command, &word.text, &mut rest, &mut arguments)?;
            }
        }
        self.check_operands(command, &arguments.operands)?;
        Ok(arguments)
    }

    fn take_option<'a>(
        &self,
        command: &str,
        word: &str,
        rest: &mut impl Iterator<Item = &'a Word>,
        arguments: &mut Arguments,
    ) -> Result<(), Failure> {
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value)),
            _ => (word, None),
        };
        let option = self.options.iter().find(|option| option.name == name).ok_or_else(|| {
            Failure::invalid(format_args!("{command} has no option {}, see `help {command}`", Quoted(name)))
        })?;
        if arguments.has(option.name) {
            return Err(Failure::invalid(format_args!("option {} is given twice", Quoted(name))));
        }
        let value = match (option.value, attached) {
            (None, None) => None,
            (None, Some(value)) => {
                return Err(Failure::invalid(format_args!("option {name} takes no value, not {}", Quoted(value))));
            }
            (Some(_), Some(value)) => Some(value.into()),
            (Some((what, _)), None) => Some(
                rest.next()
                    .map(|word| word.text.clone())
                    .ok_or_else(|| Failure::invalid(format_args!("option {name} needs a value: {name} {what}")))?,
            ),
        };
        arguments.options.push((option.name, value));
        Ok(())
    }

    fn check_operands(&self, command: &str, operands: &[String]) -> Result<(), Failure> {
        let needed = self.operands.iter().filter(|operand| operand.count != Count::Optional);
        if let Some(missing) = needed.clone().nth(operands.len()) {
            return Err(Failure::invalid(format_args!("{command} needs {}: {command}{}", missing.name, self.usage())));
        }
        let endless = self.operands.last().is_some_and(|operand| operand.count == Count::Some);
        match operands.get(self.operands.len()) {
            Some(extra) if !endless => {
                Err(Failure::invalid(format_args!("{} is one word too many for {command}", Quoted(extra))))
            }
            _ => Ok(()),
        }
    }
}

/// `-5` is a value (of a priority); no option begins with a digit.
fn is_negative_number(word: &str) -> bool {
    word[1..].starts_with(|c: char| c.is_ascii_digit())
}

/// The words of one call, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arguments {
    options: Vec<(&'static str, Option<String>)>,
    operands: Vec<String>,
}

impl Arguments {
    /// Whether an option was given.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|(name, _)| *name == option)
    }

    /// The value of an option, if it was given.
    pub(crate) fn value(&self, option: &str) -> Option<&str> {
        self.options.iter().find(|(name, _)| *name == option).and_then(|(_, value)| value.as_deref())
    }

    /// The operand at a place, if it is there.
    pub(crate) fn operand(&self, index: usize) -> Option<&str> {
        self.operands.get(index).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::super::grammar;
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    const FILL: Syntax = Syntax {
        options: &[
            OptionSpec { name: "--node", value: Some(("N", Kind::Node)), help: "on this node" },
            OptionSpec { name: "--huge", value: None, help: "in huge pages" },
            JSON,
        ],
        operands: &[
            Operand { name: "SIZE", kind: Kind::Free, count: Count::One },
            Operand { name: "NAME", kind: Kind::Free, count: Count::Optional },
        ],
    };

    fn parse(line: &str) -> Result<Arguments, Failure> {
        let statements = grammar::parse(line).expect("a good line");
        FILL.parse("fill", &statements[0].words[1..])
    }

    #[test]
    fn options_stand_anywhere_and_take_their_values() {
        let arguments = parse("fill --node 1 1G -J").expect("good");
        assert_eq!(arguments.value("--node"), Some("1"));
        assert_eq!(arguments.operand(0), Some("1G"));
        assert!(arguments.has("-J") && !arguments.has("--huge"));
        assert_eq!(parse("fill 1G --node=1").expect("good").value("--node"), Some("1"));
    }

    #[test]
    fn what_the_command_does_not_take_is_refused_by_name() {
        for (line, word) in [
            ("fill 1G --nodes 1", "--nodes"),
            ("fill 1G a b", "`b`"),
            ("fill 1G --huge=1", "--huge"),
            ("fill 1G -J -J", "-J"),
            ("fill 1G --node", "--node N"),
            ("fill", "SIZE"),
            ("fill 1G --", "--"),
        ] {
            let failure = parse(line).expect_err(line);
            assert_eq!(failure.errno, mm::Errno::Invalid);
            assert!(failure.to_string().contains(word), "{failure}");
        }
    }

    #[test]
    fn quoted_words_and_negative_numbers_are_no_options() {
        assert_eq!(parse("fill '--huge' -5").expect("good").operands, ["--huge", "-5"]);
    }

    #[test]
    fn the_usage_line_follows_from_the_syntax() {
        assert_eq!(FILL.usage(), " SIZE [NAME] [--node N] [--huge] [-J]");
    }

    proptest! {
        #[test]
        fn any_words_are_sorted_or_refused(line in "fill( [-=a-zJ0-9\"']{0,8}){0,6}") {
            if let Ok(statements) = grammar::parse(&line) {
                let _ = FILL.parse("fill", &statements[0].words[1..]);
            }
        }
    }
}
