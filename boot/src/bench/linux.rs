//! Linux in the same QEMU, for comparison.

use anyhow::Result;

use super::Options;
use super::report::Report;

pub(super) fn measure(_options: &Options, _report: &mut Report) -> Result<()> {
    Ok(())
}
