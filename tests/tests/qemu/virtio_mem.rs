//! virtio-mem: devices whose size the host changes, up and down, with what the guest has in them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use boot::dice::Dice;
use boot::qemu::{Board, Machine, VirtioMem, Way, backend};
use boot::size::{Bytes, gib, mib};
use serde_json::{Value, json};
use system_tests::check::same;
use system_tests::dimms::dimm_on;
use system_tests::memory::{BLOCK_BYTES, FRAME_BYTES};
use system_tests::scenario;
use system_tests::scenario::{FIRST_HOT, Scenario, two_nodes};
use system_tests::vm::{Vm, soon};

/// What a microvm gets a device of 1 GiB by that has its registers in memory. The machine has no place for the device's memory, which it
/// then claims to have at address zero.
const MAPPED: [&str; 4] = [
    "-object",
    "memory-backend-ram,id=vmem0-ram,size=1G,reserve=off",
    "-device",
    "virtio-mem,id=vmem0,memdev=vmem0-ram",
];
/// As the standard has it, not as it was before.
const MODERN: [&str; 2] = ["-global", "virtio-mmio.force-legacy=false"];

fn microvm(extra: &[&[&str]]) -> Machine {
    let extra = extra.concat().into_iter().map(str::to_owned).collect();
    Machine { board: Board::Microvm, way: Way::Pvh, slots: 0, extra, ..Machine::default() }
}

pub(crate) fn scenarios() -> Vec<Scenario> {
    let device = |node, size| VirtioMem { size, requested: Bytes(0), node: Some(node), block: None, standby: false };
    let with = |virtio_mems: &[VirtioMem]| Machine { virtio_mems: virtio_mems.to_vec(), way: Way::Pvh, ..two_nodes() };
    let one = || with(&[device(1, gib(4))]);
    let large = VirtioMem { node: None, ..device(0, gib(64)) };
    let begun = VirtioMem { requested: mib(516), ..device(0, gib(1)) };
    let pieces = |block| VirtioMem { block: Some(block), ..device(0, gib(1)) };
    let movable = &["memhp_default_state=online_movable"];
    let port = ["-device", "pcie-root-port,id=slot1,chassis=1,slot=1"].map(str::to_owned).to_vec();
    vec![
        scenario!(the_size_follows_the_host_both_ways).on(one()).params(movable),
        scenario!(the_size_follows_the_host_both_ways)
            .with("on_pc")
            .on(Machine { board: Board::Pc, ..one() })
            .params(movable),
        scenario!(a_device_that_calls_is_not_looked_at).on(with(&[device(0, gib(1)), device(1, gib(1))])),
        scenario!(a_device_that_calls_is_not_looked_at)
            .with("on_pc")
            .on(Machine { board: Board::Pc, ..with(&[device(0, gib(1)), device(1, gib(1))]) }),
        scenario!(what_comes_stays_offline_unless_told).on(one()),
        scenario!(what_is_requested_at_boot_is_there).on(with(&[begun])).params(movable),
        scenario!(what_is_in_use_moves_and_what_is_pinned_stays).on(one()).params(movable),
        scenario!(devices_of_two_nodes_and_a_module_stand_beside_each_other)
            .on(with(&[device(0, gib(2)), device(1, gib(2))]))
            .params(movable),
        scenario!(a_busy_host_is_asked_again).on(one()).params(movable),
        scenario!(whatever_fails_in_a_resize_is_tried_again).on(one()).params(movable),
        scenario!(a_veto_is_named_and_its_end_helps_at_once).on(one()).params(movable),
        scenario!(what_the_administrator_does_meanwhile_is_respected).on(one()).params(movable),
        scenario!(a_reset_begins_anew).on(one()).params(movable),
        scenario!(a_machine_that_moves_to_another_host_goes_on).on(moving(&[])).params(movable),
        scenario!(sizes_at_random_are_reached_whatever_is_in_use).on(one()).params(movable),
        scenario!(a_machine_that_stands_still_goes_on).on(one()).params(movable),
        scenario!(a_small_machine_grows_large_and_small_again)
            .on(Machine { memory: mib(256), nodes: 1, maxmem: gib(128), virtio_mems: vec![large], ..one() })
            .params(movable),
        scenario!(pieces_may_be_smaller_and_larger)
            .on(with(&[pieces(mib(1)), pieces(mib(8)), pieces(mib(128)), pieces(mib(256)), pieces(gib(1))]))
            .params(movable),
        scenario!(the_size_follows_the_host_both_ways)
            .with("without_slots")
            .on(Machine { slots: 0, ..one() })
            .params(movable),
        scenario!(memory_that_is_elsewhere_sets_a_device_aside).on(microvm(&[&MODERN, &MAPPED])),
        scenario!(memory_that_is_elsewhere_sets_a_device_aside).with("without_acpi").on(microvm(&[
            &MODERN,
            &MAPPED,
            &["-machine", "acpi=off"],
        ])),
        scenario!(memory_that_is_elsewhere_sets_a_device_aside).with("on_pcie").on(microvm(&[
            &["-machine", "pcie=on"],
            &MAPPED[..3],
            &["virtio-mem-pci,id=vmem0,memdev=vmem0-ram"],
        ])),
        scenario!(a_device_from_before_the_standard_is_set_aside).on(microvm(&[&MAPPED])),
        scenario!(a_function_may_come_and_go).on(Machine { extra: port.clone(), way: Way::Pvh, ..two_nodes() }),
        scenario!(a_function_may_come_and_go).with("on_pc").on(Machine {
            board: Board::Pc,
            way: Way::Pvh,
            ..two_nodes()
        }),
        scenario!(a_device_may_come_later).on(Machine { extra: port, way: Way::Pvh, ..two_nodes() }).params(movable),
        scenario!(a_device_may_come_later)
            .with("on_pc")
            .on(Machine { board: Board::Pc, way: Way::Pvh, ..two_nodes() })
            .params(movable),
    ]
}

