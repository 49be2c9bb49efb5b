//! `./x test`: every check, from the format of the code to machines that get memory plugged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::accelerator::{Accelerator, Choice};
use crate::build::{self, TARGET};
use crate::guest::Guest;
use crate::image;
use crate::qemu::{Dimm, Exit, Machine, Way};
use crate::size::{gib, mib};

/// The whole in-kernel run, under TCG on a slow day.
const SELFTEST_LIMIT: Duration = Duration::from_secs(600);

/// Private items are documented, so links may lead to them.
const DOCUMENTATION_LINTS: &str = "-D warnings -A rustdoc::private_intra_doc_links";

/// Runs everything, or only the tests whose names contain `filter`, and prints the runners' totals.
pub fn run(filter: Option<&str>) -> Result<()> {
    let Choice { accelerator, why } = Choice::made()?;
    println!("machines run under {}: {why}", accelerator.name());
    let mut suite = Suite { filter: filter.map(str::to_owned), results: Vec::new() };
    if filter.is_none() {
        suite.checks();
    }
    suite.host_tests();
    suite.in_kernel_tests();
    suite.qemu_tests();
    suite.totals()
}

struct Suite {
    filter: Option<String>,
    results: Vec<Outcome>,
}

/// How one runner ended.
struct Outcome {
    runner: String,
    good: bool,
    passed: u64,
    skipped: u64,
    /// The runner's own closing lines.
    closing: Vec<String>,
    /// Which tests failed and why, so that who sees only the end of a long output knows.
    failures: Failures,
    took: Duration,
}

/// What a runner said, as far as the totals repeat it.
#[derive(Default)]
struct Said {
    closing: Vec<String>,
    failures: Failures,
}

impl Said {
    fn line(&mut self, line: &str) {
        if is_closing(line) {
            self.closing.push(line.to_owned());
        }
        self.failures.line(line);
    }
}

/// The beginnings of what a runner reports of tests that failed: `---- NAME ----` or `---- NAME stdout ----`, then the reason.
#[derive(Default)]
struct Failures {
    lines: Vec<String>,
    /// Of the reason at hand, so many lines more.
    wanted: usize,
}

impl Failures {
    /// The message of a panic is the second line, and a comparison needs two more.
    const LINES: usize = 5;
    const CHARS: usize = 1000;

    fn line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" ----")) {
            self.lines.push(format!("{}:", name.trim_end_matches(" stdout")));
            self.wanted = Self::LINES;
        } else if line.starts_with("--- ") || line == "failures:" {
            // What the machine was and said; the list of names.
            self.wanted = 0;
        } else if self.wanted > 0 && !line.trim().is_empty() {
            self.lines.push(format!("    {}", line.chars().take(Self::CHARS).collect::<String>()));
            self.wanted -= 1;
        }
    }
}

impl Suite {
    fn checks(&mut self) {
        // The host tool and its tests are built in release only: see the profiles in Cargo.toml.
        let lints: [(&str, &[&str]); 7] = [
            ("format", &["fmt", "--all", "--check"]),
            ("clippy mm", &["clippy", "-p", "mm", "--all-targets", "--", "-D", "warnings"]),
            ("clippy kernel", &["clippy", "-p", "kernel", "--release", "--target", TARGET, "--", "-D", "warnings"]),
            (
                "clippy kernel tests",
                &["clippy", "-p", "kernel", "-p", "kernel-model", "--tests", "--", "-D", "warnings"],
            ),
            (
                "clippy host",
                &[
                    "clippy",
                    "-p",
                    "boot",
                    "-p",
                    "linux-init",
                    "-p",
                    "peers",
                    "-p",
                    "system-tests",
                    "--release",
                    "--all-targets",
                    "--",
                    "-D",
                    "warnings",
                ],
            ),
            (
                "documentation kernel",
                &["doc", "-p", "kernel", "--release", "--target", TARGET, "--no-deps", "--document-private-items"],
            ),
            (
                "documentation host",
                &[
                    "doc",
                    "-p",
                    "mm",
                    "-p",
                    "boot",
                    "-p",
                    "linux-init",
                    "-p",
                    "peers",
                    "-p",
                    "system-tests",
                    "--release",
                    "--no-deps",
                    "--document-private-items",
                ],
            ),
        ];
        for (name, arguments) in lints {
            self.cargo(name, arguments);
        }
    }

