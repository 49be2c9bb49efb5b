//! The walk over configuration spaces as devices make them, sound and not.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::string::ToString;

/// Registers of functions; what is not named reads as zero in a function that is there, else as ones.
#[derive(Clone, Debug, Default)]
struct FakeConfig {
    registers: BTreeMap<(Address, u8), u32>,
    /// Which bits of a register can be written; of others, none.
    writable: BTreeMap<(Address, u8), u32>,
}

fn at(bus: u8, device: u8, function: u8) -> Address {
    Address { bus, device, function }
}

/// As most machines have one.
fn first_bus() -> [HostBridge; 1] {
    [HostBridge { first_bus: 0, windows: vec![Range { start: 0xc000_0000, len: 0x1000_0000 }] }]
}

impl FakeConfig {
    fn put(&mut self, address: Address, header: u32, class: u32) -> &mut Self {
        self.set(address, ID, 0x1111_8086).set(address, CLASS, class << 16).set(address, HEADER, header << 16);
        self.set(address, COMMAND, DECODES_MEMORY | 1 << 20);
        self.writable.insert((address, COMMAND), COMMAND_BITS);
        self
    }

    fn set(&mut self, address: Address, register: u8, value: u32) -> &mut Self {
        self.registers.insert((address, register), value);
        self
    }

    /// A BAR of that many bytes.
    fn bar(&mut self, address: Address, register: u8, value: u64, len: u64) -> &mut Self {
        self.set(address, register, value as u32);
        self.writable.insert((address, register), !(len - 1) as u32);
        if value & 4 != 0 {
            self.set(address, register + 4, (value >> 32) as u32);
            self.writable.insert((address, register + 4), (!(len - 1) >> 32) as u32);
        }
        self
    }

    fn bridge(&mut self, address: Address, bus: u32) -> &mut Self {
        self.put(address, 1, 0x0604).set(address, BUS_NUMBERS, bus << 8)
    }
}

impl ConfigSpace for FakeConfig {
    fn read(&mut self, function: Address, register: u8) -> u32 {
        let absent = if self.registers.contains_key(&(function, ID)) { 0 } else { u32::MAX };
        self.registers.get(&(function, register)).copied().unwrap_or(absent)
    }

    fn write(&mut self, function: Address, register: u8, value: u32) {
        let is_deaf = self.read(function, COMMAND) & DECODES_MEMORY == 0;
        assert!(
            register == COMMAND || register >= 0x40 || is_deaf,
            "{function} decodes while {register:#x} is written"
        );
        assert_eq!(if register == COMMAND { value >> 16 } else { 0 }, 0, "status bits of {function} are cleared");
        let bits = self.writable.get(&(function, register)).copied().unwrap_or(0);
        if let Some(kept) = self.registers.get_mut(&(function, register)) {
            *kept = *kept & !bits | value & bits;
        }
    }
}

#[test]
fn bars_are_as_large_as_they_say_and_stay_where_they_are() {
    let mut config = FakeConfig::default();
    let vga = at(0, 2, 0);
    config.put(vga, 0, 0x0300);
    config.bar(vga, 0x10, 0xfd00_0008, 16 << 20).bar(vga, 0x18, 0xfebd_0000, 0x1000);
    let disk = at(0, 3, 0);
    config.put(disk, 0, 0x0100);
    config.bar(disk, 0x10, 0xc001, 0x80).bar(disk, 0x14, 0xfebd_1000, 0x1000);
    config.bar(disk, 0x20, 0x80_0000_400c, 0x4000);
    let large = at(0, 4, 0);
    config.put(large, 0, 0x0500).bar(large, 0x18, 0x40_0000_000c, 8 << 30);
    let before = config.registers.clone();
    let range = |start, len| Range { start, len };
    let bars: Vec<_> =
        scan(&mut config, &first_bus(), &[]).into_iter().map(|function| (function.address, function.bars)).collect();
    assert_eq!(
        bars,
        [
            (vga, vec![range(0xfd00_0000, 16 << 20), range(0xfebd_0000, 0x1000)]),
            (disk, vec![range(0xfebd_1000, 0x1000), range(0x80_0000_4000, 0x4000)]),
            (large, vec![range(0x40_0000_0000, 8 << 30)]),
        ]
    );
    assert_eq!(config.registers, before);
}

