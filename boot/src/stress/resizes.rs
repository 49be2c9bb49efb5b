//! A virtio-mem device whose size changes.

use anyhow::{Context, Result};

use crate::dice::Dice;
use crate::plug;
use crate::qemu::VirtioMem;
use crate::qmp::Qmp;
use crate::size::{Bytes, gib, mib};

/// QEMU's name of it.
const ID: &str = "vmem0";

/// The most that it can be.
const REGION: Bytes = gib(4);
const PIECE: Bytes = mib(2);

/// It is empty at first.
pub(super) const DEVICE: VirtioMem =
    VirtioMem { size: REGION, requested: Bytes(0), node: Some(1), block: None, standby: false };

/// Asks for another size. The guest may be on its way to the one before, and need not reach this one.
pub(super) fn change(qmp: &mut Qmp, dice: &mut Dice) -> Result<()> {
    plug::request(qmp, ID, size(dice))
}

/// Nobody uses it any more, so all of it must go.
pub(super) fn shrink_to_nothing(qmp: &mut Qmp) -> Result<()> {
    plug::resize(qmp, ID, Bytes(0), &mut |_| ())?.into_result().context("after everything was given back").map(drop)
}

/// Often little, and now and then nothing.
fn size(dice: &mut Dice) -> Bytes {
    let most = (REGION.0 / PIECE.0) >> dice.below(4);
    Bytes(dice.below(most + 1) * PIECE.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_what_qemu_takes() {
        let mut dice = Dice::new(1);
        let sizes: Vec<_> = (0..1000).map(|_| size(&mut dice)).collect();
        assert!(sizes.iter().all(|size| *size <= REGION && size.0.is_multiple_of(PIECE.0)));
        assert!(sizes.iter().any(|size| size.0 > REGION.0 / 2) && sizes.iter().any(|size| size.0 < REGION.0 / 16));
    }
}