/// A machine of which there can be two alike.
fn moving(extra: &[&str]) -> Machine {
    let device = VirtioMem { size: gib(4), requested: Bytes(0), node: Some(1), block: None, standby: false };
    let extra = extra.iter().map(|word| (*word).to_owned()).collect();
    Machine { virtio_mems: vec![device], way: Way::Pvh, extra, ..two_nodes() }
}

/// What of `size` is not struct pages.
fn managed(size: Bytes) -> u64 {
    size.0 - size.0.div_ceil(BLOCK_BYTES) * BLOCK_BYTES / FRAME_BYTES * 32
}

fn the_size_follows_the_host_both_ways(vm: &mut Vm) -> Result<()> {
    vm.settled("vmem0", Bytes(0))?;
    let before = vm.usage()?;
    for size in [gib(1), gib(3), mib(2050), mib(130), Bytes(0), mib(256), Bytes(0)] {
        vm.resize("vmem0", size)?;
        let now = vm.usage()?;
        same(&format!("total with {size}"), now.total, before.total + managed(size))?;
        let blocks = size.0.div_ceil(BLOCK_BYTES);
        same(&format!("blocks with {size}"), vm.blocks()?.range(FIRST_HOT..).count() as u64, blocks)?;
        vm.memcheck()?;
    }
    let after = vm.usage()?;
    same("page tables", after.page_tables, before.page_tables)?;
    same("totals", after, before)
}

/// Of two devices, which may share a line, neither's task runs while the host wants nothing.
fn a_device_that_calls_is_not_looked_at(vm: &mut Vm) -> Result<()> {
    for size in [mib(256), mib(64)] {
        vm.resize("vmem0", size)?;
        calls(vm, "vmem0")?;
        calls(vm, "vmem1")?;
    }
    Ok(())
}

/// Waits until the task of a device has rested for a while, in which it would have looked at the device several times.
fn calls(vm: &mut Vm, name: &str) -> Result<()> {
    let cpu_ns = |vm: &mut Vm| {
        let list = vm.json("tasks")?;
        let task = list["tasks"].as_array().and_then(|tasks| tasks.iter().find(|task| task["name"] == name));
        task.and_then(|task| task["cpu_ns"].as_u64()).with_context(|| format!("no task {name} in {list}"))
    };
    vm.wait_for(&format!("the task of {name} to rest"), |vm| {
        let before = cpu_ns(vm)?;
        std::thread::sleep(Duration::from_millis(400));
        Ok((cpu_ns(vm)? == before).then_some(()))
    })?;
    let log = vm.kernel_log()?;
    let how = log.iter().find(|line| line.contains(&format!("{name}: ")) && line.contains(", by "));
    ensure!(how.is_some_and(|line| !line.contains("by no interrupt")), "{how:?}");
    Ok(())
}

