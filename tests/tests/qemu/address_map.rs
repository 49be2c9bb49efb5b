//! What lies where, and what comes that nobody uses: memory, NVDIMMs and PCI, as the VMM has them.

use anyhow::{Context, Result, ensure};
use boot::qemu::{Board, Machine};
use boot::size::{gib, mib};
use serde_json::json;
use system_tests::check::same;
use system_tests::memory::FRAME_BYTES;
use system_tests::scenario;
use system_tests::scenario::Scenario;
use system_tests::vm::Vm;

use crate::iomem::{self, Entry};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let port = words(&["-device", "pcie-root-port,id=slot1,chassis=1,slot=1"]);
    let nvdimm = words(&["-machine", "nvdimm=on", "-smp", "2,maxcpus=3"]);
    let behind = words(&["-device", "virtio-balloon-pci,bus=slot1"]);
    let cold =
        words(&["-object", "memory-backend-ram,id=nv0-ram,size=256M", "-device", "nvdimm,id=nv0,memdev=nv0-ram"]);
    let left_out = Machine { memory: mib(1025), ..Machine::default() };
    let two_gib = Machine { memory: gib(2), ..Machine::default() };
    vec![
        scenario!(system_ram_is_what_the_kernel_has).with("where_a_block_is_left_out").on(left_out),
        scenario!(system_ram_is_what_the_kernel_has).with("where_mem_hides_some").on(two_gib).params(&["mem=1100M"]),
        scenario!(pci_and_nvdimms_lie_where_the_vmm_says)
            .on(Machine { extra: [port.clone(), behind, nvdimm.clone(), cold].concat(), ..Machine::default() }),
        scenario!(what_comes_and_is_not_used_is_told)
            .on(Machine { extra: [port, nvdimm.clone()].concat(), ..Machine::default() }),
        scenario!(what_comes_and_is_not_used_is_told).with("on_pc").on(Machine {
            board: Board::Pc,
            extra: nvdimm,
            ..Machine::default()
        }),
    ]
}

/// Whole frames of a range, or all that it touches.
fn inside(entry: &Entry) -> (u64, u64) {
    (entry.start.div_ceil(FRAME_BYTES), (entry.end + 1) / FRAME_BYTES)
}

fn around(entry: &Entry) -> (u64, u64) {
    (entry.start / FRAME_BYTES, (entry.end + 1).div_ceil(FRAME_BYTES))
}

fn system_ram_is_what_the_kernel_has(vm: &mut Vm) -> Result<()> {
    let map = iomem::map(vm)?;
    iomem::is_a_tree(&map)?;
    let (mut frames, mut unused, mut ram_end) = (0, 0, 0);
    for entry in &map {
        let (mut first, end) = if entry.owner == "Firmware" { around(entry) } else { inside(entry) };
        if entry.owner.starts_with("System RAM") {
            // The image of the kernel may end inside a frame: all of that is RAM, too.
            if entry.start == ram_end {
                first = entry.start / FRAME_BYTES;
            }
            ram_end = entry.end + 1;
        }
        let is_there = |vm: &mut Vm, pfn| Ok::<_, anyhow::Error>(vm.frame_state(pfn)? != "absent");
        if entry.owner.starts_with("System RAM") && first < end {
            ensure!(is_there(vm, first)? && is_there(vm, end - 1)?, "the kernel has no {entry:#x?}");
            frames += end - first;
        } else if entry.owner.starts_with("Unused RAM") {
            ensure!(!is_there(vm, first)? && !is_there(vm, end - 1)?, "the kernel has {entry:#x?}");
            unused += end - first;
        } else if entry.owner == "Firmware" && is_there(vm, first)? {
            // It lies in RAM, and in blocks.
            frames += end - first;
        }
    }
    ensure!(unused > 0, "nothing is unused in {map:#x?}");
    let altmaps: Vec<_> = map.iter().filter(|entry| entry.owner.starts_with("altmap of block")).collect();
    ensure!(altmaps.len() > 1, "nothing at boot has an altmap in {map:#x?}");
    for entry in altmaps {
        let (first, end) = inside(entry);
        for pfn in [first, end - 1] {
            same(&entry.owner, vm.frame_state(pfn)?, "memmap")?;
        }
        ensure!(vm.frame_state(end)? != "memmap", "{entry:#x?} ends too early");
    }
    let present: u64 = vm.usage()?.zones.iter().map(|zone| zone.present).sum();
    same("bytes in zones", present, frames * FRAME_BYTES)
}

