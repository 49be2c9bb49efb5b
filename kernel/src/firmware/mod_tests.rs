//! Reads every fixture through the root pointer, as the kernel does at boot.

use super::fadt::{BytePlace, EnableCommand, FadtProblem, PmTimer, ResetRegister};
use super::*;
use crate::arch::{GsiMode, Polarity, Trigger};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::vec;

thread_local! {
    static MEMORY: RefCell<BTreeMap<u64, &'static [u8]>> = RefCell::default();
}

/// The bytes at an address of the fixture that the calling test has loaded.
fn view(address: u64, len: usize) -> &'static [u8] {
    MEMORY.with_borrow(|memory| {
        let Some((start, bytes)) = memory.range(..=address).next_back() else { return &[][..] };
        let rest = bytes.get((address - start) as usize..).unwrap_or_default();
        &rest[..len.min(rest.len())]
    })
}

/// Puts the tables of a fixture where they were; `damage` may change each first. Returns the root pointer.
fn load(config: &str, damage: impl Fn(&str, &mut Vec<u8>)) -> u64 {
    let index = String::from_utf8(fixtures::bytes(config, "index.txt")).expect("index.txt is text");
    let mut root = 0;
    let tables: BTreeMap<u64, &'static [u8]> = index
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let address = u64::from_str_radix(words[2].trim_start_matches("0x"), 16).expect("an address");
            let file = match words[0] {
                "RSDP" => {
                    root = address;
                    "rsdp.dat"
                }
                _ => *words.last().expect("a file name"),
            };
            let mut bytes = std::fs::read(fixtures::path(config, file)).ok()?;
            damage(words[0], &mut bytes);
            Some((address, &*bytes.leak()))
        })
        .collect();
    MEMORY.set(tables);
    root
}

fn read(config: &str) -> Firmware {
    let root = load(config, |_, _| ());
    Firmware::read(view, root).expect(config)
}

#[test]
fn every_fixture_names_its_fixed_hardware() {
    for config in fixtures::CONFIGS {
        let fadt = read(config).fadt.expect(config);
        let (pc, ovmf) = (config.starts_with("pc"), config.contains("ovmf"));
        let pm = if pc && ovmf { 0xb000 } else { 0x600 };
        assert_eq!(fadt.sci, Some(9), "{config}");
        assert_eq!(fadt.pm1a_event, Some(PortBlock { base: pm, len: 4 }), "{config}");
        assert_eq!(fadt.pm1a_control, Some(PortBlock { base: pm + 4, len: 2 }), "{config}");
        assert_eq!(fadt.pm1b_control, None, "{config}");
        assert_eq!(fadt.pm_timer, Some(PmTimer { port: PortBlock { base: pm + 8, len: 4 }, bits: 24 }), "{config}");
        let gpe0 = if pc { PortBlock { base: 0xafe0, len: 4 } } else { PortBlock { base: 0x620, len: 16 } };
        assert_eq!(fadt.gpe0, Some(gpe0), "{config}");
        let value = if pc { 0xf1 } else { 0x02 };
        let byte = |base| PortBlock { base, len: 1 };
        assert_eq!(fadt.enable, Some(EnableCommand { port: byte(0xb2), value }), "{config}");
        let reset = (!pc).then_some(ResetRegister { place: BytePlace::Port(0xcf9), value: 0x0f });
        assert_eq!(fadt.reset, reset, "{config}");
        assert!(fadt.fixed_power_button, "{config}");
        assert_eq!(fadt.problems, [], "{config}");
    }
}

#[test]
fn every_fixture_names_its_processors_and_interrupt_lines() {
    for config in fixtures::CONFIGS {
        let firmware = read(config);
        let madt = firmware.madt;
        assert_eq!(madt.local_apic_address, 0xfee0_0000, "{config}");
        let io_apics: Vec<_> = madt.io_apics.iter().map(|io_apic| (io_apic.address, io_apic.gsi_base)).collect();
        assert_eq!(io_apics, [(0xfec0_0000, 0)], "{config}");
        let enabled: Vec<u32> = madt.cpus.iter().filter(|cpu| cpu.enabled).map(|cpu| cpu.apic_id).collect();
        let cpus = if config.ends_with("plain") || config.ends_with("cxl") { vec![0] } else { vec![0, 1] };
        assert_eq!(enabled, cpus, "{config}");
        let level = GsiMode { trigger: Trigger::Level, polarity: Polarity::ActiveHigh };
        let edge = GsiMode { trigger: Trigger::Edge, polarity: Polarity::ActiveHigh };
        let lines: Vec<_> = madt.overrides.iter().map(|said| (said.irq, said.gsi, said.mode)).collect();
        assert_eq!(lines, [(0, 2, edge), (5, 5, level), (9, 9, level), (10, 10, level), (11, 11, level)], "{config}");
        assert_eq!(firmware.hpet, Some(0xfed0_0000), "{config}");
    }
}

