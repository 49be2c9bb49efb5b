//! Policies: what happens to added memory, where its struct pages go, and how `online` chooses a zone. What a policy comes
//! to for a block is told by [`zone_choice`](crate::hotplug::zone_choice).

use crate::section::kind::ZoneKind;

/// How memory is to be brought online.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnlineAs {
    /// The policy chooses the zone.
    ByPolicy,
    /// This zone.
    Zone(ZoneKind),
}

/// What happens to memory when it is added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AutoOnline {
    /// It stays offline.
    Offline,
    /// It is brought online at once.
    As(OnlineAs),
}

impl AutoOnline {
    /// Every setting.
    pub const ALL: [Self; 4] = [
        Self::Offline,
        Self::As(OnlineAs::ByPolicy),
        Self::As(OnlineAs::Zone(ZoneKind::Normal)),
        Self::As(OnlineAs::Zone(ZoneKind::Movable)),
    ];

    /// Its name, as Linux's `auto_online_blocks` takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::As(OnlineAs::ByPolicy) => "online",
            Self::As(OnlineAs::Zone(ZoneKind::Normal)) => "online_kernel",
            Self::As(OnlineAs::Zone(ZoneKind::Movable)) => "online_movable",
        }
    }

    /// The setting with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|setting| setting.name() == name)
    }
}

/// How the zone of a block is chosen when none is named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnlinePolicy {
    /// Keep zones contiguous: the zone whose span the block lies in, if it is one only, else the default.
    ContigZones,
    /// Movable if the ratio of Movable to kernel memory allows it for the whole device, else Normal; all blocks of a device
    /// in the same, whenever they come.
    AutoMovable,
}

impl OnlinePolicy {
    /// Its name, as Linux's `online_policy` takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ContigZones => "contig-zones",
            Self::AutoMovable => "auto-movable",
        }
    }

    /// The policy with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::ContigZones, Self::AutoMovable].into_iter().find(|policy| policy.name() == name)
    }
}

/// All settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// What happens to memory when it is added.
    pub auto_online: AutoOnline,
    /// Whether struct pages of added memory lie at the head of each section.
    pub memmap_on_memory: bool,
    /// How a zone is chosen.
    pub online_policy: OnlinePolicy,
    /// The most Movable memory, in percent of kernel memory, that [`OnlinePolicy::AutoMovable`] makes.
    pub auto_movable_ratio: u32,
    /// Whether the ratio must hold on the node of the block, beside the whole machine.
    pub numa_aware: bool,
    /// Whether [`OnlinePolicy::ContigZones`] makes a block Movable that no zone claims.
    pub movable_node: bool,
}

impl Policy {
    /// The settings after boot, unless a parameter says otherwise.
    pub const DEFAULT: Self = Self {
        auto_online: AutoOnline::Offline,
        memmap_on_memory: true,
        online_policy: OnlinePolicy::ContigZones,
        auto_movable_ratio: 301,
        numa_aware: true,
        movable_node: false,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_as_they_are_written() {
        for setting in AutoOnline::ALL {
            assert_eq!(AutoOnline::from_name(setting.name()), Some(setting));
        }
        assert_eq!(AutoOnline::from_name("on"), None);
    }
}
