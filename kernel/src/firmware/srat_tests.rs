//! Real tables give their numbers; damaged ones give a problem each, and always an end.

use super::*;
use crate::firmware::fixtures;
use proptest::prelude::{Just, Strategy};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn memory(start: u64, len: u64, domain: u32, flags: u32) -> Vec<u8> {
    let mut entry = vec![1, 40];
    entry.extend_from_slice(&domain.to_le_bytes());
    entry.extend_from_slice(&[0; 2]);
    entry.extend_from_slice(&start.to_le_bytes());
    entry.extend_from_slice(&len.to_le_bytes());
    entry.extend_from_slice(&[0; 4]);
    entry.extend_from_slice(&flags.to_le_bytes());
    entry.extend_from_slice(&[0; 8]);
    entry
}

fn x2apic(apic_id: u32, domain: u32) -> Vec<u8> {
    let mut entry = vec![2, 24, 0, 0];
    for field in [domain, apic_id, 1, 0, 0] {
        entry.extend_from_slice(&field.to_le_bytes());
    }
    entry
}

fn table(revision: u8, entries: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    body.extend(entries.concat());
    fixtures::table(b"SRAT", revision, &body)
}

fn parse(entries: &[Vec<u8>]) -> Srat {
    Srat::parse(&table(3, entries))
}

fn range(start: u64, len: u64, domain: u32) -> MemoryAffinity {
    MemoryAffinity { start, len, domain, hotpluggable: false, nonvolatile: false }
}

#[test]
fn every_fixture_gives_its_numbers() {
    let window = MemoryAffinity { hotpluggable: true, ..range(4 * GIB, 0x2_e000_0000, 1) };
    let two_nodes = [range(0, 0xa0000, 0), range(MIB, 255 * MIB, 0), range(256 * MIB, 256 * MIB, 1)];
    let nvdimm = MemoryAffinity { nonvolatile: true, ..range(0x1_1000_0000, 256 * MIB, 1) };
    let mut tables = 0;
    for config in fixtures::CONFIGS {
        if !fixtures::path(config, "srat.dat").exists() {
            assert!(config.ends_with("-plain"), "{config} has no SRAT");
            continue;
        }
        tables += 1;
        let srat = Srat::parse(&fixtures::bytes(config, "srat.dat"));
        assert_eq!(srat.problems, [], "{config}");
        let (cpus, ranges, nodes) = match config {
            "q35-bios-cxl" => {
                let one_node = [range(0, 0xa0000, 0), range(MIB, 511 * MIB, 0)];
                (vec![(0, 0)], [&one_node[..], &[MemoryAffinity { domain: 0, ..window }]].concat(), vec![0])
            }
            _ if config.ends_with("nvdimm") => {
                (vec![(0, 0), (1, 1)], [&two_nodes[..], &[nvdimm, window]].concat(), vec![0, 1])
            }
            _ => (vec![(0, 0), (1, 1)], [&two_nodes[..], &[window]].concat(), vec![0, 1]),
        };
        let seen: Vec<(u32, u32)> = srat.cpus.iter().map(|cpu| (cpu.apic_id, cpu.domain)).collect();
        assert_eq!(seen, cpus, "{config}");
        assert_eq!(srat.ranges, ranges, "{config}");
        assert_eq!(srat.nodes(), nodes, "{config}");
        assert_eq!(srat.windows, [Window { start: 4 * GIB, len: 0x2_e000_0000 }], "{config}");
    }
    assert_eq!(tables, 16);
}

#[test]
fn the_node_of_an_address_is_that_of_what_lies_there_now() {
    let srat = Srat::parse(&fixtures::bytes("q35-bios-numa-nvdimm", "srat.dat"));
    assert_eq!(srat.node_of(0xa0000), None);
    assert_eq!(srat.node_of(MIB), Some(0));
    assert_eq!(srat.node_of(256 * MIB), Some(1));
    assert_eq!(srat.node_of(5 * GIB), Some(1));
    let srat = parse(&[memory(0, 8 * GIB, 1, 3), memory(GIB, GIB, 0, 1)]);
    assert_eq!((srat.problems.len(), srat.node_of(GIB), srat.node_of(0)), (0, Some(0), Some(1)));
}

#[test]
fn a_machine_without_the_table_is_one_node() {
    assert_eq!(Srat::absent().nodes(), [0]);
    assert_eq!(Srat::absent().windows, []);
    assert!(!Srat::absent().is_there && parse(&[]).is_there);
    assert_eq!(parse(&[]).nodes(), [0]);
}

