//! Sizes as people write them: `4096`, `4K`, `128M`, `1.5G`, `4T`.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// An amount of memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// `n` mebibytes.
pub const fn mib(n: u64) -> Bytes {
    Bytes(n << 20)
}

/// `n` gibibytes.
pub const fn gib(n: u64) -> Bytes {
    Bytes(n << 30)
}

const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl FromStr for Bytes {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let unit = text.chars().last().map(|last| last.to_ascii_uppercase());
        let shift = UNITS.iter().find(|(name, _)| Some(*name) == unit).map(|(_, shift)| *shift);
        let (number, shift) = match shift {
            Some(shift) => (&text[..text.len() - 1], shift),
            None => (text, 0),
        };
        let malformed = || format!("`{text}` is no size; write 4096, 4K, 128M, 1.5G or 4T");
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| part.chars().all(|digit| digit.is_ascii_digit());
        if whole.is_empty() || fraction.is_empty() || !digits(whole) || !digits(fraction) {
            bail!(malformed());
        }
        let too_large = || format!("`{text}` is more than 64 bits hold");
        let whole = whole.parse::<u64>().ok().with_context(too_large)?;
        let whole = whole.checked_mul(1 << shift).with_context(too_large)?;
        let denominator = 10_u64.checked_pow(fraction.len() as u32).with_context(malformed)?;
        let numerator = u128::from(fraction.parse::<u64>().with_context(malformed)?) << shift;
        let (rest, denominator) = (numerator / u128::from(denominator), u128::from(denominator));
        if rest * denominator != numerator {
            bail!("`{text}` is not a whole number of bytes");
        }
        // Less than one unit, which fits.
        let bytes = whole.checked_add(rest as u64).with_context(too_large)?;
        Ok(Self(bytes))
    }
}

/// The largest unit that divides evenly, so that what is printed parses to the same number.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |shift: &u32| self.0 != 0 && self.0.is_multiple_of(1 << shift);
        match UNITS.iter().find(|(_, shift)| exact(shift)) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_the_console_is_understood() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4K", 4096),
            ("128M", 128 << 20),
            ("128m", 128 << 20),
            ("1.5G", 3 << 29),
            ("4T", 4 << 40),
        ] {
            assert_eq!(text.parse::<Bytes>().expect(text), Bytes(bytes), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "G", "-1", "1.G", ".5G", "1,5G", "1GB", "0x10", "0.3K", "99999999999T", "18446744073709551616"]
        {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_printed_parses_to_the_same_number() {
        for bytes in [0, 1, 4095, 4096, 3 << 20, 128 << 20, 3 << 29, 1 << 40, u64::MAX] {
            let text = Bytes(bytes).to_string();
            assert_eq!(text.parse::<Bytes>().expect(&text), Bytes(bytes), "{text}");
        }
    }
}
