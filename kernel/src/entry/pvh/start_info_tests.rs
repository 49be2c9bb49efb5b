//! Start infos as loaders make them, and as they should not be.

use super::RegionKind::{Bootloader, Firmware, Usable};
use super::*;
use std::vec;
use std::vec::Vec;

const IMAGE: Range<u64> = 0x20_0000..0x45_e000;

const INFO: usize = 0x6000;
const MAP: usize = 0x7000;
const MODULES: usize = 0x5000;
const COMMAND_LINE: usize = 0x2_0000;

const RAM: u32 = 1;
const RESERVED: u32 = 2;
const ACPI: u32 = 3;
const NVS: u32 = 4;

/// What a loader has put into low memory.
struct Loaded {
    memory: Vec<u8>,
    entries: u32,
}

impl Loaded {
    /// Where Cloud Hypervisor and Firecracker put things.
    fn new(map: &[(u64, u64, u32)]) -> Self {
        let mut loaded = Self { memory: vec![0; 2 << 20], entries: map.len() as u32 };
        loaded.put(INFO, &MAGIC.to_le_bytes());
        loaded.put(INFO + 4, &1u32.to_le_bytes());
        loaded.put(INFO + 24, &(COMMAND_LINE as u64).to_le_bytes());
        loaded.put(INFO + 40, &(MAP as u64).to_le_bytes());
        loaded.put(INFO + 48, &loaded.entries.to_le_bytes());
        for (number, (start, bytes, kind)) in map.iter().enumerate() {
            let entry = [&start.to_le_bytes()[..], &bytes.to_le_bytes(), &kind.to_le_bytes(), &[0; 4]].concat();
            loaded.put(MAP + number * ENTRY_BYTES, &entry);
        }
        loaded
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.put(at, bytes);
        self
    }

    fn with_modules(self, modules: &[(u64, u64)]) -> Self {
        let list = modules.iter().map(|(start, bytes)| [*start, *bytes, 0, 0].map(u64::to_le_bytes).concat());
        let list = list.collect::<Vec<_>>().concat();
        self.with(INFO + 12, &(modules.len() as u32).to_le_bytes())
            .with(INFO + 16, &(MODULES as u64).to_le_bytes())
            .with(MODULES, &list)
    }

    fn read(&self) -> Result<HandedOver, StartInfoError> {
        self.read_at(INFO as u64)
    }

    fn read_at(&self, address: u64) -> Result<HandedOver, StartInfoError> {
        let view = |address: u64, bytes: usize| {
            let rest = usize::try_from(address).ok().and_then(|start| self.memory.get(start..)).unwrap_or_default();
            &rest[..bytes.min(rest.len())]
        };
        read(view, address, IMAGE)
    }

    #[track_caller]
    fn regions(&self) -> Vec<(u64, u64, RegionKind)> {
        let memory = self.read().expect("it can be used").memory;
        memory.iter().map(|region| (region.start, region.end, region.kind)).collect()
    }
}

/// 512 MiB of RAM and nothing else.
fn plain() -> Loaded {
    Loaded::new(&[(0, 512 << 20, RAM)])
}

#[test]
fn cloud_hypervisors_map_keeps_its_root_pointer_out_of_ram() {
    let loaded = Loaded::new(&[
        (0, 0xa_0000, RAM),
        (0x10_0000, 0xbff0_0000, RAM),
        (0x1_0000_0000, 0x4000_0000, RAM),
        (0xe800_0000, 0x1000_0000, RESERVED),
    ])
    .with(INFO + 32, &0xa_0000u64.to_le_bytes())
    .with(COMMAND_LINE, b"memhp_default_state=online");
    assert_eq!(
        loaded.regions(),
        [
            (0, 0xa_0000, Usable),
            (0x10_0000, 0x20_0000, Usable),
            (0x20_0000, 0x45_e000, Bootloader),
            (0x45_e000, 0xc000_0000, Usable),
            (0xe800_0000, 0xf800_0000, Firmware),
            (0x1_0000_0000, 0x1_4000_0000, Usable),
        ]
    );
    let handed_over = loaded.read().expect("it can be used");
    assert_eq!(handed_over.rsdp, Some(0xa_0000));
    assert_eq!(handed_over.command_line, b"memhp_default_state=online");
}

