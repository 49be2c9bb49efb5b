//! PCI: which functions there are, which addresses they decode, and which of them their bridges pass on.
//!
//! Each function is read once, before anybody drives it, at boot or when it has come: how large a BAR is, it tells only while it
//! is written. What the firmware has not switched on has no addresses yet. What came later gets some here, and so does everything
//! on a machine whose firmware gave none.
//!
//! | file | what |
//! |---|---|
//! | [`space`] | the ways to configuration space |
//! | [`mod@capabilities`] | what a function can do beyond what all do |
//! | [`placement`] | addresses for what has none |
//! | [`mod@line`] | which interrupt a function's line arrives as |
//! | [`mod@messages`] | interrupts by messages |
//! | [`ejector`] | functions that the host wants back |
#![deny(unsafe_code)]

mod capabilities;
mod ejector;
mod line;
mod messages;
mod placement;
mod space;

pub(crate) use capabilities::{Capability, capabilities};
pub(crate) use ejector::{Ejector, PORTS as EJECTOR_PORTS};
pub(crate) use messages::Messages;
pub(crate) use space::Ecam;

use crate::arch::ports;
use crate::entry::{self, RegionKind};
use crate::sync::Mutex;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use placement::{Room, place, switch_off, switch_on};
use space::Space;
use spin::Once;

const DEVICES: u8 = 32;
const FUNCTIONS: u8 = 8;

// Registers of configuration space, of 32 bits each (PCI Local Bus 3.0 §6.1, PCI-to-PCI Bridge 1.2 §3.2).
const ID: u8 = 0x00;
const COMMAND: u8 = 0x04;
const CLASS: u8 = 0x08;
const HEADER: u8 = 0x0c;
const FIRST_BAR: u8 = 0x10;
const BUS_NUMBERS: u8 = 0x18;
const MEMORY_WINDOW: u8 = 0x20;
const PREFETCH_WINDOW: u8 = 0x24;
const PREFETCH_BASE_HIGH: u8 = 0x28;
const PREFETCH_LIMIT_HIGH: u8 = 0x2c;

/// The vendor that a function has which is not there.
const NOBODY: u32 = 0xffff;
/// In [`COMMAND`]: memory is decoded.
const DECODES_MEMORY: u32 = 1 << 1;
/// In [`COMMAND`]: the function reads and writes memory by itself.
const MASTERS_BUS: u32 = 1 << 2;
/// In [`COMMAND`]: its interrupt line stays quiet.
const NO_INTERRUPTS: u32 = 1 << 10;
/// In [`COMMAND`], the lower half; bits of the upper one are cleared by writing ones.
const COMMAND_BITS: u32 = 0xffff;
/// In [`CLASS`], the upper half. A host bridge that stops decoding may cut the CPU off from its memory.
const HOST_BRIDGE: u32 = 0x0600;
/// In a BAR: it is about ports.
const BAR_IO: u32 = 1 << 0;
const BAR_FLAGS: u64 = 0xf;

/// A function of a device on a bus, all of the first segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) bus: u8,
    pub(crate) device: u8,
    pub(crate) function: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0000:{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// Physical addresses, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) len: u64,
}

impl Range {
    /// The first address behind it.
    pub(crate) const fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// A function that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) address: Address,
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    /// How many registers it has for BARs.
    bar_count: u8,
    /// The memory that it decodes.
    pub(crate) bars: Vec<Range>,
    /// What is behind it.
    pub(crate) bridge: Option<Bridge>,
}

/// A bridge to another bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) bus: u8,
    /// The memory that it passes on.
    pub(crate) windows: Vec<Range>,
}

/// Where a tree of buses begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostBridge {
    pub(crate) first_bus: u8,
    /// The memory that it passes on.
    pub(crate) windows: Vec<Range>,
}

/// Configuration space, for one user at a time.
static CONFIG: Mutex<Space> = Mutex::new(Space::Ports(ports::pci_config()));
/// Every function that is there, by address; changes under the lock of [`CONFIG`].
static THERE: Mutex<Vec<Function>> = Mutex::new(Vec::new());
/// Where the buses begin.
static HOST_BRIDGES: Once<Vec<HostBridge>> = Once::new();

