//! Standby memory: blocks that are known from the start, and backed by the host while they are online.

use anyhow::{Result, ensure};
use boot::qemu::{Board, Machine, VirtioMem, Way};
use boot::size::{Bytes, gib, mib};
use serde_json::json;
use system_tests::check::same;
use system_tests::memory::BLOCK_BYTES;
use system_tests::scenario;
use system_tests::scenario::{Scenario, two_nodes};
use system_tests::vm::Vm;

const STANDBY: &[&str] = &["virtio_mem.mode=standby", "memhp_default_state=online_movable"];

pub(crate) fn scenarios() -> Vec<Scenario> {
    let device = |size, block| VirtioMem { size, requested: size, node: Some(1), block, standby: true };
    let with = |device| Machine { virtio_mems: vec![device], way: Way::Pvh, ..two_nodes() };
    let of_blocks = |block| with(device(gib(4), block));
    vec![
        scenario!(what_is_not_online_costs_the_host_nothing).on(in_a_file()).params(STANDBY),
        scenario!(what_is_not_online_costs_the_host_nothing)
            .with("on_pc")
            .on(Machine { board: Board::Pc, ..in_a_file() })
            .params(STANDBY),
        scenario!(blocks_come_and_go_as_somebody_says).on(of_blocks(None)).params(STANDBY),
        scenario!(blocks_come_and_go_as_somebody_says)
            .with("in_smaller_pieces")
            .on(of_blocks(Some(mib(1))))
            .params(STANDBY),
        scenario!(blocks_of_a_unit_come_together).on(of_blocks(Some(mib(512)))).params(STANDBY),
        scenario!(the_host_may_refuse).on(of_blocks(None)).params(STANDBY),
        scenario!(an_online_that_fails_gives_everything_back).on(of_blocks(None)).params(STANDBY),
        scenario!(the_mode_changes_while_nothing_is_plugged)
            .on(with(VirtioMem { standby: false, ..device(gib(4), None) }))
            .params(&["memhp_default_state=online_movable"]),
        scenario!(terabytes_stand_by)
            .on(Machine {
                memory: gib(1),
                maxmem: gib(5 << 10),
                virtio_mems: vec![VirtioMem { node: None, ..device(gib(4 << 10), Some(mib(128))) }],
                way: Way::Pvh,
                ..Machine::default()
            })
            .params(STANDBY),
    ]
}

/// The first block of the devices here.
const FIRST: u64 = 32;

/// A device whose memory is a file, so that one sees how much of it is there.
fn in_a_file() -> Machine {
    let extra = [
        "-object",
        "memory-backend-memfd,id=file,size=2G,reserve=off",
        "-device",
        "virtio-mem-pci,id=vmem0,memdev=file,node=1,requested-size=2G,unplugged-inaccessible=on",
    ];
    Machine { extra: extra.map(str::to_owned).to_vec(), way: Way::Pvh, ..two_nodes() }
}

/// Waits until the guest has looked at the device again, and both count the same.
fn expect_plugged(vm: &mut Vm, blocks: u64) -> Result<()> {
    same("plugged, as QEMU counts", vm.plugged("vmem0")?, blocks * BLOCK_BYTES)?;
    vm.wait_for("the device to say so", |vm| Ok((vm.resizable("vmem0")?.plugged == blocks * BLOCK_BYTES).then_some(())))
}

fn what_is_not_online_costs_the_host_nothing(vm: &mut Vm) -> Result<()> {
    vm.expect_blocks(&[(FIRST..=FIRST + 15, "offline")])?;
    vm.cmd("lsmem; groups; iomem; page 0x1_0800_0000; zoneinfo; memcheck")?;
    same("bytes of the host", vm.memory_file_bytes()?, 0)?;
    vm.cmd(&format!("online_movable {}", FIRST + 4))?;
    let fill = vm.fill(&format!("fill 50M --in {}", FIRST + 4))?;
    let used = vm.memory_file_bytes()?;
    ensure!((50 << 20..=BLOCK_BYTES).contains(&used), "{used} bytes of the host");
    vm.cmd(&format!("verify {fill}"))?;
    vm.cmd(&format!("offline {}", FIRST + 4))?;
    vm.cmd(&format!("verify {fill}"))?;
    same("bytes of the host", vm.memory_file_bytes()?, 0)?;
    vm.free_everything()
}

fn blocks_come_and_go_as_somebody_says(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    let device = vm.resizable("vmem0")?;
    same("mode", device.mode.as_str(), "standby")?;
    vm.expect_blocks(&[(FIRST..=FIRST + 31, "offline")])?;
    expect_plugged(vm, 0)?;
    for round in 0..3 {
        vm.cmd("online_movable 40-45")?;
        vm.cmd("online_kernel 33")?;
        expect_plugged(vm, 7)?;
        let fill = vm.fill("fill 300M --in 40-45 --writers 1")?;
        vm.cmd("offline 42-43")?;
        expect_plugged(vm, 5)?;
        vm.cmd(&format!("verify {fill}"))?;
        vm.memcheck()?;
        vm.free_everything()?;
        vm.cmd("offline 33,40-41,44-45")?;
        expect_plugged(vm, 0)?;
        same(&format!("usage in round {round}"), vm.usage()?, before.clone())?;
    }
    vm.fails("remove vmem0", "EINVAL").map(drop)
}

