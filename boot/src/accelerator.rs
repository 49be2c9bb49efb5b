//! KVM where it runs a kernel, and no slower than TCG; TCG otherwise, unless somebody says which.

mod kept;
mod trial;

use std::sync::OnceLock;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::image;

/// Names the accelerator, `tcg` or `kvm`, where nothing on the command line does.
pub const VARIABLE: &str = "ALTMAP_ACCEL";

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    Kvm,
    Tcg,
    /// TCG that counts what it executes: the guest's clocks advance by a nanosecond with every instruction. They follow real
    /// time only while the guest idles, so that its idle ticks do not pile up.
    Counting,
}

impl Accelerator {
    /// What runs the guests of this process, as [`Choice::made`] says.
    ///
    /// # Panics
    ///
    /// If the environment names an accelerator that is none.
    pub fn best() -> Self {
        Choice::made().unwrap_or_else(|error| panic!("{error}")).accelerator
    }

    /// As `-accel` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
            Self::Counting => "tcg,thread=single",
        }
    }
}

/// Which accelerator is used, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    pub accelerator: Accelerator,
    pub why: String,
}

impl Choice {
    /// The choice for this machine: what [`VARIABLE`] names, else what a kernel did under KVM when it was tried, which is now if it was
    /// not before.
    ///
    /// # Errors
    ///
    /// The variable names something else, or the kernel that is to be tried does not build or run.
    pub fn made() -> Result<Self> {
        static MADE: OnceLock<Result<Choice, String>> = OnceLock::new();
        let made = MADE.get_or_init(|| match Self::known() {
            Ok(Some(choice)) => Ok(choice),
            Ok(None) => Self::tried().map_err(|error| format!("{error:#}")),
            Err(error) => Err(error.to_string()),
        });
        made.clone().map_err(anyhow::Error::msg)
    }

    /// The same as far as it is known without a machine that is started for it.
    ///
    /// # Errors
    ///
    /// The variable names something else.
    pub fn known() -> Result<Option<Self>> {
        let named = std::env::var_os(VARIABLE).map(|name| name.to_string_lossy().into_owned());
        let named = Self::named(named.as_deref().unwrap_or_default())?;
        Ok(named.or_else(Self::without_kvm).or_else(kept::choice))
    }

    fn named(name: &str) -> Result<Option<Self>> {
        let accelerator = match name {
            "" => return Ok(None),
            "tcg" => Accelerator::Tcg,
            "kvm" => Accelerator::Kvm,
            other => bail!("{VARIABLE}={other}: it is tcg or kvm"),
        };
        Ok(Some(Self { accelerator, why: format!("{VARIABLE} says so") }))
    }

    fn without_kvm() -> Option<Self> {
        let why = "/dev/kvm does not open".to_owned();
        (!trial::has_device()).then_some(Self { accelerator: Accelerator::Tcg, why })
    }

    fn tried() -> Result<Self> {
        let images = image::up_to_date()?;
        eprintln!("trying once what a kernel does under this machine's KVM, beside TCG");
        let choice = trial::choice(|accelerator, limit| trial::run(&images, accelerator, limit))?;
        eprintln!("{}: {}", choice.accelerator.name(), choice.why);
        if let Err(error) = kept::keep(&choice) {
            eprintln!("the next time it is tried again: {error:#}");
        }
        Ok(choice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accelerator_that_is_named_is_used_without_a_look_at_the_machine() {
        for (name, accelerator) in [("tcg", Accelerator::Tcg), ("kvm", Accelerator::Kvm)] {
            let choice = Choice::named(name).expect("a name").expect("one of them");
            assert_eq!((choice.accelerator, choice.why.as_str()), (accelerator, "ALTMAP_ACCEL says so"));
        }
        assert_eq!(Choice::named("").expect("no name"), None);
        let error = Choice::named("hvf").expect_err("no such accelerator").to_string();
        assert_eq!(error, "ALTMAP_ACCEL=hvf: it is tcg or kvm");
    }
}
