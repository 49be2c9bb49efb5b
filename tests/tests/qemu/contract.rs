//! What an offline promises: all blocks or none, in time, with the first thing in its way named, and as `why` foresaw.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use boot::dice::Dice;
use boot::qemu::Machine;
use boot::size::mib;
use serde_json::Value;
use system_tests::check::{contains, same};
use system_tests::dimms::{BUSY, dimm};
use system_tests::memory::FRAME_BYTES;
use system_tests::scenario;
use system_tests::scenario::{Scenario, two_nodes};
use system_tests::vm::{Vm, errno_of};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(kernel_memory_is_told_at_once_and_nothing_changes),
        scenario!(a_pinned_page_is_told_in_time_and_goes_when_it_is_let_go),
        scenario!(a_pin_takes_its_page_out_of_movable),
        scenario!(pins_come_and_go_while_their_pages_move),
        scenario!(a_device_with_a_pinned_page_stays_as_a_whole),
        scenario!(too_little_room_is_known_before_anything_moves).on(Machine {
            memory: mib(512),
            nodes: 1,
            ..two_nodes()
        }),
        scenario!(why_agrees_with_offline_about_every_block),
        scenario!(two_offlines_of_the_same_blocks_come_one_after_the_other),
        scenario!(blocks_go_while_others_allocate).on(Machine { cpus: 4, ..two_nodes() }),
        scenario!(nonsense_to_offline_and_why_is_refused),
    ]
}

/// The first blocker of the first block that has one, as `why` tells.
fn first_blocker(vm: &mut Vm, blocks: &str) -> Result<Option<Value>> {
    let why = vm.json(&format!("why {blocks}"))?;
    let blocks = why["blocks"].as_array().context("blocks")?.iter();
    let mut blockers = blocks.flat_map(|block| block["blockers"].as_array().into_iter().flatten());
    Ok(blockers.next().cloned())
}

fn kernel_memory_is_told_at_once_and_nothing_changes(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(384)))?;
    vm.cmd("online_kernel 32-34")?;
    let data = vm.fill("fill 20M --in 33")?;
    let kernel = vm.fill("kfill 64K --in 33")?;
    let before = vm.trace()?;
    let foreseen = first_blocker(vm, "32-34")?.context("the kernel's memory is in the way")?;
    same("kind", foreseen["kind"].as_str(), Some("kernel"))?;
    same("owner", foreseen["owner"].as_str(), Some("kfill"))?;
    contains("the call site", foreseen["site"].as_str().unwrap_or_default(), ".rs:")?;
    for blocks in ["33", "32-34"] {
        let sentence = vm.fails(&format!("offline {blocks}"), "EBUSY")?;
        contains("the sentence", &sentence, "kfill")?;
        let pfn = foreseen["pfn"].as_u64().context("a frame")?;
        contains("the sentence", &sentence, &format!("{pfn:#x}"))?;
        vm.unchanged_since("an offline that cannot be", &before)?;
    }
    // The block is as useful as before.
    let more = vm.fill("fill 1M --in 33")?;
    vm.cmd(&format!("free {more}"))?;
    vm.cmd(&format!("free {kernel}"))?;
    same("in the way", first_blocker(vm, "32-33")?, None)?;
    vm.cmd("offline 32-33")?;
    vm.cmd(&format!("verify {data}"))?;
    vm.cmd(&format!("free {data}")).map(drop)
}

fn a_pinned_page_is_told_in_time_and_goes_when_it_is_let_go(vm: &mut Vm) -> Result<()> {
    const WITHIN: Duration = Duration::from_secs(60);
    vm.plug(&dimm("d0", mib(384)))?;
    vm.cmd("online_movable 32-34")?;
    let id = vm.fill("fill 20M --in 33")?;
    vm.cmd(&format!("pin {id} 4000 --stay"))?;
    let before = vm.trace()?;
    let foreseen = first_blocker(vm, "33")?.context("a pin is in the way")?;
    same("kind", foreseen["kind"].as_str(), Some("pinned"))?;
    let begun = Instant::now();
    let sentence = vm.fails(&format!("offline 33 --within {}", WITHIN.as_millis()), "EBUSY")?;
    ensure!(begun.elapsed() < WITHIN, "it took its time: {:?}", begun.elapsed());
    contains("the sentence", &sentence, "pinned")?;
    vm.unchanged_since("an offline that cannot be", &before)?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("unpin {id} 4000"))?;
    vm.cmd("offline 33")?;
    same("moved", vm.last_offline()?.moved, (20 << 20) / FRAME_BYTES)?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}")).map(drop)
}

