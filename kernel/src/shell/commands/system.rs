//! `version`, `cpus`, `tasks`, `dmesg`, `poweroff`, `reboot` and `panic`: the machine itself.

use super::super::arguments::{JSON, Syntax};
use super::super::call::Call;
use super::super::failure::Outcome;
use super::super::table::{Align, Table};
use super::Command;
use crate::{arch, firmware, logging, power, task};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
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
boot: how late an interrupt may have been served.",
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
        syntax: Syntax { options: &[], operands: &[] },
        summary: "stop as after an error in the kernel itself",
        details: "\
For testing what a panic prints: the message, the functions that led there, and
`panic: stopped` as the last line.",
        example: "panic",
        run: |_| panic!("asked for at the console"),
    },
];

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
}

fn cpus(call: &mut Call<'_>) -> Outcome {
    let cpu_of = |cpu: arch::CpuReport| Cpu {
        id: cpu.id,
        apic_id: cpu.apic_id,
        online: true,
        worst_irqs_off_ns: cpu.worst_irqs_off_ns,
    };
    let mut cpus: Vec<Cpu> = arch::cpu_reports().map(cpu_of).collect();
    for info in firmware::get().madt.cpus.iter().filter(|info| info.enabled) {
        if cpus.iter().all(|cpu| cpu.apic_id != info.apic_id) {
            cpus.push(Cpu { id: cpus.len(), apic_id: info.apic_id, online: false, worst_irqs_off_ns: 0 });
        }
    }
    let report = Cpus { cpus };
    call.show(&report, |report| {
        let mut table = Table::new(&[
            ("CPU", Align::Right),
            ("APIC_ID", Align::Right),
            ("ONLINE", Align::Left),
            ("IRQS_OFF", Align::Right),
        ]);
        for cpu in &report.cpus {
            let online = if cpu.online { "yes" } else { "no" };
            let worst = if cpu.online { format!("{} us", cpu.worst_irqs_off_ns / 1000) } else { "-".into() };
            table.row([cpu.id.to_string(), cpu.apic_id.to_string(), online.into(), worst]);
        }
        table.to_string()
    });
    Ok(())
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
    logging::for_each(|line| lines.push(line.to_string()));
    call.show(&Log { lines }, |log| log.lines.iter().flat_map(|line| [line, "\n"]).collect());
    Ok(())
}