#[test]
fn what_is_not_placed_or_not_switched_on_has_no_addresses() {
    let mut config = FakeConfig::default();
    config.put(at(0, 1, 0), 0, 0x0200).bar(at(0, 1, 0), 0x10, 0, 0x1000).bar(at(0, 1, 0), 0x14, 0xc, 0x4000);
    config.put(at(0, 2, 0), 0, 0x0200).bar(at(0, 2, 0), 0x10, 0xfe00_0000, 0x1000).set(at(0, 2, 0), COMMAND, 1);
    config.bridge(at(0, 3, 0), 1).set(at(0, 3, 0), MEMORY_WINDOW, 0xfe00_fe00).set(at(0, 3, 0), COMMAND, 0);
    config.bridge(at(0, 4, 0), 2).set(at(0, 4, 0), MEMORY_WINDOW, 0x0000_fff0);
    config.bridge(at(0, 5, 0), 3);
    // A host bridge is not even asked.
    config.put(at(0, 0, 0), 0, HOST_BRIDGE).bar(at(0, 0, 0), 0x10, 0xfe00_0000, 0x1000);
    for function in scan(&mut config, &first_bus(), &[]) {
        assert_eq!(function.bars, [], "{}", function.address);
        assert!(function.bridge.is_none_or(|bridge| bridge.windows.is_empty()), "{}", function.address);
    }
}

#[test]
fn bridges_pass_on_their_windows_and_lead_to_their_buses() {
    let mut config = FakeConfig::default();
    let port = at(0, 1, 2);
    config.put(at(0, 1, 0), 0x80, 0x0600);
    config.bridge(port, 5).set(port, MEMORY_WINDOW, 0xfe90_fe80).set(port, PREFETCH_WINDOW, 0x0021_0011);
    config.set(port, PREFETCH_BASE_HIGH, 8).set(port, PREFETCH_LIMIT_HIGH, 9);
    config.put(at(5, 0, 0), 0, 0x0200).bar(at(5, 0, 0), 0x10, 0xfe80_0000, 0x2000);
    let functions = scan(&mut config, &first_bus(), &[]);
    assert_eq!(functions.iter().map(|it| it.address).collect::<Vec<_>>(), [at(0, 1, 0), port, at(5, 0, 0)]);
    let windows =
        vec![Range { start: 0xfe80_0000, len: 0x20_0000 }, Range { start: 0x8_0010_0000, len: 0x1_0020_0000 }];
    assert_eq!(functions[1].bridge, Some(Bridge { bus: 5, windows }));
    assert_eq!(functions[2].bars, [Range { start: 0xfe80_0000, len: 0x2000 }]);
    assert_eq!(at(5, 31, 7).to_string(), "0000:05:1f.7");
}

#[test]
fn bridges_in_a_circle_are_walked_once() {
    let mut config = FakeConfig::default();
    config.bridge(at(0, 1, 0), 0).bridge(at(0, 2, 0), 7).bridge(at(7, 0, 0), 7).bridge(at(7, 1, 0), 0);
    assert_eq!(scan(&mut config, &first_bus(), &[]).len(), 4);
}

#[test]
fn buses_may_begin_at_several_bridges() {
    let mut config = FakeConfig::default();
    config.put(at(0, 1, 0), 0, 0x0200).bridge(at(12, 0, 0), 13).put(at(13, 0, 0), 0, 0x0200);
    let bridges = [0, 12, 200].map(|first_bus| HostBridge { first_bus, windows: vec![] });
    let found: Vec<_> = scan(&mut config, &bridges, &[]).iter().map(|it| it.address).collect();
    assert_eq!(found, [at(0, 1, 0), at(12, 0, 0), at(13, 0, 0)]);
}