fn what_comes_stays_offline_unless_told(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    vm.resize("vmem0", mib(300))?;
    let usage = vm.usage()?;
    same("total", usage.total, before.total)?;
    vm.expect_blocks(&[(32..=34, "offline")])?;
    let group = vm.groups()?["vmem0"].clone();
    same("group", (group.kind.as_str(), group.slot, group.node), ("virtio-mem", None, 1))?;
    // A group is the blocks of it that are there.
    vm.cmd("online_kernel vmem0")?;
    vm.expect_blocks(&[(32..=34, "Normal")])?;
    same("total", vm.usage()?.total, before.total + managed(mib(300)))?;
    vm.cmd("offline vmem0")?;
    vm.fails("remove vmem0", "EINVAL")?;
    vm.resize("vmem0", Bytes(0))?;
    vm.fails("online vmem0", "ENOENT")?;
    same("totals", vm.usage()?, before)
}

fn what_is_requested_at_boot_is_there(vm: &mut Vm) -> Result<()> {
    vm.settled("vmem0", mib(516))?;
    vm.expect_blocks(&[(32..=36, "Movable")])?;
    vm.resize("vmem0", mib(2))
}

fn what_is_in_use_moves_and_what_is_pinned_stays(vm: &mut Vm) -> Result<()> {
    vm.resize("vmem0", mib(1030))?;
    let fill = vm.fill("fill 600M --in 32-40")?;
    vm.resize("vmem0", mib(930))?;
    vm.resize("vmem0", mib(928))?;
    vm.cmd(&format!("verify {fill}"))?;
    vm.cmd(&format!("pin {fill} 100000 --stay"))?;
    vm.request("vmem0", Bytes(0))?;
    let why = vm.stuck("vmem0", "waiting")?;
    ensure!(why.contains("in use") && why.contains("pfn:"), "{why}");
    // What can go has gone: the head of the block stays with the page.
    vm.wait_for("the rest to go", |vm| Ok((vm.plugged("vmem0")? <= 4 << 20).then_some(())))?;
    same("blocks", vm.blocks()?.range(FIRST_HOT..).count(), 1)?;
    vm.cmd(&format!("verify {fill}"))?;
    vm.memcheck()?;
    vm.cmd(&format!("unpin {fill} 100000"))?;
    vm.settled("vmem0", Bytes(0))?;
    vm.cmd("verify")?;
    vm.free_everything()
}

fn devices_of_two_nodes_and_a_module_stand_beside_each_other(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm_on("d0", mib(256), 1))?;
    let before = vm.usage()?;
    for (first, second) in [(mib(1024), mib(256)), (mib(2048), mib(1030)), (Bytes(0), mib(2048)), (mib(130), Bytes(0))]
    {
        vm.request("vmem0", first)?;
        vm.request("vmem1", second)?;
        vm.settled("vmem0", first)?;
        vm.settled("vmem1", second)?;
        let now = vm.usage()?;
        for (node, size) in [(0, first), (1, second)] {
            let was = before.zone(node, "Movable").managed;
            same(&format!("Movable on node {node}"), now.zone(node, "Movable").managed, was + managed(size))?;
        }
    }
    vm.unplug("d0")?;
    vm.resize("vmem0", Bytes(0))
}

fn a_busy_host_is_asked_again(vm: &mut Vm) -> Result<()> {
    vm.resize("vmem0", mib(256))?;
    vm.qmp("migrate-set-parameters", json!({"max-bandwidth": 4096}))?;
    vm.qmp("migrate", json!({"uri": "exec:cat >/dev/null"}))?;
    for size in [mib(512), mib(128)] {
        vm.request("vmem0", size)?;
        let why = vm.stuck("vmem0", "waiting")?;
        ensure!(why.contains("busy"), "{why}");
    }
    vm.qmp("migrate_cancel", json!({}))?;
    vm.settled("vmem0", mib(128))
}

