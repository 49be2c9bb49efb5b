//! From a PCI function to a device: where its registers are (virtio 1.2 §4.1.4), looked at before any is touched.

use super::calls::Calls;
use super::face::{COMMON_BYTES, Face};
use super::mem::VirtioMem;
use super::shared::Patience;
use super::transport::Transport;
use super::{MemOfMachine, Trouble};
use crate::drivers::pci::{self, Address, Capability, ConfigSpace, Function};
use crate::memory::dma::DmaPage;
use crate::memory::mmio::Mmio;
use mm::alloc::request::AllocError;
use thiserror::Error;

// What a capability says, by its registers.
const KIND: u8 = 0;
const BAR: u8 = 4;
const OFFSET: u8 = 8;
const LENGTH: u8 = 12;
const MULTIPLIER: u8 = 16;

/// Kinds of registers.
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const STATUS: u8 = 3;
const CONFIG: u8 = 4;

/// More registers of a kind than this have no use here.
const BYTES_MAX: u64 = 0x1_0000;

/// Why a function is no device that can be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Unfit {
    #[error("it does not say where its {0} registers are, or names a place that it does not have")]
    NoRegisters(&'static str),
    #[error("its registers lie beyond the addresses that are supported")]
    OutOfReach,
    #[error("no memory for its queue: {0}")]
    NoMemory(#[from] AllocError),
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

/// Registers of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    address: u64,
    len: u64,
}

impl Place {
    fn map(self) -> Result<Mmio, Unfit> {
        Mmio::map(self.address, self.len as usize).ok_or(Unfit::OutOfReach)
    }
}

/// Where the registers of a device are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    common: Place,
    notify: Place,
    notify_multiplier: u32,
    /// Of its interrupt, which may be missing.
    status: Option<Place>,
    config: Place,
}

impl Layout {
    /// Reads the capabilities; of several of a kind, the first that makes sense counts.
    fn read(config: &mut impl ConfigSpace, function: &Function) -> Result<Self, Unfit> {
        let (mut common, mut notify, mut status, mut device) = (None, None, None, None);
        for capability in pci::capabilities(config, function.address) {
            if capability.id != Capability::VENDOR {
                continue;
            }
            let word = |config: &mut _, offset| register(config, function.address, capability.at, offset);
            let kind = (word(config, KIND) >> 24) as u8;
            let Some(place) = place(config, function, capability.at) else { continue };
            match kind {
                COMMON if place.len >= COMMON_BYTES as u64 => common = common.or(Some(place)),
                NOTIFY => notify = notify.or(Some((place, word(config, MULTIPLIER)))),
                STATUS => status = status.or(Some(place)),
                CONFIG => device = device.or(Some(place)),
                _ => {}
            }
        }
        let (notify, notify_multiplier) = notify.ok_or(Unfit::NoRegisters("notification"))?;
        Ok(Self {
            common: common.ok_or(Unfit::NoRegisters("common"))?,
            notify,
            notify_multiplier,
            status,
            config: device.ok_or(Unfit::NoRegisters("configuration"))?,
        })
    }
}

/// A register of a capability; one behind the last register is empty.
fn register(config: &mut impl ConfigSpace, function: Address, at: u8, offset: u8) -> u32 {
    at.checked_add(offset).map_or(0, |register| config.read(function, register))
}

/// The registers that a capability names, if the function decodes them.
fn place(config: &mut impl ConfigSpace, function: &Function, at: u8) -> Option<Place> {
    let mut word = |offset| register(config, function.address, at, offset);
    let (bar, offset, len) = (word(BAR) as u8, u64::from(word(OFFSET)), u64::from(word(LENGTH)));
    let range = pci::bar(config, function, bar)?;
    let is_inside = len > 0 && offset.checked_add(len).is_some_and(|end| end <= range.len);
    is_inside.then(|| Place { address: range.start + offset, len: len.min(BYTES_MAX) })
}

/// Resets the virtio-mem device that a function is, and starts it.
pub(crate) fn open(function: &Function, patience: &mut impl Patience) -> Result<(MemOfMachine, Calls), Unfit> {
    let layout = pci::with_config(|config| Layout::read(config, function))?;
    let Layout { common, notify, notify_multiplier, status, config } = layout;
    let (common, notify, config) = (common.map()?, notify.map()?, config.map()?);
    let mut transport =
        Transport { face: Face::Function { common, notify, notify_multiplier, sends_messages: false }, config };
    transport.reset(patience)?;
    pci::start_mastering(function);
    let calls = Calls::by_message(function).inspect(|_| transport.face.send_messages());
    let status = status.and_then(|status| status.map().ok());
    let calls = calls.or_else(|| Calls::by_line(function, status?)).unwrap_or_else(Calls::none);
    Ok((VirtioMem::start(transport, DmaPage::take()?)?, calls))
}
