//! When memory is short, or nodes are strange: hotplug itself goes on, and kernel memory stays where it belongs.

use anyhow::{Context, Result, ensure};
use boot::ost;
use boot::qemu::{Machine, backend};
use boot::size::{gib, mib};
use serde_json::json;
use system_tests::check::same;
use system_tests::dimms::{BUSY, SUCCESS, dimm, dimm_on};
use system_tests::memory::{BLOCK_BYTES, space_tables};
use system_tests::scenario;
use system_tests::scenario::{Scenario, two_nodes};
use system_tests::vm::{Vm, errno_of};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect();
    let empty_node = words("-numa node,nodeid=2 -numa dist,src=0,dst=2,val=31 -numa dist,src=1,dst=2,val=31");
    vec![
        scenario!(hotplug_works_when_normal_is_exhausted).on(Machine { memory: gib(1), ..Machine::default() }),
        scenario!(kernel_memory_comes_from_boot_memory_first),
        scenario!(a_fill_takes_from_the_node_it_names),
        scenario!(a_dimm_can_live_on_a_node_without_boot_memory).on(Machine { extra: empty_node, ..two_nodes() }),
        scenario!(the_last_of_256_slots_works).on(Machine { slots: 256, ..two_nodes() }),
        scenario!(a_storm_of_requests_for_a_busy_dimm_changes_nothing),
    ]
}

