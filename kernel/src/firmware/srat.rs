//! The System Resource Affinity Table: which memory belongs to which node, and where memory may come later.
//!
//! Our own parser, because firmware tables are input: whatever the bytes are, it ends, keeps of every entry what makes
//! sense, and says in one line each what does not. ACPI 6.5 §5.2.16.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use mm::plural::Plural;
use thiserror::Error;

use super::owners::{MemoryAffinity, Owners};
use super::table::{self, TableProblem, u32_at, u64_at};
use super::window::Window;

/// Proximity domains are node ids as they are; a domain that is no node id is refused.
pub(crate) const DOMAIN_LIMIT: u32 = 128;

/// x86_64 knows at most 52 bits of physical address.
const ADDRESS_LIMIT: u64 = 1 << 52;
const PAGE_BYTES: u64 = 4096;
/// Header, a reserved word that is 1, and a reserved quadword.
const FIXED_BYTES: usize = 48;
/// Overlaps are looked for pair by pair, so their number is bounded.
const RANGE_LIMIT: usize = 1024;
/// A damaged table is one piece of news, not thousands.
const PROBLEM_LIMIT: usize = 32;

const TYPE_CPU: u8 = 0;
const TYPE_MEMORY: u8 = 1;
const TYPE_X2APIC_CPU: u8 = 2;
const TYPE_INITIATOR: u8 = 5;

const FLAG_ENABLED: u32 = 1 << 0;
const FLAG_HOTPLUGGABLE: u32 = 1 << 1;
const FLAG_NONVOLATILE: u32 = 1 << 2;

/// What the firmware says about processors, memory and nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Srat {
    /// Whether there is such a table at all.
    pub(crate) is_there: bool,
    /// Enabled processors, in the order of the table.
    pub(crate) cpus: Vec<CpuAffinity>,
    /// Enabled memory ranges, less what was cut from them: first those that are there, then those that may come. Only one
    /// that may come overlaps others, which are there.
    pub(crate) ranges: Vec<MemoryAffinity>,
    /// Who owns which address.
    pub(crate) owners: Owners,
    /// Where memory may come, whoever owns it, lowest first.
    pub(crate) windows: Vec<Window>,
    /// Every node that an entry names, ascending.
    named: BTreeSet<u32>,
    /// What was wrong with the table, to be logged.
    pub(crate) problems: Vec<SratProblem>,
}

/// The node of one processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuAffinity {
    pub(crate) apic_id: u32,
    pub(crate) domain: u32,
}

/// Something in the table that could not be taken as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum SratProblem {
    #[error("{0}")]
    Table(#[from] TableProblem),
    #[error("entry at byte {offset} says it is {} long; the rest of the table is ignored", Plural(*len as u64, "byte"))]
    NoProgress { offset: usize, len: usize },
    #[error("entry at byte {offset} of {len} bytes reaches past the table's end; the rest is ignored")]
    PastEnd { offset: usize, len: usize },
    #[error("entry at byte {offset} of type {kind} has {len} bytes instead of {needed}, ignored")]
    ShortEntry { offset: usize, kind: u8, len: usize, needed: usize },
    #[error("memory at {start:#x} is enabled but has no length, ignored")]
    Empty { start: u64 },
    #[error("memory at {start:#x} is beyond any physical address, ignored")]
    BeyondAddresses { start: u64 },
    #[error("memory at {start:#x} with {len:#x} bytes ends beyond any physical address, cut at {ADDRESS_LIMIT:#x}")]
    EndsBeyondAddresses { start: u64, len: u64 },
    #[error("memory at {start:#x} with {len:#x} bytes does not lie on page boundaries, cut to whole pages")]
    Unaligned { start: u64, len: u64 },
    #[error("memory at {start:#x} with {len:#x} bytes overlaps {other:#x} of the same node")]
    OverlapsSameNode { start: u64, len: u64, other: u64 },
    #[error(
        "memory at {start:#x} with {len:#x} bytes for node {domain} overlaps {other:#x} of node {other_domain}, cut there"
    )]
    Overlaps { start: u64, len: u64, domain: u32, other: u64, other_domain: u32 },
    #[error("memory at {start:#x} is in proximity domain {domain}, but node ids end at {}, ignored", DOMAIN_LIMIT - 1)]
    Domain { start: u64, domain: u32 },
    #[error("processor {apic_id} is in proximity domain {domain}, but node ids end at {}, ignored", DOMAIN_LIMIT - 1)]
    CpuDomain { apic_id: u32, domain: u32 },
    #[error("a device is in proximity domain {domain}, but node ids end at {}, ignored", DOMAIN_LIMIT - 1)]
    DeviceDomain { domain: u32 },
    #[error("more than {RANGE_LIMIT} memory ranges, the rest is ignored")]
    TooManyRanges,
    #[error("more is wrong with this table")]
    More,
}

