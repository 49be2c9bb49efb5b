//! The words a command takes, as values: sizes, addresses, numbers, block lists, and how sizes are shown.

use super::failure::{Failure, Quoted};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

const PAGE_SHIFT: u32 = 12;

/// More entries than this in one block list are refused, not digested.
const MAX_PIECES: usize = 1024;

/// The suffixes of sizes, smallest first.
const UNITS: [(char, u32); 5] = [('K', 10), ('M', 20), ('G', 30), ('T', 40), ('P', 50)];

/// A size in bytes: `4096`, `4K`, `128M`, `1.5G`.
pub(crate) fn size(word: &str) -> Result<u64, Failure> {
    let not_a_size = || Failure::invalid(format_args!("{} is not a size like 4096, 4K, 128M or 1.5G", Quoted(word)));
    let upper = word.to_ascii_uppercase();
    let short = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
    let unit = UNITS.iter().find(|(suffix, _)| short.ends_with(*suffix));
    if unit.is_none() && short.len() != upper.len() {
        return Err(not_a_size());
    }
    let (number, shift) = unit.map_or((short, 0), |&(_, shift)| (&short[..short.len() - 1], shift));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if shift == 0 && number.contains('.') {
        return Err(not_a_size());
    }
    let too_large = || Failure::invalid(format_args!("{} is too large", Quoted(word)));
    let whole = digits(whole).ok_or_else(not_a_size)?.ok_or_else(too_large)?;
    let bytes = whole.checked_mul(1 << shift).ok_or_else(too_large)?;
    let part = fraction_of(fraction, shift).ok_or_else(not_a_size)?;
    bytes.checked_add(part).ok_or_else(too_large)
}

/// The bytes in `0.FRACTION` of a unit, rounded down.
fn fraction_of(fraction: &str, shift: u32) -> Option<u64> {
    let mut part: u128 = 0;
    let mut scale: u128 = 1;
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    for byte in fraction.bytes().take(18) {
        part = part * 10 + u128::from(byte - b'0');
        scale *= 10;
    }
    u64::try_from((part << shift) / scale).ok()
}

/// `None` for what is no number, `Some(None)` for a number beyond 64 bits.
fn digits(word: &str) -> Option<Option<u64>> {
    let only_digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    only_digits.then(|| word.parse().ok())
}

/// A whole number; `what` names it in the refusal.
pub(crate) fn number(word: &str, what: &str) -> Result<u64, Failure> {
    match digits(word) {
        Some(Some(value)) => Ok(value),
        Some(None) => Err(Failure::invalid(format_args!("{} is too large for {what}", Quoted(word)))),
        None => Err(Failure::invalid(format_args!("{} is not {what}", Quoted(word)))),
    }
}

/// A physical address in bytes: `0x1_0000_0000`, `4294967296`, `4G`, or `pfn:N`.
pub(crate) fn address(word: &str) -> Result<u64, Failure> {
    if let Some(frame) = word.strip_prefix("pfn:") {
        let frame = integer(frame).ok_or_else(|| not_an_address(word))?;
        let limit = u64::MAX >> PAGE_SHIFT;
        return if frame <= limit {
            Ok(frame << PAGE_SHIFT)
        } else {
            Err(Failure::invalid(format_args!("{} is too large", Quoted(word))))
        };
    }
    match integer(word) {
        Some(address) => Ok(address),
        None => size(word).map_err(|_| not_an_address(word)),
    }
}

fn not_an_address(word: &str) -> Failure {
    Failure::invalid(format_args!("{} is not an address like 0x1_0000_0000, 4G or pfn:1048576", Quoted(word)))
}

/// Decimal, or hexadecimal after `0x`; underscores between digits are for the eye.
fn integer(word: &str) -> Option<u64> {
    let plain: String = word.chars().filter(|&c| c != '_').collect();
    if word.starts_with('_') || word.ends_with('_') {
        return None;
    }
    match plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")) {
        Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16).ok(),
        Some(_) => None,
        None => digits(&plain).flatten(),
    }
}

