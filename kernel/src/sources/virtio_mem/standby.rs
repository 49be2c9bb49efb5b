//! Standby memory: every block of the region is known from the start and offline. A unit is backed by the host while a block of it
//! is online, which the administrator decides; the size that the host wants is only the most that it grants.

use super::region::{Refused, Region, Run};
use super::resize::Fault;
use crate::drivers::virtio::mem::{Answer, Config, MemDevice, Request};
use crate::drivers::virtio::{Patience, Trouble};
use alloc::vec::Vec;
use mm::addr::SectionId;
use mm::machine::backing::BackingError;

/// A device and which of its units are backed.
pub(super) struct Standby<D, W> {
    pub(super) device: D,
    patience: W,
    region: Region,
    /// How many units are in use.
    backed: u64,
    /// Units that are not, and that the host did not take back yet.
    spare: Vec<SectionId>,
    /// Why the device is not asked any more.
    trouble: Option<Trouble>,
}

impl<D: MemDevice, W: Patience> Standby<D, W> {
    /// Begins with a device of which nothing is plugged.
    pub(super) const fn new(device: D, patience: W, region: Region) -> Self {
        Self { device, patience, region, backed: 0, spare: Vec::new(), trouble: None }
    }

    /// Has the host back a unit.
    pub(super) fn back(&mut self, first: SectionId) -> Result<(), BackingError> {
        // What it did not take back counts for what it grants, and may have gone for all that we know.
        self.offer_again();
        let config = self.look().map_err(|_| BackingError::Failed)?;
        if self.spare.contains(&first) {
            return Err(BackingError::Busy);
        }
        let run = self.whole(first);
        let (start, blocks) = (self.region.address(run), self.region.device_blocks(run));
        if start + self.unit_bytes() > self.region.start + config.usable {
            return Err(BackingError::Refused);
        }
        match self.ask(Request::Plug { start, blocks }) {
            Some(Answer::Done) => {}
            Some(Answer::TooMuch) if self.spare.is_empty() => return Err(BackingError::Refused),
            Some(Answer::TooMuch | Answer::Busy) => return Err(BackingError::Busy),
            Some(Answer::Wrong) | None => return Err(BackingError::Failed),
        }
        self.backed += 1;
        Ok(())
    }

    /// Gives a unit back that is backed, or keeps it in mind if the host does not take it now.
    pub(super) fn release(&mut self, first: SectionId) {
        self.backed -= 1;
        self.spare.push(first);
        self.offer_again();
    }

    /// Offers the host what it did not take, until it refuses; whether it has taken everything.
    pub(super) fn offer_again(&mut self) -> bool {
        while let Some(first) = self.spare.last() {
            let run = self.whole(*first);
            let (start, blocks) = (self.region.address(run), self.region.device_blocks(run));
            if self.ask(Request::Unplug { start, blocks }) != Some(Answer::Done) {
                return false;
            }
            self.spare.pop();
        }
        true
    }

    /// Bytes that are plugged.
    pub(super) fn plugged(&self) -> u64 {
        (self.backed + self.spare.len() as u64) * self.unit_bytes()
    }

    /// The device is not used any more; what is plugged stays.
    pub(super) fn give_up(&mut self) {
        self.trouble.get_or_insert(Trouble::Gone);
        self.device.give_up();
    }

    /// What the device says, if it can be true.
    pub(super) fn look(&mut self) -> Result<Config, Fault> {
        if let Some(trouble) = self.trouble {
            return Err(trouble.into());
        }
        let config = self.device.config()?;
        self.region.check(&config)?;
        let own = self.plugged();
        if config.plugged != own {
            return Err(Refused::Count { device: config.plugged, own }.into());
        }
        Ok(config)
    }

    /// No answer comes from a device that is in trouble, now or since earlier.
    fn ask(&mut self, request: Request) -> Option<Answer> {
        if self.trouble.is_some() {
            return None;
        }
        let answer = self.device.ask(request, &mut self.patience);
        self.trouble = answer.err();
        answer.ok()
    }

    /// All pieces of a unit.
    fn whole(&self, id: SectionId) -> Run {
        Run { id, first: 0, count: self.region.per_unit() }
    }

    fn unit_bytes(&self) -> u64 {
        self.region.per_unit() * self.region.piece_bytes()
    }
}
