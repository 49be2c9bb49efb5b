//! Memory that does not keep what is written to it: it never becomes blocks, or is withheld as soon as that shows.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Result, ensure};
use boot::ost;
use boot::qemu::{Machine, backend};
use boot::size::mib;
use serde_json::json;
use system_tests::check::{contains, same};
use system_tests::dimms::{SUCCESS, dimm};
use system_tests::memory::BLOCK_FRAMES;
use system_tests::scenario;
use system_tests::scenario::{Scenario, two_nodes};
use system_tests::vm::{Vm, soon};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(a_module_that_cannot_be_written_is_refused_and_can_go),
        scenario!(a_module_that_cannot_be_written_is_refused_and_can_go)
            .on(Machine { extra: vec!["-cpu".into(), "max,-pdpe1gb".into()], ..two_nodes() })
            .emulated()
            .with("without_huge_leaves"),
        scenario!(a_withheld_block_is_nobody_s_until_it_is_removed),
    ]
}

/// The sentence about such memory.
const LOSSY: &str = "does not keep what is written to it";

/// Bytes of a module that hold what a table would hold: page tables, if they lay there, would point anywhere.
const NOISE_BYTES: u64 = 4 << 20;

/// Makes the file behind a module of 1 GiB.
fn make_file(path: &Path, is_noisy: bool) -> Result<()> {
    let file = File::create(path)?;
    file.set_len(mib(1024).0)?;
    if is_noisy {
        let mut word = 0x9e37_79b9_7f4a_7c15_u64;
        let noise = std::iter::repeat_with(|| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word
        });
        let bytes: Vec<u8> = noise.take(NOISE_BYTES as usize / 8).flat_map(u64::to_le_bytes).collect();
        file.write_all_at(&bytes, 0)?;
    }
    Ok(())
}

/// Plugs a module over a file that the guest cannot write; what the guest answers.
fn plug_read_only(vm: &mut Vm, path: &Path) -> Result<u64> {
    let memory = json!({
        "qom-type": "memory-backend-file",
        "id": backend("d0"),
        "size": mib(1024).0,
        "mem-path": path,
        "share": true,
        "readonly": true,
    });
    vm.qmp("object-add", memory)?;
    vm.qmp.forget_events();
    vm.qmp("device_add", json!({"driver": "pc-dimm", "id": "d0", "memdev": backend("d0")}))?;
    Ok(vm.answers(&["d0"], ost::Event::Insertion)?["d0"])
}

/// How often the kernel has said so since it booted.
fn complaints(vm: &mut Vm) -> Result<usize> {
    Ok(vm.kernel_log()?.iter().filter(|line| line.contains("not added") && line.contains(LOSSY)).count())
}

fn is_refused_by_hand(vm: &mut Vm) -> Result<()> {
    for command in ["probe 4G", "probe 4G 128M", "probe 4.25G"] {
        let sentence = vm.fails(command, "EIO")?;
        contains("the refusal", &sentence, LOSSY)?;
    }
    vm.expect_blocks(&[(32..=39, "absent")])
}

fn a_module_that_cannot_be_written_is_refused_and_can_go(vm: &mut Vm) -> Result<()> {
    let directory = tempfile::tempdir()?;
    vm.cmd("auto_online online_kernel")?;
    let before = vm.trace()?;
    for is_noisy in [false, true] {
        let path = directory.path().join(format!("module-{is_noisy}"));
        make_file(&path, is_noisy)?;
        for memmap_on_memory in ["on", "off"] {
            vm.cmd(&format!("memmap_on_memory {memmap_on_memory}"))?;
            let said = complaints(vm)?;
            ensure!(plug_read_only(vm, &path)? != SUCCESS, "the guest took it");
            same("said so", complaints(vm)?, said + 1)?;
            is_refused_by_hand(vm)?;
            vm.memcheck()?;
            vm.unplug("d0")?;
            vm.unchanged_since("a module that was refused and went", &before)?;
        }
        // At boot, it is no better.
        ensure!(plug_read_only(vm, &path)? != SUCCESS, "the guest took it");
        vm.type_raw(b"reboot\r")?;
        vm.event("RESET", |event| (event.name == "RESET").then_some(()))?;
        vm.console.expect_prompt(soon())?;
        same("said so at boot", complaints(vm)?, 1)?;
        is_refused_by_hand(vm)?;
        vm.memcheck()?;
        vm.unplug("d0")?;
        vm.cmd("auto_online online_kernel")?;
        vm.unchanged_since("a module that was refused at boot and went", &before)?;
    }
    vm.plug(&dimm("d0", mib(1024)))?;
    vm.expect_blocks(&[(32..=39, "Normal")])?;
    vm.unplug("d0")
}

fn a_withheld_block_is_nobody_s_until_it_is_removed(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(384)))?;
    vm.cmd("online_movable dimm0")?;
    let managed = vm.managed(33)?;
    let total = vm.usage()?.total;
    vm.cmd("inject alloc.open EIO")?;
    vm.fails("fill 4K --in 33", "ENOMEM")?;
    let log = vm.kernel_log()?;
    let said = log.iter().filter(|line| line.contains("block 33 is withheld")).count();
    same("said so", said, 1)?;
    let withheld = |vm: &mut Vm| Ok::<_, anyhow::Error>(vm.json("meminfo")?["withheld"].as_u64());
    same("withheld", withheld(vm)?, Some(managed))?;
    same("total", vm.usage()?.total, total - managed)?;
    let frame = 33 * BLOCK_FRAMES + 9000;
    for command in ["online_kernel 32-34", "offline 32-34", "online_movable 32-34"] {
        vm.cmd(command)?;
        same("its state", vm.frame_state(frame)?.as_str(), "withheld")?;
        vm.memcheck()?;
    }
    vm.fails("fill 4K --in 33", "ENOMEM")?;
    vm.fails(&format!("poison pfn:{frame}"), "EEXIST")?;
    let filled = vm.fill("fill 100M --in 32")?;
    vm.cmd("offline 32")?;
    vm.cmd(&format!("verify {filled}; free {filled}"))?;
    vm.unplug("d0")?;
    same("withheld", withheld(vm)?, Some(0))
}
