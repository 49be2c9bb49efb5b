//! What memory the running machine has, and what the guest last said about it.

use std::collections::HashMap;
use std::fmt::Write;

use anyhow::Result;
use serde_json::{Value, json};

use crate::ost::Answer;
use crate::qmp::Qmp;
use crate::size::Bytes;

/// A table for people.
pub fn table(qmp: &mut Qmp) -> Result<String> {
    let summary = qmp.execute("query-memory-size-summary", json!({}))?;
    let devices = qmp.execute("query-memory-devices", json!({}))?;
    // Without slots there is nobody to ask.
    let answers = qmp.execute("query-acpi-ospm-status", json!({})).unwrap_or(Value::Null);
    Ok(format(&summary, &devices, &answers))
}

fn format(summary: &Value, devices: &Value, answers: &Value) -> String {
    let last_words = last_words(answers);
    let mut text = String::new();
    let row = |text: &mut String, cells: [&str; 6]| {
        let [id, slot, node, address, size, guest] = cells;
        writeln!(text, "{id:<12} {slot:>4} {node:>4}  {address:>14}  {size:>6}  {guest}").expect("a string grows");
    };
    row(&mut text, ["ID", "SLOT", "NODE", "ADDRESS", "SIZE", "GUEST"]);
    for device in devices.as_array().into_iter().flatten() {
        let data = &device["data"];
        let slot = number(&data["slot"]);
        let address = data["addr"].as_u64().or_else(|| data["memaddr"].as_u64());
        let address = address.map_or_else(String::new, |address| format!("{address:#x}"));
        let guest = match data["requested-size"].as_u64() {
            Some(requested) => format!("{} requested of {}", Bytes(requested), size(&data["max-size"])),
            None => last_words.get(&slot).cloned().unwrap_or_default(),
        };
        let id = data["id"].as_str().unwrap_or("-");
        row(&mut text, [id, &slot, &number(&data["node"]), &address, &size(&data["size"]), &guest]);
    }
    let (base, plugged) = (size(&summary["base-memory"]), size(&summary["plugged-memory"]));
    writeln!(text, "boot memory {base}, plugged {plugged}").expect("a string grows");
    text
}

/// By slot. A slot about which nothing was said yet has source 0.
fn last_words(answers: &Value) -> HashMap<String, String> {
    let answers = answers.as_array().into_iter().flatten().filter(|answer| answer["source"] != 0);
    let answers = answers.filter_map(Answer::from_json);
    answers.filter_map(|answer| Some((answer.slot.clone()?, answer.to_string()))).collect()
}

fn number(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn size(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), |bytes| Bytes(bytes).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_shows_where_it_is_and_what_the_guest_said() {
        let summary = json!({"base-memory": 1_u64 << 30, "plugged-memory": 128 << 20});
        let data = json!({"id": "d0", "slot": 0, "node": 1, "addr": 1_u64 << 32, "size": 128 << 20});
        let answers = json!([
            {"device": "d0", "slot": "0", "slot-type": "DIMM", "source": 1, "status": 0},
            {"slot": "1", "slot-type": "DIMM", "source": 0, "status": 0},
        ]);
        let text = format(&summary, &json!([{"type": "dimm", "data": data}]), &answers);
        let row = text.lines().nth(1).expect("a row");
        assert!(["d0", "0x100000000", "128M", "the memory is in"].iter().all(|part| row.contains(part)), "{text}");
        assert!(text.ends_with("boot memory 1G, plugged 128M\n"), "{text}");
    }

    #[test]
    fn a_device_that_grows_shows_what_is_requested() {
        let data = json!({
            "id": "vmem0", "node": 0, "memaddr": 1_u64 << 32, "size": 128 << 20, "max-size": 8_u64 << 30,
            "requested-size": 1 << 30, "block-size": 2 << 20,
        });
        let text = format(&json!({}), &json!([{"type": "virtio-mem", "data": data}]), &Value::Null);
        let row = text.lines().nth(1).expect("a row");
        assert!(["vmem0", "0x100000000", "128M", "1G requested of 8G"].iter().all(|part| row.contains(part)), "{text}");
    }
}
