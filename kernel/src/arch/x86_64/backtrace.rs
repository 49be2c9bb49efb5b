//! Return addresses by frame pointers.
//!
//! The walk happens when something is already wrong, so it trusts nothing: a frame pointer is followed only inside a
//! stack that we know, and only upwards.

use super::cpu;
use crate::entry;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;

/// More frames than this fit no stack of ours; a loop in a broken chain ends here.
const FRAMES_MAX: usize = 4096;

/// The return addresses above a frame, innermost first.
pub(crate) struct Frames {
    frame_pointer: usize,
    remaining: usize,
}

/// The frames of the caller.
#[inline(always)]
pub(crate) fn current_frames() -> Frames {
    let frame_pointer: usize;
    // SAFETY: Only reads a register.
    unsafe {
        core::arch::asm!("mov {}, rbp", out(reg) frame_pointer, options(nomem, nostack, preserves_flags));
    }
    Frames::from(frame_pointer)
}

impl Frames {
    /// The frames above a frame pointer, as an exception found it.
    pub(crate) fn from(frame_pointer: usize) -> Self {
        Self { frame_pointer, remaining: FRAMES_MAX }
    }
}

impl Iterator for Frames {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let frame = self.frame_pointer;
        let stack = known_stacks().into_iter().find(|stack| stack.contains(&frame))?;
        if self.remaining == 0 || !frame.is_multiple_of(8) || frame + 16 > stack.end {
            return None;
        }
        self.remaining -= 1;
        let pointer: *const [usize; 2] = core::ptr::with_exposed_provenance(frame);
        // SAFETY: Both words lie inside a stack that is mapped as long as this CPU may run on it, and are aligned.
        let [caller_frame, return_address] = unsafe { pointer.read_volatile() };
        self.frame_pointer = if caller_frame > frame { caller_frame } else { 0 };
        (return_address != 0).then_some(return_address)
    }
}

/// The stacks that this CPU may be on.
fn known_stacks() -> [Range<usize>; 3] {
    let cpu = cpu::this();
    [
        cpu.stack_bottom.load(Relaxed)..cpu.stack_top.load(Relaxed),
        cpu.emergency_bottom.load(Relaxed)..cpu.emergency_top.load(Relaxed),
        entry::boot_stack(),
    ]
}
