//! `mm` on a machine of which only what an allocator needs is there: struct pages in one table, and a lock that spins.

use crate::frames::{Frames, SECTION_BYTES, SECTION_FRAMES, TakeOut};
use mm::addr::{NodeId, Order, Pfn, PfnRange, SectionId, SectionRange};
use mm::alloc::request::{Place, Request, Urgency};
use mm::frame::memmap::Memmap;
use mm::frame::mobility::Mobility;
use mm::frame::page::{MEMMAP_PAGES, Owner, PageInfo};
use mm::hotplug::{AddRequest, BootSection, BootUse};
use mm::machine::Machine;
use mm::machine::mapper::{DirectMap, MapRangeError, Mapper};
use mm::machine::mover::Mover;
use mm::machine::tasks::{Clock, Unhurried};
use mm::machine::trial::{BadMemory, Distrust, Trial};
use mm::node::Distances;
use mm::record::policy::OnlineAs;
use mm::section::group::{GroupKind, GroupName};
use mm::section::kind::ZoneKind;
use mm::site::Site;
use mm::zone::ZoneCell;
use mm::zone::cache::CacheCell;
use mm::{Memory, Storage};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::AtomicU64;

/// The CPUs of a machine.
pub(crate) trait Cpus: Send + Sync + 'static {
    const COUNT: usize;

    /// That of the calling thread.
    fn number() -> usize;
}

/// There is only one.
pub(crate) struct One;

impl Cpus for One {
    const COUNT: usize = 1;

    #[inline]
    fn number() -> usize {
        0
    }
}

/// Struct pages from frame 0 on, found by arithmetic alone as in the kernel's window. There may be fewer than frames: those
/// of untouched sections are not looked at.
struct Plain<C> {
    pages: Vec<PageInfo>,
    cpus: PhantomData<C>,
}

impl<C: Cpus> Memmap for Plain<C> {
    fn page(&self, pfn: Pfn) -> &PageInfo {
        #[expect(unsafe_code, reason = "the kernel checks no bounds either")]
        // SAFETY: mm looks at struct pages of open sections only; the table holds those of every section that is opened.
        unsafe {
            self.pages.get_unchecked(pfn.number() as usize)
        }
    }
}

/// Page tables are the kernel's; here only as many frames are set aside as it would need.
/// There is no memory that could be bad.
impl<C: Cpus> Trial for Plain<C> {
    fn try_frames(&self, _frames: PfnRange) -> Result<(), BadMemory> {
        Ok(())
    }

    fn note_withheld(&self, section: SectionId, _why: Distrust) {
        unreachable!("{section} can be trusted")
    }
}

impl<C: Cpus> Mapper for Plain<C> {
    /// As in the kernel: 4 TiB.
    const PART: u64 = 32768;

    fn own_tables(&self, range: SectionRange) -> u64 {
        // Those for struct pages serve two sections each, those of the direct map eight.
        range.count() / 2 + range.count() / 8
    }

    fn map_range(&self, _range: SectionRange, _own: PfnRange, _direct_map: DirectMap) -> Result<(), MapRangeError> {
        Ok(())
    }

    fn unmap_range(&self, _range: SectionRange) {}

    fn map_memmap(&self, _section: SectionId, _backing: PfnRange) -> Result<(), BadMemory> {
        Ok(())
    }

    fn unmap_memmap(&self, _section: SectionId) {}

    fn map_memmap_page(&self, _section: SectionId, _index: u64, _frame: Pfn) {
        unreachable!("every section has its struct pages at its head")
    }

    fn unmap_memmap_page(&self, _section: SectionId, _index: u64) -> Pfn {
        unreachable!("every section has its struct pages at its head")
    }

    fn settle_memmaps(&self) {}

    fn table_frames(&self) -> u64 {
        0
    }
}

impl<C: Cpus> Mover for Plain<C> {}

impl<C: Cpus> Clock for Plain<C> {
    fn now_ns(&self) -> u64 {
        0
    }
}

impl<C: Cpus> Machine for Plain<C> {
    type Spin = spin::Mutex<()>;
    type Sleep = spin::Mutex<()>;
    type Reading<'a> = ();