    fn host_tests(&mut self) {
        let filter = self.filter.clone();
        let with_filter = |arguments: &[&str]| -> Vec<String> {
            arguments.iter().copied().chain(filter.as_deref()).map(str::to_owned).collect()
        };
        for (name, arguments) in [
            ("host tests mm", with_filter(&["test", "-p", "mm"])),
            ("host tests kernel", with_filter(&["test", "-p", "kernel"])),
            ("host tests kernel model", with_filter(&["test", "-p", "kernel-model", "--test", "orders"])),
            ("host tests boot", with_filter(&["test", "-p", "boot", "-p", "linux-init", "--release"])),
        ] {
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            self.cargo(name, &arguments);
        }
    }

    fn qemu_tests(&mut self) {
        let mut arguments = vec!["test", "-p", "system-tests", "--release", "--lib", "--test", "qemu"];
        let filter = self.filter.clone();
        if let Some(filter) = &filter {
            arguments.extend(["--", filter]);
        }
        self.cargo("QEMU tests", &arguments);
    }

    /// Runs cargo, passing its output on, and remembers the totals that test runners print.
    fn cargo(&mut self, runner: &str, arguments: &[&str]) {
        let mut command = build::cargo();
        command.args(arguments).env("RUSTDOCFLAGS", DOCUMENTATION_LINTS);
        self.record(runner, |said| {
            println!("\n== {runner}: cargo {}", arguments.join(" "));
            passed_on(&mut command, |line| said.line(line))
        });
    }

    fn in_kernel_tests(&mut self) {
        let filter = self.filter.clone();
        self.record("in-kernel tests", |said| {
            println!("\n== in-kernel tests: the kernel with `selftest`");
            let mut told = Told::default();
            let exit = selftest(filter.as_deref(), |line| {
                println!("{line}");
                told.line(line);
            });
            said.closing.push(told.to_string());
            told.judge(filter.as_deref(), exit?)
        });
    }

    fn record(&mut self, runner: &str, action: impl FnOnce(&mut Said) -> Result<()>) {
        let start = Instant::now();
        let mut said = Said::default();
        let result = action(&mut said);
        if let Err(error) = &result {
            println!("{runner}: {error:#}");
        }
        let Said { closing, failures } = said;
        let [passed, skipped] =
            [" passed", " skipped"].map(|word| closing.iter().filter_map(|line| number_before(line, word)).sum());
        let (runner, good, took) = (runner.to_owned(), result.is_ok(), start.elapsed());
        let outcome = Outcome { runner, good, passed, skipped, closing, failures, took };
        self.results.push(outcome);
    }

    fn totals(self) -> Result<()> {
        println!("\n== totals");
        for Outcome { runner, good, closing, failures, took, .. } in &self.results {
            println!("{} {runner} ({} s)", if *good { "ok    " } else { "FAILED" }, took.as_secs());
            for line in closing.iter().filter(|line| !is_empty_run(line)).chain(&failures.lines) {
                println!("         {line}");
            }
        }
        std::io::stdout().flush().ok();
        let failed: Vec<_> = self.results.iter().filter(|outcome| !outcome.good).map(|o| o.runner.as_str()).collect();
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        let passed: u64 = self.results.iter().map(|outcome| outcome.passed).sum();
        let skipped: u64 = self.results.iter().map(|outcome| outcome.skipped).sum();
        match self.filter {
            Some(filter) if passed + skipped == 0 => bail!("no test's name contains `{filter}`"),
            _ => {
                println!("all passed: {passed} tests, {skipped} skipped");
                Ok(())
            }
        }
    }
}

/// The closing line of a test runner on the host; a guest's, in the log of a failed test, looks shorter.
fn is_closing(line: &str) -> bool {
    line.starts_with("test result: ") && line.contains(" measured; ")
}

