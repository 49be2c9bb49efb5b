//! Recounts the world the slow way and compares it with what the counters say.

use crate::addr::{NodeId, Order, PAGES_PER_SECTION, Pfn, SectionId};
use crate::machine::{MEMMAP_PAGES, Machine};
use crate::memory::Memory;
use crate::page::{Head, Owner, PageState};
use crate::section::{BlockState, MemmapPlace, Section, ZoneKind};
use crate::zone::{Origin, for_each_head};
use core::fmt;
use core::sync::atomic::Ordering;

/// Something that does not add up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// A counter and the recount disagree.
    Count {
        /// Whose counter.
        of: &'static str,
        /// Of which zone, if it is a zone's.
        zone: Option<(NodeId, ZoneKind)>,
        /// Of which block, if it is a block's.
        block: Option<SectionId>,
        /// What the counter says.
        kept: u64,
        /// What the recount says.
        counted: u64,
    },
    /// A struct page says what it cannot.
    Page {
        /// The frame.
        pfn: Pfn,
        /// What is wrong.
        what: &'static str,
    },
    /// A block is in a state that no operation leaves behind.
    Block {
        /// The block.
        block: SectionId,
        /// What is wrong.
        what: &'static str,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { of, zone, block, kept, counted } => {
                write!(f, "{of}")?;
                if let Some((node, kind)) = zone {
                    write!(f, " of node {node} {kind}")?;
                }
                if let Some(block) = block {
                    write!(f, " of block {block}")?;
                }
                write!(f, " is {kept}, but {counted} by recount")
            }
            Self::Page { pfn, what } => write!(f, "{pfn}: {what}"),
            Self::Block { block, what } => write!(f, "block {block}: {what}"),
        }
    }
}

/// The totals of a recount.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Problems found.
    pub problems: u64,
    /// Struct pages looked at.
    pub frames_checked: u64,
    /// Free frames.
    pub free: u64,
    /// Page-table frames.
    pub page_tables: u64,
}

/// The sums of one zone.
#[derive(Clone, Copy, Default)]
struct Sums {
    present: u64,
    managed: u64,
    free: [u64; 2],
    isolated: u64,
    first: Option<SectionId>,
    last: Option<SectionId>,
}

impl<M: Machine> Memory<M> {
    /// Recounts everything; `found` hears of every problem. No other operation runs meanwhile; allocations that do are
    /// reported as differences.
    pub fn validate(&self, mut found: impl FnMut(Problem)) -> Totals {
        let _order = self.hotplug.lock();
        let mut totals = Totals::default();
        let mut tables = 0;
        let mut memmap_frames = 0;
        let mut problem_count = 0;
        let mut report = |problem| {
            problem_count += 1;
            found(problem);
        };
        let mut boot_free = 0;
        for node in NodeId::all().take(self.node_limit()) {
            for kind in ZoneKind::ALL {
                let sums = self.recount_zone(node, kind, &mut totals, &mut tables, &mut memmap_frames, &mut report);
                if kind == ZoneKind::Normal {
                    boot_free += sums.free[Origin::Boot as usize];
                }
                totals.free += sums.free.iter().sum::<u64>();
            }
        }
        self.groups.lock().iter().for_each(|(_, group)| tables += group.tables.len());
        totals.page_tables = self.machine.table_frames();
        let mut compare = |of, kept, counted| {
            if kept != counted {
                report(Problem::Count { of, zone: None, block: None, kept, counted });
            }
        };
        compare("page-table frames", totals.page_tables, tables);
        compare("free boot frames", self.boot_free.load(Ordering::Relaxed), boot_free);
        compare("memmap frames of the system", self.system_memmap_frames(), memmap_frames);
        self.check_blocks(&mut report);
        totals.problems = problem_count;
        totals
    }

    fn system_memmap_frames(&self) -> u64 {
        self.blocks().filter(|(_, section)| section.memmap == MemmapPlace::System).count() as u64 * MEMMAP_PAGES
    }

    fn recount_zone(
        &self,
        node: NodeId,
        kind: ZoneKind,
        totals: &mut Totals,
        tables: &mut u64,
        memmap_frames: &mut u64,
        report: &mut dyn FnMut(Problem),
    ) -> Sums {
        let mut sums = Sums::default();
        for (id, section) in self.blocks() {
            let here = section.node == node && section.state.zone() == Some(kind);
            if !here || !section.state.is_populated() {
                continue;
            }
            sums.first.get_or_insert(id);
            sums.last = Some(id);
            sums.present += u64::from(section.present);
            sums.managed += u64::from(section.managed);
            self.recount_section(id, section, &mut sums, tables, memmap_frames, report);
            totals.frames_checked += PAGES_PER_SECTION;
        }
        self.compare_zone(node, kind, &sums, report);
        sums
    }

