//! `online`, `online_kernel`, `online_movable`, `offline`, `probe` and `remove`: memory comes into use and goes.

use super::super::arguments::{Among, Count, Kind, Operand, OptionSpec, Syntax};
use super::super::call::Call;
use super::super::failure::{Failure, Outcome, Quoted};
use super::super::values::{address, number, size};
use super::{Command, resolve};
use crate::memory::mm;
use crate::pace::{OFFLINE_WITHIN, TaskPace};
use crate::{sources, time};
use alloc::vec::Vec;
use core::time::Duration;
use mm::Errno;
use mm::addr::{SectionId, SectionRange};
use mm::record::policy::OnlineAs;
use mm::section::group::{Group, GroupId, GroupKind, GroupName};
use mm::section::kind::ZoneKind;
use mm::section::state::BlockState;

const OFFLINE: &[Operand] = &[Operand { name: "BLOCKS", kind: Kind::BlocksOrGroup(Among::Offline), count: Count::One }];

const ONLINE: &[Operand] = &[Operand { name: "BLOCKS", kind: Kind::BlocksOrGroup(Among::Online), count: Count::One }];

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "online",
        syntax: Syntax { options: &[], operands: OFFLINE },
        summary: "bring blocks into use, in the zone the policy chooses",
        details: "\
BLOCKS is a number (34), a range (32-39), a list (32,34-36) or a group (dimm0).
All of them come online, or none. `lsmem` shows beforehand, first under
VALID_ZONES, which zone each will get; `policy` is how that is decided, and the
log says when Movable was not chosen because the kernel would have too little
memory. Any order of blocks works.",
        example: "online 32-34",
        run: |call| online(call, OnlineAs::ByPolicy),
    },
    Command {
        name: "online_kernel",
        syntax: Syntax { options: &[], operands: OFFLINE },
        summary: "bring blocks into use for everything (zone Normal)",
        details: "\
The kernel may put its own data there, which cannot be moved away: such a block
can often not be taken offline again. Blocks that are online as Movable become
Normal without going offline, with what they hold.",
        example: "online_kernel 32",
        run: |call| online(call, OnlineAs::Zone(ZoneKind::Normal)),
    },
    Command {
        name: "online_movable",
        syntax: Syntax { options: &[], operands: OFFLINE },
        summary: "bring blocks into use for what can move (zone Movable)",
        details: "\
Only memory whose every user can be found and redirected is put there, so that
the block can be taken offline later. The log warns when there is more Movable
memory than `policy` would make, or more than the kernel can serve.

Blocks that are online as Normal become Movable without going offline, with what
they hold: all of them, or none and EBUSY if one holds what cannot move.",
        example: "online_movable dimm0",
        run: |call| online(call, OnlineAs::Zone(ZoneKind::Movable)),
    },
    Command {
        name: "offline",
        syntax: Syntax {
            options: &[OptionSpec {
                name: "--within",
                value: Some(("MS", Kind::Free)),
                help: "give up after so many milliseconds (30000)",
            }],
            operands: ONLINE,
        },
        summary: "take blocks out of use; all of them or none",
        details: "\
Free memory of the blocks is set aside, listeners are asked, and what is in use
moves elsewhere. If something cannot, the command fails before anything has
moved: EBUSY names the first page and its owner, ENOMEM says how much room is
missing; `why` lists all of it. Out of time is ETIMEDOUT, Ctrl-C ECANCELED. All
blocks are online then as before; pages that had moved stay where they are.

Memory of the kernel (zone Normal) goes, too, and the log warns when it may need
more than is left; but what hotplug itself lives on at boot stays, or ENOMEM.",
        example: "offline 32-34 --within 500",
        run: offline,
    },
    Command {
        name: "probe",
        syntax: Syntax {
            options: &[],
            operands: &[
                Operand { name: "ADDR", kind: Kind::Free, count: Count::One },
                Operand { name: "SIZE", kind: Kind::Free, count: Count::Optional },
            ],
        },
        summary: "add by hand a range that the machine is known to back",
        details: "\
Works for a DIMM that is plugged but was removed with `remove`, or refused for
a reason that is gone now, and for memory that `mem=` hid at boot. A DIMM that
is refused still fails with the reason. Anything else is ENODEV: the memory bus
is never poked to find out. Without SIZE it adds all that is known to be there
from ADDR on. While a DIMM is being removed, it waits; Ctrl-C ends that.",
        example: "probe 0x1_0000_0000 512M",
        run: probe,
    },
    Command {
        name: "remove",
        syntax: Syntax {
            options: &[],
            operands: &[Operand { name: "GROUP|BLOCKS", kind: Kind::BlocksOrGroup(Among::Offline), count: Count::One }],
        },
        summary: "forget offline memory, a whole group at a time",
        details: "\
Everything that adding it took is given back: the direct map, the struct pages
and the page tables. Its blocks must be offline. A part of a group cannot be
removed, nor memory that was there at boot.",
        example: "remove dimm0",
        run: remove,
    },
];