/// Looks at everything that the firmware has set up, and sets up what it has not. Nobody else uses PCI yet.
pub(crate) fn start(regions: &[Ecam], said: &[HostBridge]) {
    let bridges = HOST_BRIDGES.call_once(|| host_bridges(said));
    let mut config = CONFIG.lock();
    *config = Space::choose(ports::pci_config(), regions, &firmware_map(|kind| kind != RegionKind::Firmware));
    let mut functions = scan(&mut *config, bridges, &[]);
    if functions.iter().all(|function| function.bars.is_empty()) {
        place_new(&mut *config, &mut functions, &[], bridges);
    }
    log::debug!(target: "pci", "{} functions, configured {}", functions.len(), config.name());
    *THERE.lock() = functions;
}

/// Every function that is there, by address.
pub(crate) fn functions() -> Vec<Function> {
    THERE.lock().clone()
}

/// What has come and gone.
pub(crate) struct Changes {
    pub(crate) came: Vec<Function>,
    pub(crate) went: Vec<Function>,
}

/// Looks what has come and gone, and gives addresses to what has none.
pub(crate) fn look_again() -> Changes {
    let mut config = CONFIG.lock();
    let known = functions();
    let bridges = HOST_BRIDGES.get().map_or(&[][..], Vec::as_slice);
    let mut now = scan(&mut *config, bridges, &known);
    place_new(&mut *config, &mut now, &known, bridges);
    THERE.lock().clone_from(&now);
    let missing = |of: &[Function], from: Vec<Function>| from.into_iter().filter(|it| !of.contains(it)).collect();
    Changes { went: missing(&now, known.clone()), came: missing(&known, now) }
}

/// Works with configuration space while nobody else does.
pub(crate) fn with_config<R>(work: impl FnOnce(&mut Space) -> R) -> R {
    work(&mut CONFIG.lock())
}

/// Lets a function read and write memory, as the bridges on the way to it must, too. Its line stays quiet.
pub(crate) fn start_mastering(function: &Function) {
    let functions = functions();
    with_config(|config| {
        switch_on(config, function.address, MASTERS_BUS | NO_INTERRUPTS);
        let mut bus = function.address.bus;
        // There is at most one bridge for each bus.
        for _ in 0..functions.len() {
            let is_way = |other: &&Function| other.bridge.as_ref().is_some_and(|bridge| bridge.bus == bus);
            let Some(bridge) = functions.iter().find(is_way) else { return };
            switch_on(config, bridge.address, MASTERS_BUS);
            bus = bridge.address.bus;
        }
    });
}

/// Whether a function speaks up by its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Quiet,
    Heard,
}

/// Lets a function use its line, or not.
pub(crate) fn set_line(function: &Function, line: Line) {
    // Another one may be there by now.
    if !THERE.lock().contains(function) {
        return;
    }
    with_config(|config| match line {
        Line::Quiet => switch_on(config, function.address, NO_INTERRUPTS),
        Line::Heard => switch_off(config, function.address, NO_INTERRUPTS),
    });
}

/// The ISA interrupt that a function's line arrives as, if that can be known.
pub(crate) fn line(function: &Function) -> Option<u8> {
    let functions = functions();
    with_config(|config| line::line(config, &functions, function.address))
}

/// The messages that a function can send, from now on, but for those that are masked.
pub(crate) fn messages(function: &Function) -> Option<Messages> {
    with_config(|config| {
        let messages = Messages::of(config, function)?;
        messages.switch_on(config, function);
        Some(messages)
    })
}

/// The IOAPICs, and what else every PC has there, begin here.
const FIXED_START: u64 = 0xfec0_0000;

/// Below this, nothing of PCI has been placed for decades.
const LOWEST: u64 = 1 << 20;

/// Where buses begin, with what of its windows each can give to functions, which is below what is fixed on a PC. Where the firmware
/// does not tell, there is one bridge, which passes on what is above all that the firmware's map names.
fn host_bridges(said: &[HostBridge]) -> Vec<HostBridge> {
    let named = firmware_map(|_| true);
    let above = named.iter().map(Range::end).filter(|end| *end <= FIXED_START).max().unwrap_or(FIXED_START);
    let fallback = Range { start: above, len: FIXED_START - above };
    let mut bridges: Vec<_> = said.to_vec();
    for bridge in &mut bridges {
        bridge.windows.retain(|window| (LOWEST..FIXED_START).contains(&window.start));
        for window in &mut bridge.windows {
            window.len = window.end().min(FIXED_START) - window.start;
        }
    }
    if bridges.iter().all(|bridge| bridge.first_bus != 0) {
        bridges.insert(0, HostBridge { first_bus: 0, windows: vec![fallback] });
    }
    bridges
}

