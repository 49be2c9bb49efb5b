//! Slots of virtio's memory-mapped bus: whatever is in one goes to the source that it is one of. Nothing comes there later.

use super::virtio_mem::{self, Mode};
use crate::drivers::virtio::Slot;
use crate::firmware;

/// Takes in what is in the slots that the firmware tells of, and in those that are `named`. Devices begin in that mode.
pub(super) fn start(named: &[Slot], mode: Mode) {
    let told = &firmware::get().virtio_slots;
    let more = named.iter().filter(|slot| told.iter().all(|other| other.start != slot.start));
    for slot in told.iter().chain(more) {
        match slot.device() {
            Some(virtio_mem::NUMBER) => virtio_mem::take_in_slot(slot, mode),
            Some(device) => log::debug!(target: "virtio", "{slot}: device {device} is not used"),
            None => {}
        }
    }
}
