//! Policies: what happens to added memory, where its struct pages go, and which zone `online` chooses.

use crate::addr::{NodeId, SectionId, SectionRange};
use crate::section::{Section, ZoneKind};
use core::ops::AddAssign;

/// How somebody wants memory to be brought online.
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

/// How the zone of a block is chosen when nobody names one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnlinePolicy {
    /// Keep zones contiguous: the zone whose span the block lies in, if it is one only, else the default.
    ContigZones,
    /// Movable as long as the ratio of Movable to kernel memory allows it, else Normal.
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

/// What decides about the blocks of one node, as it was at one moment: so that many blocks need one look at the zones.
#[derive(Clone, Copy, Debug)]
pub struct Outlook {
    pub(crate) policy: Policy,
    pub(crate) node: NodeId,
    /// The lowest and highest block of the node's zones.
    pub(crate) spans: [Option<(SectionId, SectionId)>; ZoneKind::ALL.len()],
    pub(crate) machine: Balance,
    pub(crate) own: Balance,
}

impl Outlook {
    /// Whose blocks it is about.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// The zones that each block of `run`, of which the same is known, may get, the one that `online` would choose first;
    /// one that is not offline has its own only. Blocks for which they are the same are told together, lowest first.
    pub fn valid_zones(
        self,
        run: SectionRange,
        section: Section,
    ) -> impl Iterator<Item = (SectionRange, &'static [ZoneKind])> {
        let mut rest = Some(run);
        core::iter::from_fn(move || {
            let run = rest?;
            let (part, zones) = self.first_valid_zones(run, section);
            rest = run.behind(part);
            Some((part, zones))
        })
    }

    fn first_valid_zones(&self, run: SectionRange, section: Section) -> (SectionRange, &'static [ZoneKind]) {
        if let Some(zone) = section.state.zone() {
            return (run, if zone == ZoneKind::Normal { &[ZoneKind::Normal] } else { &[ZoneKind::Movable] });
        }
        let zone = self.choose(run.first(), section);
        let count = run.iter().take_while(|id| self.choose(*id, section) == zone).count() as u64;
        let zones: &[ZoneKind] = match zone {
            ZoneKind::Normal => &[ZoneKind::Normal, ZoneKind::Movable],
            ZoneKind::Movable => &[ZoneKind::Movable, ZoneKind::Normal],
        };
        (run.first_part(count), zones)
    }

    /// The zone that an offline block gets when nobody names one.
    pub(crate) fn choose(&self, id: SectionId, section: Section) -> ZoneKind {
        let is_in = |zone: ZoneKind| self.spans[zone as usize].is_some_and(|(first, last)| first <= id && id <= last);
        self.policy.choose(&Surroundings {
            in_normal_span: is_in(ZoneKind::Normal),
            in_movable_span: is_in(ZoneKind::Movable),
            pages: u64::from(section.present),
            machine: self.machine,
            node: self.own,
        })
    }

    /// So many further frames of the node will be in Movable.
    pub(crate) fn expect_movable(&mut self, pages: u64) {
        let share = Balance { kernel: 0, movable: pages };
        self.machine += share;
        self.own += share;
    }
}

impl AddAssign for Balance {
    fn add_assign(&mut self, other: Self) {
        self.kernel += other.kernel;
        self.movable += other.movable;
    }
}

/// What the policy looks at, for one block on one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Surroundings {
    /// Whether the block lies in the span of the node's Normal zone.
    pub(crate) in_normal_span: bool,
    /// Whether the block lies in the span of the node's Movable zone.
    pub(crate) in_movable_span: bool,
    /// Frames of the block.
    pub(crate) pages: u64,
    /// Present frames of kernel and Movable memory, of the whole machine.
    pub(crate) machine: Balance,
    /// The same, of the block's node.
    pub(crate) node: Balance,
}

/// Present frames by what may use them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Balance {
    /// Of boot memory in Normal: what the machine itself brought. Hot-added Normal memory licenses no Movable memory of
    /// another device.
    pub(crate) kernel: u64,
    pub(crate) movable: u64,
}

impl Policy {
    /// The zone that a block gets when nobody names one.
    pub(crate) fn choose(&self, around: &Surroundings) -> ZoneKind {
        match self.online_policy {
            OnlinePolicy::ContigZones => match (around.in_normal_span, around.in_movable_span) {
                (true, false) => ZoneKind::Normal,
                (false, true) => ZoneKind::Movable,
                _ if self.movable_node => ZoneKind::Movable,
                _ => ZoneKind::Normal,
            },
            OnlinePolicy::AutoMovable => {
                let fits = |balance: Balance| {
                    let most = balance.kernel.saturating_mul(u64::from(self.auto_movable_ratio)) / 100;
                    balance.movable + around.pages <= most
                };
                let node_fits = !self.numa_aware || fits(around.node);
                if fits(around.machine) && node_fits { ZoneKind::Movable } else { ZoneKind::Normal }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AROUND: Surroundings = Surroundings {
        in_normal_span: false,
        in_movable_span: false,
        pages: 100,
        machine: Balance { kernel: 200, movable: 0 },
        node: Balance { kernel: 100, movable: 0 },
    };

    #[test]
    fn contig_zones_follows_the_only_span_that_holds_the_block() {
        let policy = Policy::DEFAULT;
        assert_eq!(policy.choose(&AROUND), ZoneKind::Normal);
        assert_eq!(policy.choose(&Surroundings { in_movable_span: true, ..AROUND }), ZoneKind::Movable);
        let both = Surroundings { in_movable_span: true, in_normal_span: true, ..AROUND };
        assert_eq!(policy.choose(&both), ZoneKind::Normal);
        assert_eq!(Policy { movable_node: true, ..policy }.choose(&both), ZoneKind::Movable);
    }

    #[test]
    fn auto_movable_stops_at_the_ratio_of_machine_and_node() {
        let policy = Policy { online_policy: OnlinePolicy::AutoMovable, ..Policy::DEFAULT };
        let with = |movable| Surroundings {
            machine: Balance { kernel: 200, movable },
            node: Balance { kernel: 100, movable },
            ..AROUND
        };
        assert_eq!(policy.choose(&with(200)), ZoneKind::Movable);
        assert_eq!(policy.choose(&with(300)), ZoneKind::Normal);
        let machine_wide = Policy { numa_aware: false, ..policy };
        assert_eq!(machine_wide.choose(&with(500)), ZoneKind::Movable);
        assert_eq!(machine_wide.choose(&with(503)), ZoneKind::Normal);
    }

    #[test]
    fn settings_read_as_they_are_written() {
        for setting in AutoOnline::ALL {
            assert_eq!(AutoOnline::from_name(setting.name()), Some(setting));
        }
        assert_eq!(AutoOnline::from_name("on"), None);
    }
}