#[test]
fn what_a_host_bridge_passes_on_is_given_from_there() {
    let mut config = FakeConfig::default();
    config.put(at(12, 1, 0), 0, 0x0200).bar(at(12, 1, 0), 0x10, 0, 0x1000).set(at(12, 1, 0), COMMAND, 0);
    let windows = [(0xa_0000, 0x2_0000), (0xfec0_0000, 1 << 30), (0xfebf_f000, 1 << 30)];
    let windows = windows.map(|(start, len)| Range { start, len }).to_vec();
    let bridges = host_bridges(&[HostBridge { first_bus: 12, windows }]);
    assert_eq!(bridges.iter().map(|bridge| bridge.first_bus).collect::<Vec<_>>(), [0, 12]);
    let mut functions = scan(&mut config, &bridges, &[]);
    place_new(&mut config, &mut functions, &[], &bridges);
    assert_eq!(functions[0].bars, [Range { start: 0xfebf_f000, len: 0x1000 }]);
}

#[test]
fn without_pci_there_is_nothing() {
    assert_eq!(scan(&mut FakeConfig::default(), &first_bus(), &[]), []);
}

#[test]
fn a_bar_that_makes_no_sense_is_left_out() {
    // Kinds that are not defined, and an upper half beyond the last register.
    let mut config = FakeConfig::default();
    let odd = at(0, 1, 0);
    config.put(odd, 0, 0xff00).set(odd, 0x10, 0xfe00_0002).set(odd, 0x14, 0xfe00_0006).set(odd, 0x24, 0xfe00_0004);
    assert_eq!(scan(&mut config, &first_bus(), &[]).remove(0).bars, []);
    // No bit that can be set, no place, an end beyond any address.
    for (value, mask) in [(0xfe00_0000, 0), (0, !0xfff), (u64::MAX << 40, u64::MAX << 41)] {
        assert_eq!(decoded(value, mask), None, "{value:#x}");
    }
}

/// With capabilities at those registers: number, and the place of the next.
fn listed(first: u32, list: &[(u8, u32, u32)]) -> (FakeConfig, Address) {
    let (mut config, function) = (FakeConfig::default(), at(0, 1, 0));
    config.put(function, 0, 0x0500).set(function, 0x34, first);
    for (place, id, next) in list {
        config.set(function, *place, next << 8 | id);
    }
    (config, function)
}

#[test]
fn capabilities_are_told_in_order() {
    let (mut config, function) = listed(0x43, &[(0x40, 9, 0x84), (0x84, 0x11, 0x50), (0x50, 9, 0)]);
    let told: Vec<_> = capabilities(&mut config, function).iter().map(|it| (it.at, it.id)).collect();
    assert_eq!(told, [(0x40, 9), (0x84, 0x11), (0x50, Capability::VENDOR)]);
    config.set(function, COMMAND, DECODES_MEMORY);
    assert_eq!(capabilities(&mut config, function), []);
}

#[test]
fn a_list_of_capabilities_that_leads_nowhere_ends() {
    let circle = [(0x40, 9, 0x48), (0x48, 9, 0x40)];
    let into_itself = [(0x40, 9, 0x40)];
    let into_the_header = [(0x40, 9, 0x10)];
    let ones = [(0x40, 0xff, 0xff), (0xfc, 0xff, 0xff)];
    for (list, count) in [(&circle[..], 2), (&into_itself, 1), (&into_the_header, 1), (&ones, 2)] {
        let (mut config, function) = listed(0x40, list);
        assert_eq!(capabilities(&mut config, function).len(), count, "{list:x?}");
    }
    let (mut config, _) = listed(0xff, &[]);
    assert!(capabilities(&mut config, at(3, 0, 0)).len() <= 1, "nobody is there");
}

/// A bus behind a bridge with a window of 2 MiB, onto which a function comes with BARs of these sizes.
fn coming(sizes: &[u64]) -> (FakeConfig, Vec<Function>) {
    let mut config = FakeConfig::default();
    config.bridge(at(0, 1, 0), 1).set(at(0, 1, 0), MEMORY_WINDOW, 0xfe90_fe80);
    config.put(at(1, 0, 0), 0, 0x0200).bar(at(1, 0, 0), 0x10, 0xfe80_0000, 0x1000);
    let known = scan(&mut config, &first_bus(), &[]);
    config.put(at(1, 1, 0), 0, 0x0500).set(at(1, 1, 0), COMMAND, 0);
    for (register, size) in (0x10..).step_by(8).zip(sizes) {
        config.bar(at(1, 1, 0), register, 0xc, *size);
    }
    let mut functions = scan(&mut config, &first_bus(), &known);
    place_new(&mut config, &mut functions, &known, &first_bus());
    (config, functions)
}

