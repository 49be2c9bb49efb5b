//! Both sides say the same: the shell and the VMM.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use boot::size::mib;
use serde_json::json;
use system_tests::check::same;
use system_tests::dimms::{BUSY, Module, SUCCESS, dimm_at, dimm_on};
use system_tests::memory::BLOCK_BYTES;
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::Vm;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(shell_and_vmm_agree_on_every_module),
        scenario!(the_journal_tells_every_operation_in_order),
        scenario!(the_sums_of_nodes_zones_and_blocks_agree),
    ]
}

fn shell_and_vmm_agree_on_every_module(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm_on("a", mib(256), 1))?;
    vm.plug(&dimm_at("b", mib(512), 0x1_8000_0000))?;
    vm.plug(&dimm_on("c", mib(128), 0))?;
    agree(vm)?;
    vm.cmd("online_movable dimm1")?;
    vm.cmd("online_kernel dimm2")?;
    agree(vm)?;
    let id = vm.fill("kfill 1M --in dimm2")?;
    same("busy", vm.unplug_status("c")?, BUSY)?;
    same("last word of slot 2", vm.last_word(2)?, (3, BUSY))?;
    vm.unplug("a")?;
    agree(vm)?;
    vm.cmd(&format!("free {id}"))?;
    vm.unplug("c")?;
    // The freed slot is taken again.
    vm.plug(&dimm_on("e", mib(384), 0))?;
    let slot = vm.modules()?["e"].slot;
    same("last word of the new module", vm.last_word(slot)?.1, SUCCESS)?;
    agree(vm)
}

/// Every module is a group, every DIMM group a module, with the same slot, node, address and size.
fn agree(vm: &mut Vm) -> Result<()> {
    let modules = vm.modules()?;
    let theirs: BTreeMap<u64, Module> = modules.into_values().map(|module| (module.slot, module)).collect();
    let groups = vm.groups()?;
    let dimms = groups.values().filter(|group| group.kind == "dimm");
    let ours: Result<BTreeMap<u64, Module>> = dimms
        .map(|group| {
            let slot = group.slot.with_context(|| format!("{} has no slot", group.name))?;
            same("name", &group.name, &format!("dimm{slot}"))?;
            same("online and offline", group.online + group.offline, group.size)?;
            Ok((slot, Module { slot, node: group.node, address: group.start, size: group.size }))
        })
        .collect();
    same("modules", ours?, theirs.clone())?;

    let blocks = vm.blocks()?;
    for module in theirs.values() {
        for number in module.address / BLOCK_BYTES..(module.address + module.size) / BLOCK_BYTES {
            let block = blocks.get(&number).with_context(|| format!("block {number} is missing"))?;
            same("node", block.node, module.node)?;
            same("group", block.group.clone(), Some(format!("dimm{}", module.slot)))?;
        }
    }
    let plugged: u64 = theirs.values().map(|module| module.size).sum();
    let hot = blocks.keys().filter(|number| **number >= 32).count() as u64;
    same("blocks of modules", hot * BLOCK_BYTES, plugged)?;
    let summary = vm.qmp("query-memory-size-summary", json!({}))?;
    let list = vm.json("lsmem")?;
    let sum = |key: &str| list[key].as_u64().unwrap_or(0);
    let known = sum("online") + sum("offline");
    same("plugged memory", &summary["plugged-memory"], &json!(plugged))?;
    same("all memory", json!(known), summary["base-memory"].as_u64().map_or(json!(0), |base| json!(base + plugged)))
}

fn the_journal_tells_every_operation_in_order(vm: &mut Vm) -> Result<()> {
    let start = vm.operations()?.len();
    vm.plug(&dimm_on("a", mib(256), 0))?;
    vm.cmd("online_movable 33")?;
    vm.fails("online 33", "EINVAL")?;
    vm.cmd("online_kernel 32")?;
    vm.cmd("kfill 1M --in 32")?;
    vm.fails("offline 32-33", "EBUSY")?;
    vm.cmd("offline 33")?;
    vm.cmd("free 1")?;
    vm.unplug("a")?;
    let all = vm.operations()?;
    let told: Vec<_> = all[start..]
        .iter()
        .filter(|operation| operation.result != "EINVAL")
        .map(|event| {
            format!("{} {}+{} {}", event.op, event.start / BLOCK_BYTES, event.size / BLOCK_BYTES, event.result)
        })
        .collect();
    same(
        "journal",
        told,
        [
            "add 32+2 ok",
            "online 33+1 ok",
            "online 32+1 ok",
            "offline 32+2 EBUSY",
            "offline 33+1 ok",
            "offline 32+1 ok",
            "remove 32+2 ok",
        ],
    )?;
    ensure!(all.is_sorted_by_key(|operation| operation.t), "times run backwards: {all:?}");
    Ok(())
}

fn the_sums_of_nodes_zones_and_blocks_agree(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm_on("a", mib(512), 0))?;
    vm.plug(&dimm_on("b", mib(512), 1))?;
    vm.cmd("online_movable 32-33,38")?;
    vm.cmd("online_kernel 34,36-37")?;
    vm.cmd("fill 100M --node 1")?;
    vm.cmd("fill 100M --node 0")?;
    let object = vm.json("meminfo")?;
    let usage = vm.usage()?;
    let zones = |field: fn(&system_tests::memory::Zone) -> u64| usage.zones.iter().map(field).sum::<u64>();
    same("managed", zones(|zone| zone.managed), usage.total)?;
    same("free", zones(|zone| zone.free), usage.free)?;
    let nodes = object["nodes"].as_array().context("no nodes")?;
    for (key, want) in [("total", usage.total), ("free", usage.free)] {
        same(key, nodes.iter().filter_map(|node| node[key].as_u64()).sum::<u64>(), want)?;
    }
    ensure!(
        usage
            .zones
            .iter()
            .all(|zone| zone.spanned >= zone.present && zone.present >= zone.managed && zone.managed >= zone.free),
        "{usage:?}"
    );
    let list = vm.json("lsmem")?;
    same("offline", &list["offline"], &json!(usage.offline))?;
    let online = list["online"].as_u64().context("online")?;
    ensure!(zones(|zone| zone.present) <= online, "{usage:?}, lsmem says {online}");
    let groups = vm.groups()?;
    same("online in groups", groups.values().map(|group| group.online).sum::<u64>(), online)?;
    let buddies = vm.json("buddyinfo")?;
    let zones = buddies["zones"].as_array().context("no zones")?;
    let free: u64 = zones
        .iter()
        .flat_map(|zone| zone["free_blocks"].as_array().into_iter().flatten().enumerate())
        .filter_map(|(order, count)| Some(count.as_u64()? * (4096 << order)))
        .sum();
    // Nothing but their number is known of the frames of untouched sections.
    let untouched = vm.json("meminfo")?["untouched"].as_u64().context("untouched")?;
    same("free in groups", free, vm.usage()?.free - untouched)
}
