//! Kinds of sections: the zone they serve in, where they came from, where their struct pages lie.

use core::fmt;

/// Where the allocator puts memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum ZoneKind {
    /// Memory for everything.
    Normal = 0,
    /// Memory for what can be moved elsewhere only.
    Movable = 1,
}

impl ZoneKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Normal, Self::Movable];

    /// Its name, as Linux writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Movable => "Movable",
        }
    }

    pub(super) const fn into_bits(self) -> u64 {
        self as u64
    }

    #[inline(always)]
    pub(super) const fn from_bits(bits: u64) -> Self {
        if bits == 0 { Self::Normal } else { Self::Movable }
    }

    /// The one that it is not.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Normal => Self::Movable,
            Self::Movable => Self::Normal,
        }
    }
}

impl fmt::Display for ZoneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the struct pages of a section lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum MemmapPlace {
    /// In the first frames of the section (altmap).
    Head = 0,
    /// In frames of the system, taken when the section was added.
    System = 1,
    /// Somewhere inside the section, which held something at boot already, and there for ever.
    Boot = 2,
}

impl MemmapPlace {
    #[inline(always)]
    pub(super) const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Head,
            1 => Self::System,
            2 => Self::Boot,
            _ => panic!("struct pages are in a place that nobody wrote"),
        }
    }
}

/// Whether memory was there at boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It was.
    Boot,
    /// It came later.
    Added,
}

impl Origin {
    /// Both, boot memory first.
    pub const ALL: [Self; 2] = [Self::Boot, Self::Added];

    pub(super) const fn into_bits(self) -> u64 {
        matches!(self, Self::Boot) as u64
    }

    #[inline(always)]
    pub(super) const fn from_bits(bits: u64) -> Self {
        if bits == 0 { Self::Added } else { Self::Boot }
    }
}
