//! Modules: plugged and unplugged as a VMM does it, with the guest's answer to the firmware.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use boot::ost::{self, Answer};
use boot::plug;
use boot::qemu::{Dimm, backend};
use boot::qmp::{Event, Qmp, Refused};
use boot::size::Bytes;
use serde_json::{Value, json};

use crate::vm::{Vm, soon};

/// `_OST` status: done.
pub const SUCCESS: u64 = 0;
/// `_OST` status of a refused ejection: busy.
pub const BUSY: u64 = 0x82;

/// A module without wishes.
pub fn dimm(id: &str, size: Bytes) -> Dimm {
    Dimm { size, id: Some(id.to_owned()), node: None, address: None }
}

/// A module of one node.
pub fn dimm_on(id: &str, size: Bytes, node: u32) -> Dimm {
    Dimm { node: Some(node), ..dimm(id, size) }
}

/// A module at an address.
pub fn dimm_at(id: &str, size: Bytes, address: u64) -> Dimm {
    Dimm { address: Some(address), ..dimm(id, size) }
}

impl Vm {
    /// Plugs a module that the guest takes.
    #[track_caller]
    pub fn plug(&mut self, dimm: &Dimm) -> Result<()> {
        let status = self.plug_status(dimm)?;
        ensure!(status == SUCCESS, "plug {dimm:?}: the guest answered {status:#x}, expected success");
        Ok(())
    }

    /// Plugs a module; what the guest finally answers.
    #[track_caller]
    pub fn plug_status(&mut self, dimm: &Dimm) -> Result<u64> {
        self.qmp.forget_events();
        let id = plug::insert(&mut self.qmp, dimm).with_context(|| format!("plug {dimm:?}"))?;
        let answers = self.answers(&[&id], ost::Event::Insertion)?;
        Ok(answers[&id])
    }

    /// Plugs a module that the guest takes, and returns by how many bytes QEMU grew meanwhile on the host. What QEMU itself
    /// needs for a module of that size, it takes with the memory behind it, before.
    #[track_caller]
    pub fn plug_measured(&mut self, id: &str, size: Bytes) -> Result<u64> {
        let memory = json!({"qom-type": "memory-backend-ram", "id": backend(id), "size": size.0, "reserve": false});
        self.qmp("object-add", memory)?;
        self.qmp.forget_events();
        let before = self.host_memory()?;
        self.qmp("device_add", json!({"driver": "pc-dimm", "id": id, "memdev": backend(id)}))?;
        let status = self.answers(&[id], ost::Event::Insertion)?[id];
        ensure!(status == SUCCESS, "plug {id}: the guest answered {status:#x}, expected success");
        Ok(self.host_memory()?.saturating_sub(before))
    }

    /// Takes a module out that the guest gives back.
    #[track_caller]
    pub fn unplug(&mut self, id: &str) -> Result<()> {
        let status = self.unplug_status(id)?;
        ensure!(status == SUCCESS, "unplug {id}: the guest answered {status:#x}, expected that it goes");
        Ok(())
    }

    /// Asks for a module; what the guest finally answers: [`SUCCESS`] when the module is gone.
    #[track_caller]
    pub fn unplug_status(&mut self, id: &str) -> Result<u64> {
        self.qmp.forget_events();
        self.qmp("device_del", json!({ "id": id }))?;
        let status = self.answers(&[id], ost::Event::Ejection)?[id];
        if status == SUCCESS {
            self.qmp("object-del", json!({ "id": backend(id) }))?;
        }
        Ok(status)
    }

    /// The final answers about all of `ids`, whatever their order.
    #[track_caller]
    pub fn answers(&mut self, ids: &[&str], about: ost::Event) -> Result<BTreeMap<String, u64>> {
        let mut answers = BTreeMap::new();
        while answers.len() < ids.len() {
            let found = self.qmp.wait_event(soon(), |event| final_answer(event, ids, about))?;
            let (id, status) = found.with_context(|| format!("no answer about {ids:?}, only {answers:?}"))?;
            answers.insert(id, status);
        }
        Ok(answers)
    }

