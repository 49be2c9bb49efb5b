//! Which interrupt the line of a function arrives as.
//!
//! Only the firmware's code tells it in full. But the firmware has written down, in each function that was there at boot, what it
//! made of that function's line; a function that comes to the same place, or behind a bridge at that place, has the same. On
//! PIIX3 boards the rest can be asked of the chipset, which routes four lines as all its boards wire them.

use super::{Address, ConfigSpace, Function, ID};

/// Line and pin of a function, in the lowest bytes.
const LINE_AND_PIN: u8 = 0x3c;
const PINS: u8 = 4;
/// ISA interrupts.
const LINES: u8 = 16;

/// The ISA bridge of a PIIX3 board, and where it tells how it routes its four lines (Intel 82371SB §2.2.7).
const PIIX3: (Address, u32) = (Address { bus: 0, device: 1, function: 0 }, 0x7000_8086);
const PIIX3_ROUTES: u8 = 0x60;
const NOT_ROUTED: u8 = 1 << 7;

/// Where a line arrives on the first bus: a device, and one of its four pins, from 0.
type Root = (u8, u8);

/// The ISA interrupt that a function's line arrives as, if that can be known.
pub(super) fn line(config: &mut impl ConfigSpace, functions: &[Function], function: Address) -> Option<u8> {
    let (root, own) = root(config, functions, function)?;
    if own.is_some() {
        return own;
    }
    let told = functions.iter().find_map(|other| {
        let (place, line) = self::root(config, functions, other.address)?;
        line.filter(|_| place == root)
    });
    told.or_else(|| piix3_line(config, root))
}

/// Where a function's line arrives on the first bus, and what the firmware made of it. Each bridge on the way passes its devices'
/// pins on by turns (PCI-to-PCI Bridge 1.2 §9.1).
fn root(config: &mut impl ConfigSpace, functions: &[Function], function: Address) -> Option<(Root, Option<u8>)> {
    let [line, pin, ..] = config.read(function, LINE_AND_PIN).to_le_bytes();
    let mut pin = pin.checked_sub(1).filter(|pin| *pin < PINS)?;
    let mut at = function;
    // There is at most one bridge for each bus.
    for _ in 0..=functions.len() {
        if at.bus == 0 {
            return Some(((at.device, pin), (1..LINES).contains(&line).then_some(line)));
        }
        pin = (pin + at.device) % PINS;
        at = functions.iter().find(|it| it.bridge.as_ref().is_some_and(|bridge| bridge.bus == at.bus))?.address;
    }
    None
}

fn piix3_line(config: &mut impl ConfigSpace, (device, pin): Root) -> Option<u8> {
    let (bridge, id) = PIIX3;
    if config.read(bridge, ID) != id {
        return None;
    }
    let routes = config.read(bridge, PIIX3_ROUTES).to_le_bytes();
    // The device behind the bridge itself begins with the first.
    let route = routes[usize::from((pin + device + PINS - bridge.device) % PINS)];
    (route & NOT_ROUTED == 0).then_some(route % LINES).filter(|line| *line > 0)
}