#[test]
fn whoever_brings_neither_memory_nor_processors_names_a_node_all_the_same() {
    let initiator = |domain: u32, flags: u32| {
        let mut entry = vec![5, 32, 0, 1];
        entry.extend_from_slice(&domain.to_le_bytes());
        entry.extend_from_slice(&[0; 16]);
        entry.extend_from_slice(&flags.to_le_bytes());
        entry.extend_from_slice(&[0; 4]);
        entry
    };
    let disabled = [memory(0, 0, 4, 0), memory(GIB, GIB, 5, 0), initiator(6, 0)];
    let enabled = [memory(0, GIB, 0, 1), memory(0, 0, 2, 1), initiator(3, 1), initiator(128, 1), memory(0, 0, 128, 1)];
    let srat = parse(&[disabled.as_slice(), enabled.as_slice()].concat());
    assert_eq!(srat.nodes(), [0, 2, 3]);
    let [empty, domain] = [SratProblem::Empty { start: 0 }, SratProblem::DeviceDomain { domain: 128 }];
    assert_eq!(srat.problems, [empty, domain, empty]);
}

#[test]
fn windows_of_several_nodes_are_one_where_they_touch() {
    let srat = parse(&[
        memory(8 * GIB, GIB, 1, 3),
        memory(4 * GIB, GIB, 0, 3),
        memory(16 * GIB, GIB, 0, 2),
        memory(5 * GIB, GIB + 4096, 1, 3),
    ]);
    let window = |start, len| Window { start, len };
    assert_eq!(srat.windows, [window(4 * GIB, 2 * GIB + 4096), window(8 * GIB, GIB)]);
    assert_eq!((srat.node_of(5 * GIB - 1), srat.node_of(5 * GIB)), (Some(0), Some(1)));
    assert_eq!(srat.problems, []);
}

#[test]
fn a_processor_with_a_wide_apic_id_is_read() {
    let srat = parse(&[x2apic(300, 5), x2apic(301, 128)]);
    assert_eq!(srat.cpus, [CpuAffinity { apic_id: 300, domain: 5 }]);
    assert_eq!(srat.problems, [SratProblem::CpuDomain { apic_id: 301, domain: 128 }]);
}

#[test]
fn the_first_revision_has_one_byte_of_domain() {
    let entries = [memory(0, MIB, 0xabcd_ef07, 1)];
    assert_eq!(Srat::parse(&table(1, &entries)).ranges, [range(0, MIB, 7)]);
    let wide = Srat::parse(&table(2, &entries));
    assert_eq!(wide.problems, [SratProblem::Domain { start: 0, domain: 0xabcd_ef07 }]);
    assert_eq!(wide.ranges, []);
}

#[test]
fn an_entry_without_length_ends_the_table() {
    for len in [0, 1] {
        let srat = parse(&[memory(0, MIB, 0, 1), vec![1, len], memory(MIB, MIB, 0, 1)]);
        assert_eq!(srat.ranges, [range(0, MIB, 0)]);
        assert_eq!(srat.problems, [SratProblem::NoProgress { offset: 88, len: len.into() }]);
    }
    let srat = parse(&[memory(0, MIB, 0, 1), vec![1]]);
    assert_eq!(srat.problems, [SratProblem::NoProgress { offset: 88, len: 0 }]);
}

#[test]
fn an_entry_past_the_end_is_ignored() {
    let srat = parse(&[memory(0, MIB, 0, 1), vec![1, 40, 0, 0]]);
    assert_eq!(srat.ranges, [range(0, MIB, 0)]);
    assert_eq!(srat.problems, [SratProblem::PastEnd { offset: 88, len: 40 }]);
}

#[test]
fn a_too_short_entry_is_ignored_and_the_next_one_read() {
    let srat = parse(&[vec![1, 8, 0, 0, 0, 0, 0, 0], vec![0, 4, 0, 0], vec![2, 2], memory(0, MIB, 0, 1)]);
    assert_eq!(srat.ranges, [range(0, MIB, 0)]);
    let short = |offset, kind, len, needed| SratProblem::ShortEntry { offset, kind, len, needed };
    assert_eq!(srat.problems, [short(48, 1, 8, 40), short(56, 0, 4, 16), short(60, 2, 2, 24)]);
}

#[test]
fn unknown_entries_are_skipped_without_a_word() {
    let srat = parse(&[vec![99, 3, 7], memory(0, MIB, 0, 1)]);
    assert_eq!((srat.ranges.len(), srat.problems.len()), (1, 0));
}

