//! Whether what the controller says of a DIMM can be true. It is input like any other, and the memory that it names is
//! mapped, written and one day ejected.

use super::end;
use crate::drivers::dimm::Dimm;
use crate::firmware::window::Window;
use mm::Errno;
use mm::section::group::{Group, GroupKind, GroupName};
use thiserror::Error;

/// Why a DIMM cannot be what the controller says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Nonsense {
    #[error("its size is zero")]
    Empty,
    #[error("its end address overflows")]
    Endless,
    #[error("there is no hotplug window")]
    NoWindow,
    #[error("it lies outside the hotplug window {:#x}-{:#x}", .0.start, .0.end() - 1)]
    OutsideWindow(Window),
    #[error("it lies outside the hotplug windows, which `iomem` shows")]
    OutsideWindows,
    #[error("it overlaps {0}")]
    Taken(GroupName),
}

impl Nonsense {
    /// The errno name.
    pub(super) fn errno(self) -> Errno {
        match self {
            Self::Empty | Self::Endless | Self::NoWindow | Self::OutsideWindow(_) | Self::OutsideWindows => {
                Errno::Invalid
            }
            Self::Taken(_) => Errno::Exists,
        }
    }
}

/// Checks a DIMM against where memory may come, and what is there.
pub(super) fn check(dimm: &Dimm, windows: &[Window], groups: &[Group]) -> Result<(), Nonsense> {
    if dimm.len == 0 {
        return Err(Nonsense::Empty);
    }
    let end = dimm.start.checked_add(dimm.len).ok_or(Nonsense::Endless)?;
    if !windows.iter().any(|window| window.start <= dimm.start && end <= window.end()) {
        return Err(match *windows {
            [] => Nonsense::NoWindow,
            [window] => Nonsense::OutsideWindow(window),
            _ => Nonsense::OutsideWindows,
        });
    }
    foreign_group(dimm, groups).map_or(Ok(()), |name| Err(Nonsense::Taken(name)))
}

/// A group at addresses of the DIMM that did not come with it.
pub(super) fn foreign_group(dimm: &Dimm, groups: &[Group]) -> Option<GroupName> {
    let is_own = |name: GroupName| match name.kind {
        GroupKind::Boot | GroupKind::VirtioMem => false,
        GroupKind::Dimm => u32::from(name.number) == dimm.slot,
        GroupKind::Probe => true,
    };
    let overlaps = |group: &Group| {
        let start = group.window.first().address();
        start < end(dimm) && dimm.start < start + group.window.size_bytes()
    };
    groups.iter().find(|group| overlaps(group) && !is_own(group.name)).map(|group| group.name)
}