#[test]
fn what_comes_later_gets_addresses_that_its_bridge_passes_on() {
    let (mut config, functions) = coming(&[0x4000, 0x10_0000, 0x1000]);
    let (new, command) = (&functions[2], config.read(at(1, 1, 0), COMMAND));
    let places: Vec<_> = new.bars.iter().map(|bar| (bar.start, bar.len)).collect();
    assert_eq!(places, [(0xfe80_4000, 0x4000), (0xfe90_0000, 0x10_0000), (0xfe80_1000, 0x1000)]);
    assert_eq!(command, DECODES_MEMORY);
    assert_eq!(bar(&mut config, new, 2), Some(Range { start: 0xfe90_0000, len: 0x10_0000 }));
    assert_eq!(bar(&mut config, new, 1), None, "the upper half of the first");
}

#[test]
fn what_has_no_room_or_no_size_stays_switched_off_or_without() {
    let (mut config, functions) = coming(&[0x10_0000, 0x20_0000]);
    assert_eq!((functions[2].bars.len(), config.read(at(1, 1, 0), COMMAND)), (0, 0));
    // Not a bit can be set: there is no such BAR.
    let (mut config, functions) = coming(&[]);
    config.set(at(1, 1, 0), 0x10, 0);
    assert_eq!((functions[2].bars.len(), config.read(at(1, 1, 0), COMMAND)), (0, DECODES_MEMORY));
}

#[test]
fn on_the_first_bus_what_bridges_pass_on_is_taken() {
    let mut config = FakeConfig::default();
    config.bridge(at(0, 1, 0), 1).set(at(0, 1, 0), MEMORY_WINDOW, 0xc010_c000);
    let known = scan(&mut config, &first_bus(), &[]);
    config.put(at(0, 5, 0), 0, 0x0500).set(at(0, 5, 0), COMMAND, 0).bar(at(0, 5, 0), 0x20, 0xc, 0x4000);
    let mut functions = scan(&mut config, &first_bus(), &known);
    place_new(&mut config, &mut functions, &known, &first_bus());
    assert_eq!(functions[1].bars, [Range { start: 0xc020_0000, len: 0x4000 }]);
}

/// What the firmware made of a function's line, or zero, and the pin.
fn wire(config: &mut FakeConfig, function: Address, line: u32, pin: u32) {
    config.set(function, 0x3c, pin << 8 | line);
}

/// A root port that the firmware gave line 11 to, and a function that came behind it, with that pin.
fn behind_a_port(device: u8, pin: u32) -> (FakeConfig, Vec<Function>) {
    let mut config = FakeConfig::default();
    config.bridge(at(0, 3, 0), 4).put(at(0, 3, 1), 0, 0x0200).put(at(4, device, 0), 0, 0x0500);
    config.set(at(0, 3, 0), HEADER, 0x0081_0000);
    wire(&mut config, at(0, 3, 0), 11, 1);
    wire(&mut config, at(0, 3, 1), 10, 2);
    wire(&mut config, at(4, device, 0), 0, pin);
    let functions = scan(&mut config, &first_bus(), &[]);
    (config, functions)
}

#[test]
fn a_line_is_what_the_firmware_made_of_it_there() {
    for (device, pin, expected) in
        [(0, 1, Some(11)), (0, 2, Some(10)), (1, 1, Some(10)), (1, 4, Some(11)), (0, 3, None)]
    {
        let (mut config, functions) = behind_a_port(device, pin);
        assert_eq!(line::line(&mut config, &functions, at(4, device, 0)), expected, "device {device}, pin {pin}");
    }
    let (mut config, functions) = behind_a_port(0, 1);
    assert_eq!(line::line(&mut config, &functions, at(0, 3, 1)), Some(10));
    // It has none, or says what cannot be.
    for (own, pin) in [(0, 0), (5, 0), (5, 5), (0xff, 3)] {
        wire(&mut config, at(4, 0, 0), own, pin);
        assert_eq!(line::line(&mut config, &functions, at(4, 0, 0)), None, "line {own}, pin {pin}");
    }
    assert_eq!(line::line(&mut config, &functions, at(9, 0, 0)), None, "no bridge leads there");
}

