//! Nodes with little or nothing on them: they are there, memory comes to them and goes, and others stand in for them.

use anyhow::{Result, ensure};
use boot::qemu::Machine;
use boot::size::mib;
use serde_json::json;
use system_tests::check::same;
use system_tests::dimms::dimm_on;
use system_tests::memory::Usage;
use system_tests::scenario;
use system_tests::scenario::{FIRST_HOT, Scenario};
use system_tests::vm::Vm;

/// Four nodes whose memory lies on the last one, and their processors on the first.
const NODES: &str = "-object memory-backend-ram,id=ram,size=1G -numa node,nodeid=0,cpus=0-1 -numa node,nodeid=1 \
                     -numa node,nodeid=2 -numa node,nodeid=3,memdev=ram";

/// Node 0 is the nearest to node 1, and node 3 to node 2.
const DISTANCES: &str = "-numa dist,src=0,dst=1,val=20 -numa dist,src=0,dst=2,val=30 -numa dist,src=0,dst=3,val=40 \
                         -numa dist,src=1,dst=2,val=50 -numa dist,src=1,dst=3,val=30 -numa dist,src=2,dst=3,val=20";

pub(crate) fn scenarios() -> Vec<Scenario> {
    let machine = |words: &[&str]| Machine {
        extra: words.iter().flat_map(|words| words.split_whitespace()).map(str::to_owned).collect(),
        ..Machine::default()
    };
    vec![
        scenario!(nodes_without_memory_fall_back_by_distance_time_after_time).on(machine(&[NODES, DISTANCES])),
        scenario!(a_node_that_no_table_names_is_there_all_the_same).on(machine(&[NODES])),
    ]
}

fn nodes_without_memory_fall_back_by_distance_time_after_time(vm: &mut Vm) -> Result<()> {
    expect_all_nodes(vm)?;
    same("distances of node 1", &vm.json("srat")?["distances"][1], &json!([20, 10, 50, 30]))?;
    let first = plug_fill_unplug(vm)?;
    let second = plug_fill_unplug(vm)?;
    same("the second time", second, first)
}

/// Memory comes to node 0, is used by all nodes, and goes. What was free in each step of it, by node.
fn plug_fill_unplug(vm: &mut Vm) -> Result<Vec<[u64; 2]>> {
    let before = vm.trace()?;
    let mut steps = Vec::new();
    let mut step = |vm: &mut Vm| {
        let usage = vm.usage()?;
        let free = [free_on(&usage, 0), free_on(&usage, 3)];
        steps.push(free);
        anyhow::Ok(free)
    };
    // There is nothing else.
    for node in 0..4 {
        fill_on(vm, node, 3)?;
    }
    vm.fails("fill 1M --node 0", "ENOENT")?;
    vm.plug(&dimm_on("d0", mib(256), 0))?;
    vm.cmd("online_movable dimm0")?;
    expect_all_nodes(vm)?;
    step(vm)?;
    for (node, serves) in [(0, 0), (1, 0), (2, 3), (3, 3)] {
        fill_on(vm, node, serves)?;
    }
    // What node 0 does not hold comes from where it is nearest.
    let [on_0, on_3] = step(vm)?;
    let id = vm.fill("fill 400M --prefer 1")?;
    let [left_on_0, left_on_3] = step(vm)?;
    ensure!(left_on_0 < 1 << 20 && left_on_3 < on_3, "of {on_0} and {on_3} are left {left_on_0} and {left_on_3}");
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}"))?;
    vm.unplug("d0")?;
    ensure!(!vm.blocks()?.contains_key(&FIRST_HOT), "block {FIRST_HOT} is still there");
    expect_all_nodes(vm)?;
    vm.unchanged_since("a DIMM that came and went", &before)?;
    Ok(steps)
}

/// Fails unless memory that is preferred on a node comes from the one that `serves`.
fn fill_on(vm: &mut Vm, node: u64, serves: u64) -> Result<()> {
    let before = vm.usage()?;
    let id = vm.fill(&format!("fill 64M --prefer {node}"))?;
    let after = vm.usage()?;
    let taken = free_on(&before, serves) - free_on(&after, serves);
    ensure!(taken >= 64 << 20, "{taken} bytes came from node {serves} for node {node}");
    vm.cmd(&format!("free {id}")).map(drop)
}

fn free_on(usage: &Usage, node: u64) -> u64 {
    usage.zone(node, "Normal").free + usage.zone(node, "Movable").free
}

fn a_node_that_no_table_names_is_there_all_the_same(vm: &mut Vm) -> Result<()> {
    expect_all_nodes(vm)?;
    vm.plug(&dimm_on("d0", mib(256), 2))?;
    vm.cmd("online_movable dimm0")?;
    fill_on(vm, 2, 2)?;
    vm.fails("fill 1M --prefer 4", "ENOENT")?;
    vm.fails("fill 1M --node 2 --prefer 2", "EINVAL")?;
    vm.unplug("d0")?;
    expect_all_nodes(vm)
}

/// Everything that tells of nodes tells of all four.
fn expect_all_nodes(vm: &mut Vm) -> Result<()> {
    same("nodes in srat", &vm.json("srat")?["nodes"], &json!([0, 1, 2, 3]))?;
    for (command, list) in [("meminfo", "nodes"), ("zoneinfo", "zones")] {
        same(&format!("nodes in {command}"), vm.nodes_in(command, list)?, vec![0, 1, 2, 3])?;
    }
    let empty = &vm.json("meminfo")?["nodes"][1];
    same("a node without memory", empty, &json!({"node": 1, "total": 0, "free": 0}))
}