#[test]
fn firecrackers_root_pointer_is_found_where_it_is() {
    let root = b"RSD PTR \x13FIRECK\x00\x00\x00\x00\x00";
    let sum = root.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    let loaded = Loaded::new(&[(0, 0x9_fc00, RAM), (0x9_fc00, 0x4_0400, RESERVED), (0x10_0000, 0x1ff0_0000, RAM)])
        .with(0xe_0000, root)
        .with(0xe_0008, &[root[8].wrapping_sub(sum)]);
    assert_eq!(
        loaded.regions(),
        [
            (0, 0x9_fc00, Usable),
            (0x9_fc00, 0xe_0000, Firmware),
            (0x10_0000, 0x20_0000, Usable),
            (0x20_0000, 0x45_e000, Bootloader),
            (0x45_e000, 0x2000_0000, Usable),
        ]
    );
    assert_eq!(loaded.read().expect("it can be used").rsdp, Some(0xe_0000));
}

#[test]
fn qboots_map_is_not_sorted_and_has_an_empty_entry_and_ram_to_the_last_byte() {
    let loaded = Loaded::new(&[
        (0x10_0000, 0xbff0_0000, RAM),
        (0x1_0000_0000, 0x4000_0000, RAM),
        (0, 0, 0),
        (0xd_0000, 0x2_0000, NVS),
        (0xf_0000, 0x1_0000, RESERVED),
        (0, 0x9_fc00, RAM),
    ]);
    assert_eq!(
        loaded.regions(),
        [
            (0, 0x9_fc00, Usable),
            (0xd_0000, 0x10_0000, Firmware),
            (0x10_0000, 0x20_0000, Usable),
            (0x20_0000, 0x45_e000, Bootloader),
            (0x45_e000, 0xc000_0000, Usable),
            (0x1_0000_0000, 0x1_4000_0000, Usable),
        ]
    );
    assert_eq!(loaded.read().expect("it can be used").rsdp, None);
}

#[test]
fn overlapping_entries_are_what_the_strictest_says_and_senseless_ones_are_left_out() {
    let loaded = Loaded::new(&[
        (0x1000_0000, 0x100_0000, ACPI),
        (0, 512 << 20, RAM),
        (0x1080_0000, 0x100_0000, RAM),
        (u64::MAX - 0xfff, 0x2000, RAM),
        (1 << 40, u64::MAX, RESERVED),
        (1 << 60, 0x1000, RAM),
    ]);
    assert_eq!(
        loaded.regions(),
        [
            (0, 0x20_0000, Usable),
            (0x20_0000, 0x45_e000, Bootloader),
            (0x45_e000, 0x1000_0000, Usable),
            (0x1000_0000, 0x1100_0000, Firmware),
            (0x1100_0000, 0x2000_0000, Usable),
            (1 << 40, 1 << 52, Firmware),
        ]
    );
    let kept = Loaded::new(&[(0, 512 << 20, RAM), (0x1000_0000, u64::MAX, RESERVED)]).regions();
    assert_eq!(kept.last(), Some(&(0x1000_0000, 1 << 52, Firmware)), "what is kept from us wraps");
}

#[test]
fn modules_are_not_ours() {
    let loaded = plain().with_modules(&[(0x1fff_0000, 0x1234), (0x1000_0000, 0), (u64::MAX, 2)]);
    assert_eq!(
        loaded.regions()[2..],
        [(0x45_e000, 0x1fff_0000, Usable), (0x1fff_0000, 0x1fff_1234, Firmware), (0x1fff_1234, 0x2000_0000, Usable),]
    );
}

#[test]
fn ram_may_lie_above_4_gib_only() {
    let loaded = Loaded::new(&[(0x1_0000_0000, 0x4000_0000, RAM)]);
    let image = (0x20_0000, 0x45_e000, Bootloader);
    assert_eq!(loaded.regions(), [image, (0x1_0000_0000, 0x1_4000_0000, Usable)]);
}

#[test]
fn ten_thousand_entries_cost_the_highest_memory_and_not_the_image() {
    let map: Vec<_> = (0..10_000).map(|n| (n << 20, 0x8_0000, if n % 3 == 0 { RESERVED } else { RAM })).collect();
    let regions = Loaded::new(&map).regions();
    assert!(regions.len() > 200, "{}", regions.len());
    assert!(regions.contains(&(0x20_0000, 0x45_e000, Bootloader)));
    assert!(regions.iter().any(|region| region.2 == Usable));
    assert!(regions.windows(2).all(|pair| pair[0].1 <= pair[1].0));
}