/// Takes kernel memory until not even a page is to be had.
pub(crate) fn exhaust(vm: &mut Vm) -> Result<()> {
    let mut size = 1 << 30;
    while size >= 4096 {
        match vm.cmd(&format!("kfill {size}")) {
            Ok(_) => {}
            Err(error) if errno_of(&error) == Some("ENOMEM") => size /= 2,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn hotplug_works_when_normal_is_exhausted(vm: &mut Vm) -> Result<()> {
    let empty = vm.usage()?;
    exhaust(vm)?;
    let full = vm.usage()?;
    ensure!(full.available < 2 << 20, "still available: {full:?}");
    vm.memcheck()?;
    for command in ["online_movable dimm0", "online_kernel dimm0"] {
        vm.plug(&dimm("d0", gib(1)))?;
        vm.cmd(command)?;
        vm.memcheck()?;
        vm.cmd("offline dimm0")?;
        vm.unplug("d0")?;
        vm.expect_usage(&full)?;
    }
    // Struct pages in system memory find none, and that is said.
    let before = vm.trace()?;
    vm.cmd("memmap_on_memory off")?;
    ensure!(vm.plug_status(&dimm("d1", gib(1)))? != SUCCESS, "the guest claims success");
    vm.unchanged_since("an add that does not fit", &before)?;
    vm.unplug("d1")?;
    vm.cmd("verify")?;
    vm.free_everything()?;
    vm.expect_usage(&empty)
}

fn kernel_memory_comes_from_boot_memory_first(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm_on("d0", mib(512), 0))?;
    vm.cmd("online_kernel dimm0")?;
    // Half of what there is, and all of it fits beside the new blocks.
    let id = vm.fill("kfill 1200M")?;
    vm.cmd("offline dimm0")?;
    vm.cmd("online_kernel dimm0")?;
    vm.cmd(&format!("free {id}"))?;

    // Beyond the boot memory the lowest hot block is taken first, so that the last one can still go.
    exhaust_boot_memory(vm)?;
    let id = vm.fill("kfill 64M")?;
    vm.fails("offline 32-35", "EBUSY")?;
    vm.cmd("offline 35")?;
    vm.cmd(&format!("verify {id}")).map(drop)
}

/// Takes kernel memory until the boot blocks can give no megabyte more.
fn exhaust_boot_memory(vm: &mut Vm) -> Result<()> {
    for size in ["256M", "32M", "4M", "1M"] {
        loop {
            match vm.cmd(&format!("kfill {size} --in 0-15")) {
                Ok(_) => {}
                Err(error) if errno_of(&error) == Some("ENOMEM") => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn a_fill_takes_from_the_node_it_names(vm: &mut Vm) -> Result<()> {
    for node in [1, 0] {
        let before = vm.usage()?;
        let id = vm.fill(&format!("fill 100M --node {node}"))?;
        let after = vm.usage()?;
        let free = |usage: &system_tests::memory::Usage, node| usage.zone(node, "Normal").free;
        same("its own", free(&before, node) - free(&after, node), (100 << 20) + space_tables(100 << 20))?;
        same("the other", free(&before, 1 - node), free(&after, 1 - node))?;
        vm.cmd(&format!("free {id}"))?;
        vm.expect_usage(&before)?;
    }
    vm.fails_with_one_of("fill 1M --node 7", &["ENOENT", "EINVAL"])?;
    vm.fails("fill 1M --node far", "EINVAL")?;
    // A node that is full says so; it does not borrow.
    vm.fails("fill 1100M --node 1", "ENOMEM").map(drop)
}

fn a_dimm_can_live_on_a_node_without_boot_memory(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    vm.plug(&dimm_on("d0", mib(256), 2))?;
    same("node", vm.block(32)?.node, 2)?;
    // Its zones appear with its first block that is online, and not before.
    expect_zones(vm, &[0, 1])?;
    vm.fails("fill 1M --node 2", "ENOENT")?;
    vm.cmd("online_movable 32")?;
    expect_zones(vm, &[0, 1, 2])?;
    vm.cmd("online_kernel 33")?;
    vm.cmd("offline 32")?;
    expect_zones(vm, &[0, 1, 2])?;
    vm.cmd("online_movable 32")?;
    let usage = vm.usage()?;
    for zone in ["Movable", "Normal"] {
        same(&format!("present in {zone}"), usage.zone(2, zone).present, BLOCK_BYTES)?;
    }
    let id = vm.fill("fill 200M --node 2")?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}"))?;
    vm.cmd("offline 32-33")?;
    expect_zones(vm, &[0, 1])?;
    vm.fails("fill 1M --node 2", "ENOENT")?;
    vm.unplug("d0")?;
    vm.unchanged_since("a DIMM that came and went", &before)
}

/// The nodes that everything shows which tells of memory that is online.
fn expect_zones(vm: &mut Vm, expected: &[u64]) -> Result<()> {
    for command in ["meminfo", "buddyinfo"] {
        same(&format!("nodes in {command}"), vm.nodes_in(command, "zones")?, expected.to_vec())?;
    }
    Ok(())
}

fn the_last_of_256_slots_works(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    vm.qmp("object-add", json!({"qom-type": "memory-backend-ram", "id": backend("d"), "size": BLOCK_BYTES}))?;
    let device = json!({"driver": "pc-dimm", "id": "d", "memdev": backend("d"), "slot": 255});
    vm.qmp("device_add", device)?;
    same("answer", vm.answers(&["d"], ost::Event::Insertion)?["d"], SUCCESS)?;
    same("group", vm.block(32)?.group.as_deref(), Some("dimm255"))?;
    vm.cmd("online_movable dimm255")?;
    vm.unplug("d")?;
    vm.wait_for("the last word", |vm| Ok((vm.last_word(255)? == (3, SUCCESS)).then_some(())))?;
    vm.unchanged_since("a DIMM that came and went", &before)
}

fn a_storm_of_requests_for_a_busy_dimm_changes_nothing(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    vm.cmd("online_kernel 32-33")?;
    let id = vm.fill("kfill 1M --in 33")?;
    let before = vm.trace()?;
    vm.qmp.forget_events();
    let mut asked = 0;
    for round in 0..50 {
        // QEMU may say that the last request is still under way.
        asked += usize::from(vm.qmp("device_del", json!({"id": "d0"})).is_ok());
        if round % 10 == 5 {
            vm.cmd("lsmem")?;
        }
    }
    ensure!(asked > 0, "QEMU passed on none of the requests");
    same("answer", vm.answers(&["d0"], ost::Event::Ejection)?["d0"], BUSY)?;
    // The last of them may still be under way; its flag is cleared when the guest takes it up.
    vm.wait_for("the end of the storm", |vm| {
        let taken_up = vm.slot_zero_flags()?.contains("= 0x01");
        Ok((taken_up && vm.trace()? == before).then_some(()))
    })?;

    vm.cmd(&format!("free {id}"))?;
    vm.plug(&dimm("d1", mib(128))).context("a DIMM after the storm")?;
    vm.unplug("d0")?;
    vm.expect_blocks(&[(32..=33, "absent"), (34..=34, "offline")])
}