fn a_pin_takes_its_page_out_of_movable(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    vm.cmd("online_movable 32-33")?;
    let id = vm.fill("fill 8M --writers 2 --in 33")?;
    vm.cmd(&format!("pin {id} 7"))?;
    same("in the way", first_blocker(vm, "32-33")?, None)?;
    vm.cmd("offline 32-33")?;
    vm.cmd(&format!("verify {id}"))?;
    // Where it is now, it stays.
    let why = vm.json("why 0-15")?;
    let pinned = why["blocks"].as_array().context("blocks")?.iter();
    let pinned = pinned.flat_map(|block| block["blockers"].as_array().into_iter().flatten());
    let pinned: Vec<_> =
        pinned.filter(|blocker| blocker["kind"] == "pinned" && blocker["owner"] == "anonymous").collect();
    same("pinned pages", pinned.len(), 1)?;
    vm.fails(&format!("free {id}"), "EBUSY")?;
    vm.cmd(&format!("unpin {id} 7"))?;
    vm.cmd(&format!("free {id}")).map(drop)
}

fn pins_come_and_go_while_their_pages_move(vm: &mut Vm) -> Result<()> {
    const SIZE: u64 = 60 << 20;
    vm.plug(&dimm("d0", mib(384)))?;
    vm.cmd("online_movable 32-34")?;
    let id = vm.fill(&format!("fill {SIZE} --writers 2 --in 33"))?;
    let mut dice = Dice::new(33);
    let mut pinned_meanwhile = 0;
    for _ in 0..6 {
        let job = vm.job("offline 33")?;
        while is_running(vm, job)? {
            let page = dice.below(SIZE / FRAME_BYTES);
            vm.cmd(&format!("pin {id} {page} --stay"))?;
            vm.cmd(&format!("unpin {id} {page}"))?;
            pinned_meanwhile += 1;
        }
        let end = vm.cmd(&format!("wait {job}"));
        match end.as_ref().map_err(errno_of) {
            Ok(_) => {
                vm.expect_blocks(&[(33..=33, "offline")])?;
                vm.cmd("online_movable 33")?;
            }
            Err(Some("EBUSY")) => vm.expect_blocks(&[(32..=34, "Movable")])?,
            Err(_) => anyhow::bail!("{end:?}"),
        }
        vm.cmd("verify")?;
        vm.memcheck()?;
        // What has gone comes back.
        vm.cmd("offline 32,34")?;
        vm.cmd("online_movable 32,34")?;
    }
    ensure!(pinned_meanwhile > 0, "every offline was over before anything could be pinned");
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}")).map(drop)
}

fn is_running(vm: &mut Vm, job: u64) -> Result<bool> {
    let jobs = vm.json("jobs")?;
    let job = jobs["jobs"].as_array().context("jobs")?.iter().find(|entry| entry["job"] == job).context("the job")?;
    Ok(job["state"] == "running")
}

fn a_device_with_a_pinned_page_stays_as_a_whole(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(512)))?;
    vm.cmd("online_movable 32-35")?;
    let id = vm.fill("fill 20M --writers 2 --in 32-35")?;
    let last = vm.fill("fill 1M --in 35")?;
    vm.cmd(&format!("pin {last} 0 --stay"))?;
    let before = vm.trace()?;
    same("answer", vm.unplug_status("d0")?, BUSY)?;
    vm.unchanged_since("a device that is busy", &before)?;
    vm.cmd("verify")?;
    vm.cmd(&format!("unpin {last} 0"))?;
    vm.unplug("d0")?;
    vm.cmd("verify")?;
    vm.cmd(&format!("free {id}; free {last}")).map(drop)
}

fn too_little_room_is_known_before_anything_moves(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    vm.cmd("online_movable 32-33")?;
    let inside = vm.fill("fill 64M --in 33")?;
    // All that is left elsewhere, as far as one may.
    let mut others = Vec::new();
    for place in ["32", "0-3"] {
        let mut size: u64 = 256 << 20;
        while size >= FRAME_BYTES {
            match vm.fill(&format!("fill {size} --in {place}")) {
                Ok(id) => others.push(id),
                Err(error) if errno_of(&error) == Some("ENOMEM") => size /= 2,
                Err(error) => return Err(error),
            }
        }
    }
    let before = vm.trace()?;
    let foreseen = first_blocker(vm, "33")?.context("there is no room")?;
    same("kind", foreseen["kind"].as_str(), Some("no-destination"))?;
    let missing = vm.json("why 33")?["short_by"].as_u64().context("short_by")?;
    let sentence = vm.fails("offline 33", "ENOMEM")?;
    contains("the sentence", &sentence, &missing.to_string())?;
    vm.unchanged_since("an offline without a place", &before)?;
    // A little short is too little, and enough is enough.
    while let Some(id) = others.pop() {
        let missing = vm.json("why 33")?["short_by"].as_u64().context("short_by")?;
        if missing == 0 {
            break;
        }
        vm.fails("offline 33", "ENOMEM")?;
        vm.cmd(&format!("free {id}"))?;
    }
    vm.cmd("offline 33")?;
    vm.cmd("verify")?;
    vm.cmd(&format!("free {inside}"))?;
    vm.free_everything()
}

