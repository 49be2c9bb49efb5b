//! virtio-mem devices: resized as a VMM does it, and what the guest makes of it.

use anyhow::{Context, Result, ensure};
use boot::size::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::vm::Vm;

/// One device of `virtio_mem -J`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Resizable {
    pub name: String,
    pub node: u64,
    pub start: u64,
    pub region: u64,
    pub requested: u64,
    pub plugged: u64,
    pub block_size: u64,
    pub mode: String,
    pub state: String,
    pub reason: Option<String>,
}

impl Vm {
    /// Every device that the guest knows, in its order.
    #[track_caller]
    pub fn resizables(&mut self) -> Result<Vec<Resizable>> {
        let mut list = self.json("virtio_mem")?;
        serde_json::from_value(list["devices"].take()).context("`virtio_mem -J`")
    }

    /// The device of that name, as the guest knows it.
    #[track_caller]
    pub fn resizable(&mut self, name: &str) -> Result<Resizable> {
        let all = self.resizables()?;
        all.iter().find(|device| device.name == name).cloned().with_context(|| format!("no {name} in {all:?}"))
    }

    /// Says how much of a device the guest shall have.
    #[track_caller]
    pub fn request(&mut self, id: &str, size: Bytes) -> Result<()> {
        let path = format!("/machine/peripheral/{id}");
        self.qmp("qom-set", json!({"path": path, "property": "requested-size", "value": size.0})).map(drop)
    }

    /// How much of a device is plugged, as QEMU has it.
    #[track_caller]
    pub fn plugged(&mut self, id: &str) -> Result<u64> {
        let devices = self.qmp("query-memory-devices", json!({}))?;
        let of_id = |device: &&Value| device["data"]["id"] == id;
        let device = devices.as_array().and_then(|devices| devices.iter().find(of_id));
        device.and_then(|device| device["data"]["size"].as_u64()).with_context(|| format!("no {id} in {devices}"))
    }

    /// Waits until the guest has what is requested of a device, and QEMU counts the same.
    #[track_caller]
    pub fn settled(&mut self, id: &str, size: Bytes) -> Result<()> {
        self.wait_for(&format!("{id} with {size}"), |vm| {
            let device = vm.resizable(id)?;
            Ok((device.state == "idle" && device.requested == size.0 && device.plugged == size.0).then_some(()))
        })?;
        let plugged = self.plugged(id)?;
        ensure!(plugged == size.0, "{id}: QEMU counts {plugged}, the guest {size}");
        Ok(())
    }

    /// Resizes a device, which works.
    #[track_caller]
    pub fn resize(&mut self, id: &str, size: Bytes) -> Result<()> {
        self.request(id, size)?;
        self.settled(id, size)
    }

    /// Waits until a device is in a state that has a reason, and returns that.
    #[track_caller]
    pub fn stuck(&mut self, id: &str, state: &str) -> Result<String> {
        self.wait_for(&format!("{id} {state}"), |vm| {
            let device = vm.resizable(id)?;
            Ok(device.reason.filter(|_| device.state == state))
        })
    }
}
