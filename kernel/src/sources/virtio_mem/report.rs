//! What every device says, and what is being done about it.

use crate::drivers::virtio::mem::Config;
use crate::sync::Mutex;
use alloc::string::String;
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
    pub(crate) state: State,
}

static REPORTS: Mutex<Vec<Report>> = Mutex::new(Vec::new());

/// Every device, in the order in which they came.
pub(crate) fn reports() -> Vec<Report> {
    REPORTS.lock().clone()
}

/// A device has come; `name` makes a name of how many there were.
pub(super) fn enter(config: Config, name: impl FnOnce(usize) -> GroupName) -> GroupName {
    let mut reports = REPORTS.lock();
    let name = name(reports.len());
    reports.push(Report { name, config, state: State::Working });
    name
}

/// Notes what is being done about a device; says whether that is something else than before.
pub(super) fn note(name: GroupName, config: Option<Config>, state: State) -> bool {
    let mut reports = REPORTS.lock();
    let report = reports.iter_mut().find(|report| report.name == name).expect("who is driven has come");
    report.config = config.unwrap_or(report.config);
    core::mem::replace(&mut report.state, state.clone()) != state
}
