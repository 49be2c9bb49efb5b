//! Fills on their way: while one is taken, pinned or given back, frames are somebody's that no total tells of.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Changes that have begun, and that have ended.
static BEGUN: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

/// A change of fills that is under way.
#[must_use = "it is over when this is dropped"]
pub(crate) struct Change(());

/// Begins a change.
pub(crate) fn change() -> Change {
    BEGUN.fetch_add(1, SeqCst);
    Change(())
}

impl Drop for Change {
    fn drop(&mut self) {
        ENDED.fetch_add(1, SeqCst);
    }
}

/// How many changes there have been; `None` while one is under way.
pub(crate) fn changes() -> Option<u64> {
    // Those that end in between have begun by then, too, and count as under way.
    let ended = ENDED.load(SeqCst);
    (BEGUN.load(SeqCst) == ended).then_some(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_told_while_a_change_is_under_way() {
        let before = changes().expect("nobody changes anything");
        let first = change();
        let second = change();
        assert_eq!(changes(), None);
        drop(first);
        assert_eq!(changes(), None);
        drop(second);
        assert_eq!(changes(), Some(before + 2));
    }
}
