//! Memory that changes behind everybody's back: whoever checks it says which page is wrong, and where.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use boot::ost;
use boot::qemu::backend;
use boot::size::mib;
use serde_json::json;
use system_tests::check::{contains, same};
use system_tests::dimms::SUCCESS;
use system_tests::memory::{BLOCK_BYTES, BLOCK_FRAMES, FRAME_BYTES};
use system_tests::scenario;
use system_tests::scenario::{FIRST_HOT, Scenario};
use system_tests::vm::Vm;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![scenario!(a_changed_byte_of_a_fill_is_found_where_it_is), scenario!(a_changed_page_under_its_writers_is_found)]
}

/// A module whose memory is a file of the host.
struct Module(File);

impl Module {
    /// Plugs it as the first one, of two blocks.
    fn plug(vm: &mut Vm, directory: &Path) -> Result<Self> {
        let path = directory.join("memory");
        let memory = json!({
            "qom-type": "memory-backend-file",
            "id": backend("d0"),
            "size": mib(256).0,
            "mem-path": path,
            "share": true,
        });
        vm.qmp("object-add", memory)?;
        vm.qmp.forget_events();
        vm.qmp("device_add", json!({"driver": "pc-dimm", "id": "d0", "memdev": backend("d0")}))?;
        same("answer", vm.answers(&["d0"], ost::Event::Insertion)?["d0"], SUCCESS)?;
        Ok(Self(File::options().read(true).write(true).open(&path)?))
    }

    /// Flips all bits of so many bytes of the guest's memory.
    fn flip(&self, address: u64, length: usize) -> Result<()> {
        let place = address - FIRST_HOT * BLOCK_BYTES;
        let mut bytes = vec![0; length];
        self.0.read_exact_at(&mut bytes, place)?;
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
        self.0.write_all_at(&bytes, place).context("writing to the module")
    }
}

/// Where a page of an anonymous fill lies.
fn address_of(vm: &mut Vm, id: u64, page: u64) -> Result<u64> {
    let pinned = vm.json(&format!("pin {id} {page} --stay"))?;
    vm.cmd(&format!("unpin {id} {page}"))?;
    Ok(pinned["pfn"].as_u64().context("pfn")? * FRAME_BYTES)
}

fn a_changed_byte_of_a_fill_is_found_where_it_is(vm: &mut Vm) -> Result<()> {
    const PAGE: u64 = 77;
    let directory = tempfile::tempdir()?;
    let module = Module::plug(vm, directory.path())?;
    vm.cmd("online_kernel 32-33")?;
    let sound = vm.fill("fill 1M --in 32")?;
    for command in ["fill 1M", "fill 2M --huge", "kfill 1M"] {
        let id = vm.fill(&format!("{command} --in 33"))?;
        let page = if command.starts_with("kfill") {
            // All of it is one piece behind the head of the block.
            (33 * BLOCK_FRAMES + vm.head_frames(33)? + PAGE) * FRAME_BYTES
        } else {
            address_of(vm, id, PAGE)?
        };
        for offset in [0, 1234, FRAME_BYTES - 1] {
            vm.cmd("verify")?;
            module.flip(page + offset, 1)?;
            for verify in [format!("verify {id}"), "verify".to_owned()] {
                let sentence = vm.fails(&verify, "EIO").with_context(|| command.to_owned())?;
                contains("the page", &sentence, &format!("page {PAGE} of fill {id} "))?;
                // A word is looked at as a whole.
                contains("the place", &sentence, &format!("{:#x}", page + offset / 8 * 8))?;
            }
            vm.cmd(&format!("verify {sound}"))?;
            module.flip(page + offset, 1)?;
        }
        vm.cmd("verify")?;
        vm.cmd(&format!("free {id}"))?;
    }
    vm.cmd(&format!("free {sound}"))?;
    vm.unplug("d0")
}

fn a_changed_page_under_its_writers_is_found(vm: &mut Vm) -> Result<()> {
    const PAGE: u64 = 5;
    let directory = tempfile::tempdir()?;
    let module = Module::plug(vm, directory.path())?;
    vm.cmd("online_movable 32")?;
    let id = vm.fill("fill 64K --in 32 --writers 2")?;
    vm.cmd(&format!("verify {id}"))?;
    // All of it: a single word might be just written.
    module.flip(address_of(vm, id, PAGE)?, FRAME_BYTES as usize)?;
    let sentence = vm.fails(&format!("verify {id}"), "EIO")?;
    contains("the page", &sentence, &format!("page {PAGE} of fill {id} "))?;
    let said = format!("page {PAGE} of fill {id} is not as its writer left it");
    vm.wait_for(&said, |vm| Ok(vm.kernel_log()?.iter().any(|line| line.contains(&said)).then_some(())))?;
    // What has moved is wrong still.
    vm.cmd("online_movable 33")?;
    vm.cmd("offline 32")?;
    let moved = address_of(vm, id, PAGE)? / FRAME_BYTES / BLOCK_FRAMES;
    ensure!(moved != 32, "page {PAGE} is in the block that is offline");
    vm.fails(&format!("verify {id}"), "EIO")?;
    vm.cmd(&format!("free {id}"))?;
    vm.unplug("d0")
}
