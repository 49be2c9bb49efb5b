//! The transcript in the README is what a machine says.

use anyhow::{Context, Result, ensure};
use boot::ost;
use boot::qemu::Machine;
use boot::size::{gib, mib};
use boot::workspace;
use serde_json::Value;
use system_tests::check::same;
use system_tests::dimms::{SUCCESS, dimm_on};
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::{PATIENCE, Vm};

const PROMPT: &str = "altmap> ";

pub(crate) fn scenarios() -> Vec<Scenario> {
    let machine = Machine { memory: gib(1), nodes: 2, ..Machine::default() };
    vec![
        scenario!(the_transcript_is_what_the_shell_prints).on(machine.clone()),
        scenario!(the_qmp_lines_plug_and_unplug).on(machine),
    ]
}

/// The first block of this language in the README.
fn block(language: &str) -> Result<String> {
    let readme = std::fs::read_to_string(workspace::root().join("README.md")).context("no README.md")?;
    let start = format!("```{language}\n");
    let block = readme.split_once(&start).and_then(|(_, rest)| rest.split_once("```"));
    Ok(block.with_context(|| format!("no block of {language} in README.md"))?.0.to_owned())
}

/// Commands and what each prints.
fn transcript() -> Result<Vec<(String, String)>> {
    let block = block("console")?;
    let mut exchanges: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix(PROMPT), exchanges.last_mut()) {
            (Some(command), _) => exchanges.push((command.to_owned(), String::new())),
            (None, Some((_, output))) => *output += &format!("{}\n", line.trim_end()),
            (None, None) => {}
        }
    }
    Ok(exchanges)
}

fn the_transcript_is_what_the_shell_prints(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm_on("dimm0", mib(384), 1))?;
    let exchanges = transcript()?;
    ensure!(exchanges.len() >= 4, "a transcript of {} commands shows little", exchanges.len());
    for (command, expected) in exchanges {
        let output = vm.console.output(&command, PATIENCE)?;
        let shown: String = output.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        same(&format!("output of `{command}`"), shown, expected)?;
    }
    Ok(())
}

fn the_qmp_lines_plug_and_unplug(vm: &mut Vm) -> Result<()> {
    let mut executed = Vec::new();
    for line in block("json")?.lines() {
        let request: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        let command = request["execute"].as_str().with_context(|| format!("no command: {line}"))?;
        let arguments = request.get("arguments").cloned().unwrap_or(Value::Object(Default::default()));
        executed.push(command.to_owned());
        // The conversation is open already.
        if command == "qmp_capabilities" {
            continue;
        }
        vm.qmp(command, arguments.clone())?;
        let id = arguments["id"].as_str().unwrap_or_default();
        let event = match command {
            "device_add" => ost::Event::Insertion,
            "device_del" => ost::Event::Ejection,
            _ => continue,
        };
        same(command, vm.answers(&[id], event)?[id], SUCCESS)?;
        same("in use", vm.blocks()?.contains_key(&32), command == "device_add")?;
    }
    let both = ["device_add", "device_del"].iter().all(|command| executed.iter().any(|done| done == command));
    ensure!(both, "the README shows only {executed:?}");
    Ok(())
}
