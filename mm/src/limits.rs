//! How many, how much, how far: the numbers that more than one part obeys.

/// The most groups there can be: 256 DIMM slots, one boot group per node, and as many added by hand.
pub const GROUP_LIMIT: usize = 512;

/// Empty sections of a zone that may stay open; when there are more, [`Memory::housekeep`](crate::Memory::housekeep) leaves [`SPARE_LOW`].
pub(crate) const SPARE_HIGH: u64 = 4;

/// Empty sections of a zone that stay open when others are closed.
pub(crate) const SPARE_LOW: u64 = 2;

/// Open free frames of Normal memory below which the next section is opened [ahead](crate::alloc::ahead) of need. 16 MiB.
pub(crate) const AHEAD_PAGES: u64 = 4096;

/// Frames that kernel memory must still be able to get for the policies to make memory Movable: for the heap, stacks and
/// tables of the kernel itself. 16 MiB.
pub const KERNEL_FLOOR_PAGES: u64 = 4096;

/// Frames of boot memory that only hotplug itself may take, so that it still works when everything else is gone.
pub const RESERVE_PAGES: u64 = 256;

/// Frames above the reserve that bulk users (struct pages of added memory, address spaces, the shell's fills) leave for the kernel.
pub const KERNEL_PAGES: u64 = 256;

/// Bytes of two cache lines: those next to each other are fetched in pairs.
pub(crate) const CACHE_LINE_PAIR: usize = 128;

/// How often what is in flight is waited for; each time is some milliseconds.
pub(crate) const PATIENCE: u32 = 100;