/// A target without tests of its own says so too.
fn is_empty_run(line: &str) -> bool {
    line.contains(" 0 passed; 0 failed") && number_before(line, " skipped").is_none_or(|skipped| skipped == 0)
}

fn number_before(line: &str, word: &str) -> Option<u64> {
    line[..line.find(word)?].rsplit(' ').next()?.parse().ok()
}

/// Shows a command's output while `each` sees every line of it.
fn passed_on(command: &mut Command, mut each: impl FnMut(&str)) -> Result<()> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("it does not start")?;
    let output = child.stdout.take().expect("piped above");
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("its output broke off")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        each(&line);
    }
    let status = child.wait().context("cannot wait for it")?;
    if !status.success() {
        bail!("{status}");
    }
    Ok(())
}

/// Boots the kernel, its assertions compiled in, with `selftest` on a machine with two nodes and a module, and shows `each` line to its end.
fn selftest(filter: Option<&str>, mut each: impl FnMut(&str)) -> Result<Exit> {
    let images = image::checked()?;
    let parameter = filter.map_or_else(|| "selftest".to_owned(), |filter| format!("selftest={filter}"));
    let dimm = Dimm { size: mib(256), id: None, node: Some(1), address: None };
    let machine = Machine {
        way: Way::Pvh,
        memory: gib(1),
        nodes: 2,
        dimms: vec![dimm],
        params: vec![parameter],
        ..Machine::default()
    };
    let mut guest = Guest::start(&machine, &images, Accelerator::best(), None)?;
    let deadline = Instant::now() + SELFTEST_LIMIT;
    while let Some(line) = guest.console.whole_line(deadline)? {
        each(&line);
    }
    guest.qemu.wait(Duration::from_secs(10)).context("the machine did not end")
}

/// How an in-kernel test ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
enum Verdict {
    /// It was begun: a panic or a hang leaves the rest out.
    #[default]
    Failed,
    /// The machine had nothing for it to work on.
    Skipped,
    Passed,
}

impl Verdict {
    fn of(words: &str) -> Self {
        match words.trim_end() {
            "ok" => Self::Passed,
            words if words.starts_with("skipped (") => Self::Skipped,
            _ => Self::Failed,
        }
    }
}

/// What the in-kernel tests' lines tell: `test NAME ... ok` or `... skipped (WHY)` for each, then the guest's own totals.
#[derive(Default)]
struct Told {
    tests: BTreeMap<String, Verdict>,
    totals: Option<String>,
}

impl Told {
    fn line(&mut self, line: &str) {
        if let Some(totals) = line.strip_prefix("test result: ") {
            self.totals = Some(totals.to_owned());
        } else if let Some((name, verdict)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            // A line that a message interrupted is written again.
            let known = self.tests.entry(name.to_owned()).or_default();
            *known = Verdict::of(verdict).max(*known);
        }
    }

    fn failed(&self) -> Vec<&str> {
        self.tests.iter().filter(|(_, verdict)| **verdict == Verdict::Failed).map(|(name, _)| name.as_str()).collect()
    }

    fn count(&self, wanted: Verdict) -> usize {
        self.tests.values().filter(|verdict| **verdict == wanted).count()
    }

