//! Memory in use: in pages of 2 MiB, changed all the time, pinned, given back, and cut short.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use boot::qemu::Machine;
use boot::size::{gib, mib};
use serde_json::{Value, json};
use system_tests::check::{contains, same};
use system_tests::dimms::dimm;
use system_tests::memory::FRAME_BYTES;
use system_tests::scenario;
use system_tests::scenario::{Scenario, two_nodes};
use system_tests::vm::{Vm, soon};

use crate::pressure::exhaust;

/// Frames of a page of 2 MiB.
const HUGE_FRAMES: u64 = 512;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!(huge_fills_are_made_of_whole_2_mib_pages),
        scenario!(what_writers_change_is_verified_while_they_run),
        scenario!(a_fill_is_freed_while_its_writers_run),
        scenario!(a_fill_cut_short_gives_everything_back),
        scenario!(a_pin_is_counted_shown_and_given_up),
        scenario!(a_pin_that_cannot_be_is_refused_and_changes_nothing),
        scenario!(a_pin_that_stays_keeps_its_block_and_is_logged),
        scenario!(a_pin_without_room_outside_of_movable_is_refused).on(Machine {
            memory: mib(256),
            nodes: 1,
            ..two_nodes()
        }),
    ]
}

/// What `page` says of the frame in which a page of a fill lies: it is pinned for a moment.
fn page_of(vm: &mut Vm, id: u64, page: u64) -> Result<Value> {
    let pinned = vm.json(&format!("pin {id} {page} --stay"))?;
    let report = vm.json(&format!("page pfn:{}", pinned["pfn"]))?;
    vm.cmd(&format!("unpin {id} {page}"))?;
    Ok(report)
}

fn writers(vm: &mut Vm, id: u64) -> Result<Vec<String>> {
    let list = vm.json("tasks")?;
    let names = list["tasks"].as_array().context("tasks")?.iter().filter_map(|task| task["name"].as_str());
    let mut writers: Vec<_> =
        names.filter(|name| name.starts_with(&format!("fill {id} "))).map(str::to_owned).collect();
    writers.sort();
    Ok(writers)
}

fn huge_fills_are_made_of_whole_2_mib_pages(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    vm.cmd("online_movable dimm0")?;
    let before = vm.usage()?;
    let filled = vm.json("fill 5M --huge --in 33")?;
    same("size", &filled["size"], 6 << 20)?;
    let id = filled["id"].as_u64().context("id")?;
    let usage = vm.usage()?;
    same("taken", before.free_in("Movable") - usage.free_in("Movable"), 6 << 20)?;
    for page in [0, 511, 512, 1535] {
        let report = page_of(vm, id, page)?;
        same("order", &report["order"], 9)?;
        same("block", &report["block"], 33)?;
        same("owner", &report["owner"], "anonymous")?;
        let (pfn, head) = (report["pfn"].as_u64().context("pfn")?, report["head"].as_u64().context("head")?);
        same("place in its page", pfn - head, page % HUGE_FRAMES)?;
    }
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {id}"))?;
    same("free", vm.usage()?.free, before.free)?;

    // Of the block, 3 MiB are free in two pieces that are no whole page.
    let singles = ["fill 1M --in 33", "fill 124M --in 33", "fill 4K --in 33"].map(|command| vm.fill(command));
    let [low, middle, high] = singles;
    vm.cmd(&format!("free {}", low?))?;
    vm.fails("fill 2M --huge --in 33", "ENOMEM")?;
    let low = vm.fill("fill 2M --in 33")?;
    for id in [low, middle?, high?] {
        vm.cmd(&format!("free {id}"))?;
    }
    same("free", vm.usage()?.free, before.free)
}