/// One piece of a block list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Blocks by number, both ends included.
    Blocks { first: u64, last: u64 },
    /// All blocks of a memory group, by its name.
    Group(String),
}

/// What `BLOCKS` names: `34`, `32-39`, `32,34-36`, or a group's name. Numbers are sorted, merged and come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockList(Vec<Piece>);

impl BlockList {
    /// Understands a word; whether such blocks exist is not asked. `limit` is the first number beyond the
    /// address width.
    pub(crate) fn parse(word: &str, limit: u64) -> Result<Self, Failure> {
        let mut numbers = Vec::new();
        let mut groups = Vec::new();
        for (index, piece) in word.split(',').enumerate() {
            if index == MAX_PIECES {
                return Err(Failure::invalid(format_args!("{} has more than {MAX_PIECES} pieces", Quoted(word))));
            }
            if is_group_name(piece) {
                groups.push(Piece::Group(piece.into()));
            } else {
                numbers.push(block_range(piece, limit)?);
            }
        }
        let mut pieces = merge(numbers);
        for group in groups {
            if !pieces.contains(&group) {
                pieces.push(group);
            }
        }
        Ok(Self(pieces))
    }

    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.0
    }
}

fn is_group_name(piece: &str) -> bool {
    piece.starts_with(|c: char| c.is_ascii_alphabetic())
        && piece.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

fn block_range(piece: &str, limit: u64) -> Result<(u64, u64), Failure> {
    let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
    let what = "a block like 34, 32-39 or 32,34-36, nor a group";
    let (Some(first), Some(last)) = (digits(first), digits(last)) else {
        return Err(Failure::invalid(format_args!("{} is not {what}", Quoted(piece))));
    };
    // A number beyond 64 bits is beyond the address width as well.
    let (first, last) = (first.unwrap_or(u64::MAX), last.unwrap_or(u64::MAX));
    if last >= limit || first >= limit {
        return Err(Failure::invalid(format_args!(
            "block {} is beyond the address width, the last is {}",
            Quoted(piece),
            limit - 1
        )));
    }
    if first > last {
        return Err(Failure::invalid(format_args!("{} runs backwards", Quoted(piece))));
    }
    Ok((first, last))
}

fn merge(mut numbers: Vec<(u64, u64)>) -> Vec<Piece> {
    numbers.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (first, last) in numbers {
        match merged.last_mut() {
            Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged.into_iter().map(|(first, last)| Piece::Blocks { first, last }).collect()
}

impl fmt::Display for BlockList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, piece) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match piece {
                Piece::Blocks { first, last } => write!(f, "{}", Span(*first, *last))?,
                Piece::Group(name) => f.write_str(name)?,
            }
        }
        Ok(())
    }
}

/// A run of numbers as people write it: `34` or `32-39`.
pub(crate) struct Span(pub(crate) u64, pub(crate) u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 { write!(f, "{}", self.0) } else { write!(f, "{}-{}", self.0, self.1) }
    }
}

/// A size for people: `128M`, `1.5G`; exact when the unit divides it, else to the nearest tenth.
pub(crate) struct Human(pub(crate) u64);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(place) = UNITS.iter().rposition(|(_, shift)| self.0 >> shift > 0) else {
            return f.pad(&alloc::format!("{}B", self.0));
        };
        let (suffix, shift) = UNITS[place];
        let tenths = (u128::from(self.0) * 10 + (1 << (shift - 1))) >> shift;
        // What rounds up to all of the next unit is one of those.
        let (suffix, tenths) = match UNITS.get(place + 1) {
            Some((next, _)) if tenths == 10 << 10 => (*next, 10),
            _ => (suffix, tenths),
        };
        let (whole, tenth) = (tenths / 10, tenths % 10);
        let text =
            if tenth == 0 { alloc::format!("{whole}{suffix}") } else { alloc::format!("{whole}.{tenth}{suffix}") };
        f.pad(&text)
    }
}

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
