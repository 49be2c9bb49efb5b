//! Comparisons whose failures show both sides.

use std::fmt::Debug;

use anyhow::{Result, ensure};

/// Fails unless `got` is `want`; `what` names the thing.
pub fn same<T: PartialEq<U> + Debug, U: Debug>(what: &str, got: T, want: U) -> Result<()> {
    ensure!(got == want, "{what}: got {got:?}, expected {want:?}");
    Ok(())
}

/// Fails unless `text` contains `part`.
pub fn contains(what: &str, text: &str, part: &str) -> Result<()> {
    ensure!(text.contains(part), "{what}: `{part}` is not in:\n{text}");
    Ok(())
}

/// Fails if `text` contains `part`.
pub fn lacks(what: &str, text: &str, part: &str) -> Result<()> {
    ensure!(!text.contains(part), "{what}: `{part}` is in:\n{text}");
    Ok(())
}