fn what_writers_change_is_verified_while_they_run(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    let id = vm.fill("fill 2M --writers 3")?;
    let names: Vec<_> = (0..3).map(|number| format!("fill {id} writer {number}")).collect();
    same("writers", writers(vm, id)?, names)?;
    let huge = vm.fill("fill 4M --huge --writers 2")?;
    let mut seen = Vec::new();
    let frame = page_of(vm, id, 5)?["pfn"].as_u64().context("pfn")?;
    let word = format!("xp /1gx {:#x}", frame * FRAME_BYTES);
    for _ in 0..10 {
        vm.cmd("verify")?;
        vm.memcheck()?;
        seen.push(vm.monitor(&word)?);
        std::thread::sleep(Duration::from_millis(100));
    }
    seen.dedup();
    ensure!(seen.len() > 2, "nobody writes: {seen:?}");
    vm.cmd(&format!("free {huge}"))?;
    vm.cmd(&format!("free {id}"))?;
    same("writers", writers(vm, id)?, Vec::<String>::new())?;
    vm.expect_usage(&before)?;
    // A page for each of them, at least.
    let id = vm.fill("fill 8K --writers 16")?;
    same("writers", writers(vm, id)?.len(), 2)?;
    vm.cmd(&format!("verify {id}"))?;
    for count in ["0", "17", "-1", "many"] {
        vm.fails(&format!("fill 1M --writers {count}"), "EINVAL")?;
    }
    Ok(())
}

fn a_fill_is_freed_while_its_writers_run(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    for _ in 0..5 {
        let id = vm.fill("fill 16M --writers 16")?;
        let check = vm.job(&format!("verify {id}"))?;
        vm.cmd(&format!("free {id}"))?;
        // It came before or after, and both are right.
        if let Err(error) = vm.cmd(&format!("wait {check}")) {
            contains("the end of the check", &format!("{error:#}"), "ENOENT")?;
        }
        same("writers", writers(vm, id)?, Vec::<String>::new())?;
        vm.fails(&format!("verify {id}"), "ENOENT")?;
        vm.expect_usage(&before)?;
    }
    Ok(())
}

fn a_fill_cut_short_gives_everything_back(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    for command in ["fill 1500M --huge", "fill 1500M --writers 4"] {
        for delay_ms in [20, 100, 300] {
            vm.console.submit(command)?;
            std::thread::sleep(Duration::from_millis(delay_ms));
            vm.type_raw(b"\x03")?;
            vm.expect("error: ECANCELED: ")?;
            vm.console.expect_prompt(soon())?;
            vm.expect_usage(&before)?;
        }
    }
    // Nor does anything stay of one that finds too little.
    vm.plug(&dimm("d0", mib(128)))?;
    vm.cmd("online_movable 32")?;
    let before = vm.usage()?.free;
    vm.fails("fill 200M --in 32 --writers 2", "ENOMEM")?;
    vm.fails("fill 130M --in 32 --huge", "ENOMEM")?;
    vm.cmd("inject alloc.frames ENOMEM")?;
    vm.fails("fill 1M --huge", "ENOMEM")?;
    vm.cmd("inject off")?;
    same("free", vm.usage()?.free, before)
}

fn a_pin_is_counted_shown_and_given_up(vm: &mut Vm) -> Result<()> {
    let before = vm.usage()?;
    let id = vm.fill("fill 1M --writers 1")?;
    let pinned = vm.json(&format!("pin {id} 7"))?;
    let pfn = pinned["pfn"].clone();
    same("the pin", pinned, json!({"id": id, "pages": 1, "moved": 0, "pfn": pfn}))?;
    let all = vm.json(&format!("pin {id}"))?;
    same("pages", &all["pages"], 256)?;
    let report = vm.json(&format!("page pfn:{pfn}"))?;
    same("references", &report["refs"], 3)?;
    same("fill", &report["pinned"]["fill"], id)?;
    same("page", &report["pinned"]["page"], 7)?;
    ensure!(report["pinned"]["since_ns"].as_u64() > Some(0), "{report}");
    contains("for people", &vm.cmd(&format!("page pfn:{pfn}"))?, &format!("as page 7 of fill {id}"))?;

    let sentence = vm.fails(&format!("free {id}"), "EBUSY")?;
    contains("the sentence", &sentence, "pinned")?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("unpin {id}"))?;
    vm.fails(&format!("free {id}"), "EBUSY")?;
    vm.fails(&format!("unpin {id}"), "EINVAL")?;
    same("unpinned", vm.json(&format!("unpin {id} 7"))?, json!({"id": id, "pages": 1}))?;
    vm.fails(&format!("unpin {id} 7"), "EINVAL")?;
    let report = vm.json(&format!("page pfn:{pfn}"))?;
    same("references", &report["refs"], 1)?;
    same("pinned", report["pinned"].clone(), Value::Null)?;
    vm.cmd(&format!("free {id}"))?;
    vm.expect_usage(&before)
}