/// The failure points of growing and of shrinking.
const GROWING: &[&str] = &["add.map", "piece.grant", "online.begin", "online.prepare"];
const SHRINKING: &[&str] = &[
    "piece.withhold",
    "offline.begin",
    "offline.isolate",
    "offline.prepare",
    "offline.evacuate",
    "remove.begin",
    "migrate.destination",
    "migrate.unmap",
    "migrate.copy",
];

fn whatever_fails_in_a_resize_is_tried_again(vm: &mut Vm) -> Result<()> {
    let points = vm.json("inject -l")?;
    let known: Vec<_> =
        points["points"].as_array().into_iter().flatten().filter_map(|point| point["name"].as_str()).collect();
    let before = vm.usage()?;
    for (point, times) in GROWING.iter().chain(SHRINKING).flat_map(|point| [(point, 1), (point, 3)]) {
        ensure!(known.contains(point), "{point} is none of {known:?}");
        let is_growing = GROWING.contains(point);
        if !is_growing {
            vm.resize("vmem0", mib(390))?;
            // Something lies in every block, so that nothing goes without being moved.
            vm.fill("fill 300M --in 32-34")?;
        }
        vm.cmd(&format!("inject {point} EIO --times {times}"))?;
        if is_growing {
            vm.resize("vmem0", mib(390))?;
            // What could not go online by itself is there, offline.
            if !point.starts_with("online") {
                vm.expect_blocks(&[(32..=35, "Movable")])?;
            }
        } else {
            vm.resize("vmem0", mib(130))?;
            vm.cmd("verify")?;
        }
        vm.cmd("inject off")?;
        vm.memcheck()?;
        vm.free_everything()?;
        vm.resize("vmem0", Bytes(0))?;
        vm.expect_usage(&before)?;
    }
    Ok(())
}

fn a_veto_is_named_and_its_end_helps_at_once(vm: &mut Vm) -> Result<()> {
    vm.resize("vmem0", mib(256))?;
    let fill = vm.fill("fill 200M --in 32-33")?;
    vm.cmd("notify add stubborn 0; notify veto stubborn offline")?;
    vm.request("vmem0", Bytes(0))?;
    let why = vm.stuck("vmem0", "waiting")?;
    ensure!(why.contains("stubborn") || why.contains("in use"), "{why}");
    // All but the pieces with the struct pages goes without asking.
    vm.wait_for("the heads to be left", |vm| Ok((vm.plugged("vmem0")? == 4 << 20).then_some(())))?;
    let why = vm.stuck("vmem0", "waiting")?;
    ensure!(why.contains("stubborn"), "{why}");
    vm.cmd("notify allow stubborn")?;
    vm.settled("vmem0", Bytes(0))?;
    vm.cmd("notify remove stubborn")?;
    vm.cmd(&format!("verify {fill}"))?;
    vm.free_everything()
}

fn what_the_administrator_does_meanwhile_is_respected(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    vm.resize("vmem0", mib(650))?;
    vm.plug(&dimm_on("d0", mib(256), 0))?;
    vm.cmd("offline 33")?;
    vm.cmd("online_kernel 33")?;
    vm.cmd("offline 35")?;
    vm.fails("probe 0x120000000 256M", "EEXIST")?;
    vm.resize("vmem0", mib(1300))?;
    vm.expect_blocks(&[(32..=32, "Movable"), (33..=33, "Normal"), (34..=34, "Movable"), (35..=35, "offline")])?;
    vm.fill("fill 500M --in 36-42 --writers 2")?;
    for size in [mib(1024), mib(1290), mib(512)] {
        vm.resize("vmem0", size)?;
        vm.memcheck()?;
    }
    vm.cmd("verify")?;
    vm.unplug("d0")?;
    vm.free_everything()?;
    vm.resize("vmem0", Bytes(0))?;
    vm.expect_usage(&before)
}

/// A machine that is reset unplugs everything and keeps what is requested.
fn a_reset_begins_anew(vm: &mut Vm) -> Result<()> {
    vm.resize("vmem0", mib(300))?;
    vm.fill("fill 200M --in 32-34")?;
    vm.qmp("system_reset", json!({}))?;
    vm.event("RESET", |event| (event.name == "RESET").then_some(()))?;
    vm.expect("lists the commands")?;
    vm.console.expect_prompt(soon())?;
    vm.settled("vmem0", mib(300))?;
    vm.expect_blocks(&[(32..=34, "Movable")])?;
    vm.resize("vmem0", Bytes(0))
}

