//! Adding and removing memory modules of a running machine, and what the guest says to it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::ost::{self, Answer};
use crate::qemu::{Dimm, backend};
use crate::qmp::{Event, Qmp};
use crate::size::Bytes;

/// A guest that is alive answers well within this.
const FIRST_ANSWER: Duration = Duration::from_secs(60);

/// How long "in progress" may last.
const IN_PROGRESS: Duration = Duration::from_secs(600);

/// A guest that can come nearer to the size it is to have does so within this.
const STANDSTILL: Duration = Duration::from_secs(10);

/// How the guest took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Done(String),
    Refused(String),
    Silent(String),
}

impl Verdict {
    /// The sentence for the operator; an error unless the guest did it.
    pub fn into_result(self) -> Result<String> {
        match self {
            Self::Done(sentence) => Ok(sentence),
            Self::Refused(sentence) | Self::Silent(sentence) => bail!(sentence),
        }
    }
}

/// Plugs a DIMM and waits for the guest's answer. `progress` hears what happens meanwhile.
pub fn plug(qmp: &mut Qmp, dimm: &Dimm, progress: &mut dyn FnMut(&str)) -> Result<Verdict> {
    qmp.forget_events();
    let id = insert(qmp, dimm)?;
    progress(&format!("{id}: {} plugged, waiting for the guest", dimm.size));
    let answer = wait_for_answer(qmp, &id, ost::Event::Insertion, progress)?;
    Ok(match answer {
        Some(answer) if answer.success() => Verdict::Done(format!("{id}: {answer}")),
        Some(answer) => {
            Verdict::Refused(format!("{id}: the guest did not take it: {answer}; it stays plugged (./x unplug {id})"))
        }
        None => Verdict::Silent(format!("{id}: plugged, but the guest did not answer")),
    })
}

/// Plugs a DIMM without waiting for the guest, and returns its id.
pub fn insert(qmp: &mut Qmp, dimm: &Dimm) -> Result<String> {
    if let Some(id) = &dimm.id
        && memory_of(qmp, id)?.is_some()
    {
        bail!("there is a memory device `{id}` already");
    }
    let mut device = json!({"driver": "pc-dimm"});
    let id = match &dimm.id {
        Some(id) => id.clone(),
        None => {
            // The guest names a module after its slot; so do we.
            let slot = free_slot(qmp)?;
            device["slot"] = json!(slot);
            format!("dimm{slot}")
        }
    };
    device["id"] = json!(id);
    device["memdev"] = json!(backend(&id));
    if let Some(node) = dimm.node {
        device["node"] = json!(node);
    }
    if let Some(address) = dimm.address {
        device["addr"] = json!(address);
    }
    provide(qmp, &id, dimm.size)?;
    if let Err(error) = qmp.execute("device_add", device) {
        qmp.execute("object-del", json!({"id": backend(&id)}))?;
        return Err(error);
    }
    Ok(id)
}

/// Makes the memory behind a DIMM; the guest does not see it yet.
pub fn provide(qmp: &mut Qmp, id: &str, size: Bytes) -> Result<()> {
    let memory = json!({"qom-type": "memory-backend-ram", "id": backend(id), "size": size.0, "reserve": false});
    qmp.execute("object-add", memory).map(drop)
}

/// Asks the guest to give a DIMM back and waits for its answer. `progress` hears what happens meanwhile.
pub fn unplug(qmp: &mut Qmp, id: &str, progress: &mut dyn FnMut(&str)) -> Result<Verdict> {
    let Some(memory) = memory_of(qmp, id)? else {
        bail!("no memory device `{id}`; ./x devices lists them");
    };
    qmp.forget_events();
    qmp.execute("device_del", json!({"id": id}))?;
    progress(&format!("{id}: asked the guest to give it back"));
    let answer = wait_for_answer(qmp, id, ost::Event::Ejection, progress)?;
    Ok(match answer {
        Some(answer) if answer.success() => {
            qmp.execute("object-del", json!({"id": memory})).context("the memory behind the module stays")?;
            Verdict::Done(format!("{id}: {answer}"))
        }
        Some(answer) => Verdict::Refused(format!("{id}: the guest keeps it: {answer}")),
        None => Verdict::Silent(format!("{id}: the guest did not answer; it may still give it back")),
    })
}

