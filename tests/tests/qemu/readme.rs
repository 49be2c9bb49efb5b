//! The transcript in the README is what a machine says.

use anyhow::{Context, Result, ensure};
use boot::qemu::Machine;
use boot::size::{gib, mib};
use boot::workspace;
use system_tests::check::same;
use system_tests::dimms::dimm_on;
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::{PATIENCE, Vm};

const PROMPT: &str = "altmap> ";

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![scenario!(the_transcript_is_what_the_shell_prints).on(Machine {
        memory: gib(1),
        nodes: 2,
        ..Machine::default()
    })]
}

/// Commands and what each prints, from the first block after the marker.
fn transcript() -> Result<Vec<(String, String)>> {
    let readme = std::fs::read_to_string(workspace::root().join("README.md")).context("no README.md")?;
    let block = readme.split_once("<!-- transcript").and_then(|(_, rest)| rest.split_once("```console\n"));
    let block = block.and_then(|(_, rest)| rest.split_once("```")).context("no transcript in README.md")?.0;
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