    fn compare_zone(&self, node: NodeId, kind: ZoneKind, sums: &Sums, report: &mut dyn FnMut(Problem)) {
        let zone = self.zone(node, kind);
        let number = |id: Option<SectionId>| id.map_or(u64::MAX, |id| u64::from(id.number()));
        let (first, last) = zone.span().unzip();
        let mut compare = |of, kept, counted| {
            if kept != counted {
                report(Problem::Count { of, zone: Some((node, kind)), block: None, kept, counted });
            }
        };
        compare("present", zone.present_pages(), sums.present);
        compare("managed", zone.managed_pages(), sums.managed);
        // No offline is under way, so nothing is isolated, by the counter and by the struct pages.
        compare("isolated", zone.isolated_pages(), 0);
        compare("isolated, by recount", sums.isolated, 0);
        compare("first block", number(first), number(sums.first));
        compare("last block", number(last), number(sums.last));
        let mut blocks = [0; Order::COUNT];
        for origin in Origin::ALL {
            compare("free", zone.free_pages_of(origin), sums.free[origin as usize]);
            // A list that leads astray is not followed any further, so the listed frames fall short then.
            let listed = zone
                .walk(&self.machine, origin)
                .take_while(|(head, order)| self.is_listed_rightly(*head, *order, node, kind, origin))
                .map(|(_, order)| {
                    blocks[order.index()] += 1;
                    order.pages()
                })
                .sum();
            compare("listed free", listed, sums.free[origin as usize]);
        }
        for order in Order::all() {
            compare("free blocks of an order", zone.free_blocks(order), blocks[order.index()]);
        }
    }

    fn is_listed_rightly(&self, head: Pfn, order: Order, node: NodeId, kind: ZoneKind, origin: Origin) -> bool {
        self.sections.populated(head).is_some_and(|section| {
            section.node == node
                && section.state.zone() == Some(kind)
                && Origin::of(section) == origin
                && self.machine.page(head).head() == Head::unused(PageState::Free, order)
        })
    }

    fn recount_section(
        &self,
        id: SectionId,
        section: Section,
        sums: &mut Sums,
        tables: &mut u64,
        memmap_frames: &mut u64,
        report: &mut dyn FnMut(Problem),
    ) {
        let (mut present, mut managed) = (0, 0);
        for_each_head(&self.machine, id.pages(), |pfn, head| {
            let pages = crate::zone::stride(head);
            let mut wrong = |what| report(Problem::Page { pfn, what });
            if pfn.align_down(head.order) != pfn || head.order > Order::MAX {
                wrong("is the head of a block that is not aligned");
            }
            match head.state {
                PageState::Free => sums.free[Origin::of(section) as usize] += pages,
                PageState::Isolated => sums.isolated += pages,
                PageState::Allocated | PageState::Reserved => match head.owner {
                    Owner::PageTable => *tables += pages,
                    Owner::Memmap => *memmap_frames += pages,
                    _ => {}
                },
                PageState::Tail => wrong("belongs to no block"),
                PageState::Offline => wrong("is offline in a block that is not"),
                PageState::Memmap | PageState::Absent => {}
            }
            let at_head = crate::section::head_range(id, section).contains(pfn);
            if !section.is_boot() && at_head != (head.state == PageState::Memmap) {
                wrong("is not what the head of its block says");
            }
            match head.state {
                PageState::Free | PageState::Isolated | PageState::Allocated => {
                    present += pages;
                    managed += pages;
                }
                PageState::Absent => {}
                _ => present += pages,
            }
        });
        for (of, kept, counted) in [("present", section.present, present), ("managed", section.managed, managed)] {
            let kept = u64::from(kept);
            if kept != counted {
                report(Problem::Count { of, zone: None, block: Some(id), kept, counted });
            }
        }
    }

    fn check_blocks(&self, report: &mut dyn FnMut(Problem)) {
        for (id, section) in self.blocks() {
            let mut wrong = |what| report(Problem::Block { block: id, what });
            if matches!(section.state, BlockState::GoingOnline(_) | BlockState::GoingOffline(_)) {
                wrong("is on its way, but no operation is under way");
            }
            match self.group(section.group) {
                None => wrong("belongs to a group that does not exist"),
                Some(group) if !group.range.contains(id) || group.node != section.node => {
                    wrong("belongs to a group that does not hold it");
                }
                Some(_) => {}
            }
        }
    }
}
