//! Call sites: where in the source unmovable memory was allocated, which explains why it stands in the way.
//!
//! A struct page has seven bits for it, so sites are numbered as they turn up. There are a few dozen in a kernel.

use core::panic::Location;
use core::{fmt, ptr};
use once_cell::race::OnceRef;

/// A place in the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Site(&'static Location<'static>);

impl Site {
    /// Where the function is called that calls this, if that has `#[track_caller]`; else where this is called.
    #[must_use]
    #[track_caller]
    pub const fn here() -> Self {
        Self(Location::caller())
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.file(), self.0.line())
    }
}

/// How many sites can be told apart; what a struct page says is one more, or 0 for none.
pub(crate) const SITE_LIMIT: usize = 127;

/// The sites that have turned up. Read and extended without a lock, also under those of zones and caches.
pub(crate) struct SiteTable {
    /// A site stands in the first free place from the one that its line and column name.
    known: [OnceRef<'static, Location<'static>>; SITE_LIMIT],
}

impl SiteTable {
    pub(crate) const fn new() -> Self {
        Self { known: [const { OnceRef::new() }; SITE_LIMIT] }
    }

    /// The number of a site; 0 if there are too many.
    pub(crate) fn number(&self, site: Site) -> u8 {
        // Not by its address: the compiler may keep several copies of a location.
        let start = site.0.line() as usize ^ (site.0.column() as usize) << 3;
        let places = (0..SITE_LIMIT).map(|step| (start + step) % SITE_LIMIT);
        let is_here = |place: &usize| {
            let known = self.known[*place].get_or_init(|| site.0);
            ptr::eq(known, site.0) || known == site.0
        };
        places.into_iter().find(is_here).map_or(0, |place| place as u8 + 1)
    }

    /// The site of that number.
    pub(crate) fn site(&self, number: u8) -> Option<Site> {
        let place = usize::from(number).checked_sub(1)?;
        self.known.get(place)?.get().map(Site)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    #[track_caller]
    fn caller() -> Site {
        Site::here()
    }

    #[test]
    fn a_site_is_where_the_caller_stands() {
        let line = line!() + 1;
        let told = std::format!("{}", caller());
        assert_eq!(told, std::format!("{}:{line}", file!()));
    }

    #[test]
    fn sites_keep_their_numbers() {
        let table = SiteTable::new();
        let sites = [caller(), caller(), caller(), caller(), caller()];
        let numbers: Vec<u8> = sites.iter().map(|site| table.number(*site)).collect();
        for (site, number) in sites.iter().zip(&numbers) {
            assert_eq!(table.number(*site), *number);
            assert_eq!(table.site(*number), Some(*site));
            assert_eq!(numbers.iter().filter(|other| *other == number).count(), 1);
        }
        assert_eq!(table.site(0), None);
    }

    #[test]
    fn a_full_table_numbers_no_more() {
        let table = SiteTable::new();
        let other = Site(Location::caller());
        for place in &table.known {
            place.set(other.0).expect("free");
        }
        assert_ne!(table.number(other), 0);
        assert_eq!(table.number(caller()), 0);
    }
}
