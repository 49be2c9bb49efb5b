//! Following the host: a step towards the size that it wants, at a time.
//!
//! A unit becomes known when its first piece, which holds its struct pages, is plugged, and that piece goes last, with the unit.
//! Growing fills units that are there in part, lowest first, then begins the lowest that is not. Shrinking takes what nobody
//! uses, Movable before Normal, highest first, and then has things move.

use super::pieces::Pieces;
use super::plugged::Plugged;
use super::region::{Refused, Region, Run, runs};
use crate::drivers::virtio::mem::{Answer, Config, MemDevice, Request};
use crate::drivers::virtio::{Patience, Trouble};
use alloc::vec::Vec;
use mm::addr::SectionId;
use mm::hotplug::{AddError, PieceError, UnplugError};
use thiserror::Error;

/// Why a device is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Trouble(#[from] Trouble),
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is as much as the host wants.
    Settled,
    /// There is more to be done at once.
    Moved,
    /// Something must happen first that nobody tells of.
    Waiting(Obstacle),
}

/// What keeps the size from being what the host wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Obstacle {
    #[error("the host is busy")]
    Busy,
    #[error("the host grants no more for now")]
    TooMuch,
    #[error("the host takes pieces {first} and up of block {id} for something else than they are", first = .0.first, id = .0.id)]
    Wrong(Run),
    #[error("the host lets only {0:#x} bytes of the region be used")]
    Usable(u64),
    #[error("every whole block of the region is plugged")]
    Full,
    #[error("{0:#x} bytes more are no whole piece")]
    Rest(u64),
    #[error("block {0} cannot be added: {1}")]
    Add(SectionId, AddError),
    #[error("not granted: {0}")]
    Grant(PieceError),
    #[error("in use: {0}")]
    Withhold(PieceError),
    #[error("in use: {0}")]
    Remove(UnplugError),
}

/// What of a unit may be taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Take {
    Unused,
    Used,
}

/// A device and what of its region is plugged.
pub(super) struct Resizer<D, P, W> {
    device: D,
    pieces: P,
    patience: W,
    region: Region,
    plugged: Plugged,
    /// What is plugged, but not known, as the host did not take it back yet.
    spare: Vec<Run>,
    /// Why it did not.
    refusal: Option<Obstacle>,
}

impl<D: MemDevice, P: Pieces, W: Patience> Resizer<D, P, W> {
    /// Begins with a device of which nothing is plugged.
    pub(super) const fn new(device: D, pieces: P, patience: W, region: Region) -> Self {
        Self { device, pieces, patience, region, plugged: Plugged::new(region), spare: Vec::new(), refusal: None }
    }

    /// What the device says, if it can be true.
    pub(super) fn look(&mut self) -> Result<Config, Fault> {
        let config = self.device.config()?;
        self.region.check(&config)?;
        let spare: u64 = self.spare.iter().map(|run| run.count).sum();
        let own = (self.plugged.count() + spare) * self.region.piece_bytes();
        if config.plugged != own {
            return Err(Refused::Count { device: config.plugged, own }.into());
        }
        Ok(config)
    }

    /// Takes a step towards the size that the host wants.
    pub(super) fn step(&mut self) -> Result<Step, Fault> {
        let config = self.look()?;
        self.refusal = None;
        for run in core::mem::take(&mut self.spare) {
            self.give_back(run)?;
        }
        if let Some(obstacle) = self.refusal {
            return Ok(Step::Waiting(obstacle));
        }
        let (wanted, have) = (config.requested / self.region.piece_bytes(), self.plugged.count());
        match (wanted.checked_sub(have), have.saturating_sub(wanted)) {
            (Some(0), _) => match config.requested % self.region.piece_bytes() {
                0 => Ok(Step::Settled),
                rest => Ok(Step::Waiting(Obstacle::Rest(rest))),
            },
            (Some(missing), _) => self.grow(missing, &config),
            (None, surplus) => self.shrink(surplus, &config),
        }
    }

    fn grow(&mut self, missing: u64, config: &Config) -> Result<Step, Fault> {
        let Some(run) = self.vacancy(missing, self.region.start + config.usable) else {
            let is_full = config.usable == self.region.len;
            return Ok(Step::Waiting(if is_full { Obstacle::Full } else { Obstacle::Usable(config.usable) }));
        };
        let (start, blocks) = (self.region.address(run), self.region.device_blocks(run));
        match self.device.ask(Request::Plug { start, blocks }, &mut self.patience)? {
            Answer::Done => {}
            // It has changed its mind meanwhile, which its configuration tells.
            Answer::TooMuch if self.device.config()?.requested != config.requested => return Ok(Step::Moved),
            Answer::TooMuch => return Ok(Step::Waiting(Obstacle::TooMuch)),
            Answer::Busy => return Ok(Step::Waiting(Obstacle::Busy)),
            Answer::Wrong => return Ok(Step::Waiting(Obstacle::Wrong(run))),
        }
        self.take_in(run)
    }

