//! A hundred thousand tables that are each wrong in a way of their own: nothing comes out of one that is not in it, and what
//! is not in doubt comes out of it whole.

use super::*;
use crate::firmware::fixtures;
use crate::stress::dice::Dice;

const TABLES: u64 = 100_000;
const SEED: u64 = 1;

/// What one enabled memory entry says, read without any care for what the others say.
struct Said {
    start: u64,
    end: u64,
    domain: u32,
    hotpluggable: bool,
}

/// Every enabled memory entry of a table, as far as the entries can be told apart, and the nodes of those that bring no memory.
fn said(table: &[u8]) -> (Vec<Said>, Vec<u32>) {
    let (mut said, mut bare) = (Vec::new(), Vec::new());
    let length = u32::from_le_bytes(table[4..8].try_into().expect("four bytes")) as usize;
    let mut rest = table.get(48..length.min(table.len())).unwrap_or_default();
    while let Some((entry, behind)) = rest.get(1).and_then(|len| rest.split_at_checked((*len).into())) {
        let number = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("eight bytes"));
        let of_memory = |number: u64| number as u32 & if table[8] < 2 { 0xff } else { u32::MAX };
        match entry {
            [] | [_] => break,
            [1, ..] if entry.len() >= 40 && number(28) & 1 == 1 && number(16) == 0 => bare.push(of_memory(number(2))),
            [5, ..] if entry.len() >= 32 && number(24) & 1 == 1 => bare.push(number(4) as u32),
            [1, ..] if entry.len() >= 40 && number(28) & 1 == 1 => said.push(Said {
                start: number(8),
                end: number(8).saturating_add(number(16)).min(1 << 52),
                domain: of_memory(number(2)),
                hotpluggable: number(28) & 2 == 2,
            }),
            _ => {}
        }
        rest = behind;
    }
    said.retain(|said| {
        said.domain < 128 && said.start < said.end && said.start.next_multiple_of(4096) < said.end / 4096 * 4096
    });
    bare.retain(|domain| *domain < 128);
    (said, bare)
}

/// Changes a field of an entry to something that firmware might write, or that nobody would.
fn damage(table: &mut Vec<u8>, dice: &mut Dice) {
    const ENTRY: usize = 40;
    const AT: [(usize, usize); 4] = [(2, 4), (8, 8), (16, 8), (28, 4)];
    let memory: Vec<usize> =
        (48..table.len().saturating_sub(ENTRY)).filter(|at| table[*at..].starts_with(&[1, 40])).collect();
    let place = dice.below(table.len() as u64) as usize;
    match (dice.below(8), dice.pick(&memory)) {
        (0, _) => table[place] = dice.next() as u8,
        (1, _) if dice.once_in(4) => table.truncate(place.max(48)),
        (2, Some(entry)) => {
            let copy = table[entry..entry + ENTRY].to_vec();
            table.extend(copy);
        }
        (_, Some(entry)) => {
            let (field, len) = AT[dice.below(4) as usize];
            let bytes = &mut table[entry + field..][..len];
            let mut wide = [0; 8];
            wide[..len].copy_from_slice(bytes);
            let old = u64::from_le_bytes(wide);
            let near =
                old.wrapping_add([1, 4096, 1 << 27, u64::MAX, u64::MAX << 12, u64::MAX << 27][dice.below(6) as usize]);
            let new = match dice.below(4) {
                0 => old ^ 1 << dice.below(8 * len as u64),
                1 => dice.below(4),
                2 => dice.next() >> dice.below(64),
                _ => near,
            };
            bytes.copy_from_slice(&new.to_le_bytes()[..len]);
        }
        _ => {}
    }
}

/// What holds of any table.
#[track_caller]
fn check(table: &[u8], srat: &Srat) {
    let (said, bare) = said(table);
    assert!(srat.problems.len() <= PROBLEM_LIMIT + 1);
    let owners = srat.owners.parts();
    assert!(owners.is_sorted_by(|low, high| low.end() <= high.start), "{owners:x?}");
    assert!(srat.windows.is_sorted_by(|low, high| low.end() < high.start), "{:x?}", srat.windows);
    let mut nodes: Vec<u32> =
        srat.cpus.iter().map(|cpu| cpu.domain).chain(said.iter().map(|said| said.domain)).chain(bare).collect();
    nodes.sort_unstable();
    nodes.dedup();
    assert_eq!(srat.nodes(), if nodes.is_empty() { vec![0] } else { nodes });

    // Between two neighbours of these, all addresses are alike.
    let mut edges: Vec<u64> =
        said.iter().flat_map(|said| [said.start.next_multiple_of(4096), said.end & !4095]).collect();
    edges.extend(owners.iter().flat_map(|owner| [owner.start, owner.end()]));
    edges.extend(srat.windows.iter().flat_map(|window| [window.start, window.end()]));
    edges.sort_unstable();
    edges.dedup();
    for at in edges {
        let (page_end, contains) = (at + 4096, |said: &&Said| said.start <= at && at + 4096 <= said.end);
        let claims: Vec<&Said> = said.iter().filter(contains).collect();
        let may_come = claims.iter().any(|claim| claim.hotpluggable);
        assert_eq!(
            srat.windows.iter().any(|window| window.start <= at && page_end <= window.end()),
            may_come,
            "{at:#x}"
        );
        let is_there = claims.iter().any(|claim| !claim.hotpluggable);
        let heard: Vec<u32> =
            claims.iter().filter(|claim| claim.hotpluggable != is_there).map(|claim| claim.domain).collect();
        match srat.node_of(at) {
            Some(owner) => assert!(heard.contains(&owner), "{at:#x}: {owner} of {heard:?}"),
            None => assert!(heard.is_empty(), "{at:#x} of {heard:?} has no owner"),
        }
    }
}

#[test]
fn of_a_damaged_table_nothing_is_invented_and_nothing_undisputed_is_lost() {
    let configs = fixtures::CONFIGS.into_iter().filter(|config| !config.ends_with("-plain"));
    let tables: Vec<Vec<u8>> = configs.map(|config| fixtures::bytes(config, "srat.dat")).collect();
    for stream in 0..TABLES {
        let mut dice = Dice::new(SEED, stream);
        let mut table = tables[dice.below(tables.len() as u64) as usize].clone();
        for _ in 0..=dice.below(6) {
            damage(&mut table, &mut dice);
        }
        if dice.once_in(2) {
            let len = table.len() as u32;
            table[4..8].copy_from_slice(&len.to_le_bytes());
        }
        let srat = Srat::parse(&table);
        if table.starts_with(b"SRAT") {
            check(&table, &srat);
        }
    }
}
