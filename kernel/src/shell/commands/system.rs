//! `version`, `cpus`, `tasks`, `dmesg`, `poweroff`, `reboot` and `panic`: the machine itself.

use super::super::arguments::{JSON, Kind, OptionSpec, Syntax};
use super::super::call::Call;
use super::super::failure::Outcome;
use super::super::table::{Align, Table};
use super::super::values::number;
use super::Command;
use crate::{arch, firmware, logging, power, symbols, task};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use serde::Serialize;

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "version",
        syntax: Syntax { options: &[JSON], operands: &[] },
        summary: "say which altmap this is",
        details: "The version of the kernel, as in its banner.",
        example: "version",
        run: version,
    },
    Command {
        name: "cpus",
        syntax: Syntax { options: &[JSON], operands: &[] },
        summary: "list the processors",
        details: "\
Those that run, and then those that the firmware has enabled but the kernel has
not started. IRQS_OFF is the longest time that interrupts were off on it since
boot: how late an interrupt may have been served; IN is the function that had
them off then, and -J tells its callers, too.",
        example: "cpus",
        run: cpus,
    },
    Command {
        name: "tasks",
        syntax: Syntax { options: &[JSON], operands: &[] },
        summary: "list the kernel's tasks",
        details: "\
A task runs until it waits or lets others go first. CPU is the time it has had.",
        example: "tasks",
        run: tasks,
    },
    Command {
        name: "dmesg",
        syntax: Syntax { options: &[JSON], operands: &[] },
        summary: "show the kernel's log",
        details: "\
Each line is [seconds since boot] area: message. The oldest lines give way.",
        example: "dmesg",
        run: dmesg,
    },
    Command {
        name: "poweroff",
        syntax: Syntax { options: &[], operands: &[] },
        summary: "switch the machine off",
        details: "\
Where the emulator has a debug-exit device the run ends through it, as passed;
else the machine is switched off by ACPI.",
        example: "poweroff",
        run: |_| power::exit(power::Outcome::Success),
    },
    Command {
        name: "reboot",
        syntax: Syntax { options: &[], operands: &[] },
        summary: "start the machine anew",
        details: "Everything that was plugged is found again, and goes online as
memhp_default_state says.",
        example: "reboot",
        run: |_| power::reboot(),
    },
    Command {
        name: "panic",
        syntax: Syntax {
            options: &[OptionSpec {
                name: "--irqs-off",
                value: Some(("SECONDS", Kind::Free)),
                help: "instead, keep a CPU's interrupts off for so long",
            }],
            operands: &[],
        },
        summary: "stop as after an error in the kernel itself",
        details: "\
For testing what a panic prints: the message, the functions that led there, and
`panic: stopped` as the last line. With --irqs-off, for testing the watchdog,
which reports a CPU after 10 s; there must be another one to look.",
        example: "panic",
        run: panic,
    },
];

fn panic(call: &mut Call<'_>) -> Outcome {
    let Some(seconds) = call.arguments.value("--irqs-off") else { panic!("asked for at the console") };
    let seconds = number(seconds, "a number of seconds")?;
    let _off = arch::irq_off();
    arch::busy_wait(Duration::from_secs(seconds));
    Ok(())
}

#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
}

fn version(call: &mut Call<'_>) -> Outcome {
    let report = Version { name: "altmap", version: VERSION };
    call.show(&report, |report| format!("{} {}\n", report.name, report.version));
    Ok(())
}

/// What `cpus -J` prints; the field names are a contract.
#[derive(Serialize)]
struct Cpus {
    cpus: Vec<Cpu>,
}

#[derive(Serialize)]
struct Cpu {
    id: usize,
    apic_id: u32,
    online: bool,
    worst_irqs_off_ns: u64,
    /// The functions that had them off then, innermost first.
    worst_irqs_off_in: Vec<&'static str>,
}

