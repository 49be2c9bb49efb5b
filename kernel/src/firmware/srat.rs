//! The System Resource Affinity Table: which memory belongs to which node, and where memory may come later.
//!
//! Our own parser, because firmware tables are input: whatever the bytes are, it ends, keeps the entries that make
//! sense, and says in one line each what was wrong with the others. ACPI 6.5 §5.2.16.

use alloc::vec::Vec;
use mm::plural::Plural;
use thiserror::Error;

use super::table::{self, TableProblem, u32_at, u64_at};

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
    /// Enabled processors, in the order of the table.
    pub(crate) cpus: Vec<CpuAffinity>,
    /// Enabled memory ranges, in the order of the table. Only a hotplug window may overlap others.
    pub(crate) ranges: Vec<MemoryAffinity>,
    /// Nodes of enabled entries that bring neither: of devices that only initiate, of memory without length.
    bare: Vec<u32>,
    /// What was wrong with the table, to be logged.
    pub(crate) problems: Vec<SratProblem>,
}

/// The node of one processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuAffinity {
    pub(crate) apic_id: u32,
    pub(crate) domain: u32,
}

/// The node of one range of physical addresses, whole pages, not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryAffinity {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) domain: u32,
    /// Memory may come and go here; whether it is there now is not said.
    pub(crate) hotpluggable: bool,
    pub(crate) nonvolatile: bool,
}

impl MemoryAffinity {
    /// The first address behind the range.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len
    }

    /// Whether the address lies in the range.
    pub(crate) fn contains(&self, address: u64) -> bool {
        (self.start..self.end()).contains(&address)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

/// A span of addresses in which memory may appear later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start: u64,
    pub(crate) len: u64,
}

impl Window {
    /// The first address behind the window.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len
    }
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
    #[error("memory at {start:#x} with {len:#x} bytes reaches beyond any physical address, ignored")]
    BeyondAddresses { start: u64, len: u64 },
    #[error("memory at {start:#x} with {len:#x} bytes does not lie on page boundaries, cut to whole pages")]
    Unaligned { start: u64, len: u64 },
    #[error("memory at {start:#x} with {len:#x} bytes overlaps {other:#x} of the same node")]
    OverlapsSameNode { start: u64, len: u64, other: u64 },
    #[error(
        "memory at {start:#x} with {len:#x} bytes for node {domain} overlaps {other:#x} of node {other_domain}, ignored"
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
        let mut srat = Self::default();
        let Some(table) = table::open(bytes, b"SRAT", FIXED_BYTES, |problem| srat.problem(problem.into())) else {
            return srat;
        };
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
            srat.entry(entry, offset, table.revision);
            offset += len;
        }
        srat
    }

    /// What a machine without this table is taken to be: one node, nothing to come.
    pub(crate) fn absent() -> Self {
        Self::default()
    }

    /// Every node that is named, ascending; node 0 where the table names none.
    pub(crate) fn nodes(&self) -> Vec<u32> {
        let ranges = self.ranges.iter().map(|range| range.domain);
        let cpus = self.cpus.iter().map(|cpu| cpu.domain);
        let mut nodes: Vec<u32> = ranges.chain(cpus).chain(self.bare.iter().copied()).collect();
        if nodes.is_empty() {
            nodes.push(0);
        }
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// The node of an address. What lies there now decides before what may come there.
    pub(crate) fn node_of(&self, address: u64) -> Option<u32> {
        let settled = self.ranges.iter().filter(|range| !range.hotpluggable);
        let windows = self.ranges.iter().filter(|range| range.hotpluggable);
        settled.chain(windows).find(|range| range.contains(address)).map(|range| range.domain)
    }

    /// The ranges in which memory may appear later, in the order of the table.
    pub(crate) fn windows(&self) -> impl Iterator<Item = &MemoryAffinity> {
        self.ranges.iter().filter(|range| range.hotpluggable)
    }

    /// One span that covers all of [`Self::windows`].
    pub(crate) fn window(&self) -> Option<Window> {
        let start = self.windows().map(|range| range.start).min()?;
        let end = self.windows().map(MemoryAffinity::end).max()?;
        Some(Window { start, len: end - start })
    }

    fn entry(&mut self, entry: &[u8], offset: usize, revision: u8) {
        let kind = entry[0];
        let read = match kind {
            TYPE_CPU => self.cpu(entry, revision),
            TYPE_MEMORY => self.memory(entry, revision),
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
        self.cpus.push(CpuAffinity { apic_id, domain });
    }

    fn initiator(&mut self, entry: &[u8]) -> Option<()> {
        let entry = entry.get(..32)?;
        let (domain, flags) = (u32_at(entry, 4)?, u32_at(entry, 24)?);
        let is_enabled = flags & FLAG_ENABLED != 0;
        if is_enabled && domain < DOMAIN_LIMIT {
            self.bare.push(domain);
        } else if is_enabled {
            self.problem(SratProblem::DeviceDomain { domain });
        }
        Some(())
    }

    fn memory(&mut self, entry: &[u8], revision: u8) -> Option<()> {
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
            self.ranges.push(range);
        }
        Some(())
    }

    /// The range as it can be used, if at all.
    fn check(&mut self, said: MemoryAffinity) -> Option<MemoryAffinity> {
        let MemoryAffinity { start, len, domain, .. } = said;
        if len == 0 {
            self.problem(SratProblem::Empty { start });
            self.bare.extend(Some(domain).filter(|domain| *domain < DOMAIN_LIMIT));
            return None;
        }
        if start.checked_add(len).is_none_or(|end| end > ADDRESS_LIMIT) {
            self.problem(SratProblem::BeyondAddresses { start, len });
            return None;
        }
        if domain >= DOMAIN_LIMIT {
            self.problem(SratProblem::Domain { start, domain });
            return None;
        }
        let range = self.whole_pages(said)?;
        if self.ranges.len() == RANGE_LIMIT {
            if !self.problems.contains(&SratProblem::TooManyRanges) {
                self.problem(SratProblem::TooManyRanges);
            }
            return None;
        }
        self.without_conflict(range)
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

    /// A window over other memory is how firmware says where memory may come; any other overlap is a mistake, and
    /// between two nodes the one named first is believed.
    fn without_conflict(&mut self, range: MemoryAffinity) -> Option<MemoryAffinity> {
        let conflict = |other: &&MemoryAffinity| other.hotpluggable == range.hotpluggable && other.overlaps(&range);
        let MemoryAffinity { start, len, domain, .. } = range;
        let other_node = self.ranges.iter().filter(conflict).find(|other| other.domain != domain);
        if let Some(&MemoryAffinity { start: other, domain: other_domain, .. }) = other_node {
            self.problem(SratProblem::Overlaps { start, len, domain, other, other_domain });
            return None;
        }
        if let Some(&MemoryAffinity { start: other, .. }) = self.ranges.iter().find(conflict) {
            self.problem(SratProblem::OverlapsSameNode { start, len, other });
        }
        Some(range)
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
