//! Which QEMU runs the machines: what the environment names, or the one that is installed.

use std::fmt;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// Names another QEMU than the installed one.
pub const VARIABLE: &str = "QEMU";

const INSTALLED: &str = "qemu-system-x86_64";

/// The program, as a path or as a name to be looked up.
pub fn program() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| named(std::env::var(VARIABLE).ok()))
}

/// A path is meant from here, wherever the program is started.
fn named(by: Option<String>) -> String {
    let name = by.filter(|name| !name.is_empty()).unwrap_or_else(|| INSTALLED.to_owned());
    let absolute = name.contains('/').then(|| std::path::absolute(&name).ok()?.into_os_string().into_string().ok());
    absolute.flatten().unwrap_or(name)
}

/// What a QEMU says that it is; versions are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl Version {
    /// That of the QEMU that runs the machines.
    ///
    /// # Errors
    ///
    /// It does not start, or says something else.
    pub fn of_program() -> Result<Self> {
        let program = program();
        let output = Command::new(program).arg("--version").current_dir(workspace::root()).output();
        let output = output.with_context(|| format!("{program} does not start"))?;
        ensure!(output.status.success(), "`{program} --version` fails");
        let text = String::from_utf8_lossy(&output.stdout);
        Self::parse(&text).with_context(|| format!("`{program} --version` says: {}", text.trim()))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.strip_prefix("QEMU emulator version ")?.split(|c: char| !c.is_ascii_digit());
        Some(Self { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_another_one() {
        assert_eq!(named(Some("/opt/qemu/bin/qemu-system-x86_64".into())), "/opt/qemu/bin/qemu-system-x86_64");
        assert!(named(Some("./qemu".into())).starts_with('/'));
        assert_eq!(named(Some(String::new())), INSTALLED);
        assert_eq!(named(None), INSTALLED);
    }

    #[test]
    fn versions_are_read_and_ordered() {
        let debian =
            Version::parse("QEMU emulator version 7.2.17 (Debian 1:7.2+dfsg-7)\nCopyright").expect("a version");
        assert_eq!(debian, Version { major: 7, minor: 2 });
        assert!(debian < Version::parse("QEMU emulator version 10.0.3").expect("a version"));
        assert_eq!(Version::parse("GNU bash, version 5.2"), None);
    }
}
