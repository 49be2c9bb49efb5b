//! `./x bench`: what things cost, here and elsewhere, as tables, JSON and plots.
//!
//! Every part measures for itself and fills a [`Report`]; everything else works on reports alone.

mod column;
mod counted;
mod data;
mod debian;
mod document;
mod facts;
mod guest;
mod host;
mod hotplug;
mod inside;
mod linux;
mod memory;
mod moving;
mod plot;
pub mod report;
mod requests;
mod resize;
mod samples;
mod start;
mod table;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::workspace;
use report::{Part, Report};

/// What to measure, how long, and where to leave it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which parts, in the order of [`Part::ALL`].
    pub parts: Vec<Part>,
    /// Tiny sizes and few repeats: whether everything works, not how fast.
    pub quick: bool,
    /// Only rows and columns whose names contain one of these; all where there are none.
    pub filters: Vec<String>,
    /// The directory for JSON and plots.
    pub output: PathBuf,
    /// Whether to write the document that is kept with the source.
    pub write: bool,
}

impl Options {
    /// Sorts the words of the command line into parts and filters. Without the name of a part it is all but Linux.
    pub fn new(words: &[String], linux: bool) -> Self {
        let named = |part: &Part| words.iter().any(|word| word == part.name());
        let all = !Part::ALL.iter().any(named);
        let wanted = |part: &Part| named(part) || (*part == Part::Linux && linux) || (*part != Part::Linux && all);
        Self {
            parts: Part::ALL.into_iter().filter(wanted).collect(),
            quick: false,
            filters: words.iter().filter(|word| Part::ALL.iter().all(|part| part.name() != *word)).cloned().collect(),
            output: workspace::artifacts().join("bench"),
            write: false,
        }
    }

    /// Whether the row `what` of the column `who` is wanted.
    pub fn wants(&self, what: &str, who: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| what.contains(filter) || who.contains(filter))
    }

    /// Whether what is measured is all there is, and as exact as it gets.
    fn is_complete(&self) -> bool {
        self.filters.is_empty() && !self.quick
    }
}

/// Measures, shows and saves every part that is wanted, whichever of the others fail.
///
/// # Errors
/// A part could not be measured in full, or nothing could be written.
pub fn run(options: &Options) -> Result<()> {
    if options.write && !options.is_complete() {
        bail!("only whole parts in full length are written to {}", document::NAME);
    }
    fs::create_dir_all(&options.output).with_context(|| format!("cannot make {}", options.output.display()))?;
    let mut failed = Vec::new();
    for part in &options.parts {
        let mut report = Report::new(*part, options.is_complete(), facts::of_machine());
        let measured = match part {
            Part::Host => host::measure(options, &mut report),
            Part::Guest => guest::measure(options, &mut report),
            Part::Linux => linux::measure(options, &mut report),
        };
        if let Err(error) = measured {
            eprintln!("{}: {error:#}", part.name());
            report.complete = false;
            failed.push(part.name());
        }
        print!("{}", table::for_terminal(&report));
        report.save(&options.output)?;
        plot::draw(&plot::of_reports(&[report]), &options.output)?;
    }
    if !failed.is_empty() {
        bail!("not measured in full: {}", failed.join(", "));
    }
    println!("JSON and plots: {}", workspace::short(&options.output).display());
    if options.write {
        document::write(&options.output)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str], linux: bool) -> (Vec<Part>, Vec<String>) {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let options = Options::new(&words, linux);
        (options.parts, options.filters)
    }

    #[test]
    fn words_name_parts_or_filter_rows() {
        assert_eq!(parsed(&[], false).0, [Part::Host, Part::Guest]);
        assert_eq!(parsed(&[], true).0, Part::ALL);
        assert_eq!(parsed(&["guest"], true).0, [Part::Guest, Part::Linux]);
        assert_eq!(parsed(&["host", "order-0"], false), (vec![Part::Host], vec!["order-0".to_owned()]));
    }

    #[test]
    fn part_of_the_measurements_is_not_written_down() {
        let mut options = Options::new(&["host".to_owned(), "order-0".to_owned()], false);
        options.write = true;
        assert!(run(&options).is_err());
    }
}
