//! Who may change which sections: operations on different ranges go on at once, those on overlapping ones in turn.
//!
//! A fair range lock: a task that wants a range draws a ticket, and has its turn when no earlier ticket's range overlaps. So
//! a large range is not starved by small ones that come and go. A task asks once for all that it needs and waits for earlier
//! tickets only, so there is no deadlock among them.

use crate::addr::SectionRange;
use heapless::Vec;
use lock_api::{Mutex, RawMutex};

/// How many tickets can be drawn. More tasks wait until they can draw one, in no order.
const QUEUE_LIMIT: usize = 256;

/// A ticket of the queue; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ticket(u64);

/// The tickets drawn, in their order.
pub(crate) struct TicketQueue {
    places: Vec<(Ticket, SectionRange), QUEUE_LIMIT>,
    next: u64,
    /// The keeper found a section held, and is to look again when a ticket leaves.
    pub(crate) is_keeper_turned_away: bool,
}

impl TicketQueue {
    const fn new() -> Self {
        Self { places: Vec::new(), next: 0, is_keeper_turned_away: false }
    }

    /// Joins at the end. Returns the ticket, and whether its turn has come at once; `None` if the queue is full.
    pub(crate) fn join(&mut self, range: SectionRange) -> Option<(Ticket, bool)> {
        let ticket = Ticket(self.next);
        let is_free = !self.places.iter().any(|(_, other)| other.overlaps(range));
        self.places.push((ticket, range)).ok()?;
        self.next += 1;
        Some((ticket, is_free))
    }

    /// Whether nobody else can join.
    pub(crate) fn is_full(&self) -> bool {
        self.places.is_full()
    }

    fn place(&self, ticket: Ticket) -> usize {
        self.places.iter().position(|(other, _)| *other == ticket).expect("a ticket is good until its holder leaves")
    }

    pub(crate) fn has_turn(&self, ticket: Ticket) -> bool {
        let place = self.place(ticket);
        let range = self.places[place].1;
        !self.places[..place].iter().any(|(_, earlier)| earlier.overlaps(range))
    }

    /// Leaves. Returns whether another ticket may have waited for that.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> bool {
        let was_full = self.places.is_full();
        let place = self.place(ticket);
        let (_, range) = self.places.remove(place);
        was_full || self.places[place..].iter().any(|(_, later)| later.overlaps(range))
    }
}

/// The locks of all ranges of sections.
pub(crate) struct RangeLocks<S>(pub(crate) Mutex<S, TicketQueue>);

impl<S: RawMutex> RangeLocks<S> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(TicketQueue::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, count: u64) -> SectionRange {
        SectionRange::new(first, count).expect("in reach")
    }

    #[test]
    fn ranges_that_do_not_overlap_are_had_at_once() {
        let mut queue = TicketQueue::new();
        assert!(queue.join(range(4, 4)).expect("a place").1);
        assert!(queue.join(range(8, 1)).expect("a place").1);
        assert!(!queue.join(range(0, 5)).expect("a place").1);
    }

    #[test]
    fn who_waits_for_a_large_range_is_not_overtaken() {
        let mut queue = TicketQueue::new();
        let (small, _) = queue.join(range(0, 1)).expect("a place");
        let (large, _) = queue.join(range(0, 8)).expect("a place");
        let (late, is_free) = queue.join(range(5, 1)).expect("a place");
        assert!(!is_free && !queue.has_turn(large));
        assert!(queue.leave(small));
        assert!(queue.has_turn(large) && !queue.has_turn(late));
        assert!(queue.leave(large));
        assert!(queue.has_turn(late));
        assert!(!queue.leave(late));
    }

    #[test]
    fn who_gives_up_waiting_holds_nobody_up() {
        let mut queue = TicketQueue::new();
        let (holder, _) = queue.join(range(0, 2)).expect("a place");
        let (waiter, _) = queue.join(range(0, 8)).expect("a place");
        let (behind, _) = queue.join(range(4, 1)).expect("a place");
        assert!(queue.leave(waiter));
        assert!(queue.has_turn(behind) && queue.has_turn(holder));
    }

    #[test]
    fn whoever_finds_no_place_hears_when_there_is_one() {
        let mut queue = TicketQueue::new();
        let tickets: Vec<_, QUEUE_LIMIT> = (0..QUEUE_LIMIT as u64).map_while(|n| queue.join(range(n, 1))).collect();
        assert_eq!(tickets.len(), QUEUE_LIMIT);
        assert!(queue.join(range(1000, 1)).is_none());
        assert!(queue.leave(tickets[7].0));
        assert!(queue.join(range(1000, 1)).expect("a place").1);
    }
}
