//! `why`: would an offline work now, and if not, what is in its way?

use super::super::arguments::{Among, Count, JSON, Kind, Operand, Syntax};
use super::super::call::Call;
use super::super::failure::Outcome;
use super::super::values::Span;
use super::frame::NS_PER_SECOND;
use super::{Command, resolve};
use crate::fill::registry;
use crate::memory::mm;
use crate::pace::TaskPace;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use mm::addr::{Pfn, SectionId};
use mm::evacuate::content::{Blocker, Hold};
use mm::hotplug::preview::PreviewItem;
use mm::plural::Plural;
use mm::section::word::Section;
use serde::Serialize;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "why",
    syntax: Syntax {
        options: &[JSON],
        operands: &[Operand { name: "BLOCKS", kind: Kind::BlocksOrGroup(Among::Online), count: Count::One }],
    },
    summary: "say whether blocks could go offline now, or what forbids it",
    details: "\
Looks at what lies in the blocks, as `offline` does before anything moves, and
changes nothing. Of a block that could go it says how many pages would move. Of
one that could not it lists everything that is in the way:

kernel          the kernel points at it; of the owner `reserve`, hotplug itself
                lives on it, and too little of that is free in other blocks
page-table      it is a page table
memmap          it holds struct pages of another block
pinned          it could move, if nobody held on to it (`pin`)
no-destination  it could move, if there were room for it elsewhere

Of kernel memory it tells where in the source and when it was taken, in seconds
on the clock of the log; of pinned memory, since when and of which fill.
Listeners are not asked: one may still refuse.",
    example: "why 32-34",
    run: why,
}];

/// What `why X -J` prints; the field names are a contract.
#[derive(Serialize)]
struct Why {
    blocks: Vec<Verdict>,
    /// Pages that would move.
    movable: u64,
    /// Pages of those for which there is no room elsewhere.
    short_by: u64,
}

#[derive(Serialize)]
struct Verdict {
    block: u32,
    verdict: &'static str,
    blockers: Vec<InTheWay>,
    /// Pages that would move.
    movable: u64,
}

#[derive(Serialize)]
struct InTheWay {
    pfn: u64,
    pages: u64,
    kind: &'static str,
    owner: &'static str,
    /// Where in the source it was taken.
    site: Option<String>,
    /// When, on the clock of the log; of what is pinned, since when.
    since_ns: Option<u64>,
    /// What is pinned.
    pinned: Option<String>,
    #[serde(skip)]
    pinned_fill: Option<u64>,
}

impl InTheWay {
    fn of(blocker: &Blocker) -> Self {
        let Blocker { pfn, pages, hold, owner, site, since_ns } = *blocker;
        let kind = match hold {
            Hold::Kernel => "kernel",
            Hold::PageTable => "page-table",
            Hold::Memmap => "memmap",
            Hold::Pinned => "pinned",
        };
        let site = site.map(|site| site.to_string());
        let pin = if hold == Hold::Pinned { registry::pin_of(pfn) } else { None };
        let since_ns = since_ns.or(pin.map(|pin| pin.since_ns));
        let pinned = pin.map(|pin| format!("page {} of fill {}", pin.page, pin.fill));
        let pinned_fill = pin.map(|pin| pin.fill);
        Self { pfn: pfn.number(), pages, kind, owner: owner.name(), site, since_ns, pinned, pinned_fill }
    }

    /// Adds it to the last of `list` if that is more of the same pinned fill; the first page stands for all.
    fn add_to(self, list: &mut Vec<Self>) {
        match list.last_mut() {
            Some(last)
                if self.pinned_fill.is_some()
                    && last.pinned_fill == self.pinned_fill
                    && last.pfn + last.pages == self.pfn =>
            {
                last.pages += self.pages;
            }
            _ => list.push(self),
        }
    }

    /// Free frames that hotplug itself lives on, anywhere in the block.
    fn reserve(block: SectionId, pages: u64) -> Self {
        let pfn = block.pages().start().number();
        Self {
            pfn,
            pages,
            kind: "kernel",
            owner: "reserve",
            site: None,
            since_ns: None,
            pinned: None,
            pinned_fill: None,
        }
    }

    fn homeless(first: Pfn, pages: u64) -> Self {
        let owner = mm().frame_report(first).owner.name();
        let kind = "no-destination";
        Self { pfn: first.number(), pages, kind, owner, site: None, since_ns: None, pinned: None, pinned_fill: None }
    }
}

