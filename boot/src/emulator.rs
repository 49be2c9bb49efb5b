//! Which QEMU runs the machines: what the environment names, or the one that is installed.

use std::sync::OnceLock;

/// Names another QEMU than the installed one; an absolute path, or a name to be looked up.
pub const VARIABLE: &str = "QEMU";

const INSTALLED: &str = "qemu-system-x86_64";

/// The program.
pub fn program() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| named(std::env::var(VARIABLE).ok()))
}

fn named(by: Option<String>) -> String {
    by.filter(|name| !name.is_empty()).unwrap_or_else(|| INSTALLED.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_another_one() {
        assert_eq!(named(Some("/opt/qemu/bin/qemu-system-x86_64".into())), "/opt/qemu/bin/qemu-system-x86_64");
        assert_eq!(named(Some(String::new())), INSTALLED);
        assert_eq!(named(None), INSTALLED);
    }
}
