//! QEMU's firmware configuration device: named files that the host passes to the guest.
//!
//! The old interface of two ports is all that short files need (QEMU docs/specs/fw_cfg.rst): the 16-bit selector names an
//! item, and each read of the data port gives its next byte.
#![deny(unsafe_code)]

use crate::arch::ports::{self, PortRange};
use alloc::vec::Vec;

const SELECTOR: u16 = 0;
const DATA: u16 = 1;

const ITEM_SIGNATURE: u16 = 0x00;
const ITEM_DIRECTORY: u16 = 0x19;
const SIGNATURE: [u8; 4] = *b"QEMU";
const NAME_BYTES: usize = 56;
/// QEMU's limit is far below; whatever else may answer cannot keep us reading for ever.
const FILE_LIMIT: u32 = 1024;

/// The content of a file, if the device and the file are there and it is not longer than `limit`.
pub(crate) fn file(name: &str, limit: usize) -> Option<Vec<u8>> {
    read_file(&mut ports::fw_cfg(), name, limit)
}

/// Choosing an item and reading its bytes one after another.
trait Items {
    fn select(&mut self, item: u16);
    fn next_byte(&mut self) -> u8;

    fn next<const N: usize>(&mut self) -> [u8; N] {
        core::array::from_fn(|_| self.next_byte())
    }
}

impl Items for PortRange {
    fn select(&mut self, item: u16) {
        self.write_u16(SELECTOR, item);
    }

    fn next_byte(&mut self) -> u8 {
        self.read_u8(DATA)
    }
}

fn read_file(items: &mut impl Items, name: &str, limit: usize) -> Option<Vec<u8>> {
    items.select(ITEM_SIGNATURE);
    if items.next() != SIGNATURE {
        return None;
    }
    let (item, len) = find(items, name)?;
    if len > limit {
        log::warn!(target: "fw_cfg", "{name} has {len} bytes, more than {limit}, and is ignored");
        return None;
    }
    items.select(item);
    Some((0..len).map(|_| items.next_byte()).collect())
}

/// The item and the length of a file.
fn find(items: &mut impl Items, name: &str) -> Option<(u16, usize)> {
    items.select(ITEM_DIRECTORY);
    let count = u32::from_be_bytes(items.next()).min(FILE_LIMIT);
    (0..count).find_map(|_| {
        let len = u32::from_be_bytes(items.next()) as usize;
        let item = u16::from_be_bytes(items.next());
        let _reserved: [u8; 2] = items.next();
        let padded: [u8; NAME_BYTES] = items.next();
        let end = padded.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
        (padded[..end] == *name.as_bytes()).then_some((item, len))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::collections::VecDeque;
    use std::vec;

    /// The device as QEMU makes it; without items it is not there, and its ports read as ones.
    #[derive(Default)]
    struct Fake {
        items: BTreeMap<u16, Vec<u8>>,
        rest: VecDeque<u8>,
    }

    impl Fake {
        fn with_files(files: &[(&str, &[u8])]) -> Self {
            let mut directory = (files.len() as u32).to_be_bytes().to_vec();
            let mut items = BTreeMap::from([(ITEM_SIGNATURE, SIGNATURE.to_vec())]);
            for (item, (name, content)) in (0x20u16..).zip(files) {
                directory.extend((content.len() as u32).to_be_bytes());
                directory.extend(item.to_be_bytes());
                directory.extend([0; 2]);
                let mut padded = name.as_bytes().to_vec();
                padded.resize(NAME_BYTES, 0);
                directory.extend(padded);
                items.insert(item, content.to_vec());
            }
            items.insert(ITEM_DIRECTORY, directory);
            Self { items, rest: VecDeque::new() }
        }
    }

    impl Items for Fake {
        fn select(&mut self, item: u16) {
            self.rest = self.items.get(&item).cloned().unwrap_or_default().into();
        }

        fn next_byte(&mut self) -> u8 {
            let past_the_end = if self.items.is_empty() { 0xff } else { 0 };
            self.rest.pop_front().unwrap_or(past_the_end)
        }
    }

    #[test]
    fn a_file_is_found_by_its_whole_name() {
        let mut fake = Fake::with_files(&[("etc/e820", b"zzz"), ("opt/altmap/cmdline", b"mem=1G"), ("opt", b"")]);
        assert_eq!(read_file(&mut fake, "opt/altmap/cmdline", 100), Some(b"mem=1G".to_vec()));
        assert_eq!(read_file(&mut fake, "opt", 100), Some(vec![]));
        assert_eq!(read_file(&mut fake, "opt/altmap", 100), None);
    }

    #[test]
    fn a_machine_without_the_device_has_no_files() {
        assert_eq!(read_file(&mut Fake::default(), "opt/altmap/cmdline", 100), None);
    }

    #[test]
    fn a_file_that_is_too_long_is_ignored() {
        let mut fake = Fake::with_files(&[("a", &[7; 101])]);
        assert_eq!(read_file(&mut fake, "a", 100), None);
        assert_eq!(read_file(&mut fake, "a", 101).map(|content| content.len()), Some(101));
    }

    #[test]
    fn an_absurd_directory_comes_to_an_end() {
        let mut fake = Fake::with_files(&[]);
        fake.items.insert(ITEM_DIRECTORY, vec![0xff; 100]);
        assert_eq!(read_file(&mut fake, "a", 100), None);
    }
}