fn online(call: &Call<'_>, how: OnlineAs) -> Outcome {
    let ranges = resolve::blocks(call.arguments.operand(0).unwrap_or_default())?;
    if let Some(remark) = mm().online(&ranges, how, &mut TaskPace::untimed())? {
        log::warn!(target: "online", "{remark}");
    }
    Ok(())
}

fn offline(call: &mut Call<'_>) -> Outcome {
    let within = match call.arguments.value("--within") {
        Some(word) => Duration::from_millis(number(word, "a number of milliseconds")?),
        None => OFFLINE_WITHIN,
    };
    let ranges = resolve::blocks(call.arguments.operand(0).unwrap_or_default())?;
    let mut runs = ranges.iter().flat_map(|range| mm().runs(*range)).filter_map(|(_, section)| section);
    let takes_kernel_memory = runs.any(|section| section.state.zone() == Some(ZoneKind::Normal));
    mm().offline(&ranges, &mut TaskPace::until(time::deadline_after(within)))?;
    if takes_kernel_memory && let Some(remark) = mm().shortage() {
        log::warn!(target: "offline", "{remark}");
    }
    Ok(())
}

fn probe(call: &mut Call<'_>) -> Outcome {
    let start = address(call.arguments.operand(0).unwrap_or_default())?;
    let len = call.arguments.operand(1).map(size).transpose()?;
    sources::probe(start, len)?;
    Ok(())
}

fn remove(call: &mut Call<'_>) -> Outcome {
    let word = call.arguments.operand(0).unwrap_or_default();
    let ranges = resolve::blocks(word)?;
    let groups: Vec<(GroupId, Group)> = resolve::groups()
        .into_iter()
        .filter(|(_, group)| ranges.iter().any(|range| overlap(*range, group.window)))
        .collect();
    for (_, group) in &groups {
        check_removable(group)?;
        if !ranges.iter().any(|range| covers(*range, group.window)) {
            return Err(Failure::invalid(format_args!(
                "{} is only a part of group {}, which is removed as a whole",
                Quoted(word),
                group.name
            )));
        }
        check_offline(group)?;
    }
    let names: Vec<GroupName> = groups.iter().map(|(_, group)| group.name).collect();
    mm().remove(&names, &mut TaskPace::untimed())?;
    Ok(())
}

// Everything is found out for every group before the first one goes.

fn check_removable(group: &Group) -> Outcome {
    if !group.is_removable() {
        return Err(Failure::invalid(format_args!("{} is boot memory, which cannot be removed", group.name)));
    }
    if group.name.kind == GroupKind::VirtioMem {
        return Err(Failure::invalid(format_args!("{} comes and goes as its device and the host agree", group.name)));
    }
    Ok(())
}

fn check_offline(group: &Group) -> Outcome {
    let offline = |id: &SectionId| mm().section(*id).is_some_and(|section| section.state == BlockState::Offline);
    match group.window.iter().find(|id| !offline(id)) {
        Some(id) => Err(Failure::new(Errno::Busy, format_args!("block {id} of {} is not offline", group.name))),
        None => Ok(()),
    }
}

fn overlap(a: SectionRange, b: SectionRange) -> bool {
    a.first() <= b.last() && b.first() <= a.last()
}

fn covers(outer: SectionRange, inner: SectionRange) -> bool {
    outer.first() <= inner.first() && inner.last() <= outer.last()
}