/// Asks for another size of a virtio-mem device and waits until the guest has it, or does not come nearer any more. `progress`
/// hears what happens meanwhile.
pub fn resize(qmp: &mut Qmp, id: &str, size: Bytes, progress: &mut dyn FnMut(&str)) -> Result<Verdict> {
    let Some(mut last) = size_of(qmp, id)? else {
        bail!("no device `{id}` whose size can be changed; ./x devices lists them");
    };
    request(qmp, id, size)?;
    progress(&format!("{id}: {size} requested, {last} plugged"));
    let mut deadline = Instant::now() + STANDSTILL;
    while Instant::now() < deadline {
        let now = size_of(qmp, id)?.with_context(|| format!("{id} is gone"))?;
        if now == size {
            return Ok(Verdict::Done(format!("{id}: {size} plugged, as requested")));
        }
        if now != last {
            (last, deadline) = (now, Instant::now() + STANDSTILL);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(Verdict::Refused(format!("{id}: {last} plugged, and the guest comes no nearer; `virtio_mem` there says why")))
}

/// Says how much of a virtio-mem device the guest shall have, and waits for nothing.
pub(crate) fn request(qmp: &mut Qmp, id: &str, size: Bytes) -> Result<()> {
    let path = format!("/machine/peripheral/{id}");
    qmp.execute("qom-set", json!({"path": path, "property": "requested-size", "value": size.0})).map(drop)
}

/// How much of a virtio-mem device is plugged.
pub(crate) fn size_of(qmp: &mut Qmp, id: &str) -> Result<Option<Bytes>> {
    let devices = memory_devices(qmp)?;
    let device = devices.iter().find(|device| device["type"] == "virtio-mem" && device["data"]["id"] == id);
    Ok(device.and_then(|device| device["data"]["size"].as_u64()).map(Bytes))
}

/// Waits past "in progress" for the final answer about `id`; `None` if the guest is silent.
fn wait_for_answer(
    qmp: &mut Qmp,
    id: &str,
    about: ost::Event,
    progress: &mut dyn FnMut(&str),
) -> Result<Option<Answer>> {
    let mut deadline = Instant::now() + FIRST_ANSWER;
    while let Some(answer) = qmp.wait_event(deadline, |event| answer_about(event, id, about))? {
        if !answer.in_progress() {
            return Ok(Some(answer));
        }
        progress(&format!("{id}: {answer}"));
        deadline = Instant::now() + IN_PROGRESS;
    }
    Ok(None)
}

/// A deleted device is as good as the guest's word for it: its last `_OST` comes without a name.
pub(crate) fn answer_about(event: &Event, id: &str, about: ost::Event) -> Option<Answer> {
    match event.name.as_str() {
        "DEVICE_DELETED" if about == ost::Event::Ejection && event.data["device"] == id => {
            Some(Answer { device: Some(id.to_owned()), slot: None, event: about, status: 0 })
        }
        "ACPI_DEVICE_OST" => {
            let answer = Answer::from_json(&event.data["info"])?;
            (answer.device.as_deref() == Some(id) && answer.event == about).then_some(answer)
        }
        _ => None,
    }
}

fn memory_devices(qmp: &mut Qmp) -> Result<Vec<Value>> {
    let devices = qmp.execute("query-memory-devices", json!({}))?;
    Ok(devices.as_array().cloned().unwrap_or_default())
}

/// The ids of all memory modules.
pub(crate) fn modules(qmp: &mut Qmp) -> Result<Vec<String>> {
    let devices = memory_devices(qmp)?;
    let modules = devices.iter().filter(|device| device["type"] == "dimm");
    Ok(modules.filter_map(|device| device["data"]["id"].as_str().map(str::to_owned)).collect())
}

fn memory_of(qmp: &mut Qmp, id: &str) -> Result<Option<String>> {
    let devices = memory_devices(qmp)?;
    let device = devices.iter().find(|device| device["data"]["id"] == id);
    let path = device.and_then(|device| device["data"]["memdev"].as_str());
    Ok(path.map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()))
}

fn free_slot(qmp: &mut Qmp) -> Result<u64> {
    let devices = memory_devices(qmp)?;
    let taken: Vec<_> = devices.iter().filter_map(|device| device["data"]["slot"].as_u64()).collect();
    Ok(lowest_free(&taken))
}

/// QEMU itself refuses a slot beyond the last.
fn lowest_free(taken: &[u64]) -> u64 {
    (0..).find(|slot| !taken.contains(slot)).expect("there are more numbers than slots")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ost_event(device: Option<&str>, source: u64, status: u64) -> Event {
        let mut info = json!({"slot": "0", "slot-type": "DIMM", "source": source, "status": status});
        if let Some(device) = device {
            info["device"] = json!(device);
        }
        Event { name: "ACPI_DEVICE_OST".into(), data: json!({"info": info}) }
    }

    #[test]
    fn answers_about_another_device_or_event_are_not_ours() {
        let about = |event, id| answer_about(&event, id, ost::Event::Insertion);
        assert!(about(ost_event(Some("d0"), 1, 0), "d0").is_some());
        assert_eq!(about(ost_event(Some("d1"), 1, 0), "d0"), None);
        assert_eq!(about(ost_event(Some("d0"), 3, 0), "d0"), None);
        assert_eq!(about(ost_event(None, 1, 0), "d0"), None);
    }

    #[test]
    fn a_deleted_device_counts_as_ejected() {
        let deleted = Event { name: "DEVICE_DELETED".into(), data: json!({"device": "d0", "path": "/x/d0"}) };
        assert!(answer_about(&deleted, "d0", ost::Event::Ejection).is_some_and(|answer| answer.success()));
        assert_eq!(answer_about(&deleted, "d1", ost::Event::Ejection), None);
        assert_eq!(answer_about(&deleted, "d0", ost::Event::Insertion), None);
    }

    #[test]
    fn the_lowest_free_slot_is_taken() {
        assert_eq!([lowest_free(&[]), lowest_free(&[0, 1, 3]), lowest_free(&[1])], [0, 2, 0]);
    }
}
