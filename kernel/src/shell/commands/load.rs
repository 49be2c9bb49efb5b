//! `fill`, `kfill`, `verify` and `free`: memory that is really used, with content that can be checked.

use super::super::arguments::{Among, Arguments, Count, JSON, Kind, Operand, OptionSpec, Syntax};
use super::super::call::Call;
use super::super::failure::{Failure, Outcome, Quoted};
use super::super::values::{Human, number, size};
use super::{Command, resolve};
use crate::fill::registry::{self, Entry};
use crate::fill::{self, CheckError, Fill, FreeError, Source, TakeError, Taken, WRITERS_MAX};
use crate::memory::mm;
use crate::pace::TaskPace;
use crate::sources;
use crate::vm::{PageSize, Placement};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::Errno;
use mm::addr::{PAGE_SIZE, SectionRange};
use mm::alloc::request::Place;
use serde::Serialize;

const IN_BLOCKS: OptionSpec = OptionSpec {
    name: "--in",
    value: Some(("BLOCKS", Kind::BlocksOrGroup(Among::Online))),
    help: "only inside these blocks, lowest address first",
};

const SIZE: &[Operand] = &[Operand { name: "SIZE", kind: Kind::Free, count: Count::One }];

const ID: Kind = Kind::Fill;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "fill",
        syntax: Syntax {
            options: &[
                OptionSpec { name: "--node", value: Some(("N", Kind::Node)), help: "only on this node" },
                OptionSpec {
                    name: "--prefer",
                    value: Some(("N", Kind::AnyNode)),
                    help: "on this node, or one near to it",
                },
                OptionSpec { name: "--huge", value: None, help: "in pages of 2 MiB" },
                IN_BLOCKS,
                OptionSpec {
                    name: "--writers",
                    value: Some(("N", Kind::Free)),
                    help: "so many tasks (up to 16) keep changing it",
                },
                JSON,
            ],
            operands: SIZE,
        },
        summary: "take movable memory and write to every page",
        details: "\
Prints `fill ID`. The memory is that of an address space, and goes elsewhere
when its block goes offline. Each page gets content of its own, which `verify`
checks and `free` gives back. Movable zones are used first, then Normal ones,
but for the last 1 MiB that the kernel can get; with --prefer, all of that node
first, then of others by distance (`srat`), but for what the kernel needs there.
Its page tables lie in Normal zones, and in Movable ones where those have no
more than that. SIZE is rounded up to whole pages, with --huge of 2 MiB; if not
all of it can be had, nothing is kept: ENOMEM. With --writers every word counts
up, page by page, until the fill is freed; `verify` knows how far each page has
come.",
        example: "fill 64M --in 32-34; fill 16M --huge --writers 2; fill 1G --prefer 0",
        run: fill,
    },
    Command {
        name: "kfill",
        syntax: Syntax { options: &[IN_BLOCKS, JSON], operands: SIZE },
        summary: "take kernel memory, which cannot be moved",
        details: "\
As `fill`, but from Normal zones only, as the kernel's own data: the blocks
that it lies in cannot go offline before it is freed. It leaves 1 MiB of what
the kernel can get, too.",
        example: "kfill 4M --in 0",
        run: kfill,
    },
    Command {
        name: "verify",
        syntax: Syntax { options: &[JSON], operands: &[Operand { name: "ID", kind: ID, count: Count::Optional }] },
        summary: "check every byte of a fill, or of all of them",
        details: "\
Fails with EIO and the first wrong place if the content is not what was
written.",
        example: "verify",
        run: verify,
    },
    Command {
        name: "free",
        syntax: Syntax { options: &[], operands: &[Operand { name: "ID", kind: ID, count: Count::One }] },
        summary: "give a fill back",
        details: "\
ID is what `fill` or `kfill` printed. Its writers end first; what is pinned is
not freed: EBUSY.",
        example: "free 1",
        run: free,
    },
];

/// The numbers of all fills.
pub(super) fn ids() -> Vec<u64> {
    registry::all().iter().map(|entry| entry.id).collect()
}

/// What `fill -J` prints; the field names are a contract.
#[derive(Serialize)]
struct Filled {
    id: u64,
    size: u64,
}

impl Filled {
    fn of(entry: &Entry) -> Self {
        Self { id: entry.id, size: entry.size_bytes }
    }
}

fn fill(call: &mut Call<'_>) -> Outcome {
    let arguments = call.arguments;
    let page = if arguments.has("--huge") { PageSize::Huge } else { PageSize::Small };
    let pages = pages(call, page)?;
    let writers = arguments.value("--writers").map_or(Ok(0), writers)?;
    let placement =
        Placement { node: nodes(arguments)?, blocks: arguments.value("--in").map(online_blocks).transpose()?, page };
    let pace = &mut TaskPace::untimed();
    let _change = fill::change();
    let taken = Taken::new(pages, placement, pace).map_err(|error| not_taken(error, pages))?;
    let id = registry::next_id();
    let fill = Fill::anonymous(id, taken, writers, pace).map_err(|error| not_taken(error, pages))?;
    show(call, id, fill);
    Ok(())
}

fn kfill(call: &mut Call<'_>) -> Outcome {
    let pages = pages(call, PageSize::Small)?;
    let source = Source { blocks: call.arguments.value("--in").map(online_blocks).transpose()? };
    let pace = &mut TaskPace::untimed();
    let _change = fill::change();
    let frames = source.take(pages, pace).map_err(|error| not_taken(error, pages))?;
    let id = registry::next_id();
    let fill = Fill::kernel(id, frames, pace).map_err(|error| not_taken(error, pages))?;
    show(call, id, fill);
    Ok(())
}

