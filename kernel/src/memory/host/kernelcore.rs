//! `kernelcore=` and `movablecore=`: on every node the lower part of boot memory is Normal and the rest Movable.
//!
//! As Linux has it: what is to be Normal is spread evenly over the nodes; where one has less than its share, the others have
//! more. Of both parameters the one counts that leaves more in Normal.
//!
//! Blocks in which firmware or the kernel has frames for ever could never leave Movable, so they are Normal wherever they lie; they
//! count first, and the line is drawn through the others.

use alloc::vec::Vec;
use mm::addr::{NodeId, Order, PAGE_SIZE, Pfn, PfnRange};
use mm::section::kind::ZoneKind;

/// No parameter leaves the kernel less.
const LEAST_PAGES: u64 = (128 << 20) / PAGE_SIZE;

/// A part of boot memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    Bytes(u64),
    Percent(u64),
}

impl Amount {
    fn pages_of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes / PAGE_SIZE,
            Self::Percent(percent) => total * percent / 100,
        }
    }
}

/// What the parameters say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KernelCore {
    pub(crate) kernel: Option<Amount>,
    pub(crate) movable: Option<Amount>,
}

impl KernelCore {
    /// How many frames of `total` are to be Normal at least; `None` if all are.
    fn normal_pages(self, total: u64) -> Option<u64> {
        let kernel = self.kernel.map(|amount| amount.pages_of(total));
        let rest = self.movable.map(|amount| total.saturating_sub(amount.pages_of(total)));
        // Linux takes kernelcore=0 for no wish.
        let wanted = kernel.max(rest).filter(|pages| *pages > 0 || rest.is_some())?;
        Some(wanted.max(LEAST_PAGES)).filter(|pages| *pages < total)
    }
}

/// RAM of one node, and where Movable begins on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeRam {
    node: NodeId,
    /// What may be Movable, lowest first.
    ranges: Vec<PfnRange>,
    /// In blocks that are Normal in any case.
    kept: u64,
    movable_from: Option<Pfn>,
}

impl NodeRam {
    const fn new(node: NodeId) -> Self {
        Self { node, ranges: Vec::new(), kept: 0, movable_from: None }
    }

    fn pages(&self) -> u64 {
        self.kept + self.ranges.iter().map(|range| range.len()).sum::<u64>()
    }

    /// The frame, between two pairs of pageblocks, behind so many that they are `pages` with those that are Normal in any case.
    fn line_behind(&self, pages: u64) -> Option<Pfn> {
        let mut left = pages.saturating_sub(self.kept);
        let range = self.ranges.iter().find(|range| {
            let is_in = left < range.len();
            left -= if is_in { 0 } else { range.len() };
            is_in
        })?;
        let line = range.start().add(left).number().next_multiple_of(Order::MAX.pages());
        self.ranges.last().filter(|last| line < last.end().number()).map(|_| Pfn::new(line))
    }
}

/// All boot memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BootRam(Vec<NodeRam>);

impl BootRam {
    fn node(&mut self, node: NodeId) -> &mut NodeRam {
        let place = self.0.iter().position(|ram| ram.node == node).unwrap_or_else(|| {
            self.0.push(NodeRam::new(node));
            self.0.len() - 1
        });
        &mut self.0[place]
    }

    /// RAM of a node in a block with frames that stay in use for ever.
    pub(crate) fn add_kept(&mut self, node: NodeId, range: PfnRange) {
        self.node(node).kept += range.len();
    }

    /// RAM of a node in another block, above what was added of it before.
    pub(crate) fn add(&mut self, node: NodeId, range: PfnRange) {
        let ranges = &mut self.node(node).ranges;
        match ranges.last_mut() {
            Some(last) if last.end() == range.start() => *last = PfnRange::new(last.start(), last.len() + range.len()),
            _ => ranges.push(range),
        }
    }

    /// Draws the line on every node.
    pub(crate) fn split(&mut self, kernelcore: KernelCore) {
        let Some(mut wanted) = kernelcore.normal_pages(self.0.iter().map(NodeRam::pages).sum()) else { return };
        self.0.sort_by_key(NodeRam::pages);
        // The smallest first: what a node lacks of its share is the others' to give.
        let mut nodes = self.0.len() as u64;
        for ram in &mut self.0 {
            let share = wanted.div_ceil(nodes).min(ram.pages());
            ram.movable_from = ram.line_behind(share);
            wanted = wanted.saturating_sub(share.max(ram.kept));
            nodes -= 1;
        }
    }