#[test]
fn every_fixture_says_what_memory_may_come() {
    for config in fixtures::CONFIGS {
        let firmware = read(config);
        let plain = config.ends_with("-plain");
        assert_eq!(firmware.dimm_slots, (!plain).then_some(4), "{config}");
        assert_eq!(firmware.sleep_type, Some(SleepType { a: 0, b: 0 }), "{config}");
        assert_eq!(firmware.srat.windows.is_empty(), plain, "{config}");
        let expected = match config {
            "pc-bios-numa-dist" | "q35-bios-numa-dist" | "q35-bios-hmat" => vec![vec![10, 21], vec![21, 10]],
            "q35-bios-cxl" => vec![vec![10]],
            _ if plain => vec![vec![10]],
            _ => vec![vec![10, 20], vec![20, 10]],
        };
        assert_eq!(firmware.distances(), expected, "{config}");
        assert_eq!(firmware.nfit.ranges.len(), usize::from(config.contains("nvdimm")), "{config}");
        assert_eq!(firmware.mcfg.regions.len(), usize::from(config.starts_with("q35")), "{config}");
    }
}

#[test]
fn every_number_up_to_the_highest_that_a_table_names_is_a_node() {
    let mut firmware = read("q35-bios-numa-dist");
    assert_eq!(firmware.node_count(), 2);
    let mut processor = [0; 28];
    processor[12..17].copy_from_slice(&[0, 16, 3, 0, 1]);
    firmware.srat = Srat::parse(&fixtures::table(b"SRAT", 1, &processor));
    assert_eq!(firmware.node_count(), 4);
    assert_eq!(firmware.distances()[1], [21, 10, 20, 20]);
    let matrix = [5_u64.to_le_bytes().as_slice(), &[10; 25]].concat();
    firmware.slit = Some(Slit::parse(&fixtures::table(b"SLIT", 1, &matrix)));
    assert_eq!(firmware.node_count(), 5);
    assert_eq!((firmware.distances().len(), firmware.distances()[2].len()), (5, 5));
}

/// What is read when the FADT says these lengths of its register blocks.
fn with_lengths(pm1_event: u8, pm1_control: u8, gpe0: u8) -> FadtFacts {
    const PM1_EVENT_LENGTH: usize = 88;
    const PM1_CONTROL_LENGTH: usize = 89;
    const GPE0_LENGTH: usize = 92;
    let root = load("q35-bios-numa", |name, bytes| {
        if name == "FACP" {
            bytes[PM1_EVENT_LENGTH] = pm1_event;
            bytes[PM1_CONTROL_LENGTH] = pm1_control;
            bytes[GPE0_LENGTH] = gpe0;
        }
    });
    Firmware::read(view, root).expect("the tables are all there").fadt.expect("the table is there")
}

#[test]
fn register_blocks_that_cannot_hold_their_registers_are_absent() {
    let fadt = with_lengths(3, 1, 1);
    assert_eq!((fadt.pm1a_event, fadt.pm1a_control, fadt.pm1b_control, fadt.gpe0), (None, None, None, None));
    assert_eq!(fadt.problems, [FadtProblem::Pm1Event(3), FadtProblem::Pm1Control(1), FadtProblem::Gpe0(1)]);
    assert_eq!(with_lengths(4, 2, 15).problems, [FadtProblem::Gpe0(15)]);
}

#[test]
fn the_shortest_register_blocks_are_used() {
    let fadt = with_lengths(4, 2, 2);
    let lens = [fadt.pm1a_event, fadt.pm1a_control, fadt.gpe0].map(|block| block.map(|block| block.len));
    assert_eq!((lens, fadt.problems), ([Some(4), Some(2), Some(2)], vec![]));
}

