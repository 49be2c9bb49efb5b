//! `bench`: what the allocator costs on this machine, and whether memory that was scattered comes back whole.

use super::super::arguments::{Count, JSON, Kind, Operand, OptionSpec, Syntax};
use super::super::call::{Call, breathe};
use super::super::failure::{Failure, Outcome, Quoted};
use super::super::values::number;
use super::Command;
use crate::memory::{FrameList, OwnedFrames, mm};
use crate::pace::SteadyPace;
use crate::{arch, task};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use mm::Errno;
use mm::addr::{NodeId, Order, PAGES_PER_SECTION, SectionId, SectionRange};
use mm::alloc::request::{AllocError, Place, Request, Urgency};
use mm::frame::mobility::Mobility;
use mm::frame::page::Owner;
use mm::record::policy::OnlineAs;
use mm::section::kind::Origin;
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;
use mm::section::word::Section;
use mm::site::Site;
use serde::Serialize;

mod migrate;

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
open       take the first frame of an added block that nobody has used, and
           how long interrupts were off meanwhile
online     bring the last block that is offline into use and out of it again:
           untouched, and when it has been opened
scatter    take all memory frame by frame, writing nothing, and give it back in
           random order: the free pageblocks before and after, which must be
           the same (EIO if not)
migrate    move pages of an address space elsewhere, per page of 4 KiB; beside
           that, what copying one takes, moving, copying and splitting a page of
           2 MiB, touching a page for the first time, and how long interrupts
           were off

Costs are ticks of the time-stamp counter; under QEMU's -icount shift=0 a tick
is an instruction. The first sample often pays for what the others find done.",
    example: "bench page; bench scatter --seed 7; bench -l",
    run: bench,
}];

const NAMES: &[&str] = &["page", "pageblock", "open", "online", "scatter", "migrate"];

/// Samples of the quick ones; the first of them finds nothing at hand.
const SAMPLES: usize = 32;
/// Rounds of the slower ones.
const ROUNDS: usize = 8;
/// Blocks that are opened, at most.
const OPENED: usize = 8;
/// Frames are scattered over so many lists, which are given back one after the other.
const LISTS: usize = 1024;
/// Frames handled between two looks at Ctrl-C and the other tasks.
const BATCH: usize = 64;

const TICKS: &str = "ticks";

/// What `bench NAME -J` prints; the first three names are a contract.
#[derive(Serialize)]
struct Measured {
    bench: &'static str,
    unit: &'static str,
    samples: Vec<u64>,
    /// Frames that were taken and given back.
    frames: u64,
    /// What was seen beside, by name.
    #[serde(flatten)]
    beside: BTreeMap<&'static str, Vec<u64>>,
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
        "online" => online()?,
        "scatter" => scatter(seed.unwrap_or(1))?,
        "migrate" => migrate::measure()?,
        _ => return Err(Failure::invalid(format_args!("there is no measurement {}, see bench -l", Quoted(word)))),
    };
    call.show(&measured, people);
    Ok(())
}

fn people(measured: &Measured) -> String {
    let line = |name: &str, samples: &[u64]| {
        let samples: Vec<String> = samples.iter().map(ToString::to_string).collect();
        format!("{name}, {}: {}\n", measured.unit, samples.join(" "))
    };
    let beside = measured.beside.iter().map(|(name, samples)| line(name, samples));
    core::iter::once(line(measured.bench, &measured.samples)).chain(beside).collect()
}

fn movable(order: Order) -> Request {
    let place = Place::Near(NodeId::ZERO);
    Request {
        order,
        mobility: Mobility::Movable,
        place,
        owner: Owner::Selftest,
        urgency: Urgency::Ordinary,
        site: Site::here(),
    }
}

/// What `work` gives, and how long it takes.
fn timed<R>(work: impl FnOnce() -> R) -> (R, u64) {
    let start = arch::ticks();
    let result = work();
    (result, arch::ticks() - start)
}

fn pairs(bench: &'static str, order: Order) -> Result<Measured, Failure> {
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let (result, ticks) = timed(|| OwnedFrames::allocate(&movable(order)).map(drop));
        result?;
        samples.push(ticks);
    }
    let frames = SAMPLES as u64 * order.pages();
    Ok(Measured { bench, unit: TICKS, samples, frames, beside: BTreeMap::new() })
}

