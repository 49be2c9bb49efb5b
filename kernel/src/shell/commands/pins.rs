//! `pin` and `unpin`: references to memory that keep it where it is, as a device that writes to it takes them.

use super::super::arguments::{Count, JSON, Kind, Operand, OptionSpec, Syntax};
use super::super::call::Call;
use super::super::failure::{Failure, Outcome};
use super::super::values::number;
use super::Command;
use super::load::{find, unknown};
use crate::fill::registry::Entry;
use crate::fill::{self, Fill, PinFailure, Pinned};
use crate::pace::TaskPace;
use crate::sources;
use crate::vm::PinMode;
use alloc::format;
use mm::plural::Plural;
use serde::Serialize;

const WHICH: &[Operand] = &[
    Operand { name: "ID", kind: Kind::Fill, count: Count::One },
    Operand { name: "PAGE", kind: Kind::Free, count: Count::Optional },
];

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "pin",
        syntax: Syntax {
            options: &[
                OptionSpec { name: "--stay", value: None, help: "where it is, also if that is in a Movable zone" },
                JSON,
            ],
            operands: WHICH,
        },
        summary: "keep a fill where it is, or a page of it",
        details: "\
A reference as a device holds it that reads or writes the memory by itself: its
block cannot go offline before `unpin` gives the reference up (`why` tells whose
it is). So a page in a Movable zone is moved out of it first, unless --stay says
otherwise: ENOMEM if there is no place for it elsewhere. PAGE counts pages of
4 KiB from 0; without it all are pinned, or none. Pins are counted.",
        example: "pin 1 0; pin 1 --stay",
        run: pin,
    },
    Command {
        name: "unpin",
        syntax: Syntax { options: &[JSON], operands: WHICH },
        summary: "let a fill go elsewhere again, or a page of it",
        details: "\
Gives up one pin of the page, or one of each page: EINVAL if there is none.",
        example: "unpin 1 0",
        run: unpin,
    },
];

/// What `pin -J` prints; the field names are a contract.
#[derive(Serialize)]
struct PinReport {
    id: u64,
    pages: u64,
    /// Pages that were moved out of Movable zones first.
    moved: u64,
    /// Where the first of them stays.
    pfn: u64,
}

/// What `unpin -J` prints.
#[derive(Serialize)]
struct UnpinReport {
    id: u64,
    pages: u64,
}

fn pin(call: &mut Call<'_>) -> Outcome {
    let how = if call.arguments.has("--stay") { PinMode::Stay } else { PinMode::Move };
    let (entry, page) = named(call)?;
    let _change = fill::change();
    let Pinned { pages, first, moved, held_blocks } =
        work(&entry, |fill| fill.pin(page, how, &mut TaskPace::untimed()))?;
    for block in held_blocks {
        log::warn!(target: "pin", "block {block} cannot go offline while fill {} is pinned in it", entry.id);
    }
    call.show(&PinReport { id: entry.id, pages, moved, pfn: first.number() }, |report| {
        format!(
            "fill {}: pinned {} from pfn:{:#x} on, moved {}\n",
            report.id,
            Plural(report.pages, "page"),
            report.pfn,
            report.moved
        )
    });
    Ok(())
}

fn unpin(call: &mut Call<'_>) -> Outcome {
    let (entry, page) = named(call)?;
    let pages = work(&entry, |fill| fill.unpin(page))?;
    sources::relieve();
    call.show(&UnpinReport { id: entry.id, pages }, |report| {
        format!("fill {}: unpinned {}\n", report.id, Plural(report.pages, "page"))
    });
    Ok(())
}

/// The fill, and the page of it.
fn named(call: &Call<'_>) -> Result<(alloc::sync::Arc<Entry>, Option<u64>), Failure> {
    let entry = find(call.arguments.operand(0).unwrap_or_default())?;
    let page = call.arguments.operand(1).map(|word| number(word, "the number of a page")).transpose()?;
    Ok((entry, page))
}

fn work<R>(entry: &Entry, work: impl FnOnce(&mut Fill) -> Result<R, PinFailure>) -> Result<R, Failure> {
    let done = entry.with(work).ok_or_else(|| unknown(entry.id))?;
    done.map_err(|error| match error {
        PinFailure::Stopped(_) => Failure::cancelled(),
        other => Failure::new(other.errno(), format_args!("fill {}: {other}", entry.id)),
    })
}