fn cpus(call: &mut Call<'_>) -> Outcome {
    let cpu_of = |cpu: arch::CpuReport| Cpu {
        id: cpu.id,
        apic_id: cpu.apic_id,
        online: true,
        worst_irqs_off_ns: cpu.worst_irqs_off_ns,
        worst_irqs_off_in: functions(&cpu.worst_irqs_off_callers),
    };
    let mut cpus: Vec<Cpu> = arch::cpu_reports().map(cpu_of).collect();
    // Those that were never called come behind those that were.
    let mut uncalled = arch::cpus_called()..;
    for info in firmware::get().madt.cpus.iter().filter(|info| info.enabled) {
        if cpus.iter().all(|cpu| cpu.apic_id != info.apic_id) {
            cpus.push(Cpu {
                id: arch::cpu_of(info.apic_id).or_else(|| uncalled.next()).unwrap_or_default(),
                apic_id: info.apic_id,
                online: false,
                worst_irqs_off_ns: 0,
                worst_irqs_off_in: Vec::new(),
            });
        }
    }
    cpus.sort_unstable_by_key(|cpu| cpu.id);
    let report = Cpus { cpus };
    call.show(&report, |report| {
        let mut table = Table::new(&[
            ("CPU", Align::Right),
            ("APIC_ID", Align::Right),
            ("ONLINE", Align::Left),
            ("IRQS_OFF", Align::Right),
            ("IN", Align::Left),
        ]);
        for cpu in &report.cpus {
            let online = if cpu.online { "yes" } else { "no" };
            let worst = if cpu.online { format!("{} us", cpu.worst_irqs_off_ns / 1000) } else { "-".into() };
            let innermost = cpu.worst_irqs_off_in.first().map_or_else(|| "-".into(), |name| short(name));
            table.row([cpu.id.to_string(), cpu.apic_id.to_string(), online.into(), worst, innermost]);
        }
        table.to_string()
    });
    Ok(())
}

/// The functions of return addresses, but for those at the start that only end a critical section.
fn functions(callers: &[usize]) -> Vec<&'static str> {
    let called = callers.iter().take_while(|address| **address != 0);
    let names = called.filter_map(|address| symbols::lookup(*address as u64 - 1)).map(|symbol| symbol.name);
    names.skip_while(|name| ["::irq::", "lock_api", "RawIrqSpin"].iter().any(|part| name.contains(part))).collect()
}

/// The last two parts of a path, without what is in angle brackets.
fn short(name: &str) -> String {
    let mut depth = 0;
    let outside = name.split_inclusive(['<', '>']).flat_map(|part| {
        let text = part.trim_end_matches(['<', '>']);
        let kept = if depth == 0 { text } else { "" };
        depth += if part.ends_with('<') { 1 } else { -i32::from(part.ends_with('>')) };
        kept.split("::").filter(|word| !word.is_empty())
    });
    let words: Vec<&str> = outside.collect();
    words[words.len().saturating_sub(2)..].join("::")
}

#[derive(Serialize)]
struct Tasks {
    tasks: Vec<Task>,
}

#[derive(Serialize)]
struct Task {
    id: u64,
    name: String,
    state: String,
    cpu_ns: u64,
}

fn tasks(call: &mut Call<'_>) -> Outcome {
    let task_of = |task: task::TaskReport| Task {
        id: task.id.as_u64(),
        name: task.name,
        state: task.state.to_string(),
        cpu_ns: task.cpu_ns,
    };
    let report = Tasks { tasks: task::list().into_iter().map(task_of).collect() };
    call.show(&report, |report| {
        let mut table =
            Table::new(&[("ID", Align::Right), ("NAME", Align::Left), ("STATE", Align::Left), ("CPU", Align::Right)]);
        for task in &report.tasks {
            let cpu = format!("{}.{:03} s", task.cpu_ns / 1_000_000_000, task.cpu_ns / 1_000_000 % 1000);
            table.row([task.id.to_string(), task.name.clone(), task.state.clone(), cpu]);
        }
        table.to_string()
    });
    Ok(())
}

#[derive(Serialize)]
struct Log {
    lines: Vec<String>,
}

fn dmesg(call: &mut Call<'_>) -> Outcome {
    let mut lines = Vec::new();
    logging::ring::for_each(|line| lines.push(line.to_string()));
    call.show(&Log { lines }, |log| log.lines.iter().flat_map(|line| [line, "\n"]).collect());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_shown_without_its_types() {
        assert_eq!(short("kernel::shell::execute"), "shell::execute");
        assert_eq!(short("<mm::memory::Memory<kernel::Kernel>>::validate_with::<task::freeze.."), "validate_with");
        assert_eq!(short("<T as core::ops::Drop>::drop"), "drop");
        assert_eq!(short("main"), "main");
    }
}
