//! virtio-mem (virtio 1.2 §5.15): a region of memory of which the host says how much the guest shall have, and the guest says
//! which blocks.

use super::Trouble;
use super::face::Doorbell;
use super::queue::Queue;
use super::shared::{Patience, Registers, SharedPage};
use super::transport::Transport;

/// The node is told.
const HAS_NODE: u64 = 1 << 0;
/// Nobody may look at what is not plugged.
const UNPLUGGED_INACCESSIBLE: u64 = 1 << 1;

// Configuration (§5.15.4).
const BLOCK_SIZE: usize = 0;
const NODE: usize = 8;
const ADDRESS: usize = 16;
const REGION_SIZE: usize = 24;
const USABLE_SIZE: usize = 32;
const PLUGGED_SIZE: usize = 40;
const REQUESTED_SIZE: usize = 48;
const CONFIG_BYTES: usize = 56;

/// Its only queue (§5.15.2).
const REQUESTS: u16 = 0;

// Requests and answers (§5.15.6).
const PLUG: u32 = 0;
const UNPLUG: u32 = 1;
const UNPLUG_ALL: u32 = 2;
const ACK: u16 = 0;
const NACK: u16 = 1;
const BUSY: u16 = 2;
const ERROR: u16 = 3;
/// Type, padding, and what another request asks for.
const ANSWER_WORDS: usize = 5;

/// What the device says of itself; sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) block_size: u64,
    /// The proximity domain, if the device knows it.
    pub(crate) domain: Option<u32>,
    pub(crate) start: u64,
    pub(crate) region: u64,
    /// How much from the start on can be plugged now.
    pub(crate) usable: u64,
    pub(crate) plugged: u64,
    pub(crate) requested: u64,
}

/// What a driver asks for: blocks of the device's, from an address on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Plug { start: u64, blocks: u16 },
    Unplug { start: u64, blocks: u16 },
    UnplugAll,
}

/// What the device answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    /// More would be plugged than is requested.
    TooMuch,
    /// Not now.
    Busy,
    /// It is not as the driver thinks.
    Wrong,
}

/// A virtio-mem device.
pub(crate) trait MemDevice {
    fn config(&mut self) -> Result<Config, Trouble>;

    /// Makes a request and waits for the answer.
    fn ask(&mut self, request: Request, patience: &mut impl Patience) -> Result<Answer, Trouble>;

    /// It is not used any more.
    fn give_up(&mut self);
}

/// A device behind registers and a queue.
pub(crate) struct VirtioMem<R, S> {
    transport: Transport<R>,
    requests: Queue<S>,
    doorbell: Doorbell,
    has_node: bool,
}

impl<R: Registers, S: SharedPage> VirtioMem<R, S> {
    /// Starts a device that has been reset.
    pub(super) fn start(transport: Transport<R>, page: S) -> Result<Self, Trouble> {
        let bytes = transport.config.len();
        if bytes < CONFIG_BYTES {
            return Err(Trouble::ShortConfig(bytes));
        }
        let features = transport.negotiate(HAS_NODE | UNPLUGGED_INACCESSIBLE)?;
        let (requests, doorbell) = transport.queue(REQUESTS, page)?;
        transport.run()?;
        Ok(Self { transport, requests, doorbell, has_node: features & HAS_NODE != 0 })
    }
}

impl<R: Registers, S: SharedPage> MemDevice for VirtioMem<R, S> {
    fn config(&mut self) -> Result<Config, Trouble> {
        let has_node = self.has_node;
        self.transport.read_config(|config| {
            let wide = |at| u64::from(config.read_u32(at + 4)) << 32 | u64::from(config.read_u32(at));
            Config {
                block_size: wide(BLOCK_SIZE),
                domain: has_node.then(|| config.read_u16(NODE).into()),
                start: wide(ADDRESS),
                region: wide(REGION_SIZE),
                usable: wide(USABLE_SIZE),
                plugged: wide(PLUGGED_SIZE),
                requested: wide(REQUESTED_SIZE),
            }
        })
    }

    fn ask(&mut self, request: Request, patience: &mut impl Patience) -> Result<Answer, Trouble> {
        let (kind, start, blocks) = match request {
            Request::Plug { start, blocks } => (PLUG, start, blocks),
            Request::Unplug { start, blocks } => (UNPLUG, start, blocks),
            Request::UnplugAll => (UNPLUG_ALL, 0, 0),
        };
        self.requests.ask(&[kind, 0, start as u32, (start >> 32) as u32, blocks.into(), 0], ANSWER_WORDS);
        self.transport.face.notify(&self.doorbell);
        patience.begin();
        let answer = loop {
            if let Some(answer) = self.requests.answer(ANSWER_WORDS)? {
                break answer;
            }
            self.transport.check()?;
            if !patience.wait() {
                return Err(Trouble::Silent);
            }
        };
        match answer[0] {
            ACK => Ok(Answer::Done),
            NACK => Ok(Answer::TooMuch),
            BUSY => Ok(Answer::Busy),
            ERROR => Ok(Answer::Wrong),
            other => Err(Trouble::Answer(other)),
        }
    }

    fn give_up(&mut self) {
        self.transport.give_up();
    }
}

#[cfg(test)]
#[path = "mem_tests.rs"]
mod tests;
