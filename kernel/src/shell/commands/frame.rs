//! `page`: everything that is known of one frame; `poison`: it has an error.

use super::super::arguments::{Count, JSON, Kind, Operand, Syntax};
use super::super::call::Call;
use super::super::failure::{Failure, Outcome, Quoted};
use super::super::values::address;
use super::Command;
use crate::fill::registry::{self, Pin};
use crate::memory::mm;
use crate::pace::TaskPace;
use alloc::format;
use alloc::string::{String, ToString};
use mm::addr::{MAX_PHYS_BITS, PAGE_SIZE, Pfn, SectionId};
use mm::frame::page::PAGE_INFO_SIZE;
use mm::observe::report::{FrameReport, FrameState};
use mm::plural::Plural;
use mm::section::kind::MemmapPlace;
use serde::Serialize;

pub(super) const NS_PER_SECOND: u64 = 1_000_000_000;

const FRAME: &[Operand] = &[Operand { name: "ADDR|pfn:N", kind: Kind::Free, count: Count::One }];

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "page",
        syntax: Syntax { options: &[JSON], operands: FRAME },
        summary: "show what one frame is and whose",
        details: "\
A frame is 4 KiB of physical memory; its number (pfn) is its address / 4096.
The frame is given by any address in it (0x1_0000_0000, 4G) or by its number.

free       nobody's                 memmap    holds struct pages or page tables
allocated  somebody's, see owner              of its own section or group
reserved   firmware, kernel image   offline   its block is not in use
absent     there is no memory       poisoned  has an error, see `help poison`
withheld   its block is not to be trusted, see `help meminfo`

Of kernel memory it also says when it was taken, in seconds since boot, and by
which line of the source; of a pinned page, since when and of which fill.

The first frames of a hot-added block hold the struct pages of that block: the
altmap. Try `page` on the first address of one.",
        example: "page 0x1_0000_0000; page pfn:0x100",
        run: page,
    },
    Command {
        name: "poison",
        syntax: Syntax { options: &[], operands: FRAME },
        summary: "do what a memory error does to a frame",
        details: "\
The frame is taken out of use for good: nobody gets it again, also when its
block goes offline and comes back. What it holds is moved elsewhere first, if
that can move; of a large page only that frame, if it can be split.

Refused, and nothing is changed, if there is nowhere to move what it holds.
Refused, but remembered, if the kernel holds the frame and cannot move it, or if
it is pinned: as soon as it is given back it goes out of use, and nobody else
gets it. The frame of an offline block is taken out when the block comes online.

`meminfo` counts poisoned memory, which is no part of the total any more, and as
`faulty` what is still held. It is forgotten when the block is removed, as that
takes the hardware away.",
        example: "poison 0x1_0800_0000; poison pfn:0x108000",
        run: poison,
    },
];

/// What `page X -J` prints; the first seven names are a contract.
#[derive(Serialize)]
struct Frame {
    pfn: u64,
    block: Option<u32>,
    node: Option<u8>,
    zone: Option<&'static str>,
    state: &'static str,
    owner: &'static str,
    refs: u32,
    /// The first frame of the free or allocated block that holds it.
    head: Option<u64>,
    order: Option<usize>,
    /// Where in the source it was taken, if it is unmovable.
    site: Option<String>,
    /// And when: nanoseconds since boot, to the second.
    since_ns: Option<u64>,
    /// The frames whose struct pages it holds, if it lies in an altmap.
    describes: Option<[u64; 2]>,
    /// It holds page tables of its own group.
    tables_of: Option<String>,
    /// Since when somebody keeps it there, and what.
    pinned: Option<Pinned>,
}

#[derive(Serialize)]
struct Pinned {
    fill: u64,
    page: u64,
    since_ns: u64,
}

