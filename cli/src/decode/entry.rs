//! `tdx decode sept` and `tdx decode ept`.

use serde_json::json;
use tdx_abi::Level;

use crate::error::Error;
use crate::output::Output;
use crate::reference;

pub(super) fn decode_sept(
    value: &str,
    level: Option<u8>,
    json: bool,
    output: &mut Output,
) -> Result<(), Error> {
    print(value, "SeptEntry", level, json, output)
}

pub(super) fn decode_ept(
    value: &str,
    level: Option<u8>,
    json: bool,
    output: &mut Output,
) -> Result<(), Error> {
    let bits = reference::number(value)?;
    // Bit 7 makes an entry of level 1 or 2 a leaf; it is ignored at level 0.
    let large = tdx_abi::format::EptLeaf2M::from_bits(bits).into_bits() >> 7 & 1 == 1;
    let name = match (level.and_then(Level::new), large) {
        (Some(Level::Pt) | None, false) => "EptLeaf4K",
        (Some(Level::Pt), true) => "EptLeaf4K",
        (Some(Level::Pdpt), true) => "EptLeaf1G",
        (_, true) => "EptLeaf2M",
        (Some(_), false) => "EptNonLeaf",
    };
    print(value, name, level, json, output)
}

fn print(
    value: &str,
    name: &str,
    level: Option<u8>,
    json: bool,
    output: &mut Output,
) -> Result<(), Error> {
    let bits = reference::number(value)?;
    let spec = reference::spec()?;
    let format = reference::format(spec, name)
        .ok_or_else(|| Error::Failed(format!("the specification has no format {name}")))?;
    let (parts, reserved) = reference::take_apart(spec, format, bits);
    let maps = level
        .and_then(Level::new)
        .map(|level| crate::output::bytes(level.size()));
    if json {
        return Ok(output.json(&json!({
            "value": format!("{bits:#018x}"),
            "format": name,
            "level": level,
            "fields": reference::parts_json(&parts),
            "reserved": format!("{reserved:#x}"),
        }))?);
    }
    let mut heading = format!("{bits:#018x}  {name}");
    if let Some(maps) = maps {
        heading.push_str(&format!(
            " of level {}, which covers {maps}",
            level.unwrap_or(0)
        ));
    }
    if reserved != 0 {
        heading.push_str(&format!("; reserved bits {reserved:#x} are set"));
    }
    super::print(output, &heading, &[])?;
    let row = |part: reference::Part<'_>| {
        let shown = part.meaning.unwrap_or_else(|| format!("{:#x}", part.value));
        vec![
            part.bits,
            part.name.to_string(),
            shown,
            part.doc.unwrap_or_default().to_string(),
        ]
    };
    Ok(output.table(
        &["bits", "field", "value", ""],
        parts.into_iter().map(row).collect(),
        &[0],
    )?)
}
