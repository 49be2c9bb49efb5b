//! The registers that every device has, as the two kinds of buses lay them out: PCI (virtio 1.2 §4.1.4) and memory-mapped (§4.2.2).

use super::Trouble;
use super::shared::Registers;

/// Common configuration of a function (§4.1.4.3).
mod function {
    pub(super) const DEVICE_FEATURE_SELECT: usize = 0x00;
    pub(super) const DEVICE_FEATURE: usize = 0x04;
    pub(super) const DRIVER_FEATURE_SELECT: usize = 0x08;
    pub(super) const DRIVER_FEATURE: usize = 0x0c;
    pub(super) const CONFIG_MESSAGE: usize = 0x10;
    pub(super) const STATUS: usize = 0x14;
    pub(super) const GENERATION: usize = 0x15;
    pub(super) const QUEUE_SELECT: usize = 0x16;
    pub(super) const QUEUE_SIZE: usize = 0x18;
    pub(super) const QUEUE_MESSAGE: usize = 0x1a;
    pub(super) const QUEUE_ENABLE: usize = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFFSET: usize = 0x1e;
    pub(super) const QUEUE_PLACES: [usize; 3] = [0x20, 0x28, 0x30];
}

/// Registers of a memory-mapped device, each of 32 bits.
mod mapped {
    pub(super) const DEVICE_FEATURE: usize = 0x10;
    pub(super) const DEVICE_FEATURE_SELECT: usize = 0x14;
    pub(super) const DRIVER_FEATURE: usize = 0x20;
    pub(super) const DRIVER_FEATURE_SELECT: usize = 0x24;
    pub(super) const QUEUE_SELECT: usize = 0x30;
    pub(super) const QUEUE_SIZE_MAX: usize = 0x34;
    pub(super) const QUEUE_SIZE: usize = 0x38;
    pub(super) const QUEUE_READY: usize = 0x44;
    pub(super) const QUEUE_NOTIFY: usize = 0x50;
    pub(super) const STATUS: usize = 0x70;
    pub(super) const QUEUE_PLACES: [usize; 3] = [0x80, 0x90, 0xa0];
    pub(super) const GENERATION: usize = 0xfc;
}

/// How much of the common configuration there must be.
pub(super) const COMMON_BYTES: usize = 0x38;
/// How many bytes the registers of a memory-mapped device have.
pub(super) const MAPPED_BYTES: usize = 0x100;

/// The entry of the table of messages that everything is told by.
const MESSAGE: u16 = 0;

/// The registers of a device; those that are told apart by what is selected are used by one driver at a time.
pub(super) enum Face<R> {
    Function {
        common: R,
        notify: R,
        /// Bytes between what two queues are notified by.
        notify_multiplier: u32,
        /// Whether it sends messages.
        sends_messages: bool,
    },
    Mapped(R),
}

/// What a queue is notified by.
pub(super) struct Doorbell {
    at: usize,
    queue: u16,
}

impl<R: Registers> Face<R> {
    /// From now on a function sends messages.
    pub(super) const fn send_messages(&mut self) {
        if let Self::Function { sends_messages, .. } = self {
            *sends_messages = true;
        }
    }

    pub(super) fn status(&self) -> u8 {
        match self {
            Self::Function { common, .. } => common.read_u8(function::STATUS),
            Self::Mapped(registers) => registers.read_u32(mapped::STATUS) as u8,
        }
    }

    pub(super) fn set_status(&self, status: u8) {
        match self {
            Self::Function { common, .. } => common.write_u8(function::STATUS, status),
            Self::Mapped(registers) => registers.write_u32(mapped::STATUS, status.into()),
        }
    }

    /// Half of the features that the device has.
    pub(super) fn device_features(&self, half: u32) -> u32 {
        let (registers, select, features) = match self {
            Self::Function { common, .. } => (common, function::DEVICE_FEATURE_SELECT, function::DEVICE_FEATURE),
            Self::Mapped(registers) => (registers, mapped::DEVICE_FEATURE_SELECT, mapped::DEVICE_FEATURE),
        };
        registers.write_u32(select, half);
        registers.read_u32(features)
    }

