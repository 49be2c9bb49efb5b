//! How a device is driven, whatever it is and wherever its registers are: reset and start (virtio 1.2 §3.1), queues, the
//! configuration.

use super::Trouble;
use super::face::{Doorbell, Face};
use super::queue::Queue;
use super::shared::{Patience, Registers, SharedPage};

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

/// A device: what all have, and its own configuration.
pub(super) struct Transport<R> {
    pub(super) face: Face<R>,
    pub(super) config: R,
}

impl<R: Registers> Transport<R> {
    /// Makes the device forget everything: from then on it uses no memory that it was told of.
    pub(super) fn reset(&self, patience: &mut impl Patience) -> Result<(), Trouble> {
        self.face.set_status(0);
        patience.begin();
        loop {
            match self.face.status() {
                0 => return Ok(()),
                NOBODY => return Err(Trouble::Gone),
                _ => {}
            }
            if !patience.wait() {
                return Err(Trouble::NoReset);
            }
        }
    }

    /// Agrees on what of `wanted` the device has, after a reset; returns what that is.
    pub(super) fn negotiate(&self, wanted: u64) -> Result<u64, Trouble> {
        self.add_status(ACKNOWLEDGE);
        self.add_status(DRIVER);
        let offered = u64::from(self.face.device_features(0)) | u64::from(self.face.device_features(1)) << 32;
        if offered & VERSION_1 == 0 {
            return Err(Trouble::NoVersion);
        }
        let taken = offered & (wanted | VERSION_1);
        for (half, bits) in [(0, taken as u32), (1, (taken >> 32) as u32)] {
            self.face.set_driver_features(half, bits);
        }
        self.add_status(FEATURES_OK);
        if self.face.status() & FEATURES_OK == 0 {
            return Err(Trouble::Features(taken));
        }
        self.face.ask_for_calls()?;
        Ok(taken)
    }

    /// Gives the device the queue of that number, in `page`, before it works.
    pub(super) fn queue<S: SharedPage>(&self, number: u16, page: S) -> Result<(Queue<S>, Doorbell), Trouble> {
        let queue = Queue::new(page, self.face.select_queue(number))?;
        let doorbell = self.face.enable_queue(number, queue.size(), queue.places())?;
        Ok((queue, doorbell))
    }

    /// Lets the device work.
    pub(super) fn run(&self) -> Result<(), Trouble> {
        self.add_status(DRIVER_OK);
        self.check()
    }

    /// Fails if the device says that it cannot go on.
    pub(super) fn check(&self) -> Result<(), Trouble> {
        match self.face.status() {
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
            let before = self.face.generation();
            let config = read(&self.config);
            if self.face.generation() == before {
                return Ok(config);
            }
        }
        Err(Trouble::Restless)
    }

    fn add_status(&self, bits: u8) {
        self.face.set_status(self.face.status() | bits);
    }
}
