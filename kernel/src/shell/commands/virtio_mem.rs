//! `virtio_mem`: the devices whose size the host changes.

use super::super::arguments::{Count, JSON, Kind, Operand, Syntax};
use super::super::call::Call;
use super::super::failure::{Failure, Outcome, Quoted};
use super::super::table::{Align, Table};
use super::super::values::Human;
use super::Command;
use crate::sources::virtio_mem::{Mode, ModeError, Report, State, reports, set_mode};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use mm::section::group::GroupName;
use serde::Serialize;

pub(super) const COMMANDS: &[Command] = &[Command {
    name: "virtio_mem",
    syntax: Syntax {
        options: &[JSON],
        operands: &[
            Operand { name: "NAME", kind: Kind::Free, count: Count::Optional },
            Operand { name: "mode", kind: Kind::OneOf(&["mode"]), count: Count::Optional },
            Operand { name: "requested|standby", kind: Kind::OneOf(&["requested", "standby"]), count: Count::Optional },
        ],
    },
    summary: "list the virtio-mem devices, or set the mode of one",
    details: "\
Each has a region of addresses, and the host says how much of it the guest shall
have (REQUESTED). The kernel plugs and unplugs pieces of it until that is so:
PLUGGED is what it has. New blocks go online as `auto_online` says. What takes
longer says under STATE what stands in its way; it is tried again at least every
two seconds. A device that misbehaves is set aside; what is plugged of it stays.

mode requested  as above (the default)
mode standby    every block of the region is known, and offline. `online` has
                the host back it, `offline` gives it back: ENOMEM is more than
                the host grants (REQUESTED), EBUSY a busy host. Nothing goes
                online by itself

A device changes its mode while nothing of it is plugged. The kernel parameter
`virtio_mem.mode=standby` is for all of them from the start.",
    example: "virtio_mem vmem0 mode standby",
    run: virtio_mem,
}];

/// What `virtio_mem -J` prints; the field names are a contract.
#[derive(Serialize)]
struct Devices {
    devices: Vec<Device>,
}

#[derive(Serialize)]
struct Device {
    name: String,
    node: u32,
    start: u64,
    region: u64,
    usable: u64,
    requested: u64,
    plugged: u64,
    block_size: u64,
    mode: &'static str,
    state: &'static str,
    reason: Option<String>,
}

impl From<Report> for Device {
    fn from(Report { name, config, mode, state }: Report) -> Self {
        let (state, reason) = match state {
            State::Idle => ("idle", None),
            State::Working => ("working", None),
            State::Waiting(reason) => ("waiting", Some(reason)),
            State::SetAside(reason) => ("set-aside", Some(reason)),
        };
        Self {
            name: name.to_string(),
            node: config.domain.unwrap_or(0),
            start: config.start,
            region: config.region,
            usable: config.usable,
            requested: config.requested,
            plugged: config.plugged,
            block_size: config.block_size,
            mode: mode.name(),
            state,
            reason,
        }
    }
}

fn virtio_mem(call: &mut Call<'_>) -> Outcome {
    let arguments = call.arguments;
    let name = arguments.operand(0).map(|word| GroupName::parse(word).ok_or(ModeError::Absent)).transpose()?;
    match (name, arguments.operand(1), arguments.operand(2)) {
        (Some(name), Some("mode"), Some(mode)) => {
            let mode = Mode::from_name(mode)
                .ok_or_else(|| Failure::invalid(format_args!("{} is neither requested nor standby", Quoted(mode))))?;
            if arguments.has("-J") {
                return Err(Failure::invalid("-J goes with the list"));
            }
            Ok(set_mode(name, mode)?)
        }
        (_, None, None) => {
            let mut reports = reports();
            reports.retain(|report| name.is_none_or(|name| report.name == name));
            if reports.is_empty() && name.is_some() {
                return Err(ModeError::Absent.into());
            }
            call.show(&Devices { devices: reports.into_iter().map(Device::from).collect() }, table);
            Ok(())
        }
        _ => Err(Failure::invalid("to set a mode takes three words: virtio_mem NAME mode requested|standby")),
    }
}

fn table(report: &Devices) -> String {
    let mut table = Table::new(&[
        ("DEVICE", Align::Left),
        ("NODE", Align::Right),
        ("START", Align::Left),
        ("REGION", Align::Right),
        ("REQUESTED", Align::Right),
        ("PLUGGED", Align::Right),
        ("BLOCK", Align::Right),
        ("MODE", Align::Left),
        ("STATE", Align::Left),
    ]);
    for device in &report.devices {
        let reason = device.reason.as_ref().map(|reason| format!(": {reason}"));
        let start = format!("{:#014x}", device.start);
        let sizes = [device.region, device.requested, device.plugged, device.block_size];
        let head = [device.name.clone(), device.node.to_string(), start];
        let sizes = sizes.map(|size| Human(size).to_string());
        let state = format!("{}{}", device.state, reason.unwrap_or_default());
        table.row(head.into_iter().chain(sizes).chain([device.mode.to_owned(), state]));
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::super::json;
    use super::*;
    use crate::drivers::virtio::mem::Config;

    #[test]
    fn a_device_in_json_has_the_fields_scripts_rely_on() {
        let config = Config {
            block_size: 2 << 20,
            domain: Some(1),
            start: 1 << 32,
            region: 1 << 30,
            usable: 512 << 20,
            plugged: 128 << 20,
            requested: 256 << 20,
        };
        let name = GroupName::parse("vmem0").expect("a name");
        let report = Report { name, config, mode: Mode::Requested, state: State::Waiting("the host is busy".into()) };
        let devices = Devices { devices: Vec::from([report.into()]) };
        assert_eq!(
            json::line(&devices),
            r#"{"devices":[{"name":"vmem0","node":1,"start":4294967296,"region":1073741824,"usable":536870912,"requested":268435456,"plugged":134217728,"block_size":2097152,"mode":"requested","state":"waiting","reason":"the host is busy"}]}"#
        );
        let table = table(&devices);
        assert!(table.contains("waiting: the host is busy") && table.contains("256M"), "{table}");
    }
}
