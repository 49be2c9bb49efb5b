//! What tests of several areas stand on: memory as it was before, and a block to bring online.
#![deny(unsafe_code)]

use super::skip;
use crate::memory::{self, mm};
use crate::recount::recount;
use crate::task;
use mm::addr::SectionRange;
use mm::machine::tasks::Unhurried;
use mm::record::policy::OnlineAs;
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;

/// Free bytes, and those of page tables of spaces.
pub(super) fn totals() -> (u64, u64) {
    let mut free = 0;
    mm().for_each_zone(|zone| free += zone.free);
    (free, memory::space_table_bytes())
}

/// Runs a test, which leaves no trace.
#[track_caller]
pub(super) fn without_a_trace(test: impl FnOnce()) {
    task::settle();
    let before = totals();
    test();
    task::settle();
    assert_eq!(totals(), before);
    memory_adds_up();
}

/// No counter disagrees with what is there.
#[track_caller]
pub(super) fn memory_adds_up() {
    let recount = recount();
    assert!(recount.is_ok(), "{recount}");
}

/// Brings a block online that is offline at first, runs a test, and takes it offline again if the test has not, all of which
/// leaves no trace. Where no block is offline, the test is skipped.
pub(super) fn with_a_block(zone: ZoneKind, test: impl FnOnce(SectionRange)) {
    let offline = mm().blocks().find(|(_, section)| section.state == BlockState::Offline);
    let Some((id, _)) = offline else {
        return skip("no block is offline");
    };
    let range = SectionRange::single(id);
    without_a_trace(|| {
        mm().online(&[range], OnlineAs::Zone(zone), &mut Unhurried).expect("nobody refuses");
        test(range);
        if mm().section(id).is_some_and(|section| section.state != BlockState::Offline) {
            mm().offline(&[range], &mut Unhurried).expect("nothing is there any more");
        }
    });
}
