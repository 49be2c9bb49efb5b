//! Memory modules that come and go.

use std::fmt;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::plug::{self, Verdict};
use crate::qemu::Dimm;
use crate::qmp::{Qmp, Refused};
use crate::size::{Bytes, mib};

/// More are not plugged at a time.
const MOST: usize = 8;

/// Smaller and larger ones are not plugged.
const SMALLEST_BLOCKS: u64 = 1;
const LARGEST_BLOCKS: u64 = 8;

const BLOCK_MIB: u64 = 128;

/// How often a module that the guest keeps is asked for in the end.
const ATTEMPTS: usize = 5;

/// How often modules came and went, and how often the guest refused.
#[derive(Debug, Default)]
pub(super) struct Counts {
    plugged: u64,
    not_taken: u64,
    unplugged: u64,
    kept: u64,
}

impl Counts {
    pub(super) fn to_json(&self) -> Value {
        let Self { plugged, not_taken, unplugged, kept } = self;
        json!({"plugged": plugged, "not_taken": not_taken, "unplugged": unplugged, "kept": kept})
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plugged, not_taken, unplugged, kept } = self;
        write!(f, "{plugged} modules plugged, {not_taken} not taken, {unplugged} unplugged, {kept} kept")
    }
}

/// The modules of a running machine.
pub(super) struct Modules<'a> {
    qmp: &'a mut Qmp,
}

impl<'a> Modules<'a> {
    pub(super) fn new(qmp: &'a mut Qmp) -> Self {
        Self { qmp }
    }

    /// Plugs or unplugs one at random.
    pub(super) fn change(&mut self, dice: &mut Dice, counts: &mut Counts) -> Result<()> {
        let ids = plug::modules(self.qmp)?;
        // The fewer there are, the likelier comes another one.
        if dice.below(MOST as u64) >= ids.len() as u64 {
            return self.plug(dice, counts);
        }
        let id = &ids[dice.below(ids.len() as u64) as usize];
        match self.unplug(id)? {
            Verdict::Done(_) => counts.unplugged += 1,
            Verdict::Refused(_) => counts.kept += 1,
            Verdict::Silent(sentence) => bail!(sentence),
        }
        Ok(())
    }

    fn plug(&mut self, dice: &mut Dice, counts: &mut Counts) -> Result<()> {
        let dimm = Dimm { size: size(dice), id: None, node: Some(dice.below(2) as u32), address: None };
        match plug::plug(self.qmp, &dimm, &mut |_| ())? {
            Verdict::Done(_) => counts.plugged += 1,
            // There may be no room for its struct pages, with the settings of the moment.
            Verdict::Refused(_) => counts.not_taken += 1,
            Verdict::Silent(sentence) => bail!(sentence),
        }
        Ok(())
    }

    fn unplug(&mut self, id: &str) -> Result<Verdict> {
        match plug::unplug(self.qmp, id, &mut |_| ()) {
            Err(error) if error.is::<Refused>() => Ok(Verdict::Refused(format!("{id}: {error:#}"))),
            verdict => verdict,
        }
    }

    /// Nobody uses them any more, so all must go.
    pub(super) fn unplug_all(&mut self) -> Result<()> {
        for id in plug::modules(self.qmp)? {
            let mut last = None;
            for _ in 0..ATTEMPTS {
                last = Some(self.unplug(&id)?);
                if let Some(Verdict::Done(_)) = last {
                    break;
                }
            }
            last.context("asked at least once")?.into_result().context("after everything was given back")?;
        }
        Ok(())
    }
}

/// Mostly whole blocks.
fn size(dice: &mut Dice) -> Bytes {
    let blocks = SMALLEST_BLOCKS + dice.below(LARGEST_BLOCKS);
    let odd = if blocks < LARGEST_BLOCKS && dice.below(8) == 0 { 2 * dice.below(BLOCK_MIB / 2) } else { 0 };
    mib(blocks * BLOCK_MIB + odd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size::gib;

    #[test]
    fn sizes_are_what_qemu_takes() {
        let mut dice = Dice::new(1);
        let sizes: Vec<_> = (0..1000).map(|_| size(&mut dice)).collect();
        assert!(sizes.iter().all(|size| (mib(128)..=gib(1)).contains(size) && size.0.is_multiple_of(2 << 20)));
        assert!(sizes.iter().any(|size| !size.0.is_multiple_of(128 << 20)), "all are whole blocks");
    }
}
