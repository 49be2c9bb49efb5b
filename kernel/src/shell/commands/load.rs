//! `fill`, `kfill`, `verify` and `free`: memory that is really used, with content that can be checked.

use super::super::arguments::{Among, Count, JSON, Kind, Operand, OptionSpec, Syntax};
use super::super::call::{Call, breathe};
use super::super::failure::{Failure, Outcome, Quoted};
use super::super::values::{Human, number, size};
use super::{Command, resolve};
use crate::memory::{FrameList, OwnedFrames, mm};
use crate::sync::Mutex;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::Errno;
use mm::addr::{NodeId, Order, PAGE_SIZE, Pfn, SectionRange};
use mm::alloc::{AllocError, Mobility, Place, Request, Urgency};
use mm::memory::{KERNEL_PAGES, RESERVE_PAGES};
use mm::page::Owner;
use mm::section::ZoneKind;
use serde::Serialize;

type Page = [u8; PAGE_SIZE as usize];

/// Frames handled between two looks at Ctrl-C and the other tasks.
const BATCH: u64 = 64;

/// Bytes that a fill leaves free in Normal zones: the reserve of hotplug, and what the kernel itself needs to go on.
const LEFT_FREE: u64 = (RESERVE_PAGES + KERNEL_PAGES) * PAGE_SIZE;

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
        run: |call| fill(call, Owner::Fill),
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

/// Memory taken by one `fill`.
struct Fill {
    id: u64,
    frames: FrameList,
}

/// Every fill there is. One that is being checked or freed is locked by itself.
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
    let mut frames = source.take(pages)?;
    let id = {
        let mut registry = FILLS.lock();
        registry.next_id += 1;
        registry.next_id - 1
    };
    write(id, &mut frames)?;
    let filled = Filled { id, size: frames.page_count() * PAGE_SIZE };
    FILLS.lock().fills.push((id, Arc::new(Mutex::new(Fill { id, frames }))));
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

/// Where the frames of a fill come from.
struct Source {
    owner: Owner,
    node: Option<NodeId>,
    blocks: Option<Vec<SectionRange>>,
}

impl Source {
    /// Takes frames; what was taken is given back if not all can be had.
    fn take(&self, pages: u64) -> Result<FrameList, Failure> {
        let mut taken = FrameList::new();
        // Inside blocks large pieces first: each request there looks for its piece from the first frame on.
        let mut order = if self.blocks.is_some() { Order::MAX } else { Order::PAGE };
        // The first block counts as a whole batch, so that small fills look, too.
        let mut since_breath = BATCH;
        let mut last = Pfn::new(0);
        while taken.page_count() < pages {
            let missing = pages - taken.page_count();
            while order.pages() > missing {
                order = order.smaller().expect("one page is not more than what is missing");
            }
            match self.take_one(order) {
                Ok(frames) => {
                    last = frames.head();
                    taken.push(frames);
                }
                Err(AllocError::OutOfMemory) => match order.smaller() {
                    Some(smaller) => order = smaller,
                    None => return Err(too_little(&taken, pages)),
                },
                Err(injected) => return Err(injected.into()),
            }
            since_breath += order.pages();
            if since_breath >= BATCH {
                since_breath = 0;
                breathe()?;
                if is_normal(last) && kernel_is_short() {
                    let sentence = format_args!("{} would not leave the kernel enough", Human(pages * PAGE_SIZE));
                    return Err(Failure::new(Errno::NoMemory, sentence));
                }
            }
        }
        Ok(taken)
    }

    fn take_one(&self, order: Order) -> Result<OwnedFrames, AllocError> {
        let mobility = if self.owner == Owner::Fill { Mobility::Movable } else { Mobility::Unmovable };
        let place = self.node.map_or(Place::Near(NodeId::ZERO), Place::On);
        let request = Request { order, mobility, place, owner: self.owner, urgency: Urgency::Ordinary };
        let Some(blocks) = &self.blocks else {
            return OwnedFrames::allocate(&request);
        };
        for range in blocks {
            match OwnedFrames::allocate_within(&request, *range) {
                Err(AllocError::OutOfMemory) => {}
                found => return found,
            }
        }
        Err(AllocError::OutOfMemory)
    }
}

