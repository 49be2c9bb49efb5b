//! `inject` and `memcheck`: make steps fail on purpose, and recount everything.

use super::super::arguments::{Arguments, Count, JSON, Kind, Operand, OptionSpec, Syntax};
use super::super::call::Call;
use super::super::failure::{Failure, Outcome, Quoted};
use super::super::table::{Align, Table};
use super::super::values::{Human, number};
use super::Command;
use crate::memory::mm;
use crate::recount::recount;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use mm::Errno;
use mm::addr::PAGE_SIZE;
use mm::inject::{Point, PointOp};
use mm::plural::Plural;
use serde::Serialize;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "inject",
        syntax: Syntax {
            options: &[
                OptionSpec { name: "-l", value: None, help: "list every failure point" },
                OptionSpec {
                    name: "--times",
                    value: Some(("N", Kind::Free)),
                    help: "fail N times, then work again (1)",
                },
                JSON,
            ],
            operands: &[
                Operand { name: "POINT|off", kind: Kind::FailurePoint, count: Count::Optional },
                Operand { name: "ERRNO", kind: Kind::Errno, count: Count::Optional },
            ],
        },
        summary: "make a step of an operation fail on purpose",
        details: "\
Every step that can fail has a name. An armed one fails with the given errno
when it is passed; whatever was done before it must then be undone.

inject -l           list them all, and which are armed
inject POINT ERRNO  arm one
inject off          disarm all",
        example: "inject online.prepare ENOMEM --times 2; inject off; inject -l",
        run: inject,
    },
    Command {
        name: "memcheck",
        syntax: Syntax { options: &[JSON], operands: &[] },
        summary: "recount all memory and compare with every counter",
        details: "\
Looks at each struct page of each online block, each free list and each page
table count. Prints `memcheck: ok` with the totals, or fails with EIO and says
what disagrees.",
        example: "memcheck",
        run: memcheck,
    },
];

/// What `inject -l -J` prints; the field names are a contract.
#[derive(Serialize)]
struct Points {
    points: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: &'static str,
    op: &'static str,
    armed: Option<&'static str>,
    times: u32,
}

fn inject(call: &mut Call<'_>) -> Outcome {
    let arguments = call.arguments;
    let (point, errno) = (arguments.operand(0), arguments.operand(1));
    if let Some(word) = point {
        return change(arguments, word, errno);
    }
    if arguments.has("--times") {
        return Err(Failure::invalid("--times goes with a failure point: inject POINT ERRNO --times N"));
    }
    let all = arguments.has("-l");
    let entry_of = |point: &Point| {
        let armed = mm().failure_points().armed(*point);
        Entry {
            name: point.name(),
            op: point.op().name(),
            armed: armed.map(|(errno, _)| errno.name()),
            times: armed.map_or(0, |(_, times)| times),
        }
    };
    let entries = points().map(|point| entry_of(&point));
    let report = Points { points: entries.filter(|entry| all || entry.armed.is_some()).collect() };
    call.show(&report, points_table);
    Ok(())
}

/// The failure points that this kernel passes.
pub(super) fn points() -> impl Iterator<Item = Point> {
    Point::ALL.iter().copied().filter(is_passed)
}

/// It has no source of device memory, and what stands by carries its own struct pages.
fn is_passed(point: &Point) -> bool {
    point.op() != PointOp::Device && *point != Point::StandbyMemmap
}

fn change(arguments: &Arguments, word: &str, errno: Option<&str>) -> Outcome {
    if arguments.has("-l") || arguments.has("-J") {
        return Err(Failure::invalid("-l and -J go without a failure point"));
    }
    if word == "off" {
        if errno.is_some() || arguments.has("--times") {
            return Err(Failure::invalid("inject off takes nothing else"));
        }
        mm().failure_points().disarm_all();
        return Ok(());
    }
    let point = Point::from_name(word).filter(is_passed).ok_or_else(|| {
        Failure::new(Errno::NoEntry, format_args!("there is no failure point {}, see inject -l", Quoted(word)))
    })?;
    let errno = errno.ok_or_else(|| Failure::invalid("which errno? inject POINT ERRNO"))?;
    let errno = Errno::from_name(errno).ok_or_else(|| {
        let known = Errno::ALL.map(Errno::name).join(" ");
        Failure::invalid(format_args!("{} is none of {known}", Quoted(errno)))
    })?;
    let times = match arguments.value("--times") {
        None => 1,
        Some(word) => {
            let value = u32::try_from(number(word, "a number of times")?).ok().filter(|times| *times > 0);
            value.ok_or_else(|| Failure::invalid(format_args!("{} is not a number of times", Quoted(word))))?
        }
    };
    mm().failure_points().arm(point, errno, times);
    Ok(())
}

fn points_table(report: &Points) -> String {
    if report.points.is_empty() {
        return "no failure point is armed; `inject -l` lists them all\n".into();
    }
    let mut table = Table::new(&[
        ("POINT", Align::Left),
        ("OPERATION", Align::Left),
        ("ARMED", Align::Left),
        ("TIMES", Align::Right),
    ]);
    for entry in &report.points {
        let times = if entry.times == 0 { "-".into() } else { entry.times.to_string() };
        table.row([entry.name.into(), entry.op.into(), entry.armed.unwrap_or("-").into(), times]);
    }
    table.to_string()
}

/// What `memcheck -J` prints; the field names are a contract.
#[derive(Serialize)]
struct Report {
    ok: bool,
    problems: Vec<String>,
    free: u64,
    page_tables: u64,
    frames_checked: u64,
}

fn memcheck(call: &mut Call<'_>) -> Outcome {
    let recount = recount();
    let report = Report {
        ok: recount.is_ok(),
        problems: recount.problems().map(ToString::to_string).collect(),
        free: recount.totals().free * PAGE_SIZE,
        page_tables: recount.totals().page_tables * PAGE_SIZE,
        frames_checked: recount.totals().frames_checked,
    };
    if report.ok || call.arguments.has("-J") {
        call.show(&report, |report| {
            format!(
                "memcheck: ok, {} checked, {} free, {} of page tables\n",
                Plural(report.frames_checked, "frame"),
                Human(report.free),
                Human(report.page_tables)
            )
        });
    }
    if report.ok { Ok(()) } else { Err(Failure::new(Errno::Io, recount)) }
}
