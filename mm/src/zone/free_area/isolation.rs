//! Pageblocks that come within the allocator's reach and get out of it: those of a section that is opened, closed, or on its way out,
//! and pieces of one.

use super::{FreeArea, set_listing};
use crate::addr::{Order, Pfn, PfnRange, SectionId};
use crate::frame::list::End;
use crate::frame::memmap::Memmap;
use crate::frame::mobility::Mobility;
use crate::frame::pageblock::{Descriptor, FRAMES, KEPT_COUNT, LARGEST_PART, Listing, PER_SECTION, Pageblock};

impl FreeArea {
    /// A section's pageblocks, on no list so far, come within reach: the lowest are handed out first, after those of
    /// sections that came before.
    pub(crate) fn admit(&mut self, memmap: &impl Memmap, id: SectionId) {
        let first = Pageblock::of(id.pages().start());
        let kept = first.empty_count(memmap) & KEPT_COUNT;
        let empty = kept + self.admit_blocks(memmap, || Pageblock::of_section(id));
        first.set_empty_count(memmap, empty);
        if empty == PER_SECTION {
            self.empty.push(memmap, first, End::First);
        }
    }

    /// The same for the part of a section, which is in two zones, that is in this one. Its count has been started.
    pub(crate) fn admit_part(&mut self, memmap: &impl Memmap, part: PfnRange) {
        let id = part.start().section();
        let blocks = || Pageblock::of_section(id).filter(|block| part.contains(block.first()));
        let empty = self.admit_blocks(memmap, blocks);
        Pageblock::of(id.pages().start()).add_empty_count(memmap, empty);
    }

    /// Puts pageblocks on the lists where they belong; how many hold nothing.
    fn admit_blocks<I: Iterator<Item = Pageblock>>(&mut self, memmap: &impl Memmap, blocks: impl Fn() -> I) -> u64 {
        for block in blocks() {
            let descriptor = block.descriptor(memmap);
            if descriptor.listing() == Listing::Isolated {
                self.isolated -= descriptor.free();
            }
            block.set(memmap, descriptor.with_listing(Listing::Nowhere));
            self.pages += descriptor.free();
        }
        let mut empty = 0;
        for block in blocks() {
            self.enter(memmap, block, block.descriptor(memmap).largest(), End::Last);
            empty += u64::from(block.descriptor(memmap).is_empty());
        }
        empty
    }

    /// Takes a section's pageblocks out of reach; what is freed in them from now on stays there.
    pub(crate) fn isolate(&mut self, memmap: &impl Memmap, id: SectionId) {
        let first = Pageblock::of(id.pages().start());
        if first.empty_count(memmap) == PER_SECTION {
            self.empty.remove(memmap, first);
        }
        for block in Pageblock::of_section(id) {
            let descriptor = block.descriptor(memmap);
            match descriptor.listing() {
                Listing::Partial => {
                    self.partial[descriptor.mobility() as usize].remove(memmap, block, descriptor.largest());
                }
                Listing::Single => self.singles.remove(memmap, block),
                Listing::PairFirst => self.pairs.remove(memmap, block),
                Listing::PairSecond | Listing::Nowhere | Listing::Isolated => {}
            }
            self.pages -= descriptor.free();
            self.isolated += descriptor.free();
            block.set(memmap, descriptor.with_listing(Listing::Isolated));
        }
    }

    /// Gives frames back that were taken together and lie in isolated pageblocks. What may be found there is known when they come
    /// back: nobody looks before.
    pub(crate) fn put_isolated(&mut self, memmap: &impl Memmap, head: Pfn, order: Order) {
        if order >= Order::PAGEBLOCK {
            return self.put(memmap, head, order);
        }
        let block = Pageblock::of(head);
        let descriptor = block.descriptor(memmap);
        assert!(descriptor.listing() == Listing::Isolated, "{head:?} is not on its way out");
        block.mark_free(memmap, head, order);
        block.set(memmap, descriptor.given(order.pages()).with_largest(LARGEST_PART));
        self.isolated += order.pages();
    }

    /// An isolated section, all of it free, leaves the zone.
    pub(crate) fn retire(&mut self, memmap: &impl Memmap, id: SectionId) {
        for block in Pageblock::of_section(id) {
            self.isolated -= block.descriptor(memmap).free();
            set_listing(memmap, block, Listing::Nowhere);
        }
    }

    /// Takes some pageblocks of an open section out of reach; what is freed in them from now on stays there.
    pub(crate) fn isolate_pieces(&mut self, memmap: &impl Memmap, blocks: impl Iterator<Item = Pageblock>) {
        for block in blocks {
            let descriptor = block.descriptor(memmap);
            match descriptor.listing() {
                Listing::Partial => {
                    self.partial[descriptor.mobility() as usize].remove(memmap, block, descriptor.largest());
                }
                Listing::Single => self.singles.remove(memmap, block),
                Listing::PairFirst | Listing::PairSecond => self.pull(memmap, block),
                Listing::Nowhere | Listing::Isolated => {}
            }
            // A section of which something is isolated is not one that holds nothing.
            if descriptor.is_empty() {
                self.note_occupied(memmap, block);
            }
            self.pages -= descriptor.free();
            self.isolated += descriptor.free();
            block.set(memmap, descriptor.with_listing(Listing::Isolated));
        }
    }

    /// Has isolated pageblocks of an open section come back within reach.
    pub(crate) fn admit_pieces(&mut self, memmap: &impl Memmap, blocks: impl Iterator<Item = Pageblock> + Clone) {
        self.admit_blocks(memmap, || blocks.clone());
        blocks.filter(|block| block.descriptor(memmap).is_empty()).for_each(|block| self.note_empty(memmap, block));
    }

    /// Isolated pageblocks of an open section, all of them free, are not the zone's any more.
    pub(crate) fn retire_pieces(&mut self, memmap: &impl Memmap, blocks: impl Iterator<Item = Pageblock>) {
        for block in blocks {
            let descriptor = block.descriptor(memmap);
            assert!(descriptor.is_whole(), "{:?} is not empty", block.first());
            self.isolated -= FRAMES;
            block.mark_all_used(memmap);
            block.set(memmap, Descriptor::unlisted(0, descriptor.mobility()));
            self.note_empty(memmap, block);
        }
    }

    /// Pageblocks of an open section that were not the zone's come within reach, free as a whole.
    pub(crate) fn grant(&mut self, memmap: &impl Memmap, blocks: impl Iterator<Item = Pageblock> + Clone) {
        for block in blocks.clone() {
            block.mark_all_free(memmap);
            block.set(memmap, Descriptor::unlisted(FRAMES, Mobility::Movable));
        }
        // They counted as holding nothing, and do so still.
        self.admit_blocks(memmap, || blocks.clone());
    }
}