fn why(call: &mut Call<'_>) -> Outcome {
    let ranges = resolve::blocks(call.arguments.operand(0).unwrap_or_default())?;
    let mut blocks: Vec<(Verdict, Option<Pfn>)> = Vec::new();
    let mut blockers = Vec::new();
    let each = |id: SectionId, foreseen| match foreseen {
        PreviewItem::Blocker(blocker) => InTheWay::of(&blocker).add_to(&mut blockers),
        PreviewItem::Done { movable, first } => {
            let blockers = core::mem::take(&mut blockers);
            blocks.push((Verdict { block: id.number(), verdict: "", blockers, movable }, first));
        }
    };
    let preview = mm().preview_offline(&ranges, &mut TaskPace::untimed(), each)?;
    for (verdict, first) in &mut blocks {
        if let Some(first) = first.filter(|_| preview.short_by > 0) {
            verdict.blockers.push(InTheWay::homeless(first, verdict.movable));
        }
        let id = SectionId::new(verdict.block.into()).filter(|_| preview.reserve_short_by > 0);
        if let Some(id) = id.filter(|id| mm().section(*id).is_some_and(Section::may_hold_reserve)) {
            verdict.blockers.push(InTheWay::reserve(id, preview.reserve_short_by));
        }
        verdict.verdict = if verdict.blockers.is_empty() { "ok" } else { "blocked" };
    }
    let blocks = blocks.into_iter().map(|(verdict, _)| verdict).collect();
    let report = Why { blocks, movable: preview.movable, short_by: preview.short_by };
    call.show(&report, text);
    Ok(())
}

fn text(report: &Why) -> String {
    let mut text = String::new();
    let alike = |a: &Verdict, b: &Verdict| a.blockers.is_empty() && b.blockers.is_empty();
    for run in report.blocks.chunk_by(alike) {
        let span = Span(run[0].block.into(), run[run.len() - 1].block.into());
        let movable = Plural(run.iter().map(|verdict| verdict.movable).sum(), "page");
        let blocks = if run.len() == 1 { "block" } else { "blocks" };
        text += &format!("{blocks} {span}: {}, {movable} would move\n", run[0].verdict);
        for InTheWay { pfn, pages, kind, owner, site, since_ns, pinned, .. } in &run[0].blockers {
            text += &format!("  pfn:{pfn:#x}  {} of {owner}  {kind}", Plural(*pages, "page"));
            for detail in [site, pinned].into_iter().flatten() {
                text += &format!("  {detail}");
            }
            if let Some(since_ns) = since_ns {
                text += &format!("  since {} s", since_ns / NS_PER_SECOND);
            }
            text += "\n";
        }
    }
    if report.short_by > 0 {
        text += &format!("there is no place elsewhere for {}\n", Plural(report.short_by, "page"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(block: u32, movable: u64, blockers: Vec<InTheWay>) -> Verdict {
        let verdict = if blockers.is_empty() { "ok" } else { "blocked" };
        Verdict { block, verdict, blockers, movable }
    }

    fn pinned(pfn: u64, page: u64, fill: u64) -> InTheWay {
        InTheWay {
            pfn,
            pages: 1,
            kind: "pinned",
            owner: "anonymous",
            site: None,
            since_ns: Some(15 * NS_PER_SECOND),
            pinned: Some(format!("page {page} of fill {fill}")),
            pinned_fill: Some(fill),
        }
    }

    #[test]
    fn neighbours_of_one_fill_are_told_together_and_others_apart() {
        let mut list = Vec::new();
        for blocker in [pinned(16, 0, 1), pinned(17, 1, 1), pinned(18, 0, 2), pinned(20, 1, 2), pinned(21, 3, 1)] {
            blocker.add_to(&mut list);
        }
        let told: Vec<_> = list.iter().map(|blocker| (blocker.pfn, blocker.pages, blocker.pinned_fill)).collect();
        assert_eq!(told, [(16, 2, Some(1)), (18, 1, Some(2)), (20, 1, Some(2)), (21, 1, Some(1))]);
    }

    #[test]
    fn blocks_that_would_go_are_told_together_and_others_with_what_is_in_the_way() {
        let kernel = InTheWay {
            pfn: 0x108200,
            pages: 4,
            kind: "kernel",
            owner: "kfill",
            site: Some("load.rs:7".into()),
            since_ns: Some(12 * NS_PER_SECOND),
            pinned: None,
            pinned_fill: None,
        };
        let pinned = pinned(0x108300, 9, 3);
        let blocks = [verdict(32, 5, Vec::new()), verdict(33, 7, Vec::new()), verdict(34, 1, [kernel, pinned].into())];
        let report = Why { blocks: blocks.into(), movable: 13, short_by: 2 };
        let expected = "\
blocks 32-33: ok, 12 pages would move
block 34: blocked, 1 page would move
  pfn:0x108200  4 pages of kfill  kernel  load.rs:7  since 12 s
  pfn:0x108300  1 page of anonymous  pinned  page 9 of fill 3  since 15 s
there is no place elsewhere for 2 pages
";
        assert_eq!(text(&report), expected);
    }
}