#[test]
fn what_is_no_start_info_is_refused() {
    assert_eq!(plain().with(INFO, &[0]).read(), Err(StartInfoError::Magic(0x336e_c500)));
    assert_eq!(plain().with(INFO + 4, &[0]).read(), Err(StartInfoError::Version));
    for address in [(2 << 20) - 55, 2 << 20, 1 << 32, u64::MAX] {
        assert_eq!(plain().read_at(address), Err(StartInfoError::OutOfReach(address)));
    }
}

#[test]
fn a_later_version_is_read_as_far_as_it_is_known() {
    assert!(plain().with(INFO + 4, &[2]).read().is_ok());
}

#[test]
fn a_map_without_ram_is_refused() {
    for map in [&[][..], &[(0, 1 << 30, RESERVED)], &[(1 << 30, 0, RAM)]] {
        assert_eq!(Loaded::new(map).read(), Err(StartInfoError::NoRam));
    }
    // The image has all of it.
    assert_eq!(Loaded::new(&[(0x20_0000, 0x1000, RAM)]).read(), Err(StartInfoError::NoRam));
}

#[test]
fn lists_that_cannot_be_read_are_refused() {
    let address = MAP as u64;
    for count in [ENTRIES_MAX + 1, u32::MAX, 85_000] {
        let refused = plain().with(INFO + 48, &count.to_le_bytes()).read();
        assert_eq!(refused, Err(StartInfoError::Map { address, count }));
    }
    let elsewhere = plain().with(INFO + 40, &[0xff; 8]).read();
    assert_eq!(elsewhere, Err(StartInfoError::Map { address: u64::MAX, count: 1 }));
    let count = MODULES_MAX + 1;
    let refused = plain().with_modules(&[(0, 0)]).with(INFO + 12, &count.to_le_bytes()).read();
    assert_eq!(refused, Err(StartInfoError::Modules { address: MODULES as u64, count }));
}

#[test]
fn a_command_line_is_taken_whole_or_not_at_all() {
    let line = |bytes: &[u8]| plain().with(COMMAND_LINE, bytes).read().expect("it can be used").command_line;
    assert_eq!(line(b""), b"");
    assert_eq!(line(b"mem=1G\0mem=2G"), b"mem=1G");
    assert_eq!(line(&[b'a'; COMMAND_LINE_BYTES_MAX]).len(), COMMAND_LINE_BYTES_MAX);
    assert_eq!(line(&[b'a'; COMMAND_LINE_BYTES_MAX + 1]), b"");
    assert_eq!(line(&[b'a'; 64 << 10]), b"");
    let at = |address: u64| plain().with(INFO + 24, &address.to_le_bytes()).with((2 << 20) - 4, b"mem=").read();
    assert_eq!(at(0).expect("it can be used").command_line, b"");
    assert_eq!(at((2 << 20) - 4).expect("it can be used").command_line, b"", "memory ends before it does");
    assert_eq!(at(1 << 40).expect("it can be used").command_line, b"");
}

/// Mostly somewhere where something may lie.
fn place() -> impl proptest::strategy::Strategy<Value = u64> {
    use proptest::prelude::*;
    prop_oneof![Just(MAP as u64), Just(MODULES as u64), Just(COMMAND_LINE as u64), 0..3_u64 << 20, any::<u64>()]
}

proptest::proptest! {
    #[test]
    fn any_start_info_is_survived(
        counts in (0..8_u32, 0..64_u32),
        places in [place(), place(), place(), place()],
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64 * ENTRY_BYTES),
    ) {
        let [modules, command_line, root, map] = places.map(u64::to_le_bytes);
        let loaded = plain()
            .with(MAP + ENTRY_BYTES, &bytes)
            .with(INFO + 12, &counts.0.to_le_bytes())
            .with(INFO + 16, &[modules, command_line, root, map].concat())
            .with(INFO + 48, &counts.1.to_le_bytes());
        if let Ok(handed_over) = loaded.read() {
            assert!(handed_over.memory.windows(2).all(|pair| pair[0].end <= pair[1].start));
            assert!(handed_over.memory.iter().any(|region| region.kind == Usable));
        }
    }

    #[test]
    fn any_map_is_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..50 * ENTRY_BYTES)) {
        let count = (bytes.len() / ENTRY_BYTES) as u32;
        let loaded = plain().with(MAP, &bytes).with(INFO + 48, &count.to_le_bytes());
        if let Ok(handed_over) = loaded.read() {
            assert!(handed_over.memory.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}