fn open() -> Result<Measured, Failure> {
    let is_wanted = |section: &Section| section.is_untouched() && section.origin == Origin::Added;
    let untouched = mm().block_runs().filter(|(_, section)| is_wanted(section));
    let blocks: Vec<SectionId> = untouched.flat_map(|(run, _)| run.iter()).take(OPENED).collect();
    let (mut samples, mut irqs_off) = (Vec::with_capacity(OPENED), Vec::with_capacity(OPENED));
    for id in blocks {
        breathe()?;
        let take = || OwnedFrames::allocate_within(&movable(Order::PAGE), SectionRange::single(id)).map(drop);
        let ((result, ticks), off) = arch::worst_irqs_off(|| timed(take));
        result?;
        samples.push(ticks);
        irqs_off.push(off);
    }
    if samples.is_empty() {
        return Err(Failure::new(Errno::NoEntry, "no added block is untouched; bring one online first"));
    }
    let frames = samples.len() as u64;
    Ok(Measured { bench: "open", unit: TICKS, samples, frames, beside: [("irqs_off", irqs_off)].into() })
}

fn online() -> Result<Measured, Failure> {
    let is_offline = |section: &Section| section.state == BlockState::Offline && section.origin == Origin::Added;
    let last = mm().blocks().rev().find(|(_, section)| is_offline(section));
    let (id, _) = last.ok_or_else(|| Failure::new(Errno::NoEntry, "no added block is offline"))?;
    let block = [SectionRange::single(id)];
    let come = || mm().online(&block, OnlineAs::Zone(ZoneKind::Movable), &mut SteadyPace);
    // A wish to stop is heard between the rounds, so that the block is offline again.
    let go = || mm().offline(&block, &mut SteadyPace);
    let new = || Vec::with_capacity(ROUNDS);
    let (mut samples, mut offline, mut offline_opened) = (new(), new(), new());
    for _ in 0..ROUNDS {
        breathe()?;
        for (opens, times) in [(false, &mut offline), (true, &mut offline_opened)] {
            let (came, ticks) = timed(come);
            came?;
            samples.push(ticks);
            if opens {
                drop(OwnedFrames::allocate_within(&movable(Order::PAGE), block[0])?);
            }
            let (went, ticks) = timed(go);
            went?;
            times.push(ticks);
        }
    }
    let beside = [("offline", offline), ("offline_opened", offline_opened)].into();
    Ok(Measured { bench: "online", unit: TICKS, samples, frames: ROUNDS as u64, beside })
}

fn scatter(seed: u64) -> Result<Measured, Failure> {
    let mut lists: Vec<FrameList> = (0..LISTS).map(|_| FrameList::new()).collect();
    let before = whole_pageblocks()?;
    let taken = take_everything(&mut lists, seed);
    // One list after the other: each holds a random part of all frames. Also who stops here gives all of them back.
    for list in &mut lists {
        while list.page_count() > 0 {
            task::yield_now();
            (0..BATCH).map_while(|_| list.pop()).for_each(drop);
        }
    }
    let frames = taken?;
    let after = whole_pageblocks()?;
    if after != before {
        let sentence = format_args!("{before} free pageblocks became {after} by taking and freeing {frames} frames");
        return Err(Failure::new(Errno::Io, sentence));
    }
    let (unit, samples) = ("free pageblocks before and after", [before, after].into());
    Ok(Measured { bench: "scatter", unit, samples, frames, beside: BTreeMap::new() })
}

/// Takes what the kernel can do without, and deals it out to the lists.
fn take_everything(lists: &mut [FrameList], seed: u64) -> Result<u64, Failure> {
    let mut frames = 0;
    let mut random = seed;
    loop {
        breathe()?;
        for _ in 0..BATCH {
            let frame = match OwnedFrames::allocate(&Request { urgency: Urgency::Bulk, ..movable(Order::PAGE) }) {
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
fn whole_pageblocks() -> Result<u64, Failure> {
    mm().drain_caches();
    let mut whole = 0;
    for id in mm().block_runs().flat_map(|(run, _)| run.iter()) {
        breathe()?;
        whole += whole_pageblocks_of(id)?;
    }
    Ok(whole)
}

/// Those of a block, which the keeper may be about to open or to close.
fn whole_pageblocks_of(id: SectionId) -> Result<u64, Failure> {
    loop {
        match mm().section(id) {
            Some(section) if section.is_untouched() => {
                return Ok((PAGES_PER_SECTION - section.head_frames()) / Order::PAGEBLOCK.pages());
            }
            Some(section) if section.is_touched() => {
                if let Some(groups) = mm().free_groups(id) {
                    return Ok(groups.whole[Order::PAGEBLOCK.index()] + 2 * groups.whole[Order::MAX.index()]);
                }
            }
            _ => return Ok(0),
        }
        breathe()?;
        task::yield_now();
    }
}
