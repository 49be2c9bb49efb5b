//! What every device says, and what is being done about it.

use super::mode::{Mode, Order};
use crate::drivers::virtio::Calls;
use crate::drivers::virtio::mem::Config;
use crate::sync::Mutex;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use mm::section::group::GroupName;

/// What is being done about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// There is as much as the host wants.
    Idle,
    Working,
    /// For that.
    Waiting(String),
    /// It is not used any more, for that reason.
    SetAside(String),
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) name: GroupName,
    pub(crate) config: Config,
    pub(crate) mode: Mode,
    pub(crate) state: State,
}

struct Entry {
    report: Report,
    order: Order,
    /// What its task waits for.
    calls: Arc<Calls>,
}

static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// Every device, in the order in which they came.
pub(crate) fn reports() -> Vec<Report> {
    ENTRIES.lock().iter().map(|entry| entry.report.clone()).collect()
}

/// A device has come, which calls so; `name` makes a name of how many there were.
pub(super) fn enter(config: Config, mode: Mode, calls: Arc<Calls>, name: impl FnOnce(usize) -> GroupName) -> GroupName {
    let mut entries = ENTRIES.lock();
    let name = name(entries.len());
    let report = Report { name, config, mode, state: State::Working };
    entries.push(Entry { report, order: Order::None, calls });
    name
}

/// Has the task of every device look whether there is something to be done.
pub(crate) fn wake() {
    ENTRIES.lock().iter().for_each(|entry| entry.calls.wake());
}

/// Works with what there is of a device, if it has come, while nobody else does.
pub(super) fn with_entry<R>(name: GroupName, work: impl FnOnce(&mut Report, &mut Order) -> R) -> Option<R> {
    let mut entries = ENTRIES.lock();
    let entry = entries.iter_mut().find(|entry| entry.report.name == name)?;
    Some(work(&mut entry.report, &mut entry.order))
}

/// Notes what is being done about a device; says whether that is something else than before.
pub(super) fn note(name: GroupName, config: Option<Config>, state: State) -> bool {
    let noted = with_entry(name, |report, _| {
        report.config = config.unwrap_or(report.config);
        core::mem::replace(&mut report.state, state.clone()) != state
    });
    noted.expect("who is driven has come")
}