/// Its state goes through a file, while the device is busy and another size is requested.
fn a_machine_that_moves_to_another_host_goes_on(vm: &mut Vm) -> Result<()> {
    vm.resize("vmem0", mib(600))?;
    let fill = vm.fill("fill 300M --in 32-36")?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("state");
    vm.qmp("migrate-set-parameters", json!({"max-bandwidth": 1_u64 << 30}))?;
    vm.qmp("migrate", json!({"uri": format!("exec:cat >{}", file.display())}))?;
    vm.request("vmem0", gib(1))?;
    vm.wait_for("the state to be in the file", |vm| {
        let migration = vm.qmp("query-migrate", json!({}))?;
        ensure!(migration["status"] != "failed", "{migration}");
        Ok((migration["status"] == "completed").then_some(()))
    })?;
    let plugged = vm.plugged("vmem0")?;
    *vm = scenario::start(&moving(&["-incoming", &format!("exec:cat {}", file.display())]))?;
    vm.wait_for("the state to be read", |vm| {
        Ok((vm.qmp("query-status", json!({}))?["status"] == "running").then_some(()))
    })?;
    ensure!(vm.plugged("vmem0")? >= plugged, "less is plugged than before");
    // Its prompt was printed on the other host.
    vm.console.submit("")?;
    vm.console.expect_prompt(soon())?;
    vm.settled("vmem0", gib(1))?;
    vm.cmd(&format!("verify {fill}"))?;
    vm.memcheck()?;
    vm.resize("vmem0", mib(400))?;
    vm.cmd(&format!("verify {fill}"))?;
    vm.free_everything()?;
    vm.resize("vmem0", Bytes(0))
}

fn sizes_at_random_are_reached_whatever_is_in_use(vm: &mut Vm) -> Result<()> {
    const ROUNDS: u64 = 200;
    let before = vm.usage()?;
    let mut dice = Dice::new(41);
    let fills = ["fill 150M --writers 2", "fill 100M --huge", "fill 50M"].map(|fill| vm.fill(fill));
    for round in 1..=ROUNDS {
        vm.resize("vmem0", mib(2 * dice.below(1025)))?;
        if round.is_multiple_of(20) {
            vm.cmd("verify")?;
            vm.memcheck()?;
        }
    }
    fills.into_iter().collect::<Result<Vec<_>>>()?;
    vm.free_everything()?;
    vm.resize("vmem0", Bytes(0))?;
    vm.expect_usage(&before)
}

fn a_machine_that_stands_still_goes_on(vm: &mut Vm) -> Result<()> {
    vm.resize("vmem0", gib(1))?;
    vm.fill("fill 700M --in 32-39 --writers 2")?;
    for size in [mib(256), gib(3), mib(800)] {
        vm.request("vmem0", size)?;
        vm.qmp("stop", json!({}))?;
        std::thread::sleep(Duration::from_millis(300));
        vm.qmp("cont", json!({}))?;
        vm.settled("vmem0", size)?;
    }
    vm.cmd("verify")?;
    vm.free_everything()
}

fn a_small_machine_grows_large_and_small_again(vm: &mut Vm) -> Result<()> {
    vm.settled("vmem0", Bytes(0))?;
    let before = vm.usage()?;
    vm.resize("vmem0", gib(64))?;
    same("total", vm.usage()?.total, before.total + managed(gib(64)))?;
    let fill = vm.fill("fill 300M")?;
    vm.cmd(&format!("verify {fill}"))?;
    vm.cmd(&format!("free {fill}"))?;
    vm.resize("vmem0", Bytes(0))?;
    vm.memcheck()?;
    vm.expect_usage(&before)
}