fn why_agrees_with_offline_about_every_block(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(512)))?;
    vm.cmd("online_kernel 32-33")?;
    vm.cmd("online_movable 34-35")?;
    vm.fill("kfill 1M --in 33")?;
    vm.fill("fill 30M --in 32,34")?;
    let pinned = vm.fill("fill 1M --in 35")?;
    vm.cmd(&format!("pin {pinned} 3 --stay"))?;
    for block in (0..16).chain(32..36) {
        let foreseen = first_blocker(vm, &block.to_string())?;
        let state = vm.block(block)?.place().to_owned();
        match (foreseen, vm.cmd(&format!("offline {block}"))) {
            (None, Ok(_)) => {
                let how = if state == "Movable" { "online_movable" } else { "online_kernel" };
                vm.cmd(&format!("{how} {block}"))?;
            }
            (Some(blocker), Err(error)) if errno_of(&error) == Some("EBUSY") => {
                let pfn = blocker["pfn"].as_u64().context("a frame")?;
                contains("the first blocker", &format!("{error:#}"), &format!("{pfn:#x}"))?;
            }
            (foreseen, result) => anyhow::bail!("block {block}: foreseen {foreseen:?}, and then {result:?}"),
        }
    }
    vm.cmd("verify")?;
    vm.cmd(&format!("unpin {pinned} 3"))?;
    vm.free_everything()
}

fn two_offlines_of_the_same_blocks_come_one_after_the_other(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(640)))?;
    for _ in 0..4 {
        vm.cmd("online_movable 32-36")?;
        let id = vm.fill("fill 60M --in 33")?;
        let first = vm.job("offline 32-34")?;
        // Jobs are tasks: what is typed first need not run first.
        vm.wait_for("the first to begin", |vm| Ok((vm.block(33)?.state != "online").then_some(())))?;
        let jobs = [first, vm.job("offline 33")?, vm.job("online 33")?];
        let ends = jobs.map(|job| vm.cmd(&format!("wait {job}")));
        ensure!(ends[0].is_ok(), "{ends:?}");
        ensure!(ends[2].is_ok(), "it waited and found block 33 offline: {ends:?}");
        if let Err(error) = &ends[1] {
            same("the second", errno_of(error), Some("EINVAL"))?;
            vm.cmd("offline 33")?;
        }
        vm.cmd(&format!("verify {id}"))?;
        vm.cmd(&format!("free {id}"))?;
        vm.cmd("offline 35-36")?;
        vm.memcheck()?;
    }
    vm.unplug("d0")
}

fn blocks_go_while_others_allocate(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(512)))?;
    vm.cmd("online_movable 32-35")?;
    for round in 0..6 {
        let fills = [vm.job("fill 40M")?, vm.job("fill 20M --huge")?, vm.job("fill 30M --in 33")?];
        let block = 32 + round % 4;
        let gone = vm.cmd(&format!("offline {block}"));
        for job in fills {
            if let Err(error) = vm.cmd(&format!("wait {job}")) {
                ensure!(matches!(errno_of(&error), Some("ENOMEM" | "EINVAL")), "a fill failed: {error:#}");
            }
        }
        match gone.as_ref().map_err(errno_of) {
            Ok(_) => {
                vm.expect_blocks(&[(block..=block, "offline")])?;
                vm.cmd("verify")?;
                vm.cmd(&format!("online_movable {block}"))?;
            }
            Err(Some("EBUSY")) => vm.expect_blocks(&[(block..=block, "Movable")])?,
            Err(_) => anyhow::bail!("{gone:?}"),
        }
        vm.memcheck()?;
        vm.free_everything()?;
    }
    vm.unplug("d0")
}

fn nonsense_to_offline_and_why_is_refused(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    vm.cmd("online_movable 32")?;
    let before = vm.trace()?;
    for command in ["offline", "why"] {
        vm.fails(command, "EINVAL")?;
        vm.fails(&format!("{command} 33"), "EINVAL")?;
        vm.fails(&format!("{command} 32-33"), "EINVAL")?;
        vm.fails(&format!("{command} 34"), "ENOENT")?;
        vm.fails(&format!("{command} dimm7"), "ENOENT")?;
        vm.fails_with_one_of(&format!("{command} 99999999999"), &["EINVAL", "ENOENT"])?;
    }
    vm.fails("offline 32 --within -1", "EINVAL")?;
    vm.fails("offline 0-15", "EBUSY")?;
    vm.fails("offline 0-15,32", "EBUSY")?;
    vm.unchanged_since("nonsense", &before)
}
