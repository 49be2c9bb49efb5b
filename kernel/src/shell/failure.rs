//! How a command says that it could not do its work: an errno name and one sentence.

use crate::sources::ProbeError;
use crate::sources::virtio_mem::ModeError;
use alloc::string::String;
use core::fmt;
use mm::Errno;
use mm::alloc::request::AllocError;
use mm::hotplug::{AddError, OfflineError, OnlineError, RemoveError};
use mm::poison::PoisonError;
use mm::record::notifier::ChainError;

/// The longest piece of a user's word that an error repeats.
const QUOTED_CHARS: usize = 200;

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) errno: Errno,
    sentence: String,
}

pub(crate) type Outcome = Result<(), Failure>;

impl Failure {
    /// A failure with its reason; whatever would break the one line is made visible instead.
    pub(crate) fn new(errno: Errno, sentence: impl fmt::Display) -> Self {
        let mut kept = String::new();
        for c in alloc::format!("{sentence}").chars() {
            if c.is_control() {
                kept.extend(c.escape_default());
            } else {
                kept.push(c);
            }
        }
        Self { errno, sentence: kept }
    }

    pub(crate) fn invalid(sentence: impl fmt::Display) -> Self {
        Self::new(Errno::Invalid, sentence)
    }

    /// The same, with what it happened to in front.
    pub(crate) fn within(&self, what: impl fmt::Display) -> Self {
        Self::new(self.errno, format_args!("{what}: {}", self.sentence))
    }

    /// A command that notices Ctrl-C or `kill`, having given back what it took.
    pub(crate) fn cancelled() -> Self {
        Self::new(Errno::Canceled, "cancelled")
    }
}

/// Errors of the verbs know their errno and their sentence.
macro_rules! speaks_for_itself {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(error.errno(), error)
            }
        })*
    };
}

speaks_for_itself!(
    AddError,
    OnlineError,
    OfflineError,
    RemoveError,
    AllocError,
    ChainError,
    PoisonError,
    ProbeError,
    ModeError
);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.errno, self.sentence)
    }
}

/// A word of the user's, quoted for an error sentence: printable, and short even when the word is not.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`")?;
        for c in self.0.chars().take(QUOTED_CHARS) {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        if self.0.chars().nth(QUOTED_CHARS).is_some() {
            f.write_str("...")?;
        }
        f.write_str("`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn a_failure_is_one_line_whatever_its_sentence_holds() {
        let failure = Failure::invalid("two\nlines\r\0");
        assert_eq!(format!("{failure}"), "EINVAL: two\\nlines\\r\\u{0}");
    }

    #[test]
    fn a_long_word_is_quoted_in_part() {
        let word = "x".repeat(1000);
        let quoted = format!("{}", Quoted(&word));
        assert_eq!(quoted.len(), QUOTED_CHARS + 5);
        assert!(quoted.ends_with("...`"));
    }
}