fn a_pin_that_cannot_be_is_refused_and_changes_nothing(vm: &mut Vm) -> Result<()> {
    let (id, kernel) = (vm.fill("fill 1M --huge")?, vm.fill("kfill 1M")?);
    for (line, errno) in [
        ("pin 4711".to_owned(), "ENOENT"),
        ("unpin 4711".to_owned(), "ENOENT"),
        (format!("pin {id} 512"), "ENOENT"),
        (format!("unpin {id} 512"), "ENOENT"),
        (format!("pin {kernel}"), "EINVAL"),
        (format!("unpin {kernel} 0"), "EINVAL"),
        (format!("unpin {id}"), "EINVAL"),
        (format!("unpin {id} 3"), "EINVAL"),
        (format!("pin {id} first"), "EINVAL"),
        (format!("pin {id} 1 2"), "EINVAL"),
        ("pin".to_owned(), "EINVAL"),
    ] {
        vm.fails(&line, errno).with_context(|| line.clone())?;
    }
    // A page more often than can be counted: all of them, or none.
    let pinned = vm.json(&format!("pin {id} 511"))?;
    let head = vm.json(&format!("page pfn:{}", pinned["pfn"]))?["head"].clone();
    for round in 0.. {
        ensure!(round < 100, "pins without end");
        let before = vm.json(&format!("page pfn:{head}"))?["refs"].clone();
        if vm.cmd(&format!("pin {id}")).is_err() {
            same("references", vm.json(&format!("page pfn:{head}"))?["refs"].clone(), before)?;
            break;
        }
    }
    vm.memcheck()?;
    vm.cmd(&format!("verify {id}")).map(drop)
}

fn a_pin_that_stays_keeps_its_block_and_is_logged(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", gib(1)))?;
    vm.cmd("online_movable dimm0")?;
    let id = vm.fill("fill 4M --in 34")?;
    let pinned = vm.json(&format!("pin {id} 9 --stay"))?;
    same("moved", &pinned["moved"], 0)?;
    same("block", &vm.json(&format!("page pfn:{}", pinned["pfn"]))?["block"], 34)?;
    let log = vm.kernel_log()?;
    ensure!(log.iter().any(|line| line.contains("pin: ") && line.contains("block 34")), "not in the log: {log:#?}");
    vm.fails("offline 34", "EBUSY")?;
    let blockers = vm.json("why 34")?["blocks"][0]["blockers"].clone();
    same("blockers", blockers.as_array().map(Vec::len), Some(1))?;
    same("kind", &blockers[0]["kind"], "pinned")?;
    same("frame", blockers[0]["pfn"].clone(), pinned["pfn"].clone())?;
    let page = vm.json(&format!("page pfn:{}", pinned["pfn"]))?;
    ensure!(blockers[0]["since_ns"].as_u64() > Some(0), "since when? {blockers}");
    same("since", &blockers[0]["since_ns"], &page["pinned"]["since_ns"])?;
    same("of", blockers[0]["pinned"].as_str(), Some(format!("page 9 of fill {id}").as_str()))?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("unpin {id} 9"))?;
    vm.cmd(&format!("free {id}"))?;
    vm.cmd("offline 34").map(drop)
}

fn a_pin_without_room_outside_of_movable_is_refused(vm: &mut Vm) -> Result<()> {
    vm.plug(&dimm("d0", mib(256)))?;
    vm.cmd("online_movable 32-33")?;
    let id = vm.fill("fill 4M --writers 2 --in 33")?;
    let last = (4 << 20) / FRAME_BYTES - 1;
    let room = vm.fill("kfill 1M")?;
    exhaust(vm)?;
    let before = vm.usage()?;
    // What can go out of Movable has gone by the time the others cannot, but nothing is pinned.
    vm.fails(&format!("pin {id}"), "ENOMEM")?;
    let after = vm.usage()?;
    same("total and free", (after.total, after.free), (before.total, before.free))?;
    let before = vm.trace()?;
    vm.fails(&format!("pin {id} {last}"), "ENOMEM")?;
    vm.unchanged_since("a pin without room", &before)?;
    for pages in [format!("{id}"), format!("{id} 0"), format!("{id} {last}")] {
        vm.fails(&format!("unpin {pages}"), "EINVAL")?;
    }
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("free {room}"))?;
    same("moved", &vm.json(&format!("pin {id} {last}"))?["moved"], 1)?;
    vm.cmd(&format!("verify {id}"))?;
    vm.cmd(&format!("unpin {id} {last}"))?;
    vm.free_everything()
}
