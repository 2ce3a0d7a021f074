//! `tdx decode gpa`.

use serde_json::json;
use tdx_abi::Gpa;
use tdx_abi::Level;
use tdx_abi::SharedBit;
use tdx_abi::Split;

use crate::error::Error;
use crate::output::Output;
use crate::reference;

pub(super) fn decode(value: &str, gpaw: u8, json: bool, output: &mut Output) -> Result<(), Error> {
    let gpa = Gpa::new(reference::number(value)?);
    let bad = || {
        Error::Failed(format!(
            "no SHARED bit for a guest-physical address width of {gpaw}"
        ))
    };
    let shared_bit = SharedBit::new(gpaw - 1).ok_or_else(bad)?;
    let (kind, address) = match shared_bit.split(gpa) {
        Split::Private(gpa) => ("private", gpa.bits()),
        Split::Shared(gpa) => ("shared", gpa.bits()),
    };
    let beyond = gpa.bits() >> gpaw << gpaw;
    let levels = if gpaw == 52 {
        &Level::ALL[..]
    } else {
        &Level::ALL[..4]
    };
    let index = |level: &Level| level.index(gpa.bits());
    if json {
        let indices: serde_json::Map<_, _> = levels
            .iter()
            .map(|level| (format!("{level:?}").to_lowercase(), json!(index(level))))
            .collect();
        return Ok(output.json(&json!({
            "gpa": format!("{gpa:#x}"),
            "kind": kind,
            "shared": kind == "shared",
            "shared_bit": shared_bit.position(),
            "address": format!("{address:#x}"),
            "gfn": format!("{:#x}", address >> 12),
            "offset": address & 0xfff,
            "indices": indices,
            "beyond_width": format!("{beyond:#x}"),
        }))?);
    }
    let path: Vec<String> = levels
        .iter()
        .rev()
        .map(|level| format!("{level:?} {}", index(level)))
        .collect();
    let mut lines = vec![
        (
            "SHARED bit",
            format!("{} = {}", shared_bit.position(), u8::from(kind == "shared")),
        ),
        ("address", format!("{address:#x}")),
        (
            "gfn",
            format!("{:#x}, offset {:#x}", address >> 12, address & 0xfff),
        ),
        ("table indices", path.join(", ")),
    ];
    if beyond != 0 {
        lines.push((
            "beyond width",
            format!("bits {beyond:#x} lie above a width of {gpaw}"),
        ));
    }
    super::print(output, &format!("{gpa:#x}  {kind}"), &lines)
}
