//! `auto_online`, `memmap_on_memory` and `policy`: what happens to memory that comes, and which zone `online` chooses.

use super::super::arguments::{Arguments, Count, JSON, Kind, Operand, OptionSpec, Syntax};
use super::super::call::Call;
use super::super::failure::{Failure, Outcome, Quoted};
use super::super::values::number;
use super::Command;
use crate::memory::mm;
use alloc::format;
use alloc::string::String;
use mm::record::policy::{AutoOnline, OnlinePolicy, Policy};
use serde::Serialize;

const ON_OFF: Kind = Kind::OneOf(&["on", "off"]);

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "auto_online",
        syntax: Syntax {
            options: &[JSON],
            operands: &[Operand {
                name: "offline|online|online_kernel|online_movable",
                kind: Kind::OneOf(&["offline", "online", "online_kernel", "online_movable"]),
                count: Count::Optional,
            }],
        },
        summary: "show or set what happens to memory when it is added",
        details: "\
offline         it stays offline until somebody brings it online (the default)
online          it comes online at once, where the policy says
online_kernel   it comes online at once in zone Normal
online_movable  it comes online at once in zone Movable

Memory that is there already does not change.",
        example: "auto_online online_movable",
        run: auto_online,
    },
    Command {
        name: "memmap_on_memory",
        syntax: Syntax {
            options: &[JSON],
            operands: &[Operand { name: "on|off", kind: ON_OFF, count: Count::Optional }],
        },
        summary: "show or set where struct pages of added memory lie",
        details: "\
Every frame has a struct page of 32 bytes: 1 MiB for a block of 128 MiB.

on   in the first frames of the block itself (the altmap): adding memory takes
     nothing from the memory in use (the default)
off  in memory in use, so that the added range has no hole at the head of each
     block; an add that does not fit fails with ENOMEM

The setting is for what is added from now on.",
        example: "memmap_on_memory off",
        run: memmap_on_memory,
    },
    Command {
        name: "policy",
        syntax: Syntax {
            options: &[
                OptionSpec {
                    name: "--ratio",
                    value: Some(("N", Kind::Free)),
                    help: "auto-movable: at most N % of kernel memory may be Movable (301)",
                },
                OptionSpec {
                    name: "--numa-aware",
                    value: Some(("on|off", ON_OFF)),
                    help: "auto-movable: keep to the ratio on each node, too (on)",
                },
                JSON,
            ],
            operands: &[Operand {
                name: "contig-zones|auto-movable",
                kind: Kind::OneOf(&["contig-zones", "auto-movable"]),
                count: Count::Optional,
            }],
        },
        summary: "show or set how `online` chooses a zone",
        details: "\
contig-zones  the zone whose span the block lies in, else Normal: zones stay in
              one piece (the default)
auto-movable  Movable if the ratio allows it for the whole device, else Normal:
              what came last can go first. All blocks of a device go to the
              same zone: the rest follows what is online already, to Normal if
              any is there. Only boot memory counts as kernel memory here

Both choose Normal when the kernel could not serve more Movable memory: when
what it can still get (`meminfo`, kernel) is less than 16 MiB and the page
tables for all Movable memory that nobody uses yet. contig-zones asks that about
each block, auto-movable about the whole device.

Without arguments it shows all settings.",
        example: "policy auto-movable --ratio 200 --numa-aware off",
        run: policy,
    },
];

/// What `policy -J` prints; the field names are a contract.
#[derive(Serialize)]
struct Settings {
    online_policy: &'static str,
    auto_movable_ratio: u32,
    numa_aware: bool,
    auto_online: &'static str,
    memmap_on_memory: bool,
}

#[derive(Serialize)]
struct AutoOnlineSetting {
    auto_online: &'static str,
}

#[derive(Serialize)]
struct MemmapSetting {
    memmap_on_memory: bool,
}

