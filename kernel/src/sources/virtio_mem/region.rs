//! The region of a device: whether what it says of itself can be, and where its blocks lie in ours.

use crate::drivers::virtio::mem::Config;
use mm::addr::{MAX_PHYS_BITS, Order, PAGE_SIZE, Pfn, PfnRange, SECTION_SIZE, SectionId, SectionRange};
use thiserror::Error;

/// What comes and goes in one piece, at least.
const PIECE_BYTES: u64 = Order::PAGEBLOCK.pages() * PAGE_SIZE;
/// Larger blocks are no pieces of anything.
const BLOCK_BYTES_MAX: u64 = 1 << 30;

/// What a device says that cannot be, or that nothing can be made of here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refused {
    #[error("its blocks have {0:#x} bytes, which is no power of two from 4 KiB on")]
    BlockSize(u64),
    #[error("its blocks have {0:#x} bytes; those of up to {most} GiB are supported", most = BLOCK_BYTES_MAX >> 30)]
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

/// Pieces of a unit: the first, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The first block of the unit.
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

/// The runs of pieces whose bits are set, lowest first.
pub(super) fn runs(id: SectionId, mut bits: u64) -> impl Iterator<Item = Run> {
    core::iter::from_fn(move || {
        let first = u64::from(bits.trailing_zeros());
        let count = u64::from((bits.checked_shr(first as u32)?).trailing_ones());
        let run = Run { id, first, count };
        bits &= !run.bits();
        Some(run)
    })
}

/// Where a device's memory lies. It becomes known a unit at a time: one of our blocks, which comes in pieces of one or more blocks of
/// the device, or those of ours that a larger block of the device is made of, which is one piece.
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
        if block_size > BLOCK_BYTES_MAX {
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

    /// What comes and goes at once.
    pub(super) const fn piece_bytes(&self) -> u64 {
        if self.block_size < PIECE_BYTES { PIECE_BYTES } else { self.block_size }
    }

    /// How many of our blocks are a unit.
    pub(super) const fn unit_blocks(&self) -> u64 {
        self.block_size.div_ceil(SECTION_SIZE)
    }

    /// How many pieces are a unit.
    pub(super) const fn per_unit(&self) -> u64 {
        self.unit_blocks() * SECTION_SIZE / self.piece_bytes()
    }

    /// The first block of the unit of that number, if there are so many.
    pub(super) fn unit_at(&self, number: usize) -> Option<SectionId> {
        let first = u64::from(self.window.first().number()) + number as u64 * self.unit_blocks();
        SectionId::new(first).filter(|id| self.window.contains(*id))
    }

    /// Our blocks of a unit.
    pub(super) fn unit(&self, first: SectionId) -> SectionRange {
        SectionRange::new(first.number().into(), self.unit_blocks()).expect("a unit lies in the window")
    }

    /// Where pieces begin.
    pub(super) const fn address(&self, run: Run) -> u64 {
        run.id.address() + run.first * self.piece_bytes()
    }

    /// How many blocks of the device pieces are.
    pub(super) const fn device_blocks(&self, run: Run) -> u16 {
        // At most a block of ours in pages.
        (run.count * self.piece_bytes() / self.block_size) as u16
    }

    /// The frames of pieces.
    pub(super) const fn frames(&self, run: Run) -> PfnRange {
        PfnRange::new(Pfn::containing(self.address(run)), run.count * self.piece_bytes() / PAGE_SIZE)
    }

    /// The same, without the pageblock that holds the struct pages of our block, for a run that begins with it.
    pub(super) fn frames_behind_head(&self, run: Run) -> Option<PfnRange> {
        let (all, head) = (self.frames(run), Order::PAGEBLOCK.pages());
        (all.len() > head).then(|| PfnRange::new(all.start().add(head), all.len() - head))
    }
}