    /// Takes half of the features.
    pub(super) fn set_driver_features(&self, half: u32, bits: u32) {
        let (registers, select, features) = match self {
            Self::Function { common, .. } => (common, function::DRIVER_FEATURE_SELECT, function::DRIVER_FEATURE),
            Self::Mapped(registers) => (registers, mapped::DRIVER_FEATURE_SELECT, mapped::DRIVER_FEATURE),
        };
        registers.write_u32(select, half);
        registers.write_u32(features, bits);
    }

    /// Which configuration it is.
    pub(super) fn generation(&self) -> u32 {
        match self {
            Self::Function { common, .. } => common.read_u8(function::GENERATION).into(),
            Self::Mapped(registers) => registers.read_u32(mapped::GENERATION),
        }
    }

    /// Has the device tell of a changed configuration.
    pub(super) fn ask_for_calls(&self) -> Result<(), Trouble> {
        match self {
            Self::Function { common, sends_messages: true, .. } => name_message(common, function::CONFIG_MESSAGE),
            _ => Ok(()),
        }
    }

    /// Selects a queue; returns how many descriptors it may have.
    pub(super) fn select_queue(&self, number: u16) -> u16 {
        match self {
            Self::Function { common, .. } => {
                common.write_u16(function::QUEUE_SELECT, number);
                common.read_u16(function::QUEUE_SIZE)
            }
            Self::Mapped(registers) => {
                registers.write_u32(mapped::QUEUE_SELECT, number.into());
                registers.read_u32(mapped::QUEUE_SIZE_MAX).min(u16::MAX.into()) as u16
            }
        }
    }

    /// Gives the device the selected queue, whose parts lie in these places; returns what the queue is notified by.
    pub(super) fn enable_queue(&self, number: u16, size: u16, places: [u64; 3]) -> Result<Doorbell, Trouble> {
        match self {
            Self::Function { common, notify, notify_multiplier, sends_messages } => {
                let offset = usize::from(common.read_u16(function::QUEUE_NOTIFY_OFFSET));
                let at = offset.checked_mul(*notify_multiplier as usize);
                let is_inside = |at: &usize| at.checked_add(2).is_some_and(|end| end <= notify.len());
                let at = at.filter(is_inside).filter(|at| at.is_multiple_of(2)).ok_or(Trouble::NoQueue)?;
                if *sends_messages {
                    name_message(common, function::QUEUE_MESSAGE)?;
                }
                common.write_u16(function::QUEUE_SIZE, size);
                write_places(common, function::QUEUE_PLACES, places);
                common.write_u16(function::QUEUE_ENABLE, 1);
                Ok(Doorbell { at, queue: number })
            }
            Self::Mapped(registers) => {
                registers.write_u32(mapped::QUEUE_SIZE, size.into());
                write_places(registers, mapped::QUEUE_PLACES, places);
                registers.write_u32(mapped::QUEUE_READY, 1);
                Ok(Doorbell { at: mapped::QUEUE_NOTIFY, queue: number })
            }
        }
    }

    /// Tells the device that there is something in a queue.
    pub(super) fn notify(&self, doorbell: &Doorbell) {
        match self {
            Self::Function { notify, .. } => notify.write_u16(doorbell.at, doorbell.queue),
            Self::Mapped(registers) => registers.write_u32(doorbell.at, doorbell.queue.into()),
        }
    }
}

/// Names the message that something is told by; a device without room for it says so (§4.1.5.1.2).
fn name_message(common: &impl Registers, register: usize) -> Result<(), Trouble> {
    common.write_u16(register, MESSAGE);
    let is_taken = common.read_u16(register) == MESSAGE;
    is_taken.then_some(()).ok_or(Trouble::NoMessage)
}

fn write_places(registers: &impl Registers, at: [usize; 3], places: [u64; 3]) {
    for (register, address) in at.into_iter().zip(places) {
        registers.write_u32(register, address as u32);
        registers.write_u32(register + 4, (address >> 32) as u32);
    }
}
