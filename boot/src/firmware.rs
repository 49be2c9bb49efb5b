//! Where the system's packages put OVMF.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// One firmware per line, code and variable store; `x` reads the same list.
const KNOWN: &str = include_str!("../ovmf-paths");

/// A UEFI firmware: the code, and the template of its variable store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ovmf {
    pub code: PathBuf,
    pub variables: PathBuf,
}

/// The first firmware of the list that is installed.
pub fn ovmf() -> Result<Ovmf> {
    match candidates().find(|ovmf| ovmf.code.exists() && ovmf.variables.exists()) {
        Some(ovmf) => Ok(ovmf),
        None => bail!("no UEFI firmware: install OVMF (the package `ovmf`, or `edk2-ovmf`)"),
    }
}

fn candidates() -> impl Iterator<Item = Ovmf> {
    KNOWN.lines().filter_map(|line| {
        let (code, variables) = line.split_once(' ')?;
        Some(Ovmf { code: Path::new(code).into(), variables: Path::new(variables).into() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_names_code_and_variables() {
        assert_eq!(candidates().count(), KNOWN.lines().count());
        assert!(candidates().all(|ovmf| ovmf.code.is_absolute() && ovmf.variables.is_absolute()));
    }
}
