//! The errno names that commands and failure points speak of.

use core::fmt;

/// An errno, by its Linux name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Errno {
    /// `EINVAL`
    Invalid = 1,
    /// `ENOENT`
    NoEntry,
    /// `EEXIST`
    Exists,
    /// `EBUSY`
    Busy,
    /// `ENOMEM`
    NoMemory,
    /// `ENODEV`
    NoDevice,
    /// `ETIMEDOUT`
    TimedOut,
    /// `ECANCELED`
    Canceled,
    /// `EOPNOTSUPP`
    NotSupported,
    /// `EIO`
    Io,
    /// `EAGAIN`
    Again,
}

impl Errno {
    /// Every errno.
    pub const ALL: [Self; 11] = [
        Self::Invalid,
        Self::NoEntry,
        Self::Exists,
        Self::Busy,
        Self::NoMemory,
        Self::NoDevice,
        Self::TimedOut,
        Self::Canceled,
        Self::NotSupported,
        Self::Io,
        Self::Again,
    ];

    /// Its name, such as `EINVAL`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "EINVAL",
            Self::NoEntry => "ENOENT",
            Self::Exists => "EEXIST",
            Self::Busy => "EBUSY",
            Self::NoMemory => "ENOMEM",
            Self::NoDevice => "ENODEV",
            Self::TimedOut => "ETIMEDOUT",
            Self::Canceled => "ECANCELED",
            Self::NotSupported => "EOPNOTSUPP",
            Self::Io => "EIO",
            Self::Again => "EAGAIN",
        }
    }

    /// The errno with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|errno| errno.name() == name)
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|errno| *errno as u8 == number)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