/// The frame that the command is about.
fn frame_of(call: &Call<'_>) -> Result<Pfn, Failure> {
    let word = call.arguments.operand(0).unwrap_or_default();
    let address = address(word)?;
    if address >> MAX_PHYS_BITS != 0 {
        return Err(Failure::invalid(format_args!("{} is beyond the address width", Quoted(word))));
    }
    Ok(Pfn::containing(address))
}

fn poison(call: &mut Call<'_>) -> Outcome {
    let pfn = frame_of(call)?;
    mm().poison(pfn, &mut TaskPace::untimed())?;
    log::info!(target: "memory", "{pfn} is poisoned and out of use");
    Ok(())
}

fn page(call: &mut Call<'_>) -> Outcome {
    let found = mm().frame_report(frame_of(call)?);
    let report = Frame {
        pfn: found.pfn.number(),
        block: found.block.map(SectionId::number),
        node: found.node.map(|node| node.number()),
        zone: found.zone.map(|zone| zone.name()),
        state: found.state.name(),
        owner: found.owner.name(),
        refs: found.refs,
        head: found.block_head.map(|(head, _)| head.number()),
        order: found.block_head.map(|(_, order)| order.index()),
        site: found.site.map(|site| site.to_string()),
        since_ns: found.since_ns,
        describes: altmap_index(&found).flatten().map(|index| described(&found, index)),
        tables_of: altmap_index(&found).filter(Option::is_none).and_then(|_| group_of(&found)),
        pinned: registry::pin_of(found.pfn).map(|Pin { fill, page, since_ns }| Pinned { fill, page, since_ns }),
    };
    call.show(&report, text);
    Ok(())
}

/// Which page of struct pages a frame of an altmap is, or none of them: page tables of the group lie before those.
fn altmap_index(found: &FrameReport) -> Option<Option<u64>> {
    let section = mm().section(found.block?)?;
    let in_altmap = found.state == FrameState::Memmap && section.memmap == MemmapPlace::Head;
    in_altmap.then(|| found.pfn.index_in_section().checked_sub(section.table_frames()))
}

/// The first and last frame whose struct pages lie in page `index` of the altmap.
fn described(found: &FrameReport, index: u64) -> [u64; 2] {
    let per_frame = PAGE_SIZE / PAGE_INFO_SIZE;
    let first = found.pfn.section().pages().start().add(index * per_frame);
    [first.number(), first.number() + per_frame - 1]
}

fn group_of(found: &FrameReport) -> Option<String> {
    let section = mm().section(found.block?)?;
    mm().group(section.group).map(|group| group.name.to_string())
}

fn text(frame: &Frame) -> String {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let mut text = String::new();
    let mut line = |name: &str, value: String| text += &format!("{name:<8}{value}\n");
    line("pfn", format!("{:#x} (address {:#x})", frame.pfn, frame.pfn * PAGE_SIZE));
    line("block", or_dash(frame.block.map(|block| block.to_string())));
    line("node", or_dash(frame.node.map(|node| node.to_string())));
    line("zone", or_dash(frame.zone.map(Into::into)));
    line("state", frame.state.into());
    line("owner", frame.owner.into());
    line("refs", frame.refs.to_string());
    if let (Some(head), Some(order)) = (frame.head, frame.order) {
        line("part of", format!("{} from pfn {head:#x} (order {order})", Plural(1 << order, "frame")));
    }
    if let (Some(site), Some(since_ns)) = (&frame.site, frame.since_ns) {
        line("taken", format!("at {} s by {site}", since_ns / NS_PER_SECOND));
    }
    if let Some([first, last]) = frame.describes {
        line("holds", format!("the struct pages of pfn {first:#x} to {last:#x}"));
    }
    if let Some(group) = &frame.tables_of {
        line("holds", format!("page tables that map {group}"));
    }
    if let Some(Pinned { fill, page, since_ns }) = frame.pinned {
        line("pinned", format!("at {} s, as page {page} of fill {fill}", since_ns / NS_PER_SECOND));
    }
    text
}