#[test]
fn a_truncated_table_keeps_its_whole_entries() {
    let whole = table(3, &[memory(0, MIB, 0, 1), memory(MIB, MIB, 0, 1)]);
    let srat = Srat::parse(&whole[..100]);
    assert_eq!(srat.ranges, [range(0, MIB, 0)]);
    let said = SratProblem::Table(TableProblem::Truncated { said: 128, present: 100 });
    assert_eq!(srat.problems, [said, SratProblem::PastEnd { offset: 88, len: 40 }]);
}

#[test]
fn a_table_that_is_none_is_refused() {
    let problem = |bytes: &[u8]| Srat::parse(bytes).problems;
    assert_eq!(problem(&[]), [SratProblem::Table(TableProblem::NoHeader { present: 0 })]);
    let other = fixtures::table(b"SLIT", 1, &[0; 40]);
    assert_eq!(problem(&other), [SratProblem::Table(TableProblem::Signature { found: *b"SLIT" })]);
    let header = fixtures::table(b"SRAT", 1, &[]);
    assert_eq!(problem(&header), [SratProblem::Table(TableProblem::TooShort { said: 36, needed: 48 })]);
    let mut lying = table(3, &[memory(0, MIB, 0, 1)]);
    lying[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let srat = Srat::parse(&lying);
    assert_eq!(srat.ranges, [range(0, MIB, 0)]);
    assert_eq!(srat.problems, [SratProblem::Table(TableProblem::Truncated { said: 0xffff_ffff, present: 88 })]);
}

#[test]
fn a_wrong_checksum_is_said_and_the_content_used() {
    let mut damaged = table(3, &[memory(0, MIB, 0, 1)]);
    damaged[9] = damaged[9].wrapping_add(3);
    let srat = Srat::parse(&damaged);
    assert_eq!(srat.ranges, [range(0, MIB, 0)]);
    assert_eq!(srat.problems, [SratProblem::Table(TableProblem::Checksum { sum: 3 })]);
}

#[test]
fn absurd_ranges_are_ignored_one_by_one() {
    let srat = parse(&[
        memory(u64::MAX - 0xfff, 0x2000, 0, 1),
        memory(1 << 52, 0x1000, 0, 1),
        memory(GIB, 0, 0, 1),
        memory(GIB, 0, 0, 0),
        memory(0, MIB, 128, 1),
        memory((1 << 52) - 0x1000, 0x1000, 127, 1),
    ]);
    assert_eq!(srat.ranges, [range((1 << 52) - 0x1000, 0x1000, 127)]);
    assert_eq!(srat.problems.len(), 4);
    assert_eq!(srat.problems[2], SratProblem::Empty { start: GIB });
}

#[test]
fn a_range_that_ends_beyond_any_address_is_cut_there() {
    let srat = parse(&[memory(GIB, 1 << 52, 0, 3), memory(GIB, u64::MAX, 0, 1), memory((1 << 52) - 1, 2, 0, 1)]);
    let most = (1 << 52) - GIB;
    assert_eq!(srat.ranges, [range(GIB, most, 0), MemoryAffinity { hotpluggable: true, ..range(GIB, most, 0) }]);
    assert_eq!(srat.windows, [Window { start: GIB, len: most }]);
    assert_eq!(
        srat.problems[0].to_string(),
        "memory at 0x40000000 with 0x10000000000000 bytes ends beyond any physical address, cut at 0x10000000000000"
    );
}

#[test]
fn a_range_off_page_boundaries_is_cut_to_whole_pages() {
    let srat = parse(&[memory(0x800, 0x2000, 0, 1), memory(0x10800, 0x900, 0, 1)]);
    assert_eq!(srat.ranges, [range(0x1000, 0x1000, 0)]);
    assert_eq!(srat.problems.len(), 2);
}

#[test]
fn a_conflict_costs_nothing_but_what_is_in_it_and_is_said_in_one_line() {
    let entries = [memory(0, 4 * MIB, 0, 1), memory(MIB, MIB, 1, 1), memory(3 * MIB, 2 * MIB, 0, 1)];
    let srat = parse(&entries);
    assert_eq!(srat.ranges, [range(0, MIB, 0), range(MIB, MIB, 1), range(2 * MIB, MIB, 0), range(3 * MIB, 2 * MIB, 0)]);
    assert_eq!(srat.owners.parts(), srat.ranges);
    let text: Vec<String> = srat.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "memory at 0x0 with 0x400000 bytes for node 0 overlaps 0x100000 of node 1, cut there",
            "memory at 0x0 with 0x400000 bytes overlaps 0x300000 of the same node",
        ]
    );
    let srat = parse(&entries[..2].iter().cloned().chain([memory(0, 4 * MIB, 0, 3)]).collect::<Vec<_>>());
    assert_eq!(srat.windows, [Window { start: 0, len: 4 * MIB }], "memory in a window is no conflict");
    assert_eq!(srat.problems.len(), 1);
}

