//! What the guest tells the firmware about a hotplug event (`_OST`), and how to say it.

use std::fmt;

use serde_json::Value;

/// What the guest is answering to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Insertion,
    Ejection,
    Other(u64),
}

/// One answer of the guest, as QEMU passes it on in `ACPI_DEVICE_OST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The device's id; QEMU leaves it out once the device is gone.
    pub device: Option<String>,
    pub slot: Option<String>,
    pub event: Event,
    pub status: u64,
}

impl Answer {
    /// From the `info` of an event, or an entry of `query-acpi-ospm-status`.
    pub fn from_json(info: &Value) -> Option<Self> {
        let text = |key: &str| info.get(key).and_then(Value::as_str).map(str::to_owned);
        let event = match info.get("source")?.as_u64()? {
            1 | 0x200 => Event::Insertion,
            3 | 0x103 => Event::Ejection,
            other => Event::Other(other),
        };
        let status = info.get("status")?.as_u64()?;
        Some(Self { device: text("device"), slot: text("slot"), event, status })
    }

    /// The guest is still at it; another answer follows.
    pub fn in_progress(&self) -> bool {
        matches!((self.event, self.status), (Event::Insertion, 0x80) | (Event::Ejection, 0x84))
    }

    pub fn success(&self) -> bool {
        self.status == 0
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match (self.event, self.status) {
            (Event::Insertion, 0) => "the memory is in",
            (Event::Insertion, 0x80) => "adding is in progress",
            (Event::Insertion, 0x81) => "it could not take the memory into use",
            (Event::Insertion, 0x82) => "it does not support this memory",
            (Event::Ejection, 0) => "the memory is out",
            (Event::Ejection, 0x80) => "it does not support removing",
            (Event::Ejection, 0x81) => "the memory is in use",
            (Event::Ejection, 0x82) => "the memory is busy",
            (Event::Ejection, 0x83) => "something the memory depends on is busy",
            (Event::Ejection, 0x84) => "removing is in progress",
            (_, 0) => "done",
            (_, 1) => "it failed",
            (_, 2) => "it does not know this event",
            _ => "an unknown code",
        };
        write!(f, "{words} (_OST status {:#x})", self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(source: u64, status: u64) -> Answer {
        let info = json!({"device": "d0", "slot": "0", "slot-type": "DIMM", "source": source, "status": status});
        Answer::from_json(&info).expect("complete")
    }

    #[test]
    fn the_same_code_means_different_things_for_insertion_and_ejection() {
        assert!(answer(1, 0x80).in_progress() && !answer(3, 0x80).in_progress());
        assert!(answer(3, 0x84).in_progress() && !answer(1, 0x84).in_progress());
        assert!(answer(1, 0x82).to_string().contains("does not support"));
        assert!(answer(3, 0x82).to_string().contains("busy"));
    }

    #[test]
    fn only_zero_is_success() {
        assert!(answer(1, 0).success() && answer(0x103, 0).success());
        for status in [1, 2, 0x80, 0x82, 0x84, 0xffff] {
            assert!(!answer(1, status).success() && !answer(3, status).success(), "{status:#x}");
        }
    }

    #[test]
    fn an_answer_about_a_device_that_is_gone_has_no_name() {
        let info = json!({"slot": "3", "slot-type": "DIMM", "source": 3, "status": 0});
        let answer = Answer::from_json(&info).expect("complete");
        assert_eq!((answer.device, answer.slot.as_deref()), (None, Some("3")));
    }

    #[test]
    fn half_an_answer_is_none() {
        assert_eq!(Answer::from_json(&json!({"source": 3})), None);
    }
}