#[test]
fn a_piix3_tells_the_line_of_what_comes_to_any_place() {
    let mut config = FakeConfig::default();
    config.put(at(0, 1, 0), 0, 0x0601).set(at(0, 1, 0), ID, 0x7000_8086).set(at(0, 1, 0), 0x60, 0x80_0b_0a_05);
    for (device, pin, expected) in [(1, 1, Some(5)), (1, 2, Some(10)), (4, 1, None), (5, 1, Some(5)), (7, 1, Some(11))]
    {
        config.put(at(0, device, 0), 0, 0x0500);
        if device == 1 {
            config.set(at(0, 1, 0), ID, 0x7000_8086);
        }
        wire(&mut config, at(0, device, 0), 0, pin);
        let functions = scan(&mut config, &first_bus(), &[]);
        assert_eq!(line::line(&mut config, &functions, at(0, device, 0)), expected, "device {device}, pin {pin}");
    }
    config.set(at(0, 1, 0), ID, 0x7110_8086);
    let functions = scan(&mut config, &first_bus(), &[]);
    assert_eq!(line::line(&mut config, &functions, at(0, 5, 0)), None);
}

#[test]
fn messages_are_found_where_their_table_is_decoded() {
    let of = |table: u32, at_register: u8| {
        let (mut config, function) = listed(at_register.into(), &[(at_register, 0x11, 0)]);
        config.set(function, at_register, 0x4003_0011).set(function, at_register.wrapping_add(4), table);
        config.bar(function, 0x14, 0xfe00_0000, 0x1000);
        config.writable.insert((function, at_register), 0xc000_0000);
        let function = scan(&mut config, &first_bus(), &[]).remove(0);
        let messages = Messages::of(&mut config, &function)?;
        messages.switch_on(&mut config, &function);
        assert_eq!(config.read(function.address, at_register), 0x8003_0011);
        Some(messages.entry)
    };
    assert_eq!(of(0x801, 0x84), Some(0xfe00_0800));
    assert_eq!(of(0xff1, 0x84), Some(0xfe00_0ff0));
    // Behind the end, in BARs that are not there, behind the last register.
    assert_eq!([of(0xff9, 0x84), of(0x1001, 0x84), of(0x800, 0x84), of(0x807, 0x84), of(0x801, 0xfc)], [None; 5]);
}

proptest! {
    #[test]
    fn any_configuration_space_is_walked_to_its_end(
        functions in prop::collection::vec((0u8..4, 0u8..4, 0u8..8, prop::collection::vec(any::<(u32, u32)>(), 16)), 0..24),
    ) {
        let mut config = FakeConfig::default();
        for (bus, device, function, registers) in functions {
            for (number, (value, writable)) in (0u8..).zip(registers) {
                config.set(at(bus, device, function), 4 * number, value);
                config.writable.insert((at(bus, device, function), 4 * number), writable);
            }
            config.writable.insert((at(bus, device, function), COMMAND), COMMAND_BITS);
        }
        let mut functions = scan(&mut config, &first_bus(), &[]);
        place_new(&mut config, &mut functions, &[], &first_bus());
        let all = functions.clone();
        for function in functions {
            prop_assert!(capabilities(&mut config, function.address).len() <= 48);
            prop_assert!(line::line(&mut config, &all, function.address).is_none_or(|line| (1..16).contains(&line)));
            prop_assert!(Messages::of(&mut config, &function).is_none_or(|messages| messages.entry > 0));
            for range in function.bars.iter().chain(function.bridge.iter().flat_map(|bridge| &bridge.windows)) {
                prop_assert!(range.len > 0 && range.start.checked_add(range.len - 1).is_some());
            }
        }
    }
}
