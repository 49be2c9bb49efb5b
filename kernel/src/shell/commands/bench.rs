//! `bench`: what the allocator costs on this machine, and whether memory that was scattered comes back whole.

use super::super::arguments::{Count, JSON, Kind, Operand, OptionSpec, Syntax};
use super::super::call::{Call, breathe};
use super::super::failure::{Failure, Outcome, Quoted};
use super::super::values::number;
use super::Command;
use super::load::kernel_is_short;
use crate::arch;
use crate::memory::{FrameList, OwnedFrames, mm};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use mm::Errno;
use mm::addr::{NodeId, Order, PAGES_PER_SECTION, SectionId, SectionRange};
use mm::alloc::{AllocError, Mobility, Place, Request, Urgency};
use mm::page::Owner;
use serde::Serialize;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "bench",
    syntax: Syntax {
        options: &[
            OptionSpec { name: "-l", value: None, help: "list the measurements" },
            OptionSpec { name: "--seed", value: Some(("N", Kind::Free)), help: "for scatter: another order (1)" },
            JSON,
        ],
        operands: &[Operand { name: "NAME", kind: Kind::OneOf(NAMES), count: Count::Optional }],
    },
    summary: "measure the allocator, or list the measurements",
    details: "\
page       take a frame and give it back
pageblock  the same with 2 MiB
open       take the first frame of a block that nobody has used
scatter    take all memory frame by frame, writing nothing, and give it back in
           random order: the free pageblocks before and after, which must be
           the same (EIO if not)

Costs are ticks of the time-stamp counter; under QEMU's -icount shift=0 a tick
is an instruction.",
    example: "bench page; bench scatter --seed 7; bench -l",
    run: bench,
}];

const NAMES: &[&str] = &["page", "pageblock", "open", "scatter"];

/// Samples of the quick ones; the first of them finds nothing at hand.
const SAMPLES: usize = 32;
/// Blocks that are opened, at most.
const OPENED: usize = 8;
/// Frames are scattered over so many lists, which are given back one after the other.
const LISTS: usize = 1024;
/// Frames handled between two looks at Ctrl-C and the other tasks.
const BATCH: usize = 64;

/// What `bench NAME -J` prints; the first three names are a contract.
#[derive(Serialize)]
struct Measured {
    bench: &'static str,
    unit: &'static str,
    samples: Vec<u64>,
    /// Frames that were taken and given back.
    frames: u64,
}

/// What `bench -l -J` prints.
#[derive(Serialize)]
struct Names {
    benches: &'static [&'static str],
}

fn bench(call: &mut Call<'_>) -> Outcome {
    let arguments = call.arguments;
    let word = match (arguments.operand(0), arguments.has("-l")) {
        (Some(word), false) => word,
        (Some(_), true) => return Err(Failure::invalid("-l goes without a name")),
        (None, _) => {
            call.show(&Names { benches: NAMES }, |names| names.benches.join("\n") + "\n");
            return Ok(());
        }
    };
    let seed = arguments.value("--seed").map(|word| number(word, "a seed")).transpose()?;
    if seed.is_some() && word != "scatter" {
        return Err(Failure::invalid("--seed goes with scatter"));
    }
    let measured = match word {
        "page" => pairs("page", Order::PAGE)?,
        "pageblock" => pairs("pageblock", Order::PAGEBLOCK)?,
        "open" => open()?,
        "scatter" => scatter(seed.unwrap_or(1))?,
        _ => return Err(Failure::invalid(format_args!("there is no measurement {}, see bench -l", Quoted(word)))),
    };
    call.show(&measured, people);
    Ok(())
}

fn people(measured: &Measured) -> String {
    let samples: Vec<String> = measured.samples.iter().map(ToString::to_string).collect();
    format!("{}, {}: {}\n", measured.bench, measured.unit, samples.join(" "))
}

fn movable(order: Order) -> Request {
    let place = Place::Near(NodeId::ZERO);
    Request { order, mobility: Mobility::Movable, place, owner: Owner::Fill, urgency: Urgency::Ordinary }
}

fn pairs(bench: &'static str, order: Order) -> Result<Measured, Failure> {
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let start = arch::ticks();
        drop(OwnedFrames::allocate(&movable(order))?);
        samples.push(arch::ticks() - start);
    }
    Ok(Measured { bench, unit: "ticks", samples, frames: SAMPLES as u64 * order.pages() })
}

fn open() -> Result<Measured, Failure> {
    let untouched = mm().blocks().filter(|(_, section)| section.is_untouched());
    let blocks: Vec<SectionId> = untouched.map(|(id, _)| id).take(OPENED).collect();
    let mut samples = Vec::with_capacity(OPENED);
    for id in blocks {
        breathe()?;
        let start = arch::ticks();
        drop(OwnedFrames::allocate_within(&movable(Order::PAGE), SectionRange::single(id))?);
        samples.push(arch::ticks() - start);
    }
    if samples.is_empty() {
        return Err(Failure::new(Errno::NoEntry, "no block is untouched; bring one online first"));
    }
    let frames = samples.len() as u64;
    Ok(Measured { bench: "open", unit: "ticks", samples, frames })
}

fn scatter(seed: u64) -> Result<Measured, Failure> {
    let mut lists: Vec<FrameList> = (0..LISTS).map(|_| FrameList::new()).collect();
    let before = whole_pageblocks();
    let frames = take_everything(&mut lists, seed)?;
    // One list after the other: each holds a random part of all frames.
    for list in &mut lists {
        while list.page_count() > 0 {
            breathe()?;
            (0..BATCH).map_while(|_| list.pop()).for_each(drop);
        }
    }
    let after = whole_pageblocks();
    if after != before {
        let sentence = format_args!("{before} free pageblocks became {after} by taking and freeing {frames} frames");
        return Err(Failure::new(Errno::Io, sentence));
    }
    Ok(Measured { bench: "scatter", unit: "free pageblocks before and after", samples: [before, after].into(), frames })
}

/// Takes what the kernel can do without, and deals it out to the lists.
fn take_everything(lists: &mut [FrameList], seed: u64) -> Result<u64, Failure> {
    let mut frames = 0;
    let mut random = seed;
    loop {
        breathe()?;
        if kernel_is_short() {
            return Ok(frames);
        }
        for _ in 0..BATCH {
            let frame = match OwnedFrames::allocate(&movable(Order::PAGE)) {
                Ok(frame) => frame,
                Err(AllocError::OutOfMemory) => return Ok(frames),
                Err(injected) => return Err(injected.into()),
            };
            // Knuth's MMIX generator, of whose bits the high ones are the better ones.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            lists[(random >> 40) as usize % LISTS].push(frame);
            frames += 1;
        }
    }
}

/// Pageblocks that are free as a whole, in open and in untouched blocks.
fn whole_pageblocks() -> u64 {
    mm().drain_caches();
    let mut zones = Vec::new();
    mm().for_each_zone(|zone| zones.push((zone.node, zone.kind)));
    let in_open: u64 = zones
        .into_iter()
        .map(|(node, kind)| {
            let whole = mm().free_groups(node, kind).whole;
            whole[Order::PAGEBLOCK.index()] + 2 * whole[Order::MAX.index()]
        })
        .sum();
    let pageblock = Order::PAGEBLOCK.pages();
    let untouched = mm().blocks().filter(|(_, section)| section.is_untouched());
    let in_untouched: u64 = untouched.map(|(_, section)| (PAGES_PER_SECTION - section.head_frames()) / pageblock).sum();
    in_open + in_untouched
}