/// What of the firmware's map is of such a kind.
fn firmware_map(is_meant: impl Fn(RegionKind) -> bool) -> Vec<Range> {
    let regions = entry::facts().map_or(&[][..], |facts| &facts.memory);
    let meant = regions.iter().filter(|region| is_meant(region.kind));
    meant.map(|region| Range { start: region.start, len: region.end - region.start }).collect()
}

/// Gives addresses to functions that are not among the known ones and have none.
fn place_new(
    config: &mut impl ConfigSpace,
    functions: &mut [Function],
    known: &[Function],
    host_bridges: &[HostBridge],
) {
    let named = firmware_map(|_| true);
    for n in 0..functions.len() {
        let function = &functions[n];
        if known.contains(function) || !function.bars.is_empty() || function.bar_count == 0 {
            continue;
        }
        let bus = function.address.bus;
        let bridge = functions.iter().find_map(|it| it.bridge.as_ref().filter(|bridge| bridge.bus == bus));
        let root = || host_bridges.iter().find(|root| root.first_bus == bus).map(|root| root.windows.clone());
        let windows = bridge.map(|bridge| bridge.windows.clone()).or_else(root).unwrap_or_default();
        // On a first bus, the windows of bridges are taken as well.
        let passed_on = functions.iter().filter(|it| it.address.bus == bus).filter_map(|it| it.bridge.as_ref());
        let passed_on = passed_on.flat_map(|bridge| bridge.windows.iter());
        let taken = functions.iter().flat_map(|it| &it.bars).chain(passed_on).chain(&named).copied().collect();
        if place(config, function, &mut Room { windows, taken }) {
            functions[n].bars = bars(config, functions[n].address, functions[n].bar_count);
        } else {
            log::warn!(target: "pci", "{}: its bus has no addresses left for it", function.address);
        }
    }
}

/// Reading and writing registers of functions.
pub(crate) trait ConfigSpace {
    /// All ones where nothing is.
    fn read(&mut self, function: Address, register: u8) -> u32;
    fn write(&mut self, function: Address, register: u8, value: u32);
}

/// Every function on first buses and on those behind bridges; those that are known already are not looked at again.
fn scan(config: &mut impl ConfigSpace, host_bridges: &[HostBridge], known: &[Function]) -> Vec<Function> {
    let mut functions = Vec::new();
    let mut buses: Vec<_> = host_bridges.iter().map(|bridge| bridge.first_bus).collect();
    let mut seen = [false; 256];
    while let Some(bus) = buses.pop() {
        // Bridges that nobody has numbered may lead anywhere, even back.
        if core::mem::replace(&mut seen[usize::from(bus)], true) {
            continue;
        }
        for device in 0..DEVICES {
            scan_device(config, bus, device, known, &mut functions);
        }
        let behind = functions.iter().filter(|function| function.address.bus == bus);
        buses.extend(behind.filter_map(|function| Some(function.bridge.as_ref()?.bus)));
    }
    functions.sort_unstable_by_key(|function| function.address);
    functions
}

fn scan_device(config: &mut impl ConfigSpace, bus: u8, device: u8, known: &[Function], functions: &mut Vec<Function>) {
    const HAS_SEVERAL: u32 = 1 << 23;
    let first = Address { bus, device, function: 0 };
    let count = if config.read(first, HEADER) & HAS_SEVERAL != 0 { FUNCTIONS } else { 1 };
    for function in 0..count {
        match read_function(config, Address { function, ..first }, known) {
            Some(found) => functions.push(found),
            // Without the first one there is no device.
            None if function == 0 => return,
            None => {}
        }
    }
}

fn read_function(config: &mut impl ConfigSpace, address: Address, known: &[Function]) -> Option<Function> {
    let id = config.read(address, ID);
    if id & 0xffff == NOBODY {
        return None;
    }
    let (vendor, device) = (id as u16, (id >> 16) as u16);
    let is_same = |it: &&Function| (it.address, it.vendor, it.device) == (address, vendor, device);
    if let Some(function) = known.iter().find(is_same) {
        return Some(function.clone());
    }
    let is_host_bridge = config.read(address, CLASS) >> 16 == HOST_BRIDGE;
    let decodes = config.read(address, COMMAND) & DECODES_MEMORY != 0;
    let (bar_count, is_bridge) = match config.read(address, HEADER) >> 16 & 0x7f {
        0 if !is_host_bridge => (6, false),
        1 => (2, true),
        _ => (0, false),
    };
    let bars = if decodes { bars(config, address, bar_count) } else { Vec::new() };
    let bridge = is_bridge.then(|| Bridge {
        bus: (config.read(address, BUS_NUMBERS) >> 8) as u8,
        windows: if decodes { windows(config, address) } else { Vec::new() },
    });
    Some(Function { address, vendor, device, bar_count, bars, bridge })
}

