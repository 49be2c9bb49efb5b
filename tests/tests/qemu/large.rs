//! Memory that is large beside the guest: it costs the guest and the host next to nothing until it is used.

use anyhow::{Result, ensure};
use boot::ost;
use boot::qemu::{Machine, backend};
use boot::size::{Bytes, gib, mib};
use serde_json::json;
use system_tests::check::same;
use system_tests::dimms::SUCCESS;
use system_tests::memory::BLOCK_BYTES;
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::Vm;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let online = ["memhp_default_state=online_movable"];
    let terabytes = Machine { memory: gib(8), maxmem: gib(5 << 10), slots: 4, ..Machine::default() };
    let small = Machine { memory: mib(256), maxmem: gib(128), slots: 4, ..Machine::default() };
    vec![
        scenario!(four_tib_come_online_in_an_8_gib_guest_and_go).on(terabytes.clone()).params(&online),
        scenario!(the_shell_answers_while_four_tib_come_and_go).on(terabytes).params(&online),
        scenario!(sixty_four_gib_come_online_in_a_256_mib_guest_and_go).on(small).params(&online),
    ]
}

fn four_tib_come_online_in_an_8_gib_guest_and_go(vm: &mut Vm) -> Result<()> {
    comes_online_and_goes(vm, gib(4 << 10))
}

fn sixty_four_gib_come_online_in_a_256_mib_guest_and_go(vm: &mut Vm) -> Result<()> {
    comes_online_and_goes(vm, gib(64))
}

/// Everything that happens is shown as it happens, and nobody waits for it.
fn the_shell_answers_while_four_tib_come_and_go(vm: &mut Vm) -> Result<()> {
    let size = gib(4 << 10);
    let follower = vm.job("events -f")?;
    vm.qmp(
        "object-add",
        json!({"qom-type": "memory-backend-ram", "id": backend("large"), "size": size.0, "reserve": false}),
    )?;
    vm.qmp.forget_events();
    vm.qmp("device_add", json!({"driver": "pc-dimm", "id": "large", "memdev": backend("large")}))?;
    // What the job shows comes between what commands print, so only the log of the console is read.
    vm.wait_for("a line about the DIMM", |vm| {
        vm.cmd("version")?;
        Ok(vm.console.log().contains("added on node 0, online").then_some(()))
    })?;
    same("the answer", vm.answers(&["large"], ost::Event::Insertion)?["large"], SUCCESS)?;
    for command in ["offline dimm0", "online_movable dimm0"] {
        let job = vm.job(command)?;
        vm.cmd("version")?;
        vm.cmd(&format!("wait {job}"))?;
    }
    vm.unplug("large")?;
    for operation in ["add", "online", "offline", "remove"] {
        let shown = |line: &str| line.split_whitespace().any(|word| word == operation) && line.contains("4T");
        vm.wait_for(&format!("a line about the {operation}"), |vm| {
            Ok(vm.console.log().lines().any(shown).then_some(()))
        })?;
    }
    vm.cmd(&format!("kill {follower}"))?;
    vm.fails(&format!("wait {follower}"), "ECANCELED").map(drop)
}

fn comes_online_and_goes(vm: &mut Vm, size: Bytes) -> Result<()> {
    /// What the guest may touch of the new memory, and the emulator take for itself.
    const HOST_LIMIT: u64 = 128 << 20;
    const GUEST_LIMIT: u64 = 64 << 10;

    let before = vm.usage()?;
    let grown = vm.plug_measured("large", size)?;
    ensure!(grown <= HOST_LIMIT, "QEMU grew by {grown} bytes");
    let after = vm.usage()?;
    let taken = before.zone(0, "Normal").free.saturating_sub(after.zone(0, "Normal").free);
    ensure!(taken <= GUEST_LIMIT, "boot memory lost {taken} bytes");
    let group = vm.groups()?["dimm0"].clone();
    same("online", (group.online, group.offline), (size.0, 0))?;
    let zone = after.zone(0, "Movable");
    same("present", zone.present, size.0)?;
    same("free", zone.free, zone.managed)?;
    let overhead = zone.present - zone.managed;
    ensure!(overhead <= size.0 / 125, "{overhead} bytes of {} hold struct pages and tables", size.0);
    vm.memcheck()?;

    // It is used from both ends, and boot memory is not.
    for command in ["fill 512M".to_owned(), format!("fill 64M --in {}", group.last)] {
        let id = vm.fill(&command)?;
        vm.cmd(&format!("verify {id}"))?;
    }
    let used = vm.usage()?;
    same("in use", zone.free - used.zone(0, "Movable").free, 576 << 20)?;
    // What is used is found by page tables, which are the kernel's.
    let tables = used.page_tables - after.page_tables;
    let taken = before.zone(0, "Normal").free.saturating_sub(used.zone(0, "Normal").free + tables);
    ensure!(taken <= GUEST_LIMIT, "boot memory lost {taken} bytes beside {tables} of page tables");
    vm.memcheck()?;
    vm.free_everything()?;

    vm.cmd("offline dimm0")?;
    same("offline", vm.usage()?.offline, size.0)?;
    vm.memcheck()?;
    let half = group.first + (size.0 / BLOCK_BYTES) / 2;
    vm.cmd(&format!("online {half}"))?;
    vm.unplug("large")?;
    vm.expect_usage(&before)
}
