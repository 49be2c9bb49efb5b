//! The region of a device: whether what it says of itself can be, and where its blocks lie in ours.

use crate::drivers::virtio::mem::Config;
use mm::addr::{MAX_PHYS_BITS, Order, PAGE_SIZE, Pfn, PfnRange, SECTION_SIZE, SectionId, SectionRange};
use thiserror::Error;

/// What comes and goes in one piece, at least.
const PIECE_BYTES: u64 = Order::PAGEBLOCK.pages() * PAGE_SIZE;

/// What a device says that cannot be, or that nothing can be made of here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refused {
    #[error("its blocks have {0:#x} bytes, which is no power of two from 4 KiB on")]
    BlockSize(u64),
    #[error("its blocks have {0:#x} bytes; those of {least} to {most} MiB are supported", least = PIECE_BYTES >> 20, most = SECTION_SIZE >> 20)]
    BlockSizeUnsupported(u64),
    #[error("its region of {len:#x} bytes at {start:#x} is not made of its blocks")]
    Uneven { start: u64, len: u64 },
    #[error("its region of {len:#x} bytes at {start:#x} ends beyond the addresses that are supported")]
    OutOfReach { start: u64, len: u64 },
    #[error("its region of {len:#x} bytes at {start:#x} holds no whole block of {} MiB", SECTION_SIZE >> 20)]
    NoBlock { start: u64, len: u64 },
    #[error(
        "{plugged:#x} bytes plugged, {usable:#x} usable, {requested:#x} requested in a region of {region:#x} cannot be"
    )]
    Sizes { plugged: u64, usable: u64, requested: u64, region: u64 },
    #[error("its region has changed")]
    Changed,
    #[error("it counts {device:#x} bytes plugged, where {own:#x} are")]
    Count { device: u64, own: u64 },
}

/// Blocks of the device in one of ours: the first, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) id: SectionId,
    pub(super) first: u64,
    pub(super) count: u64,
}

impl Run {
    /// A bit for each.
    pub(super) const fn bits(self) -> u64 {
        (u64::MAX >> (u64::BITS as u64 - self.count)) << self.first
    }
}

/// The runs of blocks whose bits are set, lowest first.
pub(super) fn runs(id: SectionId, mut bits: u64) -> impl Iterator<Item = Run> {
    core::iter::from_fn(move || {
        let first = u64::from(bits.trailing_zeros());
        let count = u64::from((bits.checked_shr(first as u32)?).trailing_ones());
        let run = Run { id, first, count };
        bits &= !run.bits();
        Some(run)
    })
}

/// Where a device's memory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) block_size: u64,
    /// Our blocks that lie inside.
    pub(super) window: SectionRange,
}

impl Region {
    /// The region that a device describes.
    pub(super) fn new(config: &Config) -> Result<Self, Refused> {
        let Config { block_size, start, region: len, .. } = *config;
        if !block_size.is_power_of_two() || block_size < PAGE_SIZE {
            return Err(Refused::BlockSize(block_size));
        }
        if !(PIECE_BYTES..=SECTION_SIZE).contains(&block_size) {
            return Err(Refused::BlockSizeUnsupported(block_size));
        }
        if !start.is_multiple_of(block_size) || !len.is_multiple_of(block_size) {
            return Err(Refused::Uneven { start, len });
        }
        let end = start.checked_add(len).filter(|end| *end <= 1 << MAX_PHYS_BITS);
        let end = end.ok_or(Refused::OutOfReach { start, len })?;
        let window = SectionRange::inside(start, end).ok_or(Refused::NoBlock { start, len })?;
        let region = Self { start, len, block_size, window };
        region.check(config)?;
        Ok(region)
    }

    /// Whether what the device says now is about this region, and can be.
    pub(super) fn check(&self, config: &Config) -> Result<(), Refused> {
        let Config { block_size, start, region, usable, plugged, requested, .. } = *config;
        if (block_size, start, region) != (self.block_size, self.start, self.len) {
            return Err(Refused::Changed);
        }
        if usable > region || plugged > usable || requested > region {
            return Err(Refused::Sizes { plugged, usable, requested, region });
        }
        Ok(())
    }

    /// How many of the device's blocks are one of ours.
    pub(super) const fn per_section(&self) -> u64 {
        SECTION_SIZE / self.block_size
    }

    /// Where blocks of the device begin.
    pub(super) const fn address(&self, run: Run) -> u64 {
        run.id.address() + run.first * self.block_size
    }

    /// The frames of blocks of the device.
    pub(super) const fn frames(&self, run: Run) -> PfnRange {
        PfnRange::new(Pfn::containing(self.address(run)), run.count * self.block_size / PAGE_SIZE)
    }
    /// The same, without the piece that holds the struct pages of our block, for a run that begins with it.
    pub(super) fn frames_behind_head(&self, run: Run) -> Option<PfnRange> {
        let (all, head) = (self.frames(run), Order::PAGEBLOCK.pages());
        (all.len() > head).then(|| PfnRange::new(all.start().add(head), all.len() - head))
    }
}
