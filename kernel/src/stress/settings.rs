//! How memory is added and brought online, changed at random.

use super::dice::Dice;
use crate::memory::mm;
use mm::record::policy::{AutoOnline, OnlinePolicy};

/// Changes one setting.
pub(super) fn change(dice: &mut Dice) {
    let which = dice.below(5);
    let on = dice.once_in(2);
    let auto_online = dice.pick(&AutoOnline::ALL).expect("there are some");
    let ratio = dice.below(1000) as u32;
    mm().set_policy(|policy| match which {
        0 => policy.auto_online = auto_online,
        1 => policy.memmap_on_memory = on,
        2 => policy.numa_aware = on,
        3 => policy.auto_movable_ratio = ratio,
        _ => policy.online_policy = if on { OnlinePolicy::AutoMovable } else { OnlinePolicy::ContigZones },
    });
}