fn auto_online(call: &mut Call<'_>) -> Outcome {
    match call.arguments.operand(0) {
        None => {
            let report = AutoOnlineSetting { auto_online: mm().policy().auto_online.name() };
            call.show(&report, |report| format!("{}\n", report.auto_online));
        }
        Some(word) => {
            let setting = AutoOnline::from_name(word).ok_or_else(|| {
                let known = AutoOnline::ALL.map(AutoOnline::name).join(", ");
                Failure::invalid(format_args!("{} is none of {known}", Quoted(word)))
            })?;
            change_only(call.arguments)?;
            mm().set_policy(|policy| policy.auto_online = setting);
        }
    }
    Ok(())
}

fn memmap_on_memory(call: &mut Call<'_>) -> Outcome {
    match call.arguments.operand(0) {
        None => {
            let report = MemmapSetting { memmap_on_memory: mm().policy().memmap_on_memory };
            call.show(&report, |report| format!("{}\n", on_off(report.memmap_on_memory)));
        }
        Some(word) => {
            let setting = parse_on_off(word)?;
            change_only(call.arguments)?;
            mm().set_policy(|policy| policy.memmap_on_memory = setting);
        }
    }
    Ok(())
}

fn policy(call: &mut Call<'_>) -> Outcome {
    let arguments = call.arguments;
    let Some(word) = arguments.operand(0) else {
        if arguments.has("--ratio") || arguments.has("--numa-aware") {
            return Err(Failure::invalid("name the policy, too: policy auto-movable --ratio N"));
        }
        call.show(&settings(mm().policy()), settings_text);
        return Ok(());
    };
    let chosen = OnlinePolicy::from_name(word)
        .ok_or_else(|| Failure::invalid(format_args!("{} is neither contig-zones nor auto-movable", Quoted(word))))?;
    let ratio = arguments.value("--ratio").map(parse_ratio).transpose()?;
    let numa_aware = arguments.value("--numa-aware").map(parse_on_off).transpose()?;
    change_only(arguments)?;
    mm().set_policy(|policy| {
        policy.online_policy = chosen;
        policy.auto_movable_ratio = ratio.unwrap_or(policy.auto_movable_ratio);
        policy.numa_aware = numa_aware.unwrap_or(policy.numa_aware);
    });
    Ok(())
}

/// `-J` asks for a report, and a change reports nothing.
fn change_only(arguments: &Arguments) -> Outcome {
    if arguments.has("-J") {
        Err(Failure::invalid("-J goes with showing a setting, not with changing it"))
    } else {
        Ok(())
    }
}

fn parse_ratio(word: &str) -> Result<u32, Failure> {
    let too_large = || Failure::invalid(format_args!("{} is too large for a ratio", Quoted(word)));
    u32::try_from(number(word, "a ratio in percent")?).map_err(|_| too_large())
}

fn parse_on_off(word: &str) -> Result<bool, Failure> {
    match word {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Failure::invalid(format_args!("{} is neither on nor off", Quoted(word)))),
    }
}

fn on_off(setting: bool) -> &'static str {
    if setting { "on" } else { "off" }
}

fn settings(policy: Policy) -> Settings {
    Settings {
        online_policy: policy.online_policy.name(),
        auto_movable_ratio: policy.auto_movable_ratio,
        numa_aware: policy.numa_aware,
        auto_online: policy.auto_online.name(),
        memmap_on_memory: policy.memmap_on_memory,
    }
}

fn settings_text(report: &Settings) -> String {
    format!(
        "policy            {}\nratio             {} %\nnuma-aware        {}\nauto_online       {}\nmemmap_on_memory  {}\n",
        report.online_policy,
        report.auto_movable_ratio,
        on_off(report.numa_aware),
        report.auto_online,
        on_off(report.memmap_on_memory)
    )
}

#[cfg(test)]
mod tests {
    use super::super::super::json;
    use super::*;

    #[test]
    fn the_settings_in_json_have_the_fields_scripts_rely_on() {
        assert_eq!(
            json::line(&settings(Policy::DEFAULT)),
            r#"{"online_policy":"contig-zones","auto_movable_ratio":301,"numa_aware":true,"auto_online":"offline","memmap_on_memory":true}"#
        );
    }

    #[test]
    fn a_ratio_is_a_percentage_that_fits() {
        assert_eq!(parse_ratio("301"), Ok(301));
        assert!(parse_ratio("4294967296").is_err());
        assert!(parse_ratio("-1").is_err());
    }
}