#[test]
fn only_general_purpose_events_are_absent_without_a_word() {
    let fadt = with_lengths(0, 0, 0);
    assert_eq!((fadt.pm1a_event, fadt.pm1a_control, fadt.gpe0), (None, None, None));
    assert_eq!(fadt.problems, [FadtProblem::Pm1Event(0), FadtProblem::Pm1Control(0)]);
}

#[test]
fn without_an_hpet_in_reach_the_pm_timer_is_the_clock() {
    const ADDRESS_SPACE: usize = 40;
    const ADDRESS: usize = 44;
    for (space, address) in [(0, 1 << 46), (1, 0xfed0_0000)] {
        let root = load("q35-bios-numa", |name, bytes| {
            if name == "HPET" {
                bytes[ADDRESS_SPACE] = space;
                bytes[ADDRESS..ADDRESS + 8].copy_from_slice(&u64::to_le_bytes(address));
            }
        });
        let firmware = Firmware::read(view, root).expect("the tables are all there");
        let clocks: Vec<_> = firmware.clocks().collect();
        assert!(matches!(clocks[..], [ClockSource::PmTimer(..)]), "{clocks:?}");
        assert!(firmware.hpet_problem.is_some());
    }
}

/// What firmware adds for CPUs whose number does not fit eight bits (ACPI 6.5 §5.2.12.12).
fn x2apic_entry(apic_id: u32, flags: u32) -> Vec<u8> {
    [&[9, 16, 0, 0][..], &apic_id.to_le_bytes(), &flags.to_le_bytes(), &7u32.to_le_bytes()].concat()
}

#[test]
fn cpus_beyond_eight_bits_are_known_and_left_to_who_can_reach_them() {
    let root = load("q35-bios-numa", |name, bytes| {
        if name == "APIC" {
            bytes.extend(
                [x2apic_entry(0x1234, 1), x2apic_entry(1, 1), x2apic_entry(300, 0), x2apic_entry(255, 1)].concat(),
            );
            let len = bytes.len() as u32;
            bytes[4..8].copy_from_slice(&len.to_le_bytes());
            fixtures::seal(bytes);
        }
    });
    let madt = Firmware::read(view, root).expect("the tables are all there").madt;
    let enabled: Vec<u32> = madt.cpus.iter().filter(|cpu| cpu.enabled).map(|cpu| cpu.apic_id).collect();
    assert_eq!(enabled, [0, 1, 0x1234, 1, 255]);
    let short = madt.choose_cpus(0, 64, 0xfe);
    assert_eq!((short.others.as_slice(), short.out_of_reach), (&[1][..], 2));
    let wide = madt.choose_cpus(0, 64, u32::MAX - 1);
    assert_eq!((wide.others.as_slice(), wide.out_of_reach), (&[1, 0x1234, 255][..], 0));
}

#[test]
fn without_a_root_pointer_there_is_no_firmware() {
    MEMORY.take();
    assert!(matches!(Firmware::read(view, 0xf59e0), Err(FirmwareError::BadRoot(_))));
}

#[test]
fn a_table_of_absurd_length_is_read_as_far_as_it_goes() {
    let root = load("q35-bios-numa-dist", |name, bytes| {
        if name != "RSDP" {
            bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        }
    });
    let firmware = Firmware::read(view, root).expect("the tables are all there");
    assert_eq!((firmware.srat.ranges.len(), firmware.madt.cpus.len()), (4, 2));
    assert_eq!(firmware.srat.problems.len(), 1);
}

proptest::proptest! {
    #[test]
    fn any_damage_of_the_tables_is_survived(flips in fixtures::mutations(40), victim in 0usize..6) {
        let victim = ["FACP", "APIC", "HPET", "SRAT", "SLIT", "DSDT"][victim];
        let root = load("q35-bios-numa-dist", |name, bytes| {
            if name == victim {
                fixtures::damage(bytes, &flips);
            }
        });
        let _ = Firmware::read(view, root);
    }

    #[test]
    fn any_damage_of_the_root_table_is_survived(flips in fixtures::mutations(8)) {
        for config in ["q35-bios-numa", "q35-ovmf-numa"] {
            let root = load(config, |name, bytes| {
                if name == "RSDT" || name == "XSDT" {
                    fixtures::damage(bytes, &flips);
                }
            });
            let _ = Firmware::read(view, root);
        }
    }
}