fn pieces_may_be_smaller_and_larger(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    for size in [gib(1), mib(512), mib(256), Bytes(0)] {
        ["vmem0", "vmem1", "vmem2", "vmem3"].iter().try_for_each(|id| vm.resize(id, size))?;
    }
    vm.resize("vmem1", mib(136))?;
    same("blocks", vm.blocks()?.range(FIRST_HOT..).count(), 2)?;
    vm.resize("vmem1", Bytes(0))?;
    // What is no whole piece stays with the host.
    vm.request("vmem0", mib(5))?;
    let why = vm.stuck("vmem0", "waiting")?;
    ensure!(why.contains("no whole piece"), "{why}");
    same("plugged", vm.plugged("vmem0")?, mib(4).0)?;
    vm.resize("vmem0", Bytes(0))?;
    vm.resize("vmem4", gib(1))?;
    let first = vm.resizable("vmem4")?.start / BLOCK_BYTES;
    let fill = vm.fill(&format!("fill 700M --in {first}-{}", first + 7))?;
    vm.request("vmem4", Bytes(0))?;
    vm.settled("vmem4", Bytes(0))?;
    vm.cmd(&format!("verify {fill}"))?;
    vm.free_everything()?;
    vm.expect_usage(&before)
}

fn a_device_may_come_later(vm: &mut Vm) -> Result<()> {
    let is_pc = !vm.monitor("info qtree")?.contains("q35");
    same("devices", vm.resizables()?, Vec::new())?;
    let id = "vmem0";
    vm.qmp("object-add", json!({"qom-type": "memory-backend-ram", "id": backend(id), "size": 1 << 30}))?;
    let mut device = json!({"driver": "virtio-mem-pci", "id": id, "memdev": backend(id), "node": 1});
    if !is_pc {
        device["bus"] = json!("slot1");
    }
    vm.qmp("device_add", device)?;
    vm.wait_for("the device", |vm| Ok((!vm.resizables()?.is_empty()).then_some(())))?;
    for size in [mib(512), mib(100), Bytes(0)] {
        vm.resize(id, size)?;
    }
    calls(vm, id)?;
    Ok(())
}

fn memory_that_is_elsewhere_sets_a_device_aside(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    let device = vm.resizable("vmem0")?;
    same("start", device.start, 0)?;
    let why = vm.stuck("vmem0", "set-aside")?;
    ensure!(why.contains("cannot be used"), "{why}");
    vm.unchanged_since("a device with memory that is not its own", &before)
}

fn a_device_from_before_the_standard_is_set_aside(vm: &mut Vm) -> Result<()> {
    same("devices", vm.resizables()?, Vec::new())?;
    let log = vm.kernel_log()?;
    ensure!(log.iter().any(|line| line.contains("set aside: it speaks no version")), "{log:?}");
    Ok(())
}

/// Twice in the same place: first nobody uses it, then it is a device that is used, which the host may keep.
fn a_function_may_come_and_go(vm: &mut Vm) -> Result<()> {
    let is_pc = !vm.monitor("info qtree")?.contains("q35");
    let placed = |mut device: Value| {
        match is_pc {
            true => device["addr"] = json!("9"),
            false => device["bus"] = json!("slot1"),
        }
        device
    };
    for number in 1..=3 {
        let told = |vm: &mut Vm, word: &str| {
            vm.wait_for(word, |vm| {
                let count =
                    vm.kernel_log()?.iter().filter(|line| line.contains(word) && line.contains("1af4:")).count();
                Ok((count == number).then_some(()))
            })
        };
        vm.qmp("device_add", placed(json!({"driver": "virtio-rng-pci", "id": "rng0"})))?;
        told(vm, ") came; it is not used")?;
        vm.qmp("device_del", json!({"id": "rng0"}))?;
        told(vm, ") went")?;
        vm.event("the device to be gone", |event| (event.name == "DEVICE_DELETED").then_some(()))?;
    }
    let id = "vmem0";
    vm.qmp("object-add", json!({"qom-type": "memory-backend-ram", "id": backend(id), "size": 1 << 30}))?;
    vm.qmp("device_add", placed(json!({"driver": "virtio-mem-pci", "id": id, "memdev": backend(id)})))?;
    vm.wait_for("the device", |vm| Ok((!vm.resizables()?.is_empty()).then_some(())))?;
    vm.resize(id, mib(256))?;
    vm.resize(id, Bytes(0))?;
    // Hosts from QEMU 8.2 on give up a device of which nothing is plugged.
    match vm.qmp("device_del", json!({"id": id})) {
        Ok(_) => {
            let why = vm.stuck(id, "set-aside")?;
            ensure!(why.contains("it is gone"), "{why}");
            Ok(())
        }
        Err(_) => vm.resize(id, mib(128)),
    }
}
