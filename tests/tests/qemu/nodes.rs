//! Nodes with little or nothing on them: they are there, memory comes to them and goes, and others stand in for them.

use anyhow::{Context, Result, ensure};
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

/// Memory comes to node 0, is used by all nodes, and goes. Which nodes served the others in each step of it.
fn plug_fill_unplug(vm: &mut Vm) -> Result<[Vec<u64>; 2]> {
    let before = vm.usage()?;
    let without = (0..4).map(|node| serving(vm, node)).collect::<Result<Vec<_>>>()?;
    same("nodes that serve, of one", &without, &vec![3, 3, 3, 3])?;
    vm.fails("fill 1M --node 0", "ENOENT")?;

    vm.plug(&dimm_on("d0", mib(256), 0))?;
    vm.cmd("online_movable dimm0")?;
    expect_all_nodes(vm)?;
    let with = (0..4).map(|node| serving(vm, node)).collect::<Result<Vec<_>>>()?;
    same("nodes that serve, of two", &with, &vec![0, 0, 3, 3])?;

    // What node 0 does not hold comes from where it is nearest.
    let empty = vm.usage()?;
    let id = vm.fill("fill 400M --prefer 1")?;
    let full = vm.usage()?;
    let [on_0, on_3] = [0, 3].map(|node| free_on(&empty, node) - free_on(&full, node));
    // CPUs may keep some of it at hand.
    ensure!(on_0 > 200 << 20 && on_3 > 140 << 20, "{on_0} bytes came from node 0, {on_3} from node 3");
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}"))?;
    vm.unplug("d0")?;
    ensure!(!vm.blocks()?.contains_key(&FIRST_HOT), "block {FIRST_HOT} is still there");
    expect_all_nodes(vm)?;
    vm.expect_usage(&before)?;
    Ok([without, with])
}

/// The node from which memory comes that is preferred on this one.
fn serving(vm: &mut Vm, node: u64) -> Result<u64> {
    let before = vm.usage()?;
    let id = vm.fill(&format!("fill 64M --prefer {node}"))?;
    let after = vm.usage()?;
    let gave = |node: &u64| free_on(&before, *node).saturating_sub(free_on(&after, *node)) >= 64 << 20;
    vm.cmd(&format!("free {id}"))?;
    (0..4).find(gave).with_context(|| format!("no node gave all: {before:?}, {after:?}"))
}

fn free_on(usage: &Usage, node: u64) -> u64 {
    usage.zone(node, "Normal").free + usage.zone(node, "Movable").free
}

fn a_node_that_no_table_names_is_there_all_the_same(vm: &mut Vm) -> Result<()> {
    expect_all_nodes(vm)?;
    vm.plug(&dimm_on("d0", mib(256), 2))?;
    vm.cmd("online_movable dimm0")?;
    same("the node that serves", serving(vm, 2)?, 2)?;
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
