//! The memory-hotplug subsystem of altmap: pure, without hardware, the same code under `cargo test` and in the kernel.
//!
//! # Words
//! - *section*, *memory block*: 128 MiB, the same thing; the first is what it is in tables, the second what verbs act on.
//! - *pageblock*: 2 MiB of frames of one migrate type ([`Mobility`](frame::mobility::Mobility)). *Allocated block*: frames
//!   handed out together.
//! - *group*: the memory of one device. *Unit*: the sections of it that are made accessible and mapped together.
//! - *memmap*: the struct pages of a section, a frame's being [`PageInfo`](frame::page::PageInfo). *Altmap*: the head of the
//!   memory itself, in which they and their page tables lie.
//! - *zone*: Normal, for all memory; or Movable, for what can be migrated, so that its blocks can go offline.
//! - *untouched*: in a zone and counted as free, but without struct pages; to *open* a section is to make them, to *close* it
//!   the reverse.
//! - *isolated*: free frames out of the allocator's reach. To *evacuate* is to migrate away what is in use. *Pinned*: not to
//!   be moved.
//! - *withheld*: present, but not for the allocator, a pageblock or a whole section.
//! - *reserve*, *floor*: the watermarks of free Normal memory that ordinary requests, and bulk users, leave.
//! - *seam*: a trait that the machine implements.
//!
//! # The six steps
//! `hotplug/steps.rs` knows how each is done and undone; the verbs are lists of them. Boot memory, a block that changes its zone and
//! device memory do one or two of them in their own way, in `boot`, `relabel` and `device`.
//!
//! | | step | here | undone by |
//! |---|---|---|---|
//! | add 1 | the memory becomes known | [`section`], a [`group`](section::group) | remove |
//! | add 2 | it is mapped in the direct map | [`map_range`](machine::mapper::Mapper::map_range) | remove |
//! | add 3 | it gets room for a memmap, at its own head or in frames of the system | [`altmap`](section::altmap), `hotplug/system_memmap.rs` | remove |
//! | online 4 | the zone grows to span it | [`zone`] | offline |
//! | online 5 | its struct pages are initialised, when its frames are needed | `alloc/open.rs`, [`map_memmap`](machine::mapper::Mapper::map_memmap) | offline |
//! | online 6 | its frames reach the allocator | [`zone`]: untouched, then free areas | offline |
//!
//! Which steps a verb takes is data, the [`Terms`](section::group::Terms) of a group; a new kind of memory composes the same
//! ones:
//!
//! | memory | steps | what is particular |
//! |---|---|---|
//! | a DIMM | add 1-3, online 4-6 | [`Ready::AtAdd`](section::group::Ready): accessible from the beginning |
//! | standby memory | add 1, online 2-6 | [`Ready::AtOnline`](section::group::Ready): going online first has the [`Backing`](machine::backing::Backing) make it accessible, a unit at a time; after the last block of a unit has gone offline it is given back |
//! | memory in pieces | add 1-3, online 4-6 | [`Grant::Pieces`](section::group::Grant): step 6 hands out granted pageblocks only; [`pieces`](hotplug::pieces) grants and withholds them at any time |
//! | device memory | add 1-3, online 5 at once | [`attach`](Memory::attach): in no zone, with a direct map or without; its device hands out its frames |
//! | boot memory | all six | [`BootSection`](hotplug::BootSection) says what is in use already, and is opened at once; [`EmptyBootSections`](hotplug::EmptyBootSections) are not; it is never removed |
//!
//! [`hotplug`] tells the four verbs step by step; everything else is a part that they use.
//!
//! # Where things are
//! A folder is a layer; its files import downwards only, which a test of the host tool checks.
//!
//! | folder or file, from the ground up | what |
//! |---|---|
//! | [`addr`], [`node`], [`errno`], [`site`], [`limits`], [`inject`], [`plural`] | words that every layer uses |
//! | [`frame`] | what struct pages say |
//! | [`machine`] | the seams to page tables, movers, backings, trials of memory, tasks and time |
//! | [`section`] | the word of each section, and the group that it came with |
//! | [`zone`] | free areas, zones, per-CPU page lists, the reserve |
//! | [`record`] | what verbs keep: listeners, settings, the journal, promises, range locks |
//! | [`memory`] | all parts together, each behind its lock |
//! | `section_change` | the only writers of section words, with the counters that follow from them |
//! | `range_guard` | ranges locked for an operation |
//! | [`alloc`] | frames taken and given back; sections opened and closed |
//! | [`evacuate`] | what lies in memory, room for it elsewhere, the moving |
//! | [`poison`] | memory errors |
//! | `keeper` | background work that allocating and freeing defer |
//! | [`hotplug`] | steps, verbs, the change of a zone, pieces, device memory, the choice of a zone, the preview of an offline |
//! | [`observe`] | reports, and the recount of everything |
//!
//! # How memory is free
//! | | where | becomes the one above by |
//! |---|---|---|
//! | a frame | a CPU's page list, the [`cache`](zone::cache) | a batch taken, or given back |
//! | a group of frames | the bits of its pageblock, which is on a list of its zone's free area | opening the section |
//! | an untouched section | two counters of its zone and the word of the section | online |
//!
//! Cost follows the same table: a frame from the cache writes what this CPU alone writes, a group is found by a few words,
//! and a section comes and goes without a look at its frames.
//!
//! # How memory moves
//! | | here |
//! |---|---|
//! | free frames are isolated, those that will be freed too | [`hotplug`], offline |
//! | all that lies there is looked at: what cannot move is reported, what can is counted | [`content`](evacuate::content) |
//! | there must be room for it elsewhere: no shortfall for the demand | `budget` |
//! | it moves in batches, large pages whole or in parts | [`evacuation`](evacuate::evacuation), [`Mover`](machine::mover::Mover) |
//!
//! Nothing moves before all is known that can be known, and nothing moves twice: what is being emptied is isolated.
//! [`preview`](hotplug::preview) answers the same beforehand and changes nothing. A block that moves has no reference: a task
//! that wants one waits.
//!
//! # What always holds
//! [`Memory::validate`] recounts it:
//! 1. A frame is in exactly one place: free in one pageblock of its zone or in one cache, allocated, memmap, reserved, poisoned,
//!    of a device, withheld, or in a section that is untouched, being opened or closed, or offline.
//! 2. `present = managed + what is set aside`, per block and zone, and the sums agree.
//! 3. Struct pages of a section that is not open are not read: walkers ask the section table, in a read-side critical section
//!    that costs no write that others see, and a section is closed with a grace period before anything is unmapped.
//! 4. Altmap frames are never handed out, survive offline and online, and go only with remove.
//! 5. A failed operation leaves nothing behind.
//! 6. No cache keeps a free frame from a request that finds none elsewhere.
//! 7. The contents of an allocated block are what they were, wherever it has moved.
//!
//! # Locks
//! In the order in which they may be taken: a range of sections, the choice of zones, the notifier chain or the groups or
//! the settings, one cache, one zone (of blocks that change theirs, both of the node, Normal first), the journal.
//! The first two block the task; the others are held for bounded work, spinning.
//!
//! A range is held across a whole operation, by one task for each section, in the order in which they came: operations on
//! ranges that do not overlap go on at once, and a task that waits for one can be told to stop. A list of ranges is locked as
//! the smallest range around all of them, and each task holds one at a time, so that there is no deadlock. All sections
//! together are locked for a recount, and when listeners join and leave: a listener that is asked about a change also
//! hears the outcome. Listeners are called under the range of their operation alone, those of several operations at once.
//!
//! What is not of one section is guarded by itself. A group takes its name and place when its add begins, and is found
//! when all is done; it counts how much of a device is in which zone, so that policies need not go through its blocks.
//! Blocks that are on their way into Movable zones count as Movable memory from the moment they are chosen, and zones are
//! chosen by policy for one command at a time, so that two do not use up the same ratio. A search for the new ends of a
//! zone without its lock is repeated if sections came or went meanwhile. Adds that take struct pages from the system promise
//! beforehand how many they will take.
//!
//! An allocated block stays where it is, but its section may go to the other zone of its node: a free looks at the word of the
//! section again under the lock that it takes by it.
//!
//! Words of sections are read anywhere; they change under the lock of their range and, while a section is in a zone, under
//! the lock of the zone too. Sections are opened under the latter alone, beside everything else, and no lock is held while struct
//! pages are made: the word says that the section is changing, and others keep away. To look at struct pages, either the lock of
//! their zone or [`machine::Machine::reading`] is enough, if the word says that the section is open.
//!
//! The kernel's own locks (heap, page tables) are taken before any of the spinning ones here and never while one of them is
//! held. Opening needs the lock of the page tables, so requests made under it
//! ([`Urgency::Hotplug`](alloc::request::Urgency::Hotplug)) open nothing.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod addr;
pub mod alloc;
pub mod errno;
pub mod evacuate;
pub mod frame;
pub mod hotplug;
pub mod inject;
mod keeper;
pub mod limits;
pub mod machine;
pub mod memory;
pub mod node;
pub mod observe;
pub mod plural;
pub mod poison;
mod range_guard;
pub mod record;
pub mod section;
mod section_change;
pub mod site;
#[cfg(test)]
mod testing;
pub mod zone;

pub use errno::Errno;
pub use memory::{Memory, Storage};
