//! The measurements that the guest makes itself: that what they print is right, not how fast anything is.

use anyhow::{Context, Result, ensure};
use boot::qemu::Machine;
use boot::size::{gib, mib};
use serde_json::Value;
use system_tests::check::same;
use system_tests::dimms::dimm;
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::Vm;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let large = Machine { memory: gib(16), ..Machine::default() };
    vec![
        scenario!(measurements_print_their_samples),
        scenario!(scattered_memory_comes_back_whole).on(large.clone()),
        scenario!(a_scattering_that_is_cut_short_gives_everything_back).on(large),
    ]
}

fn samples(vm: &mut Vm, line: &str) -> Result<Vec<u64>> {
    let object = vm.json(line)?;
    let samples = object["samples"].as_array().with_context(|| format!("no samples in {object}"))?;
    samples.iter().map(|sample| sample.as_u64().with_context(|| format!("{sample} in {object}"))).collect()
}

fn measurements_print_their_samples(vm: &mut Vm) -> Result<()> {
    let names = vm.json("bench -l")?;
    let names: Vec<&str> = names["benches"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    same("names", names, vec!["page", "pageblock", "open", "online", "scatter", "migrate"])?;
    let before = vm.trace()?;
    for name in ["page", "pageblock", "migrate"] {
        let samples = samples(vm, &format!("bench {name}"))?;
        ensure!(samples.len() > 1 && samples.iter().all(|ticks| *ticks > 0), "{name}: {samples:?}");
    }
    vm.unchanged_since("measuring pairs", &before)?;
    vm.fails("bench open", "ENOENT")?;
    vm.fails("bench online", "ENOENT")?;
    vm.fails("bench speed", "EINVAL")?;
    vm.fails("bench page --seed 1", "EINVAL")?;

    vm.plug(&dimm("d0", mib(384)))?;
    let offline = vm.trace()?;
    let rounds = vm.json("bench online")?;
    for name in ["samples", "offline", "offline_opened"] {
        let ticks = rounds[name].as_array().with_context(|| format!("{name} in {rounds}"))?;
        ensure!(ticks.iter().all(|ticks| ticks.as_u64() > Some(0)) && !ticks.is_empty(), "{name}: {rounds}");
    }
    vm.unchanged_since("a block that came and went", &offline)?;
    vm.cmd("online_movable dimm0")?;
    let opened = vm.json("bench open")?;
    for name in ["samples", "irqs_off"] {
        same(name, opened[name].as_array().map(Vec::len), Some(3))?;
    }
    vm.fails("bench open", "ENOENT")?;
    let whole = samples(vm, "bench scatter --seed 3")?;
    ensure!(whole.len() == 2 && whole[0] == whole[1], "{whole:?}");
    vm.unplug("d0")?;
    // All memory was in use meanwhile, of which a little stays open.
    vm.expect_usage(&before.usage())
}

fn scattered_memory_comes_back_whole(vm: &mut Vm) -> Result<()> {
    let object = vm.json("bench scatter")?;
    let frames = object["frames"].as_u64().context("frames")?;
    ensure!(frames * 4096 > 15 << 30, "{object}");
    same("pageblocks before and after", &object["samples"][0], &object["samples"][1])?;
    // Of all that memory only the struct pages were touched, 32 bytes for 4 KiB.
    let resident = vm.host_memory()?;
    ensure!(resident < 1 << 30, "QEMU holds {resident} bytes");
    Ok(())
}

fn a_scattering_that_is_cut_short_gives_everything_back(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    let job = vm.job("bench scatter")?;
    vm.wait_for("some of the memory to be taken", |vm| Ok((vm.usage()?.free < before.usage().free / 2).then_some(())))?;
    vm.cmd(&format!("kill {job}"))?;
    vm.fails(&format!("wait {job}"), "ECANCELED")?;
    // Of what was in use a little stays open.
    vm.expect_usage(&before.usage())
}
