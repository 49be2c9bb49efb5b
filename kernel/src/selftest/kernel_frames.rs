//! What frames of the kernel's own go through that can move: their block goes offline, or they have an error. Whoever uses
//! them works on.
#![deny(unsafe_code)]

use super::fixture::{memory_adds_up, totals, with_a_block};
use crate::memory::mm;
use alloc::vec::Vec;
use mm::Errno;
use mm::addr::{PAGE_SIZE, Pfn, SectionRange};
use mm::alloc::request::Request;
use mm::hotplug::OfflineError;
use mm::hotplug::preview::{OfflinePreview, PreviewItem};
use mm::inject::{Injected, Point};
use mm::machine::mover::{Move, Mover, Stay};
use mm::machine::tasks::Unhurried;
use mm::observe::report::FrameState;
use mm::poison::PoisonError;
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;

/// Where a move can fail once there is a place to move to.
const POINTS: [Point; 2] = [Point::MigrateUnmap, Point::MigrateCopy];

/// Moves frames that such a request gives into a block, which fails to go offline, stays as it is, and goes in the end. `work`
/// uses what they hold, and fails if that is not what it was.
pub(super) fn leave_a_block(zone: ZoneKind, request: &Request, frames: &[Pfn], work: impl Fn()) {
    with_a_block(zone, |range| {
        let places = move_into(range, request, frames);
        work();
        let is_held = |place: &Pfn| {
            let report = mm().frame_report(*place);
            (report.state, report.owner) == (FrameState::Allocated, request.owner)
        };
        for point in POINTS {
            let before = totals();
            mm().failure_points().arm(point, Errno::Io, u32::MAX);
            let result = mm().offline(&[range], &mut Unhurried);
            mm().failure_points().arm(point, Errno::Io, 0);
            assert_eq!(result, Err(OfflineError::Injected(Injected { point, errno: Errno::Io })));
            assert_eq!(state(range), BlockState::Online(zone));
            assert!(places.iter().all(is_held), "{point:?}");
            assert_eq!(totals(), before, "{point:?}");
            work();
            memory_adds_up();
        }
        assert_eq!(foreseen(range), OfflinePreview { movable: places.len() as u64, short_by: 0, reserve_short_by: 0 });
        mm().offline(&[range], &mut Unhurried).expect("all of it can move");
        assert_eq!(state(range), BlockState::Offline);
        work();
    });
}

/// Poisons a frame that is in use.
pub(super) fn survives_an_error(frame: Pfn, work: impl Fn()) {
    let poisoned = || mm().memory_report().poisoned;
    let (before, poisoned_before) = (totals(), poisoned());
    let owner = mm().frame_report(frame).owner;
    for point in POINTS {
        mm().failure_points().arm(point, Errno::Io, 1);
        let injected = Injected { point, errno: Errno::Io };
        assert_eq!(mm().poison(frame, &mut Unhurried), Err(PoisonError::Injected(injected)));
        let report = mm().frame_report(frame);
        assert_eq!((report.state, report.owner), (FrameState::Allocated, owner));
        work();
    }
    assert_eq!((totals(), poisoned()), (before, poisoned_before));
    mm().poison(frame, &mut Unhurried).expect("what it holds can move");
    assert_eq!(mm().frame_report(frame).state, FrameState::Poisoned);
    let (free, tables) = before;
    assert_eq!((totals(), poisoned()), ((free - PAGE_SIZE, tables), poisoned_before + PAGE_SIZE));
    work();
    memory_adds_up();
}

fn state(range: SectionRange) -> BlockState {
    mm().section(range.first()).expect("it is there").state
}

/// What an offline is said to meet, which is nothing in its way.
fn foreseen(range: SectionRange) -> OfflinePreview {
    let nothing = |_, seen| assert!(matches!(seen, PreviewItem::Done { .. }), "{seen:?}");
    mm().preview_offline(&[range], &mut Unhurried, nothing).expect("it is online")
}

/// Moves frames one after the other: a table does not move while another one does that it points to.
fn move_into(range: SectionRange, request: &Request, frames: &[Pfn]) -> Vec<Pfn> {
    let move_one = |from: &Pfn| {
        let to = mm().allocate_within(request, range).expect("there is room");
        let mut moves = [Move { from: *from, to, order: request.order, outcome: Err(Stay::InFlight) }];
        mm().machine().migrate(&mut moves);
        assert_eq!(moves[0].outcome, Ok(()));
        mm().free(*from, request.order);
        to
    };
    frames.iter().map(move_one).collect()
}
