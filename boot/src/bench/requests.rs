//! What a guest asks of its virtio-mem devices: QEMU writes a line for each request that it reads.

use std::fs;

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

/// QEMU's names of the requests, of whatever kind.
const TRACED: &str = "virtio_mem_*_request";

/// The file with the lines of one machine.
pub(super) struct Requests(NamedTempFile);

impl Requests {
    pub(super) fn new() -> Result<Self> {
        NamedTempFile::new().map(Self).context("cannot make a file for what the guest asks")
    }

    /// What QEMU must be told.
    pub(super) fn flags(&self) -> [String; 4] {
        ["-trace", TRACED, "-D", &self.0.path().to_string_lossy()].map(str::to_owned)
    }

    /// How many there were. A QEMU that was built without a log of them has none.
    pub(super) fn count(&self) -> Result<u64> {
        let text = fs::read_to_string(self.0.path()).context("QEMU's log is gone")?;
        Ok(text.lines().count() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_that_qemu_wrote_is_a_request() {
        let requests = Requests::new().expect("a file");
        assert_eq!(requests.count().expect("read"), 0);
        let [.., file] = requests.flags();
        let text = "10@1.5:virtio_mem_plug_request addr=0x100000000 nb_blocks=64\n\
                    10@1.6:virtio_mem_unplug_request addr=0x100000000 nb_blocks=1\n";
        fs::write(file, text).expect("written");
        assert_eq!(requests.count().expect("read"), 2);
    }
}
