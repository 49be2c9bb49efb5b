//! Firmware, its events and hotplug: what only a real machine shows.
#![deny(unsafe_code)]

use super::{Test, skip};
use crate::drivers::fw_cfg;
use crate::firmware::{self, events};
use crate::memory::mm;
use crate::sources::{self, ProbeError, dimm};
use mm::addr::SECTION_SIZE;
use mm::section::kind::Origin;

pub(super) const TESTS: &[Test] = &[
    Test { name: "firmware::the_host_passes_files", run: the_host_passes_files },
    Test { name: "firmware::acpi_mode_is_on_and_listened_to", run: acpi_mode_is_on_and_listened_to },
    Test { name: "firmware::switching_off_is_known", run: switching_off_is_known },
    Test { name: "firmware::boot_blocks_lie_on_the_nodes_of_the_tables", run: boot_blocks_lie_on_their_nodes },
    Test { name: "hotplug::what_dimms_leave_over_is_no_block", run: what_dimms_leave_over_is_no_block },
    Test { name: "hotplug::nothing_is_added_where_nothing_is", run: nothing_is_added_where_nothing_is },
];

fn the_host_passes_files() {
    const ENTRY_BYTES: usize = 20;
    let e820 = fw_cfg::file("etc/e820", 1 << 16).expect("QEMU tells the firmware its memory");
    assert!(!e820.is_empty() && e820.len().is_multiple_of(ENTRY_BYTES));
    assert_eq!(fw_cfg::file("etc/e82", 1 << 16), None);
    assert_eq!(fw_cfg::file("etc/e820", e820.len() - 1), None);
}

fn acpi_mode_is_on_and_listened_to() {
    if firmware::get().fadt.as_ref().is_none_or(|fadt| fadt.sci.is_none()) {
        return skip("there is no fixed hardware");
    }
    assert!(events::is_listening());
}

fn switching_off_is_known() {
    assert!(firmware::get().power_controls().soft_off.is_some());
}

fn boot_blocks_lie_on_their_nodes() {
    let srat = &firmware::get().srat;
    for (id, section) in mm().blocks().filter(|(_, section)| section.origin == Origin::Boot) {
        // The first page of all is not in every table.
        let node = srat.node_of(id.address() + SECTION_SIZE / 2).unwrap_or(0);
        assert_eq!(u32::from(section.node.number()), node, "block {id}");
    }
}

fn what_dimms_leave_over_is_no_block() {
    let leftovers = dimm::leftovers();
    if leftovers.is_empty() {
        return skip("nothing is left over");
    }
    for leftover in leftovers {
        let section = mm::addr::Pfn::containing(leftover.start).section();
        let whole = leftover.start.is_multiple_of(SECTION_SIZE) && leftover.len >= SECTION_SIZE;
        assert!(!whole || mm().section(section).is_none(), "{} at {:#x}", leftover.name, leftover.start);
    }
}

fn nothing_is_added_where_nothing_is() {
    let beyond = (1 << 46) - SECTION_SIZE;
    assert_eq!(sources::probe(beyond, None), Err(ProbeError::Nothing(beyond)));
    assert_eq!(sources::probe(beyond + 1, None), Err(ProbeError::Unaligned(beyond + 1)));
    assert_eq!(sources::probe(0, Some(1)), Err(ProbeError::BadSize(1)));
    assert!(matches!(sources::probe(0, None), Err(ProbeError::Exists(_))));
}
