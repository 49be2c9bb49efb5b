//! The host of standby memory: it backs units when asked, or refuses, and nobody touches what it does not back.

use super::{Fake, blocks, node, section};
use mm::Memory;
use mm::addr::{SectionId, SectionRange};
use mm::machine::backing::{Backing, BackingError};
use mm::machine::mapper::DirectMap;
use mm::machine::tasks::{Pace, Unhurried};
use mm::section::group::{Grant, Group, GroupId, GroupKind, GroupName, Ready, Terms};
use mm::section::kind::MemmapPlace;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// Its memory: 64 blocks.
pub(crate) const WINDOW: (u64, u64) = (64, 127);

#[derive(Default)]
pub(crate) struct Host {
    /// What is accessible.
    backed: Mutex<BTreeSet<SectionId>>,
    /// What the guest has asked for and not given back.
    asked: Mutex<BTreeSet<SectionId>>,
    /// Sections that it does not take back.
    pub(crate) sticky: Mutex<BTreeSet<SectionId>>,
    /// How many more units it backs, and why no more then.
    limit: Mutex<Option<(u64, BackingError)>>,
    /// How often it pauses before it backs a unit.
    pub(crate) pauses: AtomicU64,
    memory: Mutex<Weak<Memory<Fake>>>,
}

impl Host {
    pub(crate) fn touch(&self, section: SectionId) {
        let is_its_own = blocks(WINDOW.0, WINDOW.1).contains(section);
        assert!(
            !is_its_own || self.asked.lock().unwrap().contains(&section),
            "block {section} is touched, and not backed"
        );
    }

    /// What is accessible, whether anybody knows or not.
    pub(crate) fn backed(&self) -> Vec<SectionId> {
        self.backed.lock().unwrap().iter().copied().collect()
    }

    /// What the guest counts on.
    pub(crate) fn asked(&self) -> BTreeSet<SectionId> {
        self.asked.lock().unwrap().clone()
    }

    /// Refuses after so many units more.
    pub(crate) fn refuse_after(&self, units: u64, why: BackingError) {
        *self.limit.lock().unwrap() = Some((units, why));
    }

    pub(crate) fn refuse_no_more(&self) {
        *self.limit.lock().unwrap() = None;
    }
}

impl Backing for Host {
    fn back(&self, unit: SectionRange, pace: &mut dyn Pace) -> Result<(), BackingError> {
        super::watched::assert_none_held();
        for _ in 0..self.pauses.load(Ordering::Relaxed) {
            pace.pause().map_err(BackingError::Stopped)?;
        }
        match &mut *self.limit.lock().unwrap() {
            Some((0, why)) => return Err(*why),
            Some((left, _)) => *left -= 1,
            None => {}
        }
        for id in unit.iter() {
            assert!(self.asked.lock().unwrap().insert(id), "block {id} is backed twice");
            self.backed.lock().unwrap().insert(id);
        }
        Ok(())
    }

    fn release(&self, unit: SectionRange) {
        super::watched::assert_none_held();
        let memory = self.memory.lock().unwrap().upgrade().expect("it is there");
        assert!(!memory.machine().is_mapped(unit), "what is given back is not mapped any more");
        for id in unit.iter() {
            assert!(self.asked.lock().unwrap().remove(&id), "block {id} is given back, and was not backed");
            if !self.sticky.lock().unwrap().contains(&id) {
                self.backed.lock().unwrap().remove(&id);
            }
        }
    }
}

/// The name of the group of standby memory.
pub(crate) const STANDBY: GroupName = GroupName { kind: GroupKind::Probe, number: 7 };

pub(crate) fn standby_terms(unit: u64, memmap: MemmapPlace) -> Terms {
    Terms { memmap, unit, ready: Ready::AtOnline, grant: Grant::Whole, direct_map: DirectMap::Present }
}

/// A machine that has booted and knows the whole window of standby memory, in such units.
pub(crate) fn with_standby(unit: u64, memmap: MemmapPlace) -> (Arc<Memory<Fake>>, &'static Host, GroupId) {
    let memory = Arc::new(super::booted());
    let host: &'static Host = Box::leak(Box::default());
    *host.memory.lock().unwrap() = Arc::downgrade(&memory);
    assert!(memory.machine().host.set(host).is_ok(), "one host");
    let window = blocks(WINDOW.0, WINDOW.1);
    let group = Group { name: STANDBY, window, node: node(1), terms: standby_terms(unit, memmap) };
    let id = memory.register_group(&group, Some(host), &mut Unhurried).expect("vacant");
    memory.add_to_group(id, window, &mut Unhurried).expect("vacant");
    assert_eq!(memory.section(section(WINDOW.0)).map(|section| section.ready), Some(false));
    (memory, host, id)
}
