//! `bitmap-allocator`: a bit for every frame, with summaries above.

use crate::frames::{Frames, TakeOut};
use bitmap_allocator::{BitAlloc, BitAlloc16M, BitAlloc256M};
use spin::Mutex;
use std::ops::Range;

/// The smallest that holds the memory, as anybody would choose it.
pub(crate) enum Bitmap {
    Small(Mutex<Box<BitAlloc16M>>),
    Large(Mutex<Box<BitAlloc256M>>),
}

/// The operations of whichever it is.
macro_rules! of {
    ($bitmap:expr, $bits:ident => $work:expr) => {
        match $bitmap {
            Bitmap::Small(bits) => {
                let mut $bits = bits.lock();
                $work
            }
            Bitmap::Large(bits) => {
                let mut $bits = bits.lock();
                $work
            }
        }
    };
}

fn take_out(bitmap: &Bitmap, frames: Range<u64>) {
    of!(bitmap, bits => bits.remove(frames.start as usize..frames.end as usize));
}

impl Frames for Bitmap {
    const NAME: &'static str = "bitmap-allocator";
    const TAKE_FREE: Option<TakeOut<Self>> = Some(take_out);
    const TAKE_USED: Option<TakeOut<Self>> = Some(take_out);

    fn without_memory(bytes: u64) -> Self {
        if bytes >> 12 <= BitAlloc16M::CAP as u64 {
            Self::Small(Mutex::new(Box::new(BitAlloc16M::DEFAULT)))
        } else {
            Self::Large(Mutex::new(Box::new(BitAlloc256M::DEFAULT)))
        }
    }

    fn make_allocatable(&self, bytes: u64) {
        of!(self, bits => bits.insert(0..(bytes >> 12) as usize));
    }

    #[inline]
    fn allocate(&self, order: u8) -> Option<u64> {
        let frame = match order {
            0 => of!(self, bits => bits.alloc()),
            _ => of!(self, bits => bits.alloc_contiguous(None, 1 << order, usize::from(order))),
        };
        frame.map(|frame| frame as u64)
    }

    #[inline]
    fn free(&self, frame: u64, order: u8) {
        let freed = match order {
            0 => of!(self, bits => bits.dealloc(frame as usize)),
            _ => of!(self, bits => bits.dealloc_contiguous(frame as usize, 1 << order)),
        };
        assert!(freed, "it was taken");
    }
}
