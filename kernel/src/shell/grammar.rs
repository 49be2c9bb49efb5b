//! From a line to the commands in it.
//!
//! Words are separated by blanks; `'...'` and `"..."` keep blanks and are dropped; `;` ends a command, `&` ends it and
//! makes it a job; `#` at the start of a word begins a comment. The whole line is understood before any of it runs.

use alloc::string::String;
use alloc::vec::Vec;
use thiserror::Error;

/// One command of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// At least one word; the first is the command's name.
    pub(crate) words: Vec<Word>,
    pub(crate) run_as: RunAs,
    /// The command as it was typed.
    pub(crate) text: String,
}

/// How a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunAs {
    Foreground,
    /// Ended by `&`.
    Job,
}

/// A word, and whether quotes keep it from being an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) quoted: bool,
}

/// Why a line cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum GrammarError {
    #[error("a quote ({0}) is not closed")]
    OpenQuote(char),
    #[error("`&` must follow a command")]
    JobOfNothing,
}

/// Splits a line into its commands.
pub(crate) fn parse(line: &str) -> Result<Vec<Statement>, GrammarError> {
    let mut parser = Parser { line, statements: Vec::new(), start: 0, words: Vec::new(), word: None };
    let mut rest = line.char_indices();
    while let Some((at, c)) = rest.next() {
        match c {
            '\'' | '"' => parser.quoted(c, &mut rest)?,
            ' ' | '\t' => parser.end_word(),
            ';' => parser.end_statement(RunAs::Foreground, at),
            '&' => parser.end_job(at)?,
            '#' if parser.word.is_none() => {
                parser.end_statement(RunAs::Foreground, at);
                return Ok(parser.statements);
            }
            c => parser.word().text.push(c),
        }
    }
    parser.end_statement(RunAs::Foreground, line.len());
    Ok(parser.statements)
}

struct Parser<'a> {
    line: &'a str,
    statements: Vec<Statement>,
    /// Where the command under way begins in the line.
    start: usize,
    words: Vec<Word>,
    /// The word under way; an empty quoted word is one too.
    word: Option<Word>,
}

impl Parser<'_> {
    fn word(&mut self) -> &mut Word {
        self.word.get_or_insert(Word { text: String::new(), quoted: false })
    }

    fn quoted(&mut self, quote: char, rest: &mut impl Iterator<Item = (usize, char)>) -> Result<(), GrammarError> {
        let word = self.word();
        word.quoted = true;
        loop {
            match rest.next() {
                None => return Err(GrammarError::OpenQuote(quote)),
                Some((_, c)) if c == quote => return Ok(()),
                Some((_, c)) => word.text.push(c),
            }
        }
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    /// The command ends at `end`, where one byte separates it from the next.
    fn end_statement(&mut self, run_as: RunAs, end: usize) {
        self.end_word();
        if !self.words.is_empty() {
            let words = core::mem::take(&mut self.words);
            let text = self.line[self.start..end].trim().into();
            self.statements.push(Statement { words, run_as, text });
        }
        self.start = end + 1;
    }

    fn end_job(&mut self, end: usize) -> Result<(), GrammarError> {
        self.end_word();
        if self.words.is_empty() {
            return Err(GrammarError::JobOfNothing);
        }
        self.end_statement(RunAs::Job, end);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(line: &str) -> Vec<Vec<String>> {
        let statements = parse(line).expect("a good line");
        statements.into_iter().map(|s| s.words.into_iter().map(|w| w.text).collect()).collect()
    }

    #[test]
    fn blanks_separate_words_and_semicolons_commands() {
        assert_eq!(texts("  online  32\t33 ;lsmem -a;; "), [vec!["online", "32", "33"], vec!["lsmem", "-a"]]);
        assert!(texts(" \t ; ").is_empty());
    }

    #[test]
    fn quotes_keep_what_is_between_them() {
        assert_eq!(texts(r#"help 'a b; &' "it's" x""y '#'"#), [vec!["help", "a b; &", "it's", "xy", "#"]]);
        assert_eq!(texts("online ''"), [vec!["online", ""]]);
        assert_eq!(parse("online '32"), Err(GrammarError::OpenQuote('\'')));
    }

    #[test]
    fn an_ampersand_makes_a_job_of_the_command_before_it() {
        let statements = parse("fill 1G& lsmem; verify &").expect("a good line");
        let places: Vec<RunAs> = statements.iter().map(|s| s.run_as).collect();
        assert_eq!(places, [RunAs::Job, RunAs::Foreground, RunAs::Job]);
        let typed: Vec<&str> = statements.iter().map(|s| s.text.as_str()).collect();
        assert_eq!(typed, ["fill 1G", "lsmem", "verify"]);
        assert_eq!(parse("& lsmem"), Err(GrammarError::JobOfNothing));
        assert_eq!(parse("lsmem && lsmem"), Err(GrammarError::JobOfNothing));
    }

    #[test]
    fn a_hash_begins_a_comment_only_at_the_start_of_a_word() {
        assert_eq!(texts("lsmem # everything; here"), [vec!["lsmem"]]);
        assert_eq!(texts("lsmem a#b"), [vec!["lsmem", "a#b"]]);
    }

    proptest! {
        #[test]
        fn any_line_is_parsed_or_refused(line: String) {
            if let Ok(statements) = parse(&line) {
                prop_assert!(statements.iter().all(|statement| !statement.words.is_empty()));
            }
        }

        #[test]
        fn quoted_words_come_back_as_they_were(words in prop::collection::vec("[^']*", 1..6)) {
            let line: Vec<String> = words.iter().map(|word| alloc::format!("'{word}'")).collect();
            prop_assert_eq!(texts(&line.join(" ")), [words]);
        }
    }
}
