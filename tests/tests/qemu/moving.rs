//! Blocks whose memory is in use go offline: it moves elsewhere, once, and every byte of it is what it was.

use anyhow::{Context, Result, ensure};
use boot::accelerator::Accelerator;
use boot::qemu::{Board, Machine, Way};
use boot::size::{gib, mib};
use system_tests::check::same;
use system_tests::dimms::{dimm, dimm_on};
use system_tests::memory::{BLOCK_FRAMES, FRAME_BYTES, Operation};
use system_tests::scenario;
use system_tests::scenario::{Scenario, two_nodes};
use system_tests::vm::{Vm, errno_of};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let on = |cpus| Machine { cpus, ..two_nodes() };
    // Node 2 is nearer to node 1 than node 0 is.
    let far_node = "-numa node,nodeid=2 -numa dist,src=0,dst=2,val=31 -numa dist,src=1,dst=2,val=15";
    let far_node = far_node.split(' ').map(str::to_owned).collect();
    vec![
        scenario!(a_block_in_use_goes_and_nothing_is_lost),
        scenario!(a_block_in_use_goes_and_nothing_is_lost)
            .on(Machine { way: Way::Ovmf, ..two_nodes() })
            .with("with_uefi"),
        scenario!(a_block_in_use_goes_and_nothing_is_lost).on(on(1)).with("on_one_cpu"),
        scenario!(a_block_in_use_goes_and_nothing_is_lost)
            .on(Machine { board: Board::Pc, ..two_nodes() })
            .with("on_pc"),
        scenario!(large_pages_move_whole),
        scenario!(large_pages_are_split_where_there_is_no_large_place).on(Machine {
            memory: mib(256),
            nodes: 1,
            ..two_nodes()
        }),
        scenario!(pages_move_under_their_writers).on(on(2)).with("on_two_cpus"),
        scenario!(pages_move_under_their_writers).on(on(4)).with("on_four_cpus"),
        scenario!(a_device_moves_each_page_once),
        scenario!(pages_go_to_their_own_node_first),
        scenario!(pages_go_to_the_next_node_by_distance).on(Machine { extra: far_node, ..two_nodes() }),
        scenario!(boot_blocks_go_unless_the_kernel_is_in_them),
        scenario!(a_zone_that_loses_all_its_blocks_is_empty_and_comes_back),
        scenario!(a_page_costs_no_more_than_it_may)
            .on(Machine { cpus: 1, ..two_nodes() })
            .accelerated_by(Accelerator::Counting),
    ]
}

/// What `why` says of pages that would move, and that nothing is in the way.
fn would_move(vm: &mut Vm, blocks: &str) -> Result<u64> {
    let why = vm.json(&format!("why {blocks}"))?;
    let verdicts = why["blocks"].as_array().context("no blocks")?;
    ensure!(
        verdicts.iter().all(|block| block["verdict"] == "ok" && block["blockers"] == serde_json::json!([])),
        "{why}"
    );
    why["movable"].as_u64().context("movable")
}

fn a_block_in_use_goes_and_nothing_is_lost(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(384)))?;
    vm.cmd("online_movable 32-34")?;
    let id = vm.fill("fill 76M --in 33")?;
    let before = vm.usage()?;
    let managed = vm.managed(33)?;
    let pages = (76 << 20) / FRAME_BYTES;
    same("foreseen", would_move(vm, "33")?, pages)?;
    vm.cmd("offline 33")?;
    same("moved", vm.last_offline()?.moved, pages)?;
    vm.cmd(&format!("verify {id}"))?;
    let after = vm.usage()?;
    same("total", before.total - after.total, managed)?;
    same("what is in use", before.total - before.free, after.total - after.free)?;
    for frame in [BLOCK_FRAMES / 2, BLOCK_FRAMES - 1] {
        same("a frame of the block", vm.frame_state(33 * BLOCK_FRAMES + frame)?.as_str(), "offline")?;
    }
    vm.expect_blocks(&[(32..=32, "Movable"), (33..=33, "offline"), (34..=34, "Movable")])?;
    vm.cmd("online_movable 33")?;
    vm.cmd("offline 32,34")?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}"))?;
    vm.unplug("d0")
}

fn large_pages_move_whole(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(384)))?;
    vm.cmd("online_movable 32-34")?;
    let id = vm.fill("fill 64M --huge --in 33")?;
    vm.cmd("offline 33")?;
    same("moved", vm.last_offline()?.moved, (64 << 20) / FRAME_BYTES)?;
    vm.cmd(&format!("verify {id}"))?;
    // All of them are large still: a block that holds them says so.
    let is_large = |vm: &mut Vm, block: u64| -> Result<bool> {
        let whole = vm.json(&format!("page pfn:{}", block * BLOCK_FRAMES + 16 * 512))?;
        Ok(whole["state"] == "allocated" && whole["order"] == 9)
    };
    ensure!(is_large(vm, 32)? || is_large(vm, 34)?, "no large page is where they should have gone");
    vm.cmd(&format!("free {id}")).map(drop)
}

