//! Numbers of things, as people write them.

use core::fmt;

/// So many of something, which is called by the word for one: `1 page`, `2 pages`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plural(pub u64, pub &'static str);

impl fmt::Display for Plural {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, one) = self;
        let ending = if *count == 1 { "" } else { "s" };
        write!(f, "{count} {one}{ending}")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::hotplug::OfflineError;
    use std::string::ToString;

    #[test]
    fn only_one_is_singular() {
        let shown = [0, 1, 2].map(|count| Plural(count, "page").to_string());
        assert_eq!(shown, ["0 pages", "1 page", "2 pages"]);
    }

    #[test]
    fn a_refusal_counts_pages_as_people_do() {
        let shown = [1, 2].map(|short_by| OfflineError::NoDestination { short_by }.to_string());
        assert_eq!(shown[0], "there is no place elsewhere for 1 page of what is in use");
        assert_eq!(shown[1], "there is no place elsewhere for 2 pages of what is in use");
    }
}
