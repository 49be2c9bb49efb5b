//! `kernelcore=` and `movablecore=`: on every node the lower part of boot memory is Normal and the rest Movable.
//!
//! As Linux has it: what is to be Normal is spread evenly over the nodes; where one has less than its share, the others have
//! more. Of both parameters the one counts that leaves more in Normal.

use alloc::vec::Vec;
use mm::addr::{NodeId, Order, PAGE_SIZE, Pfn, PfnRange};

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
pub(crate) struct Cores {
    pub(crate) kernel: Option<Amount>,
    pub(crate) movable: Option<Amount>,
}

impl Cores {
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
    /// Lowest first.
    ranges: Vec<PfnRange>,
    movable_from: Option<Pfn>,
}

impl NodeRam {
    fn pages(&self) -> u64 {
        self.ranges.iter().map(|range| range.len()).sum()
    }

    /// The frame behind the first `pages`, between two pairs of pageblocks.
    fn line_behind(&self, pages: u64) -> Option<Pfn> {
        let mut left = pages;
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
    /// RAM of a node, above what was added of it before.
    pub(crate) fn add(&mut self, node: NodeId, range: PfnRange) {
        let place = self.0.iter().position(|ram| ram.node == node).unwrap_or_else(|| {
            self.0.push(NodeRam { node, ranges: Vec::new(), movable_from: None });
            self.0.len() - 1
        });
        let ranges = &mut self.0[place].ranges;
        match ranges.last_mut() {
            Some(last) if last.end() == range.start() => *last = PfnRange::new(last.start(), last.len() + range.len()),
            _ => ranges.push(range),
        }
    }

    /// Draws the line on every node.
    pub(crate) fn split(&mut self, cores: Cores) {
        let Some(mut wanted) = cores.normal_pages(self.0.iter().map(NodeRam::pages).sum()) else { return };
        self.0.sort_by_key(NodeRam::pages);
        // The smallest first: what a node lacks of its share is the others' to give.
        let mut nodes = self.0.len() as u64;
        for ram in &mut self.0 {
            let share = wanted.div_ceil(nodes).min(ram.pages());
            ram.movable_from = ram.line_behind(share);
            wanted -= share;
            nodes -= 1;
        }
    }

    /// Where Movable begins on a node.
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
    fn lines(ram: &[(u32, PfnRange)], cores: Cores) -> Vec<Option<u64>> {
        let mut boot = BootRam::default();
        ram.iter().for_each(|(of, range)| boot.add(node(*of), *range));
        boot.split(cores);
        (0..2).map(|n| boot.movable_from(node(n)).map(|line| line.number() / MIB)).collect()
    }

    fn kernel(amount: Amount) -> Cores {
        Cores { kernel: Some(amount), movable: None }
    }

    fn movable(amount: Amount) -> Cores {
        Cores { kernel: None, movable: Some(amount) }
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
    fn what_leaves_more_in_normal_counts() {
        assert_eq!(lines(&TWO, movable(size(1000))), lines(&TWO, kernel(size(948))));
        assert_eq!(lines(&TWO, movable(Amount::Percent(100))), lines(&TWO, kernel(size(128))), "the kernel needs some");
        let both = Cores { kernel: Some(size(512)), movable: Some(size(1000)) };
        assert_eq!(lines(&TWO, both), lines(&TWO, kernel(size(948))));
        let both = Cores { kernel: Some(size(1400)), movable: Some(size(1000)) };
        assert_eq!(lines(&TWO, both), lines(&TWO, kernel(size(1400))));
    }

    #[test]
    fn without_a_wish_or_with_too_large_a_one_nothing_is_split() {
        for cores in
            [Cores::default(), kernel(size(4096)), kernel(Amount::Percent(100)), kernel(size(0)), movable(size(0))]
        {
            assert_eq!(lines(&TWO, cores), [None, None], "{cores:?}");
        }
    }
}
