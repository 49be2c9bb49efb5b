//! A device's registers as virtio 1.2 §4.1.4 lays them out: reset and start (§3.1), one queue, the configuration.

use super::Trouble;
use super::queue::Queue;
use super::shared::{Patience, Registers, SharedPage};

// Common configuration (§4.1.4.3).
const DEVICE_FEATURE_SELECT: usize = 0x00;
const DEVICE_FEATURE: usize = 0x04;
const DRIVER_FEATURE_SELECT: usize = 0x08;
const DRIVER_FEATURE: usize = 0x0c;
const STATUS: usize = 0x14;
const GENERATION: usize = 0x15;
const QUEUE_SELECT: usize = 0x16;
const QUEUE_SIZE: usize = 0x18;
const QUEUE_ENABLE: usize = 0x1c;
const QUEUE_NOTIFY_OFFSET: usize = 0x1e;
const QUEUE_PLACES: [usize; 3] = [0x20, 0x28, 0x30];
/// How much of it there must be.
pub(super) const COMMON_BYTES: usize = 0x38;

/// Device status (§2.1).
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const NEEDS_RESET: u8 = 64;
const FAILED: u8 = 128;
/// What is not there reads as ones.
const NOBODY: u8 = 0xff;

/// The device keeps to version 1 of the standard (§6).
const VERSION_1: u64 = 1 << 32;

/// A configuration that changes this often while it is read is no configuration.
const READS_MAX: usize = 16;

/// The registers of a device, whose only queue is its first.
pub(super) struct Transport<R> {
    pub(super) common: R,
    pub(super) notify: R,
    /// Bytes between what two queues are notified by.
    pub(super) notify_multiplier: u32,
    pub(super) config: R,
    /// What the queue is notified by.
    notify_at: usize,
}

impl<R: Registers> Transport<R> {
    pub(super) const fn new(common: R, notify: R, notify_multiplier: u32, config: R) -> Self {
        Self { common, notify, notify_multiplier, config, notify_at: 0 }
    }

    /// Makes the device forget everything: from then on it uses no memory that it was told of.
    pub(super) fn reset(&self, patience: &mut impl Patience) -> Result<(), Trouble> {
        self.common.write_u8(STATUS, 0);
        patience.begin();
        while self.common.read_u8(STATUS) != 0 {
            if self.common.read_u8(STATUS) == NOBODY {
                return Err(Trouble::Gone);
            }
            if !patience.wait() {
                return Err(Trouble::NoReset);
            }
        }
        Ok(())
    }

    /// Agrees on what of `wanted` the device has, after a reset; returns what that is.
    pub(super) fn negotiate(&self, wanted: u64) -> Result<u64, Trouble> {
        self.add_status(ACKNOWLEDGE);
        self.add_status(DRIVER);
        let offered = self.features();
        if offered & VERSION_1 == 0 {
            return Err(Trouble::NoVersion);
        }
        let taken = offered & (wanted | VERSION_1);
        for (half, bits) in [(0, taken as u32), (1, (taken >> 32) as u32)] {
            self.common.write_u32(DRIVER_FEATURE_SELECT, half);
            self.common.write_u32(DRIVER_FEATURE, bits);
        }
        self.add_status(FEATURES_OK);
        if self.common.read_u8(STATUS) & FEATURES_OK == 0 {
            return Err(Trouble::Features(taken));
        }
        Ok(taken)
    }

    /// Gives the device its queue, in `page`, and lets it work.
    pub(super) fn start<S: SharedPage>(&mut self, page: S) -> Result<Queue<S>, Trouble> {
        self.common.write_u16(QUEUE_SELECT, 0);
        let queue = Queue::new(page, self.common.read_u16(QUEUE_SIZE))?;
        let offset = usize::from(self.common.read_u16(QUEUE_NOTIFY_OFFSET));
        let notify_at = offset.checked_mul(self.notify_multiplier as usize);
        let is_inside = |at: &usize| at.checked_add(2).is_some_and(|end| end <= self.notify.len());
        self.notify_at = notify_at.filter(is_inside).filter(|at| at.is_multiple_of(2)).ok_or(Trouble::NoQueue)?;
        self.common.write_u16(QUEUE_SIZE, queue.size());
        for (register, address) in QUEUE_PLACES.into_iter().zip(queue.places()) {
            self.common.write_u32(register, address as u32);
            self.common.write_u32(register + 4, (address >> 32) as u32);
        }
        self.common.write_u16(QUEUE_ENABLE, 1);
        self.add_status(DRIVER_OK);
        self.check()?;
        Ok(queue)
    }

    /// Tells the device that there is a request.
    pub(super) fn notify(&self) {
        self.notify.write_u16(self.notify_at, 0);
    }

    /// Fails if the device says that it cannot go on.
    pub(super) fn check(&self) -> Result<(), Trouble> {
        match self.common.read_u8(STATUS) {
            NOBODY => Err(Trouble::Gone),
            status if status & NEEDS_RESET != 0 => Err(Trouble::NeedsReset),
            _ => Ok(()),
        }
    }

    /// Tells the device that it is given up.
    pub(super) fn give_up(&self) {
        self.add_status(FAILED);
    }

    /// Reads the configuration as it was at one moment (§2.5.2).
    pub(super) fn read_config<T>(&self, read: impl Fn(&R) -> T) -> Result<T, Trouble> {
        self.check()?;
        for _ in 0..READS_MAX {
            let before = self.common.read_u8(GENERATION);
            let config = read(&self.config);
            if self.common.read_u8(GENERATION) == before {
                return Ok(config);
            }
        }
        Err(Trouble::Restless)
    }

    fn features(&self) -> u64 {
        let half = |number| {
            self.common.write_u32(DEVICE_FEATURE_SELECT, number);
            u64::from(self.common.read_u32(DEVICE_FEATURE))
        };
        half(0) | half(1) << 32
    }

    fn add_status(&self, bits: u8) {
        self.common.write_u8(STATUS, self.common.read_u8(STATUS) | bits);
    }
}