    fn reading(&self) -> Self::Reading<'_> {}

    fn wait_for_readers(&self) {}

    fn cpu(&self) -> usize {
        C::number()
    }

    fn wake_keeper(&self) {}

    fn wait(&self, _is_over: &mut dyn FnMut() -> bool) {
        std::thread::yield_now();
    }

    fn wake_waiters(&self) {}
}

/// 128 MiB of boot memory, and above it what came later, online as movable.
pub(crate) struct Altmap<C: Cpus = One>(Memory<Plain<C>>);

impl<C: Cpus> Altmap<C> {
    /// A machine that has booted, with struct pages for `sections` and words for `limit` of them.
    fn booted(sections: u64, limit: u64) -> Self {
        let zones: Vec<_> = ZoneKind::ALL.iter().map(|_| ZoneCell::new()).collect();
        let storage = Storage {
            sections: Vec::leak((0..limit).map(|_| AtomicU64::new(0)).collect()),
            withheld: Vec::leak((0..limit).map(|_| AtomicU64::new(0)).collect()),
            caches: Vec::leak((0..C::COUNT * zones.len()).map(|_| CacheCell::new()).collect()),
            zones: Vec::leak(zones),
            distances: Distances::new(1, &[10]).expect("square"),
        };
        let pages = (0..sections * SECTION_FRAMES).map(|_| PageInfo::default()).collect();
        let memory = Memory::new(Plain { pages, cpus: PhantomData }, storage);
        let frames = SectionId::new(0).expect("in reach").pages();
        let uses = [
            (PfnRange::new(frames.start(), MEMMAP_PAGES), BootUse::Memmap),
            (PfnRange::new(frames.start().add(MEMMAP_PAGES), frames.len() - MEMMAP_PAGES), BootUse::Free),
        ];
        memory.add_boot_section(&BootSection {
            id: frames.start().section(),
            node: NodeId::ZERO,
            movable_from: None,
            uses: &uses,
        });
        Self(memory)
    }

    fn offline(&self, frames: Range<u64>) -> Result<(), mm::hotplug::OfflineError> {
        let range = SectionRange::single(Pfn::new(frames.start).section());
        self.0.offline(&[range], &mut Unhurried)
    }
}

impl<C: Cpus> Frames for Altmap<C> {
    const NAME: &'static str = "altmap";
    const TAKE_FREE: Option<TakeOut<Self>> =
        Some(|frames, section| frames.offline(section).expect("all of it is free"));
    /// All that a refused offline does: isolate, look for what is in use, and put everything back.
    const TAKE_USED: Option<TakeOut<Self>> = Some(|frames, section| {
        frames.offline(section).expect_err("half of it is in use");
    });

    fn without_memory(bytes: u64) -> Self {
        Self::booted(1, 1 + bytes / SECTION_BYTES)
    }

    fn make_allocatable(&self, bytes: u64) {
        let range = SectionRange::new(1, bytes / SECTION_BYTES).expect("in reach");
        let name = GroupName { kind: GroupKind::Dimm, number: 0 };
        self.0.add(&AddRequest { range, node: NodeId::ZERO, name }, &mut Unhurried).expect("there is room");
        self.0.online(&[range], OnlineAs::Zone(ZoneKind::Movable), &mut Unhurried).expect("it is offline");
    }

    fn with_memory(bytes: u64) -> Self {
        let sections = 1 + bytes / SECTION_BYTES;
        let frames = Self::booted(sections, sections);
        frames.make_allocatable(bytes);
        frames
    }

    #[inline]
    fn allocate(&self, order: u8) -> Option<u64> {
        let request = Request {
            order: Order::new(order).expect("kept"),
            mobility: Mobility::Movable,
            place: Place::Near(NodeId::ZERO),
            owner: Owner::Anonymous,
            urgency: Urgency::Ordinary,
            site: Site::here(),
        };
        self.0.allocate(&request).ok().map(Pfn::number)
    }

    #[inline]
    fn free(&self, frame: u64, order: u8) {
        self.0.free(Pfn::new(frame), Order::new(order).expect("kept"));
    }
}