    /// Makes memory of pieces that have been plugged.
    fn take_in(&mut self, run: Run) -> Result<Step, Fault> {
        let granted = match self.plugged.pieces(run.id).is_some() {
            true => self.pieces.grant(self.region.frames(run)).map_err(Obstacle::Grant),
            false => self.begin(run),
        };
        match granted {
            Ok(()) => {
                self.plugged.add(run);
                Ok(Step::Moved)
            }
            Err(obstacle) => {
                self.give_back(run)?;
                Ok(Step::Waiting(obstacle))
            }
        }
    }

    /// Makes a unit known of which the first piece has been plugged, and perhaps more.
    fn begin(&mut self, run: Run) -> Result<(), Obstacle> {
        let unit = self.region.unit(run.id);
        self.pieces.add(unit).map_err(|error| Obstacle::Add(run.id, error))?;
        let granted = match self.region.per_unit() {
            1 => Ok(()),
            _ => self.region.frames_behind_head(run).map_or(Ok(()), |frames| self.pieces.grant(frames)),
        };
        if let Err(error) = granted
            && self.pieces.remove(unit).is_ok()
        {
            return Err(Obstacle::Grant(error));
        }
        self.pieces.added(unit);
        Ok(())
    }

    /// Where at most `missing` pieces can be plugged, below address `end`.
    fn vacancy(&mut self, missing: u64, end: u64) -> Option<Run> {
        let region = self.region;
        self.plugged.vacant().find_map(|run| {
            let usable = end.saturating_sub(region.address(run)) / region.piece_bytes();
            let count = run.count.min(missing).min(usable);
            (count > 0).then_some(Run { count, ..run })
        })
    }

    fn shrink(&mut self, surplus: u64, config: &Config) -> Result<Step, Fault> {
        self.pieces.drain();
        let (mut left, mut obstacle) = (surplus, None);
        for take in [Take::Unused, Take::Used] {
            let mut ids = self.plugged.highest_first();
            // What the kernel itself may use is harder to empty, and missed more.
            ids.sort_by_key(|id| self.pieces.is_for_kernel(*id));
            for id in ids {
                left -= self.take_from(id, left, take, &mut obstacle)?;
                if let Some(obstacle) = self.refusal {
                    return Ok(Step::Waiting(obstacle));
                }
                if left == 0 || self.device.config()?.requested != config.requested {
                    return Ok(Step::Moved);
                }
            }
        }
        Ok(obstacle.map_or(Step::Moved, Step::Waiting))
    }

    /// Takes at most `limit` pieces out of a unit, with that if it takes all; returns how many.
    fn take_from(
        &mut self,
        id: SectionId,
        limit: u64,
        take: Take,
        obstacle: &mut Option<Obstacle>,
    ) -> Result<u64, Fault> {
        let Some(bits) = self.plugged.pieces(id) else { return Ok(0) };
        let (unit, count) = (self.region.unit(id), u64::from(bits.count_ones()));
        let is_unused = |pieces: &P| unit.iter().all(|id| pieces.is_unused(id.pages()));
        if count <= limit && (take == Take::Used || is_unused(&self.pieces)) {
            match self.pieces.remove(unit) {
                Ok(()) => {
                    self.plugged.remove(id);
                    for run in runs(id, bits) {
                        self.give_back(run)?;
                    }
                    return Ok(count);
                }
                Err(error) => *obstacle = obstacle.or(Some(Obstacle::Remove(error))),
            }
        }
        let mut taken = 0;
        // The first one holds the struct pages of all.
        for first in (1..self.region.per_unit()).rev().filter(|n| bits >> n & 1 != 0) {
            let run = Run { id, first, count: 1 };
            let frames = self.region.frames(run);
            if taken == limit || self.refusal.is_some() {
                break;
            }
            if take == Take::Unused && !self.pieces.is_unused(frames) {
                continue;
            }
            match self.pieces.withhold(frames) {
                Ok(()) => {
                    self.plugged.take(run);
                    self.give_back(run)?;
                    taken += 1;
                }
                Err(error) => *obstacle = obstacle.or(Some(Obstacle::Withhold(error))),
            }
        }
        Ok(taken)
    }

    /// Gives pieces that nobody knows back to the host, or keeps them in mind if it does not take them now.
    fn give_back(&mut self, run: Run) -> Result<(), Fault> {
        let (start, blocks) = (self.region.address(run), self.region.device_blocks(run));
        let refusal = match self.device.ask(Request::Unplug { start, blocks }, &mut self.patience)? {
            Answer::Done => return Ok(()),
            Answer::Busy => Obstacle::Busy,
            Answer::TooMuch | Answer::Wrong => Obstacle::Wrong(run),
        };
        self.spare.push(run);
        self.refusal = Some(refusal);
        Ok(())
    }
}
