//! The driver against a whole device, which does as virtio 1.2 §5.15 says, or not.

use super::*;
use crate::drivers::virtio::face::{COMMON_BYTES, Face, MAPPED_BYTES};
use std::cell::RefCell;
use std::rc::Rc;

/// The memory that both see, and the registers.
struct Device {
    page: [u8; 4096],
    status: u8,
    generation: u8,
    select: u32,
    offered: u64,
    queue_size: u16,
    notify_offset: u16,
    used: u16,
    config: [u32; 14],
    /// What the registers read as, if they are not there any more.
    is_gone: bool,
    /// Makes some of them read as anything.
    noise: Option<fastrand::Rng>,
    does: Does,
}

#[derive(Clone, Copy, PartialEq)]
enum Does {
    Right,
    Nothing,
    Answers(u16),
    RefusesFeatures,
    NeverResets,
    ChangesAlways,
    NeedsReset,
    Anything(u64),
}

type Shared = Rc<RefCell<Device>>;

const PAGE: u64 = 0x9000;

impl Device {
    fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.page[at % 4096], self.page[(at + 1) % 4096]])
    }

    fn put(&mut self, at: usize, value: u16) {
        self.page[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// Does what the request says, or what this device does instead.
    fn notified(&mut self) {
        let kind = match self.does {
            Does::Nothing => return,
            Does::NeedsReset => {
                self.status |= 64;
                return;
            }
            Does::Anything(seed) => {
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..random.usize(0..8) {
                    let (at, any) = (random.usize(0x100..0x1ff) * 2, random.u16(..));
                    let value = random.choice([0, 1, 2, 10, self.used.wrapping_add(1), any]).expect("some");
                    self.put(at, value);
                }
                self.status = random.choice([15, 15, 15, 79, 255]).expect("some");
                if random.bool() {
                    return;
                }
                random.u16(0..6)
            }
            Does::Answers(kind) => kind,
            _ => ACK,
        };
        // Descriptor 1 is for the answer.
        let answer = usize::from(self.word(16)) - PAGE as usize;
        self.put(answer, kind);
        let slot = 0x200 + 4 + 8 * usize::from(self.used % self.queue_size.min(8));
        self.put(slot, 0);
        self.put(slot + 4, 10);
        self.used = self.used.wrapping_add(1);
        self.put(0x202, self.used);
    }

    fn read(&mut self, window: Window, at: usize) -> u32 {
        if self.is_gone {
            return u32::MAX;
        }
        if let Some(noise) = &mut self.noise
            && noise.u8(..8) == 0
        {
            return noise.u32(..) >> noise.u32(..32);
        }
        match (window, at) {
            (Window::Config, _) => self.config[at / 4] >> (8 * (at % 4)),
            (Window::Common, 4) => (self.offered >> (32 * self.select)) as u32,
            (Window::Common, 0x14) => self.status.into(),
            (Window::Common, 0x15) => {
                self.generation = self.generation.wrapping_add(u8::from(self.does == Does::ChangesAlways));
                self.generation.into()
            }
            (Window::Common, 0x18) => self.queue_size.into(),
            (Window::Common, 0x1e) => self.notify_offset.into(),
            (Window::Mapped, 0x10) => (self.offered >> (32 * self.select)) as u32,
            (Window::Mapped, 0x34) => self.queue_size.into(),
            (Window::Mapped, 0x70) => self.status.into(),
            (Window::Mapped, 0xfc) => self.read(Window::Common, 0x15),
            _ => 0,
        }
    }

    fn write(&mut self, window: Window, at: usize, value: u32) {
        match (window, at) {
            (Window::Notify, _) | (Window::Mapped, 0x50) => self.notified(),
            (Window::Mapped, 0x14) => self.select = value,
            (Window::Mapped, 0x70) => self.write(Window::Common, 0x14, value),
            (Window::Common, 0) => self.select = value,
            (Window::Common, 0x14) if value == 0 && self.does == Does::NeverResets => {}
            (Window::Common, 0x14) if self.does == Does::RefusesFeatures => self.status = value as u8 & !8,
            (Window::Common, 0x14) => self.status = value as u8,
            _ => {}
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Window {
    Common,
    Notify,
    Mapped,
    Config,
}

struct Side(Shared, Window, usize);

impl Registers for Side {
    fn len(&self) -> usize {
        self.2
    }

    fn read_u8(&self, at: usize) -> u8 {
        assert!(at < self.2);
        self.0.borrow_mut().read(self.1, at) as u8
    }

    fn read_u16(&self, at: usize) -> u16 {
        assert!(at + 2 <= self.2);
        self.0.borrow_mut().read(self.1, at) as u16
    }

    fn read_u32(&self, at: usize) -> u32 {
        assert!(at + 4 <= self.2);
        self.0.borrow_mut().read(self.1, at)
    }

    fn write_u8(&self, at: usize, value: u8) {
        assert!(at < self.2);
        self.0.borrow_mut().write(self.1, at, value.into());
    }

    fn write_u16(&self, at: usize, value: u16) {
        assert!(at + 2 <= self.2);
        self.0.borrow_mut().write(self.1, at, value.into());
    }

    fn write_u32(&self, at: usize, value: u32) {
        assert!(at + 4 <= self.2);
        self.0.borrow_mut().write(self.1, at, value);
    }
}

struct Page(Shared);

impl SharedPage for Page {
    fn address(&self) -> u64 {
        PAGE
    }

    fn read_u16(&self, at: usize) -> u16 {
        self.0.borrow().word(at)
    }

    fn read_u32(&self, at: usize) -> u32 {
        u32::from(self.read_u16(at + 2)) << 16 | u32::from(self.read_u16(at))
    }

    fn write_u16(&mut self, at: usize, value: u16) {
        self.0.borrow_mut().put(at, value);
    }

    fn write_u32(&mut self, at: usize, value: u32) {
        self.write_u16(at, value as u16);
        self.write_u16(at + 2, (value >> 16) as u16);
    }
}

/// Looks so often and no more.
struct Looks(u32);

impl Patience for Looks {
    fn begin(&mut self) {
        self.0 = 3;
    }

    fn wait(&mut self) -> bool {
        self.0 -= 1;
        self.0 > 0
    }
}

fn device(does: Does) -> Shared {
    Rc::new(RefCell::new(Device {
        page: [0; 4096],
        status: 7,
        generation: 0,
        select: 0,
        offered: 1 << 32 | 1 << 28 | 3,
        queue_size: 128,
        notify_offset: 0,
        used: 0,
        config: [2 << 20, 0, 1, 0, 0, 1, 1 << 30, 0, 1 << 29, 0, 0, 0, 1 << 28, 0],
        is_gone: false,
        noise: None,
        does,
    }))
}

/// Where the registers of a device are.
#[derive(Clone, Copy, Debug)]
enum Bus {
    Pci,
    Mapped,
}

const BUSES: [Bus; 2] = [Bus::Pci, Bus::Mapped];

/// As [`open`](super::super::open) and [`open_slot`](super::super::open_slot) do it.
fn start(device: &Shared, bus: Bus) -> Result<VirtioMem<Side, Page>, Trouble> {
    let side = |window, len| Side(Rc::clone(device), window, len);
    let face = match bus {
        Bus::Pci => {
            let (common, notify) = (side(Window::Common, COMMON_BYTES), side(Window::Notify, 4));
            Face::Function { common, notify, notify_multiplier: 4, sends_messages: false }
        }
        Bus::Mapped => Face::Mapped(side(Window::Mapped, MAPPED_BYTES)),
    };
    let transport = Transport { face, config: side(Window::Config, CONFIG_BYTES) };
    transport.reset(&mut Looks(0))?;
    VirtioMem::start(transport, Page(Rc::clone(device)))
}

#[test]
fn the_configuration_is_read_and_requests_are_answered() {
    BUSES.into_iter().for_each(read_and_answered);
}

fn read_and_answered(bus: Bus) {
    let shared = device(Does::Right);
    let mut driver = start(&shared, bus).expect("started");
    let config = driver.config().expect("it stands still");
    let expected = Config {
        block_size: 2 << 20,
        domain: Some(1),
        start: 1 << 32,
        region: 1 << 30,
        usable: 1 << 29,
        plugged: 0,
        requested: 1 << 28,
    };
    assert_eq!(config, expected);
    for (kind, answer) in [(ACK, Answer::Done), (NACK, Answer::TooMuch), (BUSY, Answer::Busy), (ERROR, Answer::Wrong)] {
        shared.borrow_mut().does = Does::Answers(kind);
        let request = Request::Plug { start: 5 << 32 | 2 << 20, blocks: 7 };
        assert_eq!(driver.ask(request, &mut Looks(0)), Ok(answer));
    }
    let page = shared.borrow().page;
    assert_eq!(page[0x300..0x312], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 5, 0, 0, 0, 7, 0]);
}

#[test]
fn a_device_that_cannot_be_started_is_in_trouble() {
    let outcome_on = |bus, does, change: fn(&mut Device)| {
        let shared = device(does);
        change(&mut shared.borrow_mut());
        start(&shared, bus).err()
    };
    let outcome = |does, change| {
        let [first, second] = BUSES.map(|bus| outcome_on(bus, does, change));
        assert_eq!(first, second);
        first
    };
    assert_eq!(outcome(Does::NeverResets, |_| {}), Some(Trouble::NoReset));
    assert_eq!(outcome(Does::Right, |it| it.is_gone = true), Some(Trouble::Gone));
    assert_eq!(outcome(Does::Right, |it| it.offered = 3), Some(Trouble::NoVersion));
    assert_eq!(outcome(Does::RefusesFeatures, |_| {}), Some(Trouble::Features(1 << 32 | 3)));
    assert_eq!(outcome(Does::Right, |it| it.queue_size = 1), Some(Trouble::NoQueue));
    assert_eq!(
        outcome_on(Bus::Pci, Does::Right, |it| it.notify_offset = 1),
        Some(Trouble::NoQueue),
        "behind its registers"
    );
    assert_eq!(outcome_on(Bus::Pci, Does::Right, |it| it.notify_offset = u16::MAX), Some(Trouble::NoQueue));
}

#[test]
fn a_device_that_stops_doing_right_is_in_trouble() {
    BUSES.into_iter().for_each(stops_doing_right);
}

fn stops_doing_right(bus: Bus) {
    for (does, trouble) in [
        (Does::Nothing, Trouble::Silent),
        (Does::NeedsReset, Trouble::NeedsReset),
        (Does::Answers(4), Trouble::Answer(4)),
    ] {
        let shared = device(Does::Right);
        let mut driver = start(&shared, bus).expect("started");
        shared.borrow_mut().does = does;
        assert_eq!(driver.ask(Request::UnplugAll, &mut Looks(0)), Err(trouble));
    }
    let shared = device(Does::Right);
    let mut driver = start(&shared, bus).expect("started");
    shared.borrow_mut().does = Does::ChangesAlways;
    assert_eq!(driver.config(), Err(Trouble::Restless));
    shared.borrow_mut().is_gone = true;
    assert_eq!(driver.config(), Err(Trouble::Gone));
}

#[test]
fn a_device_that_writes_anything_anywhere_does_no_harm() {
    let mut ends = [0; 2];
    for seed in 0..20_000 {
        let shared = device(Does::Right);
        let bus = BUSES[seed as usize % BUSES.len()];
        let mut driver = start(&shared, bus).expect("started");
        for n in 0..50 {
            shared.borrow_mut().does = if n % 3 == 0 { Does::Anything(seed << 6 | n) } else { Does::Right };
            let outcome = driver.ask(Request::Unplug { start: 1 << 32, blocks: 1 }, &mut Looks(0));
            ends[usize::from(outcome.is_err())] += 1;
            // It is set aside.
            if outcome.is_err() {
                break;
            }
        }
    }
    assert!(ends.iter().all(|count| *count > 1000), "{ends:?}");
}

#[test]
fn registers_that_read_as_anything_do_no_harm() {
    let mut started = 0;
    for seed in 0..40_000 {
        let shared = device(Does::Right);
        let bus = BUSES[seed as usize % BUSES.len()];
        shared.borrow_mut().noise = Some(fastrand::Rng::with_seed(seed));
        let Ok(mut driver) = start(&shared, bus) else { continue };
        started += 1;
        // Whatever comes of it, it comes to an end.
        let _ = (driver.config(), driver.ask(Request::UnplugAll, &mut Looks(0)));
    }
    assert!(started > 100, "{started} started");
}