impl Srat {
    /// Reads the table, keeping what makes sense.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut srat = Self { is_there: true, ..Self::default() };
        let Some(table) = table::open(bytes, b"SRAT", FIXED_BYTES, |problem| srat.problem(problem.into())) else {
            return srat;
        };
        let mut claims = Vec::new();
        let mut offset = FIXED_BYTES;
        while offset < table.bytes.len() {
            let rest = &table.bytes[offset..];
            let len = usize::from(rest.get(1).copied().unwrap_or(0));
            if len < 2 {
                srat.problem(SratProblem::NoProgress { offset, len });
                break;
            }
            let Some(entry) = rest.get(..len) else {
                srat.problem(SratProblem::PastEnd { offset, len });
                break;
            };
            srat.entry(entry, offset, table.revision, &mut claims);
            offset += len;
        }
        srat.settle(claims);
        srat
    }

    /// What a machine without this table is taken to be: one node, nothing to come.
    pub(crate) fn absent() -> Self {
        Self::default()
    }

    /// Every node that is named, ascending; node 0 where the table names none.
    pub(crate) fn nodes(&self) -> Vec<u32> {
        if self.named.is_empty() { [0].into() } else { self.named.iter().copied().collect() }
    }

    /// The node of an address.
    pub(crate) fn node_of(&self, address: u64) -> Option<u32> {
        self.owners.between(address, address + 1).next().map(|owner| owner.domain)
    }

    fn entry(&mut self, entry: &[u8], offset: usize, revision: u8, claims: &mut Vec<MemoryAffinity>) {
        let kind = entry[0];
        let read = match kind {
            TYPE_CPU => self.cpu(entry, revision),
            TYPE_MEMORY => self.memory(entry, revision, claims),
            TYPE_X2APIC_CPU => self.x2apic_cpu(entry),
            TYPE_INITIATOR => self.initiator(entry),
            // Interrupt controllers, and what is not invented yet.
            _ => return,
        };
        if read.is_none() {
            let needed = match kind {
                TYPE_CPU => 16,
                TYPE_MEMORY => 40,
                TYPE_INITIATOR => 32,
                _ => 24,
            };
            self.problem(SratProblem::ShortEntry { offset, kind, len: entry.len(), needed });
        }
    }

    fn cpu(&mut self, entry: &[u8], revision: u8) -> Option<()> {
        let entry = entry.get(..16)?;
        let low = u32::from(entry[2]);
        let high = u32_at(entry, 8)? & 0xffff_ff00;
        self.add_cpu(u32::from(entry[3]), domain(low | high, revision), u32_at(entry, 4)?);
        Some(())
    }

    fn x2apic_cpu(&mut self, entry: &[u8]) -> Option<()> {
        let entry = entry.get(..24)?;
        self.add_cpu(u32_at(entry, 8)?, u32_at(entry, 4)?, u32_at(entry, 12)?);
        Some(())
    }

    fn add_cpu(&mut self, apic_id: u32, domain: u32, flags: u32) {
        if flags & FLAG_ENABLED == 0 {
            return;
        }
        if domain >= DOMAIN_LIMIT {
            self.problem(SratProblem::CpuDomain { apic_id, domain });
            return;
        }
        self.named.insert(domain);
        self.cpus.push(CpuAffinity { apic_id, domain });
    }

    fn initiator(&mut self, entry: &[u8]) -> Option<()> {
        let entry = entry.get(..32)?;
        let (domain, flags) = (u32_at(entry, 4)?, u32_at(entry, 24)?);
        let is_enabled = flags & FLAG_ENABLED != 0;
        if is_enabled && domain < DOMAIN_LIMIT {
            self.named.insert(domain);
        } else if is_enabled {
            self.problem(SratProblem::DeviceDomain { domain });
        }
        Some(())
    }

    fn memory(&mut self, entry: &[u8], revision: u8, claims: &mut Vec<MemoryAffinity>) -> Option<()> {
        let entry = entry.get(..40)?;
        let flags = u32_at(entry, 28)?;
        let said = MemoryAffinity {
            start: u64_at(entry, 8)?,
            len: u64_at(entry, 16)?,
            domain: domain(u32_at(entry, 2)?, revision),
            hotpluggable: flags & FLAG_HOTPLUGGABLE != 0,
            nonvolatile: flags & FLAG_NONVOLATILE != 0,
        };
        if flags & FLAG_ENABLED != 0
            && let Some(range) = self.check(said)
        {
            if claims.len() < RANGE_LIMIT {
                self.named.insert(range.domain);
                claims.push(range);
            } else if !self.problems.contains(&SratProblem::TooManyRanges) {
                self.problem(SratProblem::TooManyRanges);
            }
        }
        Some(())
    }

    /// What of the range can be used by itself, if anything.
    fn check(&mut self, said: MemoryAffinity) -> Option<MemoryAffinity> {
        let MemoryAffinity { start, len, domain, .. } = said;
        if len == 0 {
            self.problem(SratProblem::Empty { start });
            self.named.extend(Some(domain).filter(|domain| *domain < DOMAIN_LIMIT));
            return None;
        }
        if domain >= DOMAIN_LIMIT {
            self.problem(SratProblem::Domain { start, domain });
            return None;
        }
        if start >= ADDRESS_LIMIT {
            self.problem(SratProblem::BeyondAddresses { start });
            return None;
        }
        let most = ADDRESS_LIMIT - start;
        if len > most {
            self.problem(SratProblem::EndsBeyondAddresses { start, len });
        }
        self.whole_pages(MemoryAffinity { len: len.min(most), ..said })
    }

    fn whole_pages(&mut self, said: MemoryAffinity) -> Option<MemoryAffinity> {
        let first = said.start.next_multiple_of(PAGE_BYTES);
        let end = said.end() / PAGE_BYTES * PAGE_BYTES;
        if first != said.start || end != said.end() {
            self.problem(SratProblem::Unaligned { start: said.start, len: said.len });
        }
        let len = end.checked_sub(first).filter(|len| *len > 0)?;
        Some(MemoryAffinity { start: first, len, ..said })
    }

    /// Makes owners and windows of what the entries claim.
    fn settle(&mut self, mut claims: Vec<MemoryAffinity>) {
        claims.sort_unstable_by_key(MemoryAffinity::rank);
        self.report_conflicts(&claims);
        let spans = claims.iter().filter(|claim| claim.hotpluggable);
        self.windows = Window::covering(spans.map(|claim| Window { start: claim.start, len: claim.len }).collect());
        let (may_come, are_there) = claims.into_iter().partition(|claim| claim.hotpluggable);
        let kinds = [are_there, may_come].map(Owners::new);
        self.ranges = kinds.iter().flat_map(Owners::parts).copied().collect();
        self.owners = Owners::new(self.ranges.clone());
    }

    /// A window over other memory is how firmware says where memory may come; any other overlap is a mistake. Each claim
    /// comes after those that are believed before it.
    fn report_conflicts(&mut self, claims: &[MemoryAffinity]) {
        for (place, claim) in claims.iter().enumerate() {
            let MemoryAffinity { start, len, domain, .. } = *claim;
            let conflict = |other: &&MemoryAffinity| other.hotpluggable == claim.hotpluggable && other.overlaps(claim);
            for &MemoryAffinity { start: other, domain: other_domain, .. } in claims[..place].iter().filter(conflict) {
                self.problem(if domain == other_domain {
                    SratProblem::OverlapsSameNode { start, len, other }
                } else {
                    SratProblem::Overlaps { start, len, domain, other, other_domain }
                });
            }
        }
    }

    fn problem(&mut self, problem: SratProblem) {
        if self.problems.len() < PROBLEM_LIMIT {
            self.problems.push(problem);
        } else if self.problems.len() == PROBLEM_LIMIT {
            self.problems.push(SratProblem::More);
        }
    }
}

/// Revision 1 has one byte of proximity domain, and what follows it was reserved.
fn domain(said: u32, revision: u8) -> u32 {
    if revision < 2 { said & 0xff } else { said }
}

#[cfg(test)]
#[path = "srat_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "srat_mutants_tests.rs"]
mod mutants;