/// A BAR that is about memory.
struct MemoryBar {
    number: u8,
    low: u32,
    is_wide: bool,
    /// Of one that is wide.
    high: u32,
}

/// The BARs of a function that are about memory.
fn memory_bars(config: &mut impl ConfigSpace, address: Address, count: u8) -> Vec<MemoryBar> {
    let mut found = Vec::new();
    let mut numbers = 0..count;
    while let Some(number) = numbers.next() {
        let low = config.read(address, FIRST_BAR + 4 * number);
        // Below 1 MiB nothing has been for decades; the rest is not defined.
        match (low & BAR_IO, low >> 1 & 3) {
            (0, 0) => found.push(MemoryBar { number, low, is_wide: false, high: 0 }),
            (0, 2) => {
                let Some(upper) = numbers.next() else { break };
                let high = config.read(address, FIRST_BAR + 4 * upper);
                found.push(MemoryBar { number, low, is_wide: true, high });
            }
            _ => {}
        }
    }
    found
}

/// What the BAR of that number decodes.
pub(crate) fn bar(config: &mut impl ConfigSpace, function: &Function, number: u8) -> Option<Range> {
    let bars = memory_bars(config, function.address, function.bar_count);
    let bar = bars.iter().find(|bar| bar.number == number)?;
    let start = joined(bar.low, bar.high) & !BAR_FLAGS;
    function.bars.iter().find(|range| range.start == start).copied()
}

/// What the BARs decode. Decoding is off while they are written.
fn bars(config: &mut impl ConfigSpace, address: Address, count: u8) -> Vec<Range> {
    let command = config.read(address, COMMAND) & COMMAND_BITS;
    config.write(address, COMMAND, command & !DECODES_MEMORY);
    let mut bars = Vec::new();
    for bar in memory_bars(config, address, count) {
        let register = FIRST_BAR + 4 * bar.number;
        let mask = size_mask(config, address, register, bar.low);
        let mask = match bar.is_wide {
            true => joined(mask, size_mask(config, address, register + 4, bar.high)),
            false => mask.into(),
        };
        bars.extend(decoded(joined(bar.low, bar.high), mask));
    }
    config.write(address, COMMAND, command);
    bars
}

/// Which bits of a BAR can be set.
fn size_mask(config: &mut impl ConfigSpace, address: Address, register: u8, value: u32) -> u32 {
    config.write(address, register, u32::MAX);
    let mask = config.read(address, register);
    config.write(address, register, value);
    mask
}

fn joined(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// How many bytes a BAR decodes, of which the bits of `mask` can be set; one that is not there has none of them.
fn decoded_len(mask: u64) -> Option<u64> {
    1u64.checked_shl((mask & !BAR_FLAGS).trailing_zeros())
}

/// The range of a BAR, of which the bits of `mask` can be set. One that nobody has placed lies at zero.
fn decoded(value: u64, mask: u64) -> Option<Range> {
    let (start, len) = (value & !BAR_FLAGS, decoded_len(mask)?);
    (start != 0 && start.checked_add(len - 1).is_some()).then_some(Range { start, len })
}

/// What a bridge passes on: memory, and memory that may be read ahead.
fn windows(config: &mut impl ConfigSpace, address: Address) -> Vec<Range> {
    const IS_WIDE: u32 = 1;
    let memory = config.read(address, MEMORY_WINDOW);
    let prefetch = config.read(address, PREFETCH_WINDOW);
    let mut high = |register| if prefetch & 0xf == IS_WIDE { config.read(address, register) } else { 0 };
    let (base_high, limit_high) = (high(PREFETCH_BASE_HIGH), high(PREFETCH_LIMIT_HIGH));
    [window(memory, 0, 0), window(prefetch, base_high, limit_high)].into_iter().flatten().collect()
}

/// A window in units of 1 MiB: its first one in the lower half of `bounds`, its last one in the upper. One that ends before
/// it begins is closed, and one at zero nobody has placed.
fn window(bounds: u32, base_high: u32, limit_high: u32) -> Option<Range> {
    let start = joined((bounds & 0xfff0) << 16, base_high);
    let last = joined(bounds & 0xfff0_0000 | 0x000f_ffff, limit_high);
    (start != 0 && start < last).then(|| Range { start, len: last - start + 1 })
}

#[cfg(test)]
#[path = "pci_tests.rs"]
mod tests;