fn large_pages_are_split_where_there_is_no_large_place(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    vm.cmd("online_movable 32-33")?;
    let id = vm.fill("fill 24M --huge --in 32")?;
    // Everything elsewhere is used, half a pageblock at a time, and then every second half is given back.
    let mut halves = Vec::new();
    for place in ["--in 33", "--in 0-1"] {
        loop {
            match vm.fill(&format!("fill 1M {place}")) {
                Ok(half) => halves.push(half),
                Err(error) if errno_of(&error) == Some("ENOMEM") => break,
                Err(error) => return Err(error),
            }
        }
    }
    for half in halves.iter().step_by(2) {
        vm.cmd(&format!("free {half}"))?;
    }
    let before = vm.usage()?;
    vm.cmd("inject migrate.split EIO")?;
    vm.fails("offline 32", "EIO")?;
    let moved = vm.last_offline()?.moved;
    vm.expect_blocks(&[(32..=33, "Movable")])?;
    // A large place that there was is taken by then.
    let after = vm.usage()?;
    same("total and free", (after.total, after.free), (before.total, before.free))?;
    vm.cmd("verify")?;
    vm.cmd("offline 32")?;
    same("moved", moved + vm.last_offline()?.moved, (24 << 20) / FRAME_BYTES)?;
    vm.cmd(&format!("verify {id}"))?;
    let block = vm.json("why 33")?["movable"].as_u64().context("movable")?;
    ensure!(block > 0, "nothing went to the other block");
    vm.free_everything()?;
    vm.cmd("online_movable 32")?;
    vm.unplug("d0")
}

fn pages_move_under_their_writers(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(512)))?;
    vm.cmd("online_movable 32-35")?;
    vm.fill("fill 24M --writers 2 --in 32")?;
    vm.fill("fill 16M --huge --writers 2 --in 32")?;
    for round in 0..3 {
        for block in 32..=35 {
            vm.cmd(&format!("offline {block}")).with_context(|| format!("round {round}"))?;
            vm.cmd("verify")?;
            vm.cmd(&format!("online_movable {block}"))?;
        }
    }
    vm.memcheck()?;
    vm.free_everything()?;
    vm.unplug("d0")
}

fn a_device_moves_each_page_once(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", gib(1)))?;
    vm.cmd("online_movable dimm0")?;
    let id = vm.fill("fill 200M --writers 2 --in dimm0")?;
    let before = vm.usage()?;
    vm.unplug("d0")?;
    same("moved", vm.last_offline()?.moved, (200 << 20) / FRAME_BYTES)?;
    vm.cmd(&format!("verify {id}"))?;
    let after = vm.usage()?;
    same("what is in use", before.total - before.free, after.total - after.free)?;
    vm.expect_blocks(&[(32..=39, "absent")])?;
    vm.cmd(&format!("free {id}")).map(drop)
}

fn pages_go_to_their_own_node_first(vm: &mut Vm) -> Result<()> {
    for (id, node) in [("d0", 0), ("d1", 1), ("d2", 1), ("d3", 0)] {
        vm.plug(&dimm_on(id, mib(128), node))?;
    }
    vm.cmd("online_movable 32-35")?;
    let id = vm.fill("fill 20M --in 34")?;
    let free = |vm: &mut Vm, node, zone| Ok::<_, anyhow::Error>(vm.usage()?.zone(node, zone).free);
    let (other, own) = (free(vm, 0, "Movable")?, free(vm, 1, "Movable")?);
    let normal = free(vm, 1, "Normal")?;
    let managed = vm.managed(34)?;
    vm.cmd("offline 34")?;
    same("its Movable", own - free(vm, 1, "Movable")?, managed)?;
    same("its Normal", free(vm, 1, "Normal")?, normal)?;
    // When the node has no other Movable block any more, its Normal memory is still nearer than its neighbour's.
    vm.cmd("offline 33")?;
    same("its Normal", normal - free(vm, 1, "Normal")?, 20 << 20)?;
    same("the other node", free(vm, 0, "Movable")?, other)?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}")).map(drop)
}