/// The two numbers of a line such as `BAR2: 32 bit memory at 0xfebd0000 [0xfebd0fff].`
fn numbers(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split(|c: char| !c.is_ascii_alphanumeric()).filter_map(|word| word.strip_prefix("0x"));
    let mut number = || u64::from_str_radix(words.next()?, 16).ok();
    Some((number()?, number()?))
}

fn pci_and_nvdimms_lie_where_the_vmm_says(vm: &mut Vm) -> Result<()> {
    let map = iomem::map(vm)?;
    iomem::is_a_tree(&map)?;
    let owner = |map: &[Entry], start, end| {
        let found = map.iter().find(|entry| (entry.start, entry.end) == (start, end));
        found.map(|entry| entry.owner.clone()).with_context(|| format!("no {start:#x}-{end:#x} in {map:#x?}"))
    };
    let (mut function, mut bars, mut windows) = (String::new(), 0, 0);
    for line in vm.monitor("info pci")?.lines().map(str::trim) {
        let digits = |word: &str| word.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u8>().ok();
        let words: Vec<_> = line.split_whitespace().collect();
        if let ["Bus", bus, "device", device, "function", number] = words[..] {
            let place = digits(bus).zip(digits(device)).zip(digits(number));
            let ((bus, device), number) = place.with_context(|| format!("no address: {line}"))?;
            function = format!("0000:{bus:02x}:{device:02x}.{number}");
        } else if line.contains(" memory at ") && !line.starts_with("BAR6") {
            let (start, end) = numbers(line).with_context(|| format!("no range: {line}"))?;
            same("owner", owner(&map, start, end)?, function.clone())?;
            bars += 1;
        } else if line.contains("memory range") {
            let (start, end) = numbers(line).with_context(|| format!("no range: {line}"))?;
            if 0 < start && start < end {
                same("owner", owner(&map, start, end)?, "PCI Bus 0000:01".to_owned())?;
                windows += 1;
            }
        }
    }
    ensure!(bars >= 3 && windows >= 1, "{bars} BARs and {windows} windows in {map:#x?}");
    same("ECAM", owner(&map, 0xb000_0000, 0xbfff_ffff)?.as_str(), "Firmware")?;
    ensure!(map.iter().any(|entry| entry.owner == "PCI ECAM 0000 [bus 00-ff]"), "{map:#x?}");
    let address = vm.modules()?["nv0"].address;
    same("NVDIMM", owner(&map, address, address + (256 << 20) - 1)?.as_str(), "Persistent Memory")
}

fn what_comes_and_is_not_used_is_told(vm: &mut Vm) -> Result<()> {
    let before = vm.trace()?;
    vm.qmp("object-add", json!({"qom-type": "memory-backend-ram", "id": "nv0-ram", "size": 256 << 20}))?;
    vm.qmp("device_add", json!({"driver": "nvdimm", "id": "nv0", "memdev": "nv0-ram"}))?;
    vm.expect("acpi: an NVDIMM came; it is not used")?;

    let cpus = vm.qmp("query-hotpluggable-cpus", json!({}))?;
    let absent = cpus.as_array().and_then(|cpus| cpus.iter().find(|cpu| cpu["qom-path"].is_null()));
    let absent = absent.with_context(|| format!("no place for a CPU in {cpus}"))?;
    let mut cpu = absent["props"].clone();
    cpu["driver"] = absent["type"].clone();
    cpu["id"] = json!("cpu2");
    vm.qmp("device_add", cpu)?;
    vm.expect("acpi: a CPU came or shall go; it is not used")?;

    let is_pc = !vm.monitor("info qtree")?.contains("q35");
    let mut balloon = json!({"driver": "virtio-balloon-pci", "id": "balloon0"});
    if !is_pc {
        balloon["bus"] = json!("slot1");
    }
    vm.qmp("device_add", balloon)?;
    let told = vm.expect("came; it is not used")?;
    ensure!(told.contains("pci: 0000:") && told.contains("(1af4:"), "{told}");
    vm.unchanged_since("what is not used", &before)
}
