//! `mm` alone, against published frame allocators: instructions under callgrind first, nanoseconds second.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Options;
use super::facts;
use super::report::{Measurement, Report, Unit};
use crate::build;
use crate::workspace;

const TABLE: &str = "Page-frame allocators on the host";

/// The column that the targets are for.
const OURS: &str = "altmap";

/// What `mm` shall cost at most, in instructions: the operation, its size if it comes in several, and the limit.
const TARGETS: [(&str, Option<u64>, f64); 5] = [
    ("order-0 take + free, hot", None, 120.0),
    ("order-9 take + free, hot", None, 156.0),
    ("order-0 take + free, in random order", None, 290.0),
    ("isolate, every second frame in use", None, 100_000.0),
    ("make allocatable", Some(1 << 40), 3.0e6),
];

const REMARKS: [&str; 7] = [
    "Both are per operation, a pair or a step counting as one, and include the loop around it. Instructions are \
     callgrind's; nanoseconds are the median of thread time of several runs, and of what is done once at a time half a \
     microsecond is the clock's own. On a shared machine a ratio below two between nanoseconds says nothing.",
    "All are built with optimisation and without debug assertions; `mm` checks its arithmetic for overflow, as it does in \
     the kernel. Those that want to be alone are behind a spin lock. 16 GiB of memory, unless a size is given.",
    "Hot: the order is known where the call stands. In random order: 1 Mi frames are taken one by one, then freed in random \
     order; `free-list` only 16 Ki, because each free range makes every operation dearer. The same was done once before, \
     so altmap has opened its sections.",
    "Make allocatable: for altmap, add and online, without the page tables, which are the kernel's. For the others, the one \
     call that does it, on a structure that was made beforehand.",
    "Take out, and isolate: altmap takes the block offline; half in use, that is refused, and what is measured is isolation, \
     the search for what is in the way, and putting everything back. `buddy_system_allocator` has no operation on a \
     range that is partly free, and is asked for each frame.",
    "Not here: `osdk-frame-allocator` is built upon `ostd`, which compiles for bare metal only. LLFree is not on crates.io. \
     `ruvix-physmem` keeps at most 1024 free blocks of a size, too few for this memory. `lock_free_buddy_allocator` searches \
     from one place on, so that taking many frames is quadratic.",
    "`-`: there is no such operation. `frame-alloc` takes no memory back at all.",
];

/// One line of the measuring program.
#[derive(Debug, PartialEq)]
struct Line {
    what: String,
    size: Option<u64>,
    count: f64,
    nanoseconds: f64,
}

pub(super) fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let program = Program::build(options)?;
    report.fact("callgrind", facts::version("valgrind"));
    report.fact("crates", versions()?);
    for who in program.allocators()? {
        println!("measuring {who}");
        for (line, instructions) in program.measure(&who)? {
            let limit = TARGETS
                .iter()
                .find(|(what, size, _)| who == OURS && line.what == *what && (size.is_none() || line.size == *size));
            let cell =
                |value, unit| Measurement { size: line.size, ..Measurement::new(TABLE, &line.what, &who, value, unit) };
            report.add(Measurement {
                limit: limit.map(|(_, _, limit)| *limit),
                ..cell(instructions / line.count, Unit::Instructions)
            });
            report.add(cell(line.nanoseconds, Unit::Nanoseconds));
        }
    }
    REMARKS.iter().for_each(|remark| report.remark(TABLE, *remark));
    Ok(())
}

/// The program in `mm/benches/peers`, and how it is asked.
struct Program<'a> {
    path: PathBuf,
    options: &'a Options,
}

impl<'a> Program<'a> {
    fn build(options: &'a Options) -> Result<Self> {
        let status = build::cargo().args(["build", "--quiet", "--release", "--package", "peers"]).status();
        if !status.context("cargo does not start")?.success() {
            bail!("the allocators do not build");
        }
        Ok(Self { path: workspace::root().join("target/release/peers"), options })
    }

    fn allocators(&self) -> Result<Vec<String>> {
        Ok(output(&mut Command::new(&self.path))?.lines().map(str::to_owned).collect())
    }

    /// What it says of every operation of one allocator, and the instructions that callgrind counted.
    fn measure(&self, who: &str) -> Result<Vec<(Line, f64)>> {
        let lines = parse(&output(self.arguments(&mut Command::new(&self.path), who))?)?;
        if lines.is_empty() {
            return Ok(Vec::new());
        }
        let directory = tempfile::tempdir()?;
        let dump = directory.path().join("callgrind");
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--quiet", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*measured*"]);
        // One dump for each operation, when it tells its name.
        valgrind.arg("--dump-before=*tell*").arg(format!("--callgrind-out-file={}", dump.display())).arg(&self.path);
        let counted = parse(&output(self.arguments(&mut valgrind, who).arg("--once"))?)?;
        if counted.iter().map(|line| &line.what).ne(lines.iter().map(|line| &line.what)) {
            bail!("{who} did other things under callgrind");
        }
        let instructions = (1..=lines.len()).map(|number| collected(&dump.with_extension(number.to_string())));
        lines.into_iter().zip(instructions).map(|(line, instructions)| Ok((line, instructions?))).collect()
    }

    fn arguments<'c>(&self, command: &'c mut Command, who: &str) -> &'c mut Command {
        command.arg(who).args(self.options.quick.then_some("--quick")).args(&self.options.filters)
    }
}

fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_owned();
    let output = command.output().with_context(|| format!("{} does not start", program.display()))?;
    if !output.status.success() {
        bail!("{}: {}\n{}", program.display(), output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn parse(text: &str) -> Result<Vec<Line>> {
    let line = |line: &str| {
        let mut words = line.split('\t');
        let what = words.next()?.to_owned();
        let size = match words.next()? {
            "-" => None,
            bytes => Some(bytes.parse().ok()?),
        };
        Some(Line { what, size, count: words.next()?.parse().ok()?, nanoseconds: words.next()?.parse().ok()? })
    };
    text.lines().map(|text| line(text).with_context(|| format!("`{text}` is no measurement"))).collect()
}

/// The events of one dump.
fn collected(dump: &Path) -> Result<f64> {
    let text = fs::read_to_string(dump).with_context(|| format!("callgrind left no {}", dump.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    total.with_context(|| format!("no total in {}", dump.display()))
}

/// The measured crates, as `Cargo.lock` has them.
fn versions() -> Result<String> {
    let lock = fs::read_to_string(workspace::root().join("Cargo.lock"))?;
    let version = |name: &str| {
        let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{name}\"\n")))?;
        let version = entry.lines().find_map(|line| line.strip_prefix("version = "))?;
        Some(format!("{name} {}", version.trim_matches('"')))
    };
    let names = ["bitmap-allocator", "buddy_system_allocator", "frame-alloc", "free-list"];
    Ok(names.into_iter().filter_map(version).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_was_measured() {
        let lines = parse("take\t-\t128\t35.5\nadd\t4096\t1\t1271\n").expect("parses");
        let take = Line { what: "take".to_owned(), size: None, count: 128.0, nanoseconds: 35.5 };
        assert_eq!(lines[0], take);
        assert_eq!(lines[1].size, Some(4096));
        assert!(parse("take 128").is_err());
    }

    #[test]
    fn every_measured_crate_has_a_version() {
        let versions = versions().expect("there is a lock file");
        assert_eq!(versions.split(", ").count(), 4, "{versions}");
    }
}