fn show(call: &mut Call<'_>, id: u64, fill: Fill) {
    let filled = Filled::of(&registry::add(id, fill));
    call.show(&filled, |filled| format!("fill {}\n", filled.id));
}

/// How many pages of 4 KiB the operand asks for: whole ones of the wanted size, and no more than there are.
fn pages(call: &Call<'_>, page: PageSize) -> Result<u64, Failure> {
    let word = call.arguments.operand(0).unwrap_or_default();
    let unit = page.order().pages();
    let count = size(word)?.div_ceil(unit * PAGE_SIZE);
    if count == 0 {
        return Err(Failure::invalid(format_args!("{} is no memory at all", Quoted(word))));
    }
    let total = mm().memory_report().total / PAGE_SIZE;
    let pages = count.checked_mul(unit).filter(|pages| *pages <= total);
    pages.ok_or_else(|| {
        Failure::new(Errno::NoMemory, format_args!("{} is more than the whole machine has", Quoted(word)))
    })
}

/// The nodes that the options choose.
fn nodes(arguments: &Arguments) -> Result<Option<Place>, Failure> {
    match (arguments.value("--node"), arguments.value("--prefer")) {
        (Some(_), Some(_)) => Err(Failure::invalid("--node allows no other node, and --prefer does: give one of them")),
        (Some(only), None) => Ok(Some(Place::On(resolve::node(only)?))),
        (None, Some(first)) => Ok(Some(Place::Prefer(resolve::any_node(first)?))),
        (None, None) => Ok(None),
    }
}

fn writers(word: &str) -> Result<u64, Failure> {
    match number(word, "a number of writers")? {
        count @ 1..=WRITERS_MAX => Ok(count),
        _ => Err(Failure::invalid(format_args!("a fill has from 1 to {WRITERS_MAX} writers, not {}", Quoted(word)))),
    }
}

fn online_blocks(word: &str) -> Result<Vec<SectionRange>, Failure> {
    let ranges = resolve::blocks(word)?;
    for id in ranges.iter().flat_map(|range| range.iter()) {
        let state = mm().section(id).map_or("absent", |section| section.state.name());
        if state != "online" {
            return Err(Failure::invalid(format_args!("block {id} is {state}, there is nothing to take from it")));
        }
    }
    Ok(ranges)
}

fn not_taken(error: TakeError, pages: u64) -> Failure {
    let wanted = Human(pages * PAGE_SIZE);
    let only = |taken, how| {
        let taken = Human(taken * PAGE_SIZE);
        let sentence = format_args!("only {taken} of {wanted} could be had{how}, and all of it was given back");
        Failure::new(error.errno(), sentence)
    };
    match error {
        TakeError::TooLittle { taken } => only(taken, ""),
        TakeError::NoTable { taken } => only(taken, " with page tables"),
        TakeError::KernelShort { taken } => only(taken, " beside what is left for the kernel"),
        TakeError::NoWriter(_) | TakeError::Injected(_) | TakeError::Stopped(_) => Failure::new(error.errno(), error),
    }
}

/// The fill that a word names.
pub(super) fn find(word: &str) -> Result<Arc<Entry>, Failure> {
    let id = number(word, "the ID of a fill")?;
    registry::find(id).ok_or_else(|| unknown(id))
}

/// There is no such fill, or no more.
pub(super) fn unknown(id: u64) -> Failure {
    Failure::new(Errno::NoEntry, format_args!("there is no fill {id}"))
}

/// What `verify -J` prints.
#[derive(Serialize)]
struct Verified {
    fills: Vec<Filled>,
}

fn verify(call: &mut Call<'_>) -> Outcome {
    let named = call.arguments.operand(0).map(find).transpose()?;
    let mut fills = Vec::new();
    for entry in named.clone().map_or_else(registry::all, |entry| [entry].into()) {
        match entry.with(|fill| fill.check(&mut TaskPace::untimed())) {
            Some(Ok(())) => fills.push(Filled::of(&entry)),
            Some(Err(error)) => return Err(wrong(entry.id, error)),
            None if named.is_some() => return Err(unknown(entry.id)),
            // Others free fills meanwhile.
            None => {}
        }
    }
    call.show(&Verified { fills }, |report| {
        if report.fills.is_empty() {
            return "nothing is filled\n".into();
        }
        report.fills.iter().map(|fill| format!("fill {}: {} as written\n", fill.id, Human(fill.size))).collect()
    });
    Ok(())
}

fn wrong(id: u64, error: CheckError) -> Failure {
    match error {
        CheckError::Wrong { page, address } => {
            let sentence = format_args!("page {page} of fill {id} is not what was written, at address {address:#x}");
            Failure::new(Errno::Io, sentence)
        }
        CheckError::Stopped(_) => Failure::cancelled(),
    }
}

fn free(call: &mut Call<'_>) -> Outcome {
    let entry = find(call.arguments.operand(0).unwrap_or_default())?;
    let _change = fill::change();
    entry.free().inspect(|()| sources::relieve()).map_err(|error| match error {
        FreeError::Gone => unknown(entry.id),
        FreeError::Pinned => Failure::new(Errno::Busy, format_args!("fill {} is pinned, see `unpin`", entry.id)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::grammar;
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_node_is_the_only_one_or_the_preferred_one() {
        let parsed = |line: &str| {
            let statements = grammar::parse(line).expect("a good line");
            COMMANDS[0].syntax.parse("fill", &statements[0].words[1..]).expect("options of fill")
        };
        let failure = nodes(&parsed("fill 1M --node 0 --prefer 1")).expect_err("both");
        assert_eq!(failure.errno, Errno::Invalid);
        assert!(failure.to_string().contains("--prefer"), "{failure}");
        assert_eq!(nodes(&parsed("fill 1M")), Ok(None));
    }
}
