//! How a device's memory comes, and orders to change that, which its task carries out.

use super::report::{self, State};
use crate::task;
use core::time::Duration;
use mm::Errno;
use mm::hotplug::{AddError, RemoveError};
use mm::section::group::GroupName;
use thiserror::Error;

/// How often somebody who waits for an order looks whether it is carried out.
const LOOK: Duration = Duration::from_millis(5);

/// How a device's memory comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Mode {
    /// Its size follows the host.
    #[default]
    Requested,
    /// All of it is known, and what is online is backed by the host.
    Standby,
}

impl Mode {
    const ALL: [Self; 2] = [Self::Requested, Self::Standby];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Standby => "standby",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

/// Why a device does not change its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum ModeError {
    #[error("there is no virtio-mem device of that name")]
    Absent,
    #[error("the device is set aside")]
    SetAside,
    #[error("somebody else is just changing its mode")]
    UnderWay,
    #[error("{} MiB of it are plugged", .0 >> 20)]
    Plugged(u64),
    #[error(transparent)]
    Remove(RemoveError),
    #[error(transparent)]
    Add(AddError),
}

impl ModeError {
    /// The errno name.
    pub(crate) const fn errno(self) -> Errno {
        match self {
            Self::Absent => Errno::NoEntry,
            Self::SetAside => Errno::Io,
            Self::UnderWay | Self::Plugged(_) => Errno::Busy,
            Self::Remove(error) => error.errno(),
            Self::Add(error) => error.errno(),
        }
    }
}

/// What was asked of a device's task, until that has said what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Order {
    #[default]
    None,
    Wanted(Mode),
    Answered(Result<(), ModeError>),
}

/// Changes the mode of a device, of which nothing may be plugged. Its task does that soon.
///
/// # Errors
/// See [`ModeError`]; its mode is what it was then.
pub(crate) fn set_mode(name: GroupName, mode: Mode) -> Result<(), ModeError> {
    let given = report::with_entry(name, |report, order| match (&report.state, &order) {
        (State::SetAside(_), _) => Err(ModeError::SetAside),
        (_, Order::Wanted(_) | Order::Answered(_)) => Err(ModeError::UnderWay),
        (_, Order::None) => {
            *order = Order::Wanted(mode);
            Ok(())
        }
    });
    given.unwrap_or(Err(ModeError::Absent))?;
    report::wake();
    loop {
        let said = report::with_entry(name, |report, order| match (&report.state, core::mem::take(order)) {
            (_, Order::Answered(said)) => Some(said),
            (State::SetAside(_), _) => Some(Err(ModeError::SetAside)),
            (_, waiting) => {
                *order = waiting;
                None
            }
        });
        if let Some(said) = said.unwrap_or(Some(Err(ModeError::Absent))) {
            return said;
        }
        task::sleep(LOOK);
    }
}

/// The mode that is wanted of a device, if somebody is waiting for that.
pub(super) fn wanted(name: GroupName) -> Option<Mode> {
    report::with_entry(name, |_, order| match order {
        Order::Wanted(mode) => Some(*mode),
        Order::None | Order::Answered(_) => None,
    })
    .flatten()
}

/// Says what became of an order.
pub(super) fn answer(name: GroupName, said: Result<(), ModeError>) {
    report::with_entry(name, |_, order| *order = Order::Answered(said));
}