    /// What QEMU says of its modules, by id.
    pub fn modules(&mut self) -> Result<BTreeMap<String, Module>> {
        let devices = self.qmp("query-memory-devices", json!({}))?;
        let devices = devices.as_array().cloned().unwrap_or_default();
        let modules = devices.iter().filter(|device| device["type"] != "virtio-mem");
        modules.map(|device| Module::from_json(&device["data"])).collect()
    }

    /// What the guest said last about a slot: source event and status.
    pub fn last_word(&mut self, slot: u64) -> Result<(u64, u64)> {
        let slots = self.qmp("query-acpi-ospm-status", json!({}))?;
        let slots = slots.as_array().cloned().unwrap_or_default();
        let of_slot = slots.iter().find(|info| info["slot"].as_str().and_then(|text| text.parse().ok()) == Some(slot));
        let info = of_slot.with_context(|| format!("no slot {slot} in {slots:?}"))?;
        let number = |key: &str| info[key].as_u64().with_context(|| format!("{key} in {info}"));
        Ok((number("source")?, number("status")?))
    }

    /// The flags of slot 0 in the DIMM controller: enabled 1, insertion 2, removal 4. The guest stands still meanwhile, and
    /// must not be busy with another slot.
    pub fn slot_zero_flags(&mut self) -> Result<String> {
        self.qmp("stop", json!({}))?;
        self.monitor("o /w 0xa00 0")?;
        let flags = self.monitor("i /b 0xa14")?;
        self.qmp("cont", json!({}))?;
        Ok(flags)
    }

    /// Plugs what QEMU itself must refuse.
    #[track_caller]
    pub fn qemu_refuses(&mut self, what: &str, dimm: &Dimm, extra: Value) -> Result<()> {
        let refusal = insert_with(&mut self.qmp, dimm, extra).err();
        let refusal = refusal.with_context(|| format!("{what}: QEMU took {dimm:?}"))?;
        ensure!(refusal.is::<Refused>(), "{what}: {refusal:#}");
        Ok(())
    }
}

/// One of QEMU's memory devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    pub slot: u64,
    pub node: u64,
    pub address: u64,
    pub size: u64,
}

impl Module {
    fn from_json(data: &Value) -> Result<(String, Self)> {
        let number = |key: &str| data[key].as_u64().with_context(|| format!("{key} in {data}"));
        let id = data["id"].as_str().with_context(|| format!("id in {data}"))?.to_owned();
        let [slot, node, address, size] = [number("slot")?, number("node")?, number("addr")?, number("size")?];
        Ok((id, Self { slot, node, address, size }))
    }
}

fn insert_with(qmp: &mut Qmp, dimm: &Dimm, extra: Value) -> Result<()> {
    let id = dimm.id.clone().unwrap_or_default();
    let memory = backend(&id);
    qmp.execute("object-add", json!({"qom-type": "memory-backend-ram", "id": memory, "size": dimm.size.0}))?;
    let mut device = json!({"driver": "pc-dimm", "id": id, "memdev": memory});
    if let Some(node) = dimm.node {
        device["node"] = json!(node);
    }
    if let Some(address) = dimm.address {
        device["addr"] = json!(address);
    }
    for (key, value) in extra.as_object().into_iter().flatten() {
        device[key] = value.clone();
    }
    let result = qmp.execute("device_add", device);
    if result.is_err() {
        qmp.execute("object-del", json!({ "id": memory }))?;
    }
    result.map(drop)
}

/// A module that left is an answer as well: its last `_OST` comes without a name.
fn final_answer(event: &Event, ids: &[&str], about: ost::Event) -> Option<(String, u64)> {
    let ours = |id: &str| ids.contains(&id).then(|| id.to_owned());
    match event.name.as_str() {
        "DEVICE_DELETED" if about == ost::Event::Ejection => Some((ours(event.data["device"].as_str()?)?, SUCCESS)),
        "ACPI_DEVICE_OST" => {
            let answer = Answer::from_json(&event.data["info"])?;
            let id = ours(answer.device.as_deref()?)?;
            (answer.event == about && !answer.in_progress()).then_some((id, answer.status))
        }
        _ => None,
    }
}