fn pages_go_to_the_next_node_by_distance(vm: &mut Vm) -> Result<()> {
    for (id, node) in [("d0", 0), ("d1", 1), ("d2", 2)] {
        vm.plug(&dimm_on(id, mib(128), node))?;
    }
    vm.cmd("online_movable 32-34")?;
    // All the memory of node 2.
    let id = vm.fill("fill 20M --in 34")?;
    let free = |vm: &mut Vm, node| Ok::<_, anyhow::Error>(vm.usage()?.zone(node, "Movable").free);
    let before = [free(vm, 0)?, free(vm, 1)?];
    vm.cmd("offline 34")?;
    same("free on the other nodes", [free(vm, 0)?, free(vm, 1)?], [before[0], before[1] - (20 << 20)])?;
    vm.cmd(&format!("verify {id}"))?;
    vm.fails("fill 1M --node 2", "ENOENT")?;
    vm.cmd(&format!("free {id}")).map(drop)
}

fn boot_blocks_go_unless_the_kernel_is_in_them(vm: &mut Vm) -> Result<()> {
    let mut is_image_met = false;
    let mut gone = 0;
    for number in 0..16 {
        // Each for itself: all together, they would take along what hotplug lives on.
        let why = vm.json(&format!("why {number}"))?;
        let block = &why["blocks"][0];
        let blockers = block["blockers"].as_array().context("blockers")?;
        is_image_met |= blockers.iter().any(|blocker| blocker["owner"] == "kernel-image");
        if block["verdict"] == "ok" {
            if gone < 3 {
                gone += 1;
                let id = vm.fill(&format!("fill 50M --in {number}"))?;
                let id_huge = vm.fill(&format!("fill 10M --huge --in {number}"))?;
                vm.cmd(&format!("offline {number}")).with_context(|| format!("block {number}, said to go: {why}"))?;
                vm.cmd("verify")?;
                vm.cmd(&format!("online {number}"))?;
                vm.cmd(&format!("free {id}; free {id_huge}"))?;
            }
        } else {
            let before = vm.trace()?;
            let sentence = vm.fails(&format!("offline {number}"), "EBUSY")?;
            let owner = blockers[0]["owner"].as_str().context("an owner")?;
            ensure!(sentence.contains(owner), "`{sentence}` does not name the first blocker, {owner}");
            vm.unchanged_since("an offline that cannot be", &before)?;
        }
    }
    ensure!(is_image_met, "the kernel's own image is in no block");
    ensure!(gone == 3, "there are boot blocks without kernel memory");
    vm.fails("offline 0-15", "EBUSY").map(drop)
}

fn a_zone_that_loses_all_its_blocks_is_empty_and_comes_back(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm_on("d0", mib(384), 0))?;
    vm.cmd("online_movable 32-34")?;
    let before = vm.usage()?;
    let id = vm.fill("fill 40M --in 33")?;
    vm.cmd("offline 32-34")?;
    let zone = vm.usage()?.zone(0, "Movable");
    same("span and memory", (zone.spanned, zone.present, zone.managed), (0, 0, 0))?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}"))?;
    vm.cmd("online_movable 32-34")?;
    same("the zone", vm.usage()?.zone(0, "Movable"), before.zone(0, "Movable"))
}

/// On a machine that counts, a nanosecond is an instruction.
fn a_page_costs_no_more_than_it_may(vm: &mut Vm) -> Result<()> {
    /// Of an offline, by page moved.
    const LIMIT: u64 = 3000;
    /// Words of a page, which are copied one by one.
    const COPY: u64 = FRAME_BYTES / 8;
    vm.plug(&dimm("d0", mib(256)))?;
    vm.cmd("online_movable 32-33")?;
    let size = vm.managed(32)? & !((2 << 20) - 1);
    let pages = size / FRAME_BYTES;
    let id = vm.fill(&format!("fill {size} --in 32"))?;
    let spent = |offline: &Operation| offline.took().as_nanos() as u64;
    vm.cmd("offline 32")?;
    let offline = vm.last_offline()?;
    same("moved", offline.moved, pages)?;
    let small = spent(&offline) / pages;
    ensure!(small <= LIMIT, "a page of 4 KiB costs {small} instructions, {LIMIT} at most");
    vm.cmd(&format!("free {id}"))?;
    vm.cmd("online_movable 32")?;
    let size = 50 << 21;
    let id = vm.fill(&format!("fill {size} --huge --in 32"))?;
    vm.cmd("offline 32")?;
    let offline = vm.last_offline()?;
    same("moved", offline.moved, size / FRAME_BYTES)?;
    let large = spent(&offline) * 100 / (size / FRAME_BYTES * COPY);
    ensure!(large <= 110, "a page of 2 MiB costs {large} % of its copy, 110 % at most");
    println!("a page of 4 KiB costs {small} instructions, one of 2 MiB {large} % of its copy");
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}")).map(drop)
}