fn too_little(taken: &FrameList, pages: u64) -> Failure {
    Failure::new(
        Errno::NoMemory,
        format_args!(
            "only {} of {} could be had, and all of it was given back",
            Human(taken.page_count() * PAGE_SIZE),
            Human(pages * PAGE_SIZE)
        ),
    )
}

fn is_normal(frame: Pfn) -> bool {
    mm().section(frame.section()).and_then(|section| section.state.zone()) == Some(ZoneKind::Normal)
}

/// Whether Normal zones have no more than the kernel itself may need.
pub(super) fn kernel_is_short() -> bool {
    let mut free = 0;
    mm().for_each_zone(|zone| {
        if zone.kind == ZoneKind::Normal {
            free += zone.free;
        }
    });
    free < LEFT_FREE
}

fn write(id: u64, frames: &mut FrameList) -> Outcome {
    let mut pages = 0;
    frames.try_for_each(|block| {
        for page in block.bytes_mut().as_chunks_mut().0 {
            write_page(id, pages, page);
            pages += 1;
            if pages % BATCH == 0 {
                breathe()?;
            }
        }
        Ok(())
    })
}

fn write_page(id: u64, index: u64, page: &mut Page) {
    for (word, bytes) in content(id, index).zip(page.as_chunks_mut().0) {
        *bytes = word.to_le_bytes();
    }
}

/// The offset of the first wrong word of a page.
fn first_difference(id: u64, index: u64, page: &Page) -> Option<usize> {
    let mut words = content(id, index).zip(page.as_chunks().0);
    words.position(|(word, bytes)| word.to_le_bytes() != *bytes).map(|word| word * size_of::<u64>())
}

/// The words of page `index` of fill `id`. Neither depends on where the page lies, so that it may move.
fn content(id: u64, index: u64) -> impl Iterator<Item = u64> {
    let first = mix(mix(id) ^ index);
    (0..PAGE_SIZE / 8).map(move |n| first.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// Spreads the bits of a number over the whole word.
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let n = (n ^ (n >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    n ^ (n >> 33)
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
        fills.push(Filled { id: fill.id, size: fill.frames.page_count() * PAGE_SIZE });
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
    let id = fill.id;
    let mut pages = 0;
    fill.frames.try_for_each(|block| {
        for (place, page) in block.bytes().as_chunks().0.iter().enumerate() {
            if let Some(offset) = first_difference(id, pages, page) {
                let at = block.head().address() + place as u64 * PAGE_SIZE + offset as u64;
                let sentence = format_args!("page {pages} of fill {id} is not what was written, at address {at:#x}");
                return Err(Failure::new(Errno::Io, sentence));
            }
            pages += 1;
            if pages % BATCH == 0 {
                breathe()?;
            }
        }
        Ok(())
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
    let mut fill = fill.lock();
    let mut blocks = 0;
    while let Some(block) = fill.frames.pop() {
        drop(block);
        blocks += 1;
        if blocks % BATCH == 0 {
            crate::task::yield_now();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_different_fills_and_places_differ_in_every_word() {
        let page = |id, index| -> Vec<u64> { content(id, index).collect() };
        let reference = page(1, 0);
        assert_eq!(reference.len(), 512);
        for other in [page(2, 0), page(1, 1), page(1, 512)] {
            assert!(reference.iter().zip(&other).all(|(a, b)| a != b));
        }
    }

    #[test]
    fn any_changed_byte_of_a_page_is_found() {
        let mut page: Page = [0; PAGE_SIZE as usize];
        write_page(7, 3, &mut page);
        assert_eq!(first_difference(7, 3, &page), None);
        for offset in [0, 7, 8, 2049, page.len() - 1] {
            page[offset] ^= 1;
            assert_eq!(first_difference(7, 3, &page), Some(offset / 8 * 8));
            page[offset] ^= 1;
        }
        assert_eq!(first_difference(7, 4, &page), Some(0));
    }
}
