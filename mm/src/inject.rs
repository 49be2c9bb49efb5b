//! Failure points: every step of an operation that can fail has a name, and can be made to fail.

use crate::errno::Errno;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

/// The operation that a failure point belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PointOp {
    /// Memory becomes known.
    Add,
    /// Memory enters a zone.
    Online,
    /// Memory leaves a zone.
    Offline,
    /// Memory is forgotten.
    Remove,
    /// Memory goes elsewhere.
    Migrate,
    /// Frames are taken.
    Alloc,
    /// Standby memory is made accessible.
    Standby,
    /// A piece of a block is granted or withheld.
    Piece,
    /// Device memory gets struct pages.
    Device,
}

impl PointOp {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Remove => "remove",
            Self::Migrate => "migrate",
            Self::Alloc => "alloc",
            Self::Standby => "standby",
            Self::Piece => "piece",
            Self::Device => "device",
        }
    }
}

macro_rules! points {
    ($($(#[$doc:meta])* $variant:ident = $op:ident $name:literal,)*) => {
        /// A step that can fail.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Point {
            $($(#[$doc])* $variant,)*
        }

        impl Point {
            /// Every failure point.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name, as `inject` takes it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The operation that fails.
            #[must_use]
            pub const fn op(self) -> PointOp {
                match self {
                    $(Self::$variant => PointOp::$op,)*
                }
            }
        }
    };
}

points! {
    /// Making the group known.
    AddGroup = Add "add.group",
    /// Mapping the range and the tables of its memmap.
    AddMap = Add "add.map",
    /// Trying whether the range, or a part of it, keeps what is written to it.
    AddTrial = Add "add.trial",
    /// Taking memmap frames from the system, for each section that needs them.
    AddMemmap = Add "add.memmap",
    /// Starting to bring a block online.
    OnlineBegin = Online "online.begin",
    /// Asking the listeners.
    OnlinePrepare = Online "online.prepare",
    /// Looking whether what a block holds may be in the other zone.
    OnlineRelabel = Online "online.relabel",
    /// Starting to take a block offline.
    OfflineBegin = Offline "offline.begin",
    /// Taking its free frames off the lists.
    OfflineIsolate = Offline "offline.isolate",
    /// Asking the listeners.
    OfflinePrepare = Offline "offline.prepare",
    /// Emptying it.
    OfflineEvacuate = Offline "offline.evacuate",
    /// Starting to remove a group.
    RemoveBegin = Remove "remove.begin",
    /// Taking the frames that memory is to go to.
    MigrateDestination = Migrate "migrate.destination",
    /// Taking memory away from those who use it.
    MigrateUnmap = Migrate "migrate.unmap",
    /// Copying it.
    MigrateCopy = Migrate "migrate.copy",
    /// Making single frames of a large page for which there is no large place.
    MigrateSplit = Migrate "migrate.split",
    /// Taking frames from the allocator.
    AllocFrames = Alloc "alloc.frames",
    /// Making the struct pages of a section that is opened; it is withheld then.
    AllocOpen = Alloc "alloc.open",
    /// Asking the host to back standby memory.
    StandbyBack = Standby "standby.back",
    /// Mapping standby memory and the tables of its memmap.
    StandbyMap = Standby "standby.map",
    /// Trying whether standby memory keeps what is written to it.
    StandbyTrial = Standby "standby.trial",
    /// Taking memmap frames from the system, for each standby section that needs them.
    StandbyMemmap = Standby "standby.memmap",
    /// Granting a piece of a block to the allocator.
    PieceGrant = Piece "piece.grant",
    /// Withholding a piece of a block from the allocator.
    PieceWithhold = Piece "piece.withhold",
    /// Making the struct pages of a section of device memory.
    DeviceMemmap = Device "device.memmap",
}

impl Point {
    /// The point with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|point| point.name() == name)
    }
}

/// An injected failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Injected {
    /// Where.
    pub point: Point,
    /// As what.
    pub errno: Errno,
}

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failure injected at {}", self.point.name())
    }
}

/// Which points are armed. A word is zero, or an errno in the low byte and the remaining times above.
pub struct Points {
    armed: [AtomicU64; Point::ALL.len()],
}

impl Points {
    pub(crate) const fn new() -> Self {
        Self { armed: [const { AtomicU64::new(0) }; Point::ALL.len()] }
    }

    /// Makes the next `times` passages of `point` fail; zero disarms it.
    pub fn arm(&self, point: Point, errno: Errno, times: u32) {
        let word = if times == 0 { 0 } else { u64::from(times) << 8 | errno as u64 };
        self.armed[point as usize].store(word, Ordering::Relaxed);
    }

    /// Disarms every point.
    pub fn disarm_all(&self) {
        for word in &self.armed {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Whether passing `point` may fail.
    #[inline]
    pub(crate) fn is_armed(&self, point: Point) -> bool {
        self.armed[point as usize].load(Ordering::Relaxed) != 0
    }

    /// The errno that `point` is armed with, and for how many times.
    pub fn armed(&self, point: Point) -> Option<(Errno, u32)> {
        let word = self.armed[point as usize].load(Ordering::Relaxed);
        Some((Errno::from_number(word as u8)?, (word >> 8) as u32))
    }

    /// Fails if `point` is armed.
    #[inline]
    pub(crate) fn check(&self, point: Point) -> Result<(), Injected> {
        if self.is_armed(point) { self.pass_armed(point) } else { Ok(()) }
    }

    /// Fails, unless somebody else has just passed for the last time.
    #[cold]
    fn pass_armed(&self, point: Point) -> Result<(), Injected> {
        let word = &self.armed[point as usize];
        let taken = word.try_update(Ordering::Relaxed, Ordering::Relaxed, |word| match word >> 8 {
            0 => None,
            1 => Some(0),
            times => Some((times - 1) << 8 | word & 0xff),
        });
        match taken {
            Err(_) => Ok(()),
            Ok(before) => {
                let errno = Errno::from_number(before as u8).expect("armed with an errno");
                Err(Injected { point, errno })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_armed_point_fails_as_often_as_asked() {
        let points = Points::new();
        points.arm(Point::AddMap, Errno::NoMemory, 2);
        for _ in 0..2 {
            let failure = Injected { point: Point::AddMap, errno: Errno::NoMemory };
            assert_eq!(points.check(Point::AddMap), Err(failure));
        }
        assert_eq!(points.check(Point::AddMap), Ok(()));
        assert_eq!(points.armed(Point::AddMap), None);
    }

    #[test]
    fn names_and_points_are_one_to_one() {
        for point in Point::ALL {
            assert_eq!(Point::from_name(point.name()), Some(*point));
            assert!(point.name().starts_with(point.op().name()));
        }
        assert_eq!(Point::from_name("add"), None);
    }
}
