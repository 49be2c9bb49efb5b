//! `fill`, `kfill`, `verify` and `free`: memory that is really used, with content that can be checked.

use super::super::arguments::{Among, Count, JSON, Kind, Operand, OptionSpec, Syntax};
use super::super::call::Call;
use super::super::failure::{Failure, Outcome, Quoted};
use super::super::values::{Human, number, size};
use super::{Command, resolve};
use crate::fill::{CheckError, Fill, Source, TakeError};
use crate::memory::mm;
use crate::pace::TaskPace;
use crate::sync::Mutex;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::Errno;
use mm::addr::{PAGE_SIZE, SectionRange};
use mm::page::Owner;
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
                IN_BLOCKS,
                JSON,
            ],
            operands: SIZE,
        },
        summary: "take movable memory and write to every page",
        details: "\
Prints `fill ID`. Each page gets content of its own, which `verify` checks and
`free` gives back. Movable zones are used first, then Normal ones. SIZE is
rounded up to whole pages; if not all of it can be had, nothing is kept: ENOMEM.",
        example: "fill 64M --in 32-34",
        run: |call| fill(call, Owner::Anonymous),
    },
    Command {
        name: "kfill",
        syntax: Syntax { options: &[IN_BLOCKS, JSON], operands: SIZE },
        summary: "take kernel memory, which cannot be moved",
        details: "\
As `fill`, but from Normal zones only, as the kernel's own data: the blocks
that it lies in cannot go offline before it is freed.",
        example: "kfill 4M --in 0",
        run: |call| fill(call, Owner::Kfill),
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
        details: "ID is what `fill` or `kfill` printed.",
        example: "free 1",
        run: free,
    },
];

/// Every fill there is, its number being the key of its content. One that is being checked or freed is locked by itself.
static FILLS: Mutex<Registry> = Mutex::new(Registry { fills: Vec::new(), next_id: 1 });

struct Registry {
    fills: Vec<(u64, Arc<Mutex<Fill>>)>,
    next_id: u64,
}

/// The numbers of all fills.
pub(super) fn ids() -> Vec<u64> {
    FILLS.lock().fills.iter().map(|(id, _)| *id).collect()
}

/// What `fill -J` prints; the field names are a contract.
#[derive(Serialize)]
struct Filled {
    id: u64,
    size: u64,
}

impl Filled {
    fn of(fill: &Fill) -> Self {
        Self { id: fill.key(), size: fill.size_bytes() }
    }
}

fn fill(call: &mut Call<'_>, owner: Owner) -> Outcome {
    let word = call.arguments.operand(0).unwrap_or_default();
    let pages = size(word)?.div_ceil(PAGE_SIZE);
    if pages == 0 {
        return Err(Failure::invalid(format_args!("{} is no memory at all", Quoted(word))));
    }
    let source = Source {
        owner,
        node: call.arguments.value("--node").map(resolve::node).transpose()?,
        blocks: call.arguments.value("--in").map(online_blocks).transpose()?,
    };
    if pages > mm().memory_report().total / PAGE_SIZE {
        return Err(Failure::new(Errno::NoMemory, format_args!("{} is more than the whole machine has", Quoted(word))));
    }
    let pace = &mut TaskPace::untimed();
    let frames = source.take(pages, pace).map_err(|error| not_taken(error, pages))?;
    let id = {
        let mut registry = FILLS.lock();
        registry.next_id += 1;
        registry.next_id - 1
    };
    let fill = Fill::write(id, frames, pace).map_err(|_| Failure::cancelled())?;
    let filled = Filled::of(&fill);
    FILLS.lock().fills.push((id, Arc::new(Mutex::new(fill))));
    call.show(&filled, |filled| format!("fill {}\n", filled.id));
    Ok(())
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
    match error {
        TakeError::TooLittle { taken } => {
            let taken = Human(taken * PAGE_SIZE);
            Failure::new(
                error.errno(),
                format_args!("only {taken} of {wanted} could be had, and all of it was given back"),
            )
        }
        TakeError::KernelShort => {
            Failure::new(error.errno(), format_args!("{wanted} would not leave the kernel enough"))
        }
        TakeError::Injected(_) | TakeError::Stopped(_) => Failure::new(error.errno(), error),
    }
}

/// The fill that a word names.
fn find(word: &str) -> Result<(u64, Arc<Mutex<Fill>>), Failure> {
    let id = number(word, "the ID of a fill")?;
    let registry = FILLS.lock();
    let found = registry.fills.iter().find(|(known, _)| *known == id);
    found.cloned().ok_or_else(|| unknown(id))
}

fn unknown(id: u64) -> Failure {
    Failure::new(Errno::NoEntry, format_args!("there is no fill {id}"))
}

/// What `verify -J` prints.
#[derive(Serialize)]
struct Verified {
    fills: Vec<Filled>,
}

fn verify(call: &mut Call<'_>) -> Outcome {
    let wanted = match call.arguments.operand(0) {
        Some(word) => [find(word)?].into(),
        None => FILLS.lock().fills.clone(),
    };
    let mut fills = Vec::new();
    for (_, fill) in wanted {
        let mut fill = fill.lock();
        check(&mut fill)?;
        fills.push(Filled::of(&fill));
    }
    call.show(&Verified { fills }, |report| {
        if report.fills.is_empty() {
            return "nothing is filled\n".into();
        }
        report.fills.iter().map(|fill| format!("fill {}: {} as written\n", fill.id, Human(fill.size))).collect()
    });
    Ok(())
}

fn check(fill: &mut Fill) -> Outcome {
    let id = fill.key();
    fill.check(&mut TaskPace::untimed()).map_err(|error| match error {
        CheckError::Wrong { page, address } => {
            let sentence = format_args!("page {page} of fill {id} is not what was written, at address {address:#x}");
            Failure::new(Errno::Io, sentence)
        }
        CheckError::Stopped(_) => Failure::cancelled(),
    })
}

fn free(call: &mut Call<'_>) -> Outcome {
    let id = number(call.arguments.operand(0).unwrap_or_default(), "the ID of a fill")?;
    // Who takes it out of the registry is the one who frees it.
    let fill = {
        let mut registry = FILLS.lock();
        let index = registry.fills.iter().position(|(known, _)| *known == id).ok_or_else(|| unknown(id))?;
        registry.fills.remove(index).1
    };
    // Whoever checks it now keeps it until the check is over.
    fill.lock().free();
    Ok(())
}
