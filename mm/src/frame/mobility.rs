//! The migrate type of frames and pageblocks: whether what lies there can be moved elsewhere later.

/// Whether the frames could be moved elsewhere later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Mobility {
    /// The kernel points at them.
    Unmovable = 0,
    /// Every reference to them can be found and changed.
    Movable = 1,
}

impl Mobility {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Unmovable, Self::Movable];

    /// The one that it is not.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Unmovable => Self::Movable,
            Self::Movable => Self::Unmovable,
        }
    }
}
