//! Where memory may come.
//!
//! That is another question than whose memory it is: windows of several nodes are one where they touch, and memory may be
//! in them already.

use super::srat::Srat;
use crate::drivers::fw_cfg;
use alloc::vec::Vec;

/// QEMU puts no module below this, whatever the machine.
const LOWEST: u64 = 4 << 30;
/// Where the modules that can ever be plugged end: eight bytes, little-endian.
const END_FILE: &str = "etc/reserved-memory-end";

/// A span of addresses in which memory may appear later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start: u64,
    pub(crate) len: u64,
}

impl Window {
    /// From `start` to `end`, unless that is nothing.
    fn between(start: u64, end: u64) -> Option<Self> {
        let len = end.checked_sub(start).filter(|len| *len > 0)?;
        Some(Self { start, len })
    }

    /// The first address behind the window.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len
    }

    /// One window that covers all of them; they are sorted.
    pub(crate) fn span(windows: &[Self]) -> Option<Self> {
        Self::between(windows.first()?.start, windows.last()?.end())
    }

    /// The windows that cover `spans`, lowest first; spans that touch are one.
    pub(super) fn covering(mut spans: Vec<Self>) -> Vec<Self> {
        spans.sort_unstable_by_key(|span| span.start);
        let mut windows: Vec<Self> = Vec::new();
        for span in spans {
            match windows.last_mut() {
                Some(last) if span.start <= last.end() => last.len = last.end().max(span.end()) - last.start,
                _ => windows.push(span),
            }
        }
        windows
    }
}

/// How far memory can lie on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The first address behind all RAM.
    pub(crate) ram_end: u64,
    /// How many bits of a physical address can be used.
    pub(crate) bits: u32,
    /// What follows memory up to here costs next to nothing, even if none ever comes.
    pub(crate) cheap_end: u64,
}

impl Reach {
    fn end(&self) -> u64 {
        1 << self.bits
    }
}

/// Where memory may come on this machine, lowest first. Where the SRAT has no window, as there is none on machines without
/// nodes, a slot is still one: whatever is plugged lies above all RAM, and its registers say where.
pub(crate) fn windows(srat: &Srat, slots: Option<u32>, reach: Reach) -> Vec<Window> {
    let windows = if !srat.windows.is_empty() {
        reachable(&srat.windows, reach)
    } else if slots.is_some_and(|slots| slots > 0) {
        above_ram(modules_end(), reach).into_iter().collect()
    } else {
        Vec::new()
    };
    if let Some(span) = Window::span(&windows) {
        let (start, end) = (span.start, span.end());
        match windows.len() {
            1 => log::info!(target: "acpi", "memory may come between {start:#x} and {end:#x}"),
            count => log::info!(target: "acpi", "memory may come in {count} windows between {start:#x} and {end:#x}"),
        }
    }
    windows
}

/// What of the firmware's windows the CPU can reach.
fn reachable(windows: &[Window], reach: Reach) -> Vec<Window> {
    let said_end = windows.last().map_or(0, Window::end);
    if said_end > reach.end() {
        let (bits, end) = (reach.bits, reach.end());
        log::warn!(
            target: "acpi",
            "the SRAT lets memory come up to {said_end:#x}, cut to {end:#x}: physical addresses have {bits} bits here"
        );
    }
    windows.iter().filter_map(|window| Window::between(window.start, window.end().min(reach.end()))).collect()
}

/// From the end of RAM to where the machine says that modules end. Where it does not say it, they may lie as far up as the
/// CPU reaches, but not so far that being prepared for it costs much.
fn above_ram(modules_end: Option<u64>, reach: Reach) -> Option<Window> {
    let start = reach.ram_end.max(LOWEST);
    let end = modules_end.filter(|end| *end > start).unwrap_or(reach.cheap_end);
    Window::between(start, end.min(reach.end()))
}

fn modules_end() -> Option<u64> {
    let bytes = fw_cfg::file(END_FILE, size_of::<u64>())?;
    bytes.try_into().map(u64::from_le_bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    const GIB: u64 = 1 << 30;
    const TIB: u64 = 1 << 40;
    const REACH: Reach = Reach { ram_end: GIB, bits: 40, cheap_end: 8 * TIB };

    fn window(start: u64, end: u64) -> Window {
        Window::between(start, end).expect("not empty")
    }

    #[test]
    fn windows_that_touch_are_one() {
        let spans = vec![window(8, 10), window(0, 4), window(4, 5), window(2, 3), window(9, 12)];
        assert_eq!(Window::covering(spans), [window(0, 5), window(8, 12)]);
        assert_eq!(Window::span(&[window(0, 5), window(8, 12)]), Some(window(0, 12)));
        assert_eq!(Window::span(&[]), None);
    }

    #[test]
    fn windows_end_where_the_addresses_of_the_cpu_end() {
        let said = [window(4 * GIB, TIB - GIB), window(TIB - GIB + 4096, 1 << 52), window(1 << 52, (1 << 52) + GIB)];
        assert_eq!(reachable(&said, REACH), [said[0], window(TIB - GIB + 4096, TIB)]);
        assert_eq!(reachable(&said[..1], REACH), said[..1]);
    }

    #[test]
    fn without_a_window_of_the_firmware_memory_may_come_above_ram() {
        assert_eq!(above_ram(Some(16 * GIB), REACH), Some(window(4 * GIB, 16 * GIB)));
        assert_eq!(above_ram(Some(16 * GIB), Reach { ram_end: 6 * GIB, ..REACH }), Some(window(6 * GIB, 16 * GIB)));
        assert_eq!(above_ram(Some(u64::MAX), REACH), Some(window(4 * GIB, TIB)));
    }

    #[test]
    fn how_far_above_ram_is_a_matter_of_cost_where_the_machine_does_not_say_it() {
        for useless in [None, Some(0), Some(4 * GIB)] {
            assert_eq!(above_ram(useless, REACH), Some(window(4 * GIB, TIB)));
            assert_eq!(above_ram(useless, Reach { bits: 46, ..REACH }), Some(window(4 * GIB, 8 * TIB)));
        }
        assert_eq!(above_ram(None, Reach { bits: 32, ..REACH }), None);
    }
}
