//! What workers do, how often, and which refusals are an answer like any other.

use super::dice::Dice;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use mm::Errno;

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Allocate,
    Fill,
    Kfill,
    Verify,
    Pin,
    Unpin,
    Free,
    Online,
    OnlineKernel,
    OnlineMovable,
    Offline,
    Remove,
    Probe,
    Settings,
    Page,
    Drain,
}

impl Operation {
    pub(crate) const ALL: [Self; 16] = [
        Self::Allocate,
        Self::Fill,
        Self::Kfill,
        Self::Verify,
        Self::Pin,
        Self::Unpin,
        Self::Free,
        Self::Online,
        Self::OnlineKernel,
        Self::OnlineMovable,
        Self::Offline,
        Self::Remove,
        Self::Probe,
        Self::Settings,
        Self::Page,
        Self::Drain,
    ];

    /// Its name: that of the command that does the same, where there is one.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Allocate => "allocate",
            Self::Fill => "fill",
            Self::Kfill => "kfill",
            Self::Verify => "verify",
            Self::Pin => "pin",
            Self::Unpin => "unpin",
            Self::Free => "free",
            Self::Online => "online",
            Self::OnlineKernel => "online_kernel",
            Self::OnlineMovable => "online_movable",
            Self::Offline => "offline",
            Self::Remove => "remove",
            Self::Probe => "probe",
            Self::Settings => "settings",
            Self::Page => "page",
            Self::Drain => "drain",
        }
    }

    /// How often it is chosen, compared with the others. What the log tells of is rare.
    const fn weight(self) -> u64 {
        match self {
            Self::Allocate => 600,
            Self::Free => 450,
            Self::Fill | Self::Kfill | Self::Verify => 100,
            Self::Offline => 160,
            Self::Page | Self::OnlineMovable => 80,
            Self::Online | Self::OnlineKernel | Self::Pin | Self::Unpin => 40,
            Self::Drain | Self::Settings | Self::Probe => 20,
            Self::Remove => 10,
        }
    }

    /// One of them.
    pub(super) fn choose(dice: &mut Dice) -> Self {
        let mut left = dice.below(Self::ALL.iter().map(|operation| operation.weight()).sum());
        for operation in Self::ALL {
            match left.checked_sub(operation.weight()) {
                Some(rest) => left = rest,
                None => return operation,
            }
        }
        unreachable!("the weights add up to their sum")
    }

    /// Whether it may be refused so while others do as they like.
    pub(super) fn expects(self, errno: Errno) -> bool {
        use Errno::{Again, Busy, Exists, Invalid, NoDevice, NoEntry, NoMemory, TimedOut};
        let expected: &[Errno] = match self {
            // All slots for tasks may be taken when a writer shall start.
            Self::Fill => &[NoMemory, Again],
            Self::Allocate | Self::Kfill => &[NoMemory],
            // A page may be on its way elsewhere just then.
            Self::Pin => &[NoMemory, Busy],
            Self::Online | Self::OnlineKernel | Self::OnlineMovable => &[Invalid, NoEntry, Busy, TimedOut],
            Self::Offline => &[Invalid, NoEntry, Busy, NoMemory, TimedOut],
            Self::Remove => &[NoEntry, Busy, TimedOut],
            Self::Probe => &[Exists, NoDevice, NoMemory],
            Self::Verify | Self::Unpin | Self::Free | Self::Settings | Self::Page | Self::Drain => &[],
        };
        expected.contains(&errno)
    }
}

/// How often each was done, and how often refused.
pub(super) struct Tally {
    done: [AtomicU64; Operation::ALL.len()],
    refused: [AtomicU64; Operation::ALL.len()],
}

/// What a tally says of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) operation: Operation,
    pub(crate) done: u64,
    pub(crate) refused: u64,
}

impl Tally {
    pub(super) const fn new() -> Self {
        Self {
            done: [const { AtomicU64::new(0) }; Operation::ALL.len()],
            refused: [const { AtomicU64::new(0) }; Operation::ALL.len()],
        }
    }

    pub(super) fn note_done(&self, operation: Operation) {
        self.done[operation as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn note_refused(&self, operation: Operation) {
        self.refused[operation as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn counts(&self) -> [Count; Operation::ALL.len()] {
        Operation::ALL.map(|operation| Count {
            operation,
            done: self.done[operation as usize].load(Relaxed),
            refused: self.refused[operation as usize].load(Relaxed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_chosen_sooner_or_later() {
        let mut dice = Dice::new(1, 0);
        let mut chosen = [0; Operation::ALL.len()];
        (0..100_000).for_each(|_| chosen[Operation::choose(&mut dice) as usize] += 1);
        assert!(chosen.iter().all(|times| *times > 0), "{chosen:?}");
    }

    #[test]
    fn each_is_counted_by_itself() {
        let tally = Tally::new();
        tally.note_done(Operation::Drain);
        tally.note_refused(Operation::Offline);
        for Count { operation, done, refused } in tally.counts() {
            assert_eq!(done, u64::from(operation == Operation::Drain));
            assert_eq!(refused, u64::from(operation == Operation::Offline));
        }
    }
}
