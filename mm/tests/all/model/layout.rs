//! Which frames are free, told from what was handed out and not from what the allocator says.

use mm::addr::{Order, PAGES_PER_SECTION, Pfn, SectionId, SectionRange};
use mm::frame::mobility::Mobility;
use mm::limits::{KERNEL_PAGES, RESERVE_PAGES};
use mm::section::kind::ZoneKind;

/// Where the frames of a block can be had; a run lies in blocks for which it is the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Source {
    pub(super) node: u32,
    pub(super) zone: ZoneKind,
    pub(super) is_boot: bool,
}

impl Source {
    fn serves(self, mobility: Mobility) -> bool {
        mobility == Mobility::Movable || self.zone == ZoneKind::Normal
    }

    /// How much of it is kept for hotplug.
    fn reserve(self) -> u64 {
        if self.is_boot && self.zone == ZoneKind::Normal { RESERVE_PAGES } else { 0 }
    }
}

/// An online block.
struct Block {
    id: SectionId,
    source: Source,
    free: Vec<bool>,
}

impl Block {
    fn free_pages(&self) -> u64 {
        self.free.iter().filter(|is_free| **is_free).count() as u64
    }

    fn groups(&self, order: Order) -> impl Iterator<Item = bool> {
        self.free.chunks(order.pages() as usize).map(|group| group.iter().all(|is_free| *is_free))
    }
}

/// All online blocks, lowest first.
#[derive(Default)]
pub(super) struct Layout {
    blocks: Vec<Block>,
    managed: u64,
}

impl Layout {
    /// With one block more, of which the allocator has these frames.
    pub(super) fn include(&mut self, id: SectionId, source: Source, managed: Vec<bool>) {
        assert_eq!(managed.len() as u64, PAGES_PER_SECTION);
        self.managed += managed.iter().filter(|is_managed| **is_managed).count() as u64;
        self.blocks.push(Block { id, source, free: managed });
    }

    /// Somebody has this, and nobody else has any of it.
    pub(super) fn take(&mut self, head: Pfn, order: Order) {
        let block = self.blocks.iter_mut().find(|block| block.id == head.section());
        let block = block.unwrap_or_else(|| panic!("{head} is in use, and not online"));
        let first = head.index_in_section() as usize;
        for is_free in &mut block.free[first..first + order.pages() as usize] {
            assert!(std::mem::replace(is_free, false), "{head} is in use twice");
        }
    }

    pub(super) fn managed(&self) -> u64 {
        self.managed
    }

    fn pages(&self, is_counted: impl Fn(&Block) -> bool) -> u64 {
        self.blocks.iter().filter(|block| is_counted(block)).map(Block::free_pages).sum()
    }

    pub(super) fn free(&self) -> u64 {
        self.pages(|_| true)
    }

    pub(super) fn free_boot(&self) -> u64 {
        self.pages(|block| block.source.is_boot)
    }

    /// What bulk users can get in Normal zones.
    pub(super) fn bulk(&self, except: Option<SectionRange>) -> u64 {
        let is_left = |block: &Block| except.is_none_or(|except| !except.contains(block.id));
        let is_normal = |block: &Block| is_left(block) && block.source.zone == ZoneKind::Normal;
        let [boot, added] =
            [true, false].map(|is_boot| self.pages(|block| is_normal(block) && block.source.is_boot == is_boot));
        (boot.saturating_sub(RESERVE_PAGES) + added).saturating_sub(KERNEL_PAGES)
    }

    /// What is free in Movable zones.
    pub(super) fn movable(&self, except: SectionRange) -> u64 {
        self.pages(|block| !except.contains(block.id) && block.source.zone == ZoneKind::Movable)
    }

    /// Whether somewhere so much is free that the reserve can be left when these are taken.
    fn can_spare(&self, source: Source, pages: u64) -> bool {
        self.pages(|block| (block.source.zone, block.source.is_boot) == (source.zone, source.is_boot))
            >= pages + source.reserve()
    }

    /// Whether some block may give a group of frames of that order.
    pub(super) fn has_group(&self, order: Order, mobility: Mobility) -> bool {
        let mut serving = self.blocks.iter().rev().filter(|block| block.source.serves(mobility));
        serving.any(|block| block.groups(order).any(|is_free| is_free) && self.can_spare(block.source, order.pages()))
    }

    /// Whether there are so many pageblocks in a row, aligned to their size if that is a power of two.
    pub(super) fn has_run(&self, wanted: u64, mobility: Mobility) -> bool {
        let align = if wanted.is_power_of_two() { wanted } else { 1 };
        let per_block = PAGES_PER_SECTION / Order::PAGEBLOCK.pages();
        let mut row: Option<(Source, u64, u64)> = None;
        for block in self.blocks.iter().filter(|block| block.source.serves(mobility)) {
            for (n, is_free) in (0..).zip(block.groups(Order::PAGEBLOCK)) {
                let number = u64::from(block.id.number()) * per_block + n;
                let goes_on =
                    |(source, start, len): &(Source, u64, u64)| *source == block.source && start + len == number;
                row = match row.filter(goes_on) {
                    _ if !is_free => None,
                    Some((source, start, len)) => Some((source, start, len + 1)),
                    None if number.is_multiple_of(align) => Some((block.source, number, 1)),
                    None => None,
                };
                if row.is_some_and(|(source, _, len)| {
                    len == wanted && self.can_spare(source, wanted * Order::PAGEBLOCK.pages())
                }) {
                    return true;
                }
            }
        }
        false
    }
}