    /// Content with tests none of which failed, and with a filter that is meant for other tests than the guest's.
    fn judge(&self, filter: Option<&str>, exit: Exit) -> Result<()> {
        let failed = self.failed();
        if !failed.is_empty() {
            bail!("failed: {} ({exit})", failed.join(", "));
        }
        match self.totals.as_deref() {
            Some(totals) if totals.starts_with("ok. ") && exit == Exit::Success => Ok(()),
            Some(totals) if filter.is_some() && totals.contains("no test's name contains") => Ok(()),
            Some(totals) => bail!("the guest says: {totals} ({exit})"),
            None => bail!("the guest ended before its totals ({exit})"),
        }
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [passed, failed, skipped] =
            [Verdict::Passed, Verdict::Failed, Verdict::Skipped].map(|verdict| self.count(verdict));
        let verdict = if failed == 0 { "ok" } else { "FAILED" };
        write!(f, "test result: {verdict}. {passed} passed; {failed} failed; {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTALS: &str = "test result: ok. 1 passed; 0 failed; 0 skipped";

    #[test]
    fn totals_are_read_from_the_runners_closing_line() {
        let line = "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.00s";
        assert_eq!(number_before(line, " passed"), Some(12));
        assert!(is_closing(line) && !is_closing("test result: ok. 25 passed; 0 failed"));
        assert_eq!(number_before("nothing", " passed"), None);
    }

    #[test]
    fn totals_repeat_why_tests_failed() {
        let mut said = Said::default();
        let output = [
            "test a::b ... FAILED",
            "failures:",
            "",
            "---- c::d ----",
            "block 32: got offline, expected Movable",
            "--- machine ---",
            "qemu",
            "---- a::b stdout ----",
            "",
            "thread 'a::b' panicked at x.rs:1:2:",
            "3 is not 4",
            "",
            "failures:",
            "    a::b",
        ];
        output.iter().for_each(|line| said.line(line));
        let want = [
            "c::d:",
            "    block 32: got offline, expected Movable",
            "a::b:",
            "    thread 'a::b' panicked at x.rs:1:2:",
            "    3 is not 4",
        ];
        assert_eq!(said.failures.lines, want);
    }

    fn told(lines: &[&str]) -> Told {
        let mut told = Told::default();
        lines.iter().for_each(|line| told.line(line));
        told
    }

    #[test]
    fn in_kernel_tests_are_counted_once_each() {
        let told = told(&["test heap::grows ... ", "test heap::grows ... ok", "other ... ok", TOTALS]);
        assert_eq!(told.to_string(), TOTALS);
        assert!(told.judge(None, Exit::Success).is_ok());
    }

    #[test]
    fn in_kernel_tests_that_were_skipped_are_counted_apart() {
        let skipped =
            told(&["test a::b ... skipped (there is one CPU)", "test result: ok. 0 passed; 0 failed; 1 skipped"]);
        assert_eq!(skipped.to_string(), "test result: ok. 0 passed; 0 failed; 1 skipped");
        assert!(skipped.judge(Some("a::b"), Exit::Success).is_ok());
        assert!(!is_empty_run(&skipped.to_string()));
    }

    #[test]
    fn an_in_kernel_test_that_panics_has_failed() {
        let told = told(&["test a::b ... ok", "test a::c ... ", "panic: at kernel/src/x.rs:1: no", "panic: stopped"]);
        assert_eq!(told.to_string(), "test result: FAILED. 1 passed; 1 failed; 0 skipped");
        let error = told.judge(None, Exit::Failure).expect_err("it panicked").to_string();
        assert!(error.contains("a::c") && !error.contains("a::b"), "{error}");
    }

    #[test]
    fn in_kernel_tests_pass_only_with_the_guests_totals_and_its_success() {
        let line = "test a ... ok";
        assert!(told(&[line]).judge(None, Exit::Success).is_err());
        assert!(told(&[line, TOTALS]).judge(None, Exit::PoweredOff).is_err());
        assert!(told(&[line, TOTALS]).judge(None, Exit::Failure).is_err());
    }

    #[test]
    fn a_filter_may_match_no_in_kernel_test() {
        let told = told(&["test result: FAILED. no test's name contains 'x'"]);
        assert!(told.judge(Some("x"), Exit::Failure).is_ok());
        assert!(told.judge(None, Exit::Failure).is_err());
        assert!(is_empty_run(&told.to_string()));
    }

    #[test]
    fn a_command_that_fails_is_an_error_and_its_output_was_seen() {
        let mut seen = Vec::new();
        let mut command = Command::new("sh");
        let result = passed_on(command.args(["-c", "echo one; exit 3"]), |line| seen.push(line.to_owned()));
        assert!(result.is_err());
        assert_eq!(seen, ["one"]);
    }
}
