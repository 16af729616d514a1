//! Differences between frames, for people.

use etherparse::{PacketHeaders, PayloadSlice};

/// Says where two frames differ: the fields first, then the bytes.
#[must_use]
pub fn frames(expected: &[u8], found: &[u8]) -> String {
    let mut text = format!("  frame: expected {} bytes, found {}\n", expected.len(), found.len());
    let (expected_fields, found_fields) = (fields(expected), fields(found));
    if expected_fields.len() == found_fields.len() {
        for (expected, found) in expected_fields.iter().zip(&found_fields).filter(|(e, f)| e != f) {
            text += &format!("    expected {}\n       found {}\n", expected.trim(), found.trim());
        }
    } else {
        text += &format!("    expected {}\n", expected_fields.join("\n").trim());
        text += &format!("    found {}\n", found_fields.join("\n").trim());
    }
    for at in (0..expected.len().max(found.len())).step_by(16) {
        let (e, f) = (row(expected, at), row(found, at));
        if e == f {
            text += &format!("      {at:04x}  {e}\n");
        } else {
            text += &format!("    - {at:04x}  {e}\n    + {at:04x}  {f}\n");
        }
    }
    text
}

fn row(frame: &[u8], at: usize) -> String {
    let end = frame.len().min(at + 16);
    let bytes = frame.get(at..end).unwrap_or_default();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// Every field on a line of its own, those of a packet in the packet too.
fn fields(frame: &[u8]) -> Vec<String> {
    let mut text = String::new();
    match PacketHeaders::from_ethernet_slice(frame) {
        Ok(headers) => {
            text += &format!("{:#?}\n{:#?}\n{:#?}\n", headers.link, headers.link_exts, headers.net);
            text += &format!("{:#?}\n", headers.transport);
            let inner = match &headers.payload {
                PayloadSlice::Ip(payload) => Some(payload.payload),
                PayloadSlice::Udp(payload) => payload.get(4..),
                _ => None,
            };
            if let Some(Ok(inner)) = inner.map(PacketHeaders::from_ip_slice) {
                text += &format!("inner {:#?}\ninner {:#?}\n", inner.net, inner.transport);
            }
        }
        Err(error) => text += &format!("not understood: {error}\n"),
    }
    text.lines().map(str::to_owned).collect()
}