    /// The nodes on which nothing can be Movable.
    pub(crate) fn kept_nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.0.iter().filter(|ram| ram.ranges.is_empty()).map(|ram| ram.node)
    }

    /// The zone of RAM of a node in a block that may be Movable; `None` if it is in both.
    pub(crate) fn zone_of_all(&self, node: NodeId, pages: PfnRange) -> Option<ZoneKind> {
        match self.movable_from(node) {
            Some(line) if line <= pages.start() => Some(ZoneKind::Movable),
            Some(line) if line < pages.end() => None,
            _ => Some(ZoneKind::Normal),
        }
    }

    /// Where Movable begins on a node, but for blocks that are Normal in any case.
    pub(crate) fn movable_from(&self, node: NodeId) -> Option<Pfn> {
        self.0.iter().find(|ram| ram.node == node)?.movable_from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = (1 << 20) / PAGE_SIZE;

    fn node(n: u32) -> NodeId {
        NodeId::new(n).expect("in reach")
    }

    fn mib(start: u64, end: u64) -> PfnRange {
        PfnRange::new(Pfn::new(start * MIB), (end - start) * MIB)
    }

    /// In MiB, where Movable begins on the first nodes.
    fn lines(ram: &[(u32, PfnRange)], kernelcore: KernelCore) -> Vec<Option<u64>> {
        lines_around(&[], ram, kernelcore)
    }

    /// The same where some of the RAM lies in blocks in which somebody has frames.
    fn lines_around(kept: &[(u32, PfnRange)], ram: &[(u32, PfnRange)], kernelcore: KernelCore) -> Vec<Option<u64>> {
        let mut boot = BootRam::default();
        ram.iter().for_each(|(of, range)| boot.add(node(*of), *range));
        kept.iter().for_each(|(of, range)| boot.add_kept(node(*of), *range));
        boot.split(kernelcore);
        (0..2).map(|n| boot.movable_from(node(n)).map(|line| line.number() / MIB)).collect()
    }

    fn kernel(amount: Amount) -> KernelCore {
        KernelCore { kernel: Some(amount), movable: None }
    }

    fn movable(amount: Amount) -> KernelCore {
        KernelCore { kernel: None, movable: Some(amount) }
    }

    fn size(mib: u64) -> Amount {
        Amount::Bytes(mib << 20)
    }

    const TWO: [(u32, PfnRange); 3] = [
        (0, PfnRange::new(Pfn::new(0), 100 * MIB)),
        (0, PfnRange::new(Pfn::new(200 * MIB), 824 * MIB)),
        (1, PfnRange::new(Pfn::new(1024 * MIB), 1024 * MIB)),
    ];

    #[test]
    fn kernel_memory_is_spread_evenly_and_holes_do_not_count() {
        assert_eq!(lines(&TWO, kernel(size(512))), [Some(200 + 156), Some(1024 + 256)]);
        assert_eq!(lines(&TWO, kernel(size(511))), [Some(200 + 156), Some(1024 + 256)], "a pair is not cut");
        assert_eq!(lines(&TWO, kernel(Amount::Percent(50))), [Some(588), Some(1024 + 488)]);
    }

    #[test]
    fn a_node_without_its_share_leaves_it_to_the_others() {
        let ram = [(0, mib(0, 200)), (1, mib(200, 1200))];
        assert_eq!(lines(&ram, kernel(size(600))), [None, Some(600)]);
        assert_eq!(lines(&ram, kernel(size(1200))), [None, None]);
    }

    #[test]
    fn the_line_is_drawn_around_blocks_that_are_kept() {
        #[track_caller]
        fn check(kept: &[(u32, PfnRange)], ram: &[(u32, PfnRange)], normal: u64, expected: [Option<u64>; 2]) {
            assert_eq!(lines_around(kept, ram, kernel(size(normal))), expected);
        }
        // Two nodes of 1000 MiB: the kernel has frames in the lowest block, firmware in the highest.
        let ends = [(0, mib(0, 128)), (1, mib(1920, 2000))];
        let between = [(0, mib(128, 1024)), (1, mib(1024, 1920))];
        check(&ends, &between, 600, [Some(300), Some(1024 + 220)]);
        check(&ends, &between, 512, [Some(256), Some(1024 + 176)]);
        // As much as they have already, and less.
        check(&ends, &between, 208, [Some(128), Some(1024 + 24)]);
        check(&ends, &between, 128, [Some(128), Some(1024)]);
        // Two of 300 MiB, of which the second has nothing else.
        let all = [(0, mib(0, 128)), (1, mib(384, 600))];
        check(&all, &[(0, mib(128, 384))], 300, [Some(128), None]);
        // In the middle, above the line and below it.
        let middle = [(0, mib(512, 640))];
        let around = [(0, mib(0, 512)), (0, mib(640, 1024))];
        check(&middle, &around, 256, [Some(128), None]);
        check(&middle, &around, 704, [Some(704), None]);
        check(&middle, &around, 640, [Some(640), None]);
    }

    #[test]
    fn a_node_whose_blocks_are_all_kept_is_named() {
        let mut boot = BootRam::default();
        boot.add_kept(node(0), mib(0, 128));
        boot.add(node(0), mib(128, 256));
        boot.add_kept(node(1), mib(256, 300));
        assert_eq!(boot.kept_nodes().collect::<Vec<_>>(), [node(1)]);
    }

    #[test]
    fn what_leaves_more_in_normal_counts() {
        assert_eq!(lines(&TWO, movable(size(1000))), lines(&TWO, kernel(size(948))));
        assert_eq!(lines(&TWO, movable(Amount::Percent(100))), lines(&TWO, kernel(size(128))), "the kernel needs some");
        let both = KernelCore { kernel: Some(size(512)), movable: Some(size(1000)) };
        assert_eq!(lines(&TWO, both), lines(&TWO, kernel(size(948))));
        let both = KernelCore { kernel: Some(size(1400)), movable: Some(size(1000)) };
        assert_eq!(lines(&TWO, both), lines(&TWO, kernel(size(1400))));
    }

    #[test]
    fn without_a_wish_or_with_too_large_a_one_nothing_is_split() {
        for kernelcore in
            [KernelCore::default(), kernel(size(4096)), kernel(Amount::Percent(100)), kernel(size(0)), movable(size(0))]
        {
            assert_eq!(lines(&TWO, kernelcore), [None, None], "{kernelcore:?}");
        }
    }
}