#[test]
fn ranges_of_one_node_that_overlap_count_once() {
    let srat = parse(&[memory(0, 4 * MIB, 0, 1), memory(3 * MIB, 2 * MIB, 0, 1), memory(3 * MIB, 2 * MIB, 0, 1)]);
    assert_eq!(srat.ranges, [range(0, 3 * MIB, 0), range(3 * MIB, 2 * MIB, 0)]);
    let said = |start, len| SratProblem::OverlapsSameNode { start, len, other: 3 * MIB };
    assert_eq!(srat.problems, [said(3 * MIB, 2 * MIB), said(0, 4 * MIB), said(0, 4 * MIB)]);
}

#[test]
fn a_window_that_overlaps_another_nodes_is_a_window_all_the_same() {
    let srat = parse(&[memory(4 * GIB, 4 * GIB, 1, 3), memory(8 * GIB - 4096, 2 * GIB, 0, 3), memory(0, GIB, 0, 1)]);
    assert_eq!(srat.windows, [Window { start: 4 * GIB, len: 6 * GIB - 4096 }]);
    assert_eq!(srat.node_of(8 * GIB - 4096), Some(0));
    assert_eq!(srat.node_of(8 * GIB - 4097), Some(1));
    assert_eq!(srat.problems.len(), 1);
}

#[test]
fn a_node_that_loses_all_its_memory_is_still_named() {
    let srat = parse(&[memory(0, MIB, 0, 1), memory(0, MIB, 1, 1)]);
    assert_eq!((srat.ranges.len(), srat.node_of(0), srat.nodes()), (1, Some(0), vec![0, 1]));
}

#[test]
fn thousands_of_bad_entries_are_a_few_lines() {
    let entries: Vec<Vec<u8>> = (0..5000).map(|_| memory(0, u64::MAX, 0, 1)).collect();
    let srat = parse(&entries);
    assert_eq!((srat.problems.len(), srat.problems.last()), (33, Some(&SratProblem::More)));
    let entries: Vec<Vec<u8>> = (0..5000).map(|n| memory(n * MIB, MIB, 0, 1)).collect();
    let srat = parse(&entries);
    assert_eq!((srat.ranges.len(), &srat.problems[..]), (1024, &[SratProblem::TooManyRanges][..]));
}

/// Entries on a few addresses, so that many are in each other's way.
fn crowd() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let entry = (0..12u64, 1..8u64, 0..3u32, 0..8u32);
    let entry = entry.prop_map(|(start, len, domain, flags)| memory(start * MIB, len * MIB, domain, flags | 1));
    proptest::collection::vec(entry, 0..8)
}

proptest::proptest! {
    #[test]
    fn the_order_of_the_entries_does_not_matter(
        (entries, shuffled) in crowd().prop_flat_map(|entries| (Just(entries.clone()), Just(entries).prop_shuffle())),
    ) {
        proptest::prop_assert_eq!(parse(&entries), parse(&shuffled));
    }

    #[test]
    fn any_bytes_are_survived(flips in fixtures::mutations(300)) {
        check(&Srat::parse(&fixtures::mutated("q35-bios-numa-nvdimm", "srat.dat", &flips)));
    }

    #[test]
    fn noise_behind_a_good_header_is_survived(body in proptest::collection::vec(0u8..64, 12..600)) {
        check(&Srat::parse(&fixtures::table(b"SRAT", 3, &body)));
    }
}

/// What holds of any result, whatever the bytes were.
fn check(srat: &Srat) {
    assert!(srat.problems.len() <= 33);
    for range in &srat.ranges {
        assert!(range.len > 0 && range.end() <= 1 << 52 && range.domain < DOMAIN_LIMIT);
        assert!(range.start.is_multiple_of(4096) && range.len.is_multiple_of(4096));
    }
    assert!(srat.windows.iter().all(|window| window.end() <= 1 << 52));
    assert!(srat.owners.parts().is_sorted_by(|low, high| low.end() <= high.start));
    assert!(!srat.nodes().is_empty());
}