fn blocks_of_a_unit_come_together(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    vm.cmd("online_movable 41")?;
    expect_plugged(vm, 4)?;
    vm.cmd("online_movable 40,43")?;
    expect_plugged(vm, 4)?;
    vm.cmd("offline 41")?;
    expect_plugged(vm, 4)?;
    vm.cmd("offline 40,43")?;
    expect_plugged(vm, 0)?;
    same("usage", vm.usage()?, before)
}

fn the_host_may_refuse(vm: &mut Vm) -> Result<()> {
    vm.request("vmem0", mib(256))?;
    let before = vm.usage()?;
    let why = vm.fails("online_movable 40-42", "ENOMEM")?;
    ensure!(why.contains("host"), "{why}");
    same("usage", vm.usage()?, before.clone())?;
    expect_plugged(vm, 0)?;
    // The usable region does not shrink, so that only what is requested counts.
    vm.cmd("online_movable 62-63")?;
    vm.fails("online_movable 40", "ENOMEM")?;
    vm.request("vmem0", mib(128))?;
    let why = vm.stuck("vmem0", "waiting")?;
    ensure!(why.contains("128 MiB back"), "{why}");
    vm.cmd("offline 62")?;
    vm.wait_for("the device to be content", |vm| Ok((vm.resizable("vmem0")?.state == "idle").then_some(())))?;

    vm.request("vmem0", gib(4))?;
    vm.qmp("migrate-set-parameters", json!({"max-bandwidth": 4096}))?;
    vm.qmp("migrate", json!({"uri": "exec:cat >/dev/null"}))?;
    vm.fails("online_movable 40", "EBUSY")?;
    // What the host does not take back now is kept, and offered again.
    vm.cmd("offline 63")?;
    expect_plugged(vm, 1)?;
    let why = vm.stuck("vmem0", "waiting")?;
    ensure!(why.contains("takes nothing back"), "{why}");
    vm.fails("online_movable 63", "EBUSY")?;
    vm.qmp("migrate_cancel", json!({}))?;
    vm.wait_for("the host to take it back", |vm| Ok((vm.plugged("vmem0")? == 0).then_some(())))?;
    expect_plugged(vm, 0)?;
    same("usage", vm.usage()?, before)
}

fn an_online_that_fails_gives_everything_back(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    for point in ["standby.back", "standby.map", "standby.trial", "online.begin", "online.prepare"] {
        vm.cmd(&format!("inject {point} EIO"))?;
        vm.fails("online_movable 40-42", "EIO")?;
        expect_plugged(vm, 0)?;
        vm.memcheck()?;
        same(&format!("usage after {point}"), vm.usage()?, before.clone())?;
    }
    vm.cmd("notify add stubborn 0; notify veto stubborn online")?;
    vm.fails("online_movable 40-42", "EBUSY")?;
    expect_plugged(vm, 0)?;
    vm.cmd("notify remove stubborn")?;
    vm.cmd("online_movable 40-42")?;
    expect_plugged(vm, 3)?;
    vm.cmd("offline 40-42")?;
    expect_plugged(vm, 0)
}

fn the_mode_changes_while_nothing_is_plugged(vm: &mut Vm) -> Result<()> {
    vm.settled("vmem0", gib(4))?;
    vm.fails("virtio_mem vmem0 mode standby", "EBUSY")?;
    vm.fails("virtio_mem vmem1 mode standby", "ENOENT")?;
    vm.fails("virtio_mem dimm0 mode standby", "ENOENT")?;
    vm.fails("virtio_mem vmem0 mode sideways", "EINVAL")?;
    vm.fails("virtio_mem vmem0 mode", "EINVAL")?;
    vm.resize("vmem0", Bytes(0))?;
    let before = vm.usage()?;
    for _ in 0..2 {
        vm.cmd("virtio_mem vmem0 mode standby")?;
        vm.cmd("virtio_mem vmem0 mode standby")?;
        vm.expect_blocks(&[(FIRST..=FIRST + 31, "offline")])?;
        vm.request("vmem0", gib(1))?;
        vm.cmd("online 35")?;
        expect_plugged(vm, 1)?;
        vm.fails("virtio_mem vmem0 mode requested", "EBUSY")?;
        vm.cmd("offline 35")?;
        vm.request("vmem0", Bytes(0))?;
        expect_plugged(vm, 0)?;
        vm.cmd("virtio_mem vmem0 mode requested")?;
        same("blocks", vm.blocks()?.range(FIRST..).count(), 0)?;
        vm.resize("vmem0", mib(300))?;
        vm.resize("vmem0", Bytes(0))?;
        same("usage", vm.usage()?, before.clone())?;
    }
    Ok(())
}

/// Blocks that nobody has brought online cost what the table says of them, which is there for all blocks that can be.
fn terabytes_stand_by(vm: &mut Vm) -> Result<()> {
    let blocks = (4 << 40) / BLOCK_BYTES;
    let before = vm.usage()?;
    same("offline", before.offline, 4 << 40)?;
    same("struct pages", before.memmap.reserved, mib(8).0)?;
    same("blocks", vm.blocks()?.range(FIRST..).count() as u64, blocks)?;
    let last = FIRST + blocks - 1;
    vm.cmd(&format!("online_movable {last}"))?;
    expect_plugged(vm, 1)?;
    let fill = vm.fill(&format!("fill 64M --in {last}"))?;
    vm.cmd(&format!("verify {fill}"))?;
    vm.cmd(&format!("free {fill}"))?;
    vm.cmd(&format!("offline {last}"))?;
    expect_plugged(vm, 0)?;
    same("usage", vm.usage()?, before)
}
