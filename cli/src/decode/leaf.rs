//! `tdx decode leaf` and `tdx decode field`.

use serde_json::json;
use tdx_abi::field::FieldId;
use tdx_codegen::model::Leaf;
use tdx_codegen::model::Side;
use tdx_codegen::model::Spec;

use crate::error::Error;
use crate::output::Output;
use crate::reference;

/// RAX bit 63 of a SEAMCALL: P-SEAMLDR is called.
const SEAMLDR: u64 = 1 << 63;

/// RAX before a call.
pub(crate) struct LeafReading<'s> {
    /// Leaf version.
    pub(crate) version: u8,
    /// Bits that must be 0.
    pub(crate) reserved: u64,
    /// Leaves with this number: several where sources disagree.
    pub(crate) leaves: Vec<&'s Leaf>,
}

impl<'s> LeafReading<'s> {
    /// Reads RAX of a SEAMCALL (`guest` false) or TDCALL.
    pub(crate) fn new(spec: &'s Spec, rax: u64, guest: bool) -> Self {
        let side = match (guest, rax & SEAMLDR != 0) {
            (true, _) => Side::Guest,
            (false, true) => Side::Seamldr,
            (false, false) => Side::Host,
        };
        let bits = tdx_abi::format::LeafAndVersion::from_bits(rax);
        let number = if side == Side::Seamldr {
            rax
        } else {
            u64::from(bits.leaf())
        };
        let of_side = spec
            .leaves
            .iter()
            .filter(|leaf| leaf.side == side && leaf.variant.is_none());
        let matches =
            |leaf: &&Leaf| leaf.number.value == number || leaf.number.value | SEAMLDR == number;
        let mut leaves: Vec<&Leaf> = of_side.filter(matches).collect();
        leaves.sort_by_key(|leaf| leaf.contested);
        let (version, reserved) = if side == Side::Seamldr {
            (0, 0)
        } else {
            (
                bits.version(),
                rax & !u64::from(bits.leaf()) & !(u64::from(bits.version()) << 16),
            )
        };
        Self {
            version,
            reserved,
            leaves,
        }
    }
}

pub(super) fn decode(value: &str, json: bool, output: &mut Output) -> Result<(), Error> {
    let rax = reference::number(value)?;
    let spec = reference::spec()?;
    let mut readings = vec![("SEAMCALL", LeafReading::new(spec, rax, false))];
    if rax & SEAMLDR == 0 {
        readings.push(("TDCALL", LeafReading::new(spec, rax, true)));
    }
    let found = readings.iter().flat_map(|(call, reading)| {
        reading
            .leaves
            .iter()
            .map(move |leaf| (*call, reading, *leaf))
    });
    if json {
        let leaves: Vec<_> = found
            .map(|(call, reading, leaf)| {
                json!({
                    "call": call,
                    "name": leaf.name,
                    "number": leaf.number.value,
                    "version": reading.version,
                    "reserved": format!("{:#x}", reading.reserved),
                    "doc": leaf.doc,
                })
            })
            .collect();
        return Ok(output.json(&leaves)?);
    }
    let lines: Vec<_> = found
        .map(|(call, _, leaf)| (call, format!("{}: {}", leaf.name, leaf.doc)))
        .collect();
    let (version, reserved) = (readings[0].1.version, readings[0].1.reserved);
    let mut heading = format!("{rax:#x}  version {version}");
    if reserved != 0 {
        heading.push_str(&format!(", reserved bits {reserved:#x} set"));
    }
    if lines.is_empty() {
        heading.push_str("  no known leaf");
    }
    super::print(output, &heading, &lines)
}

pub(super) fn decode_field(value: &str, json: bool, output: &mut Output) -> Result<(), Error> {
    let id = reference::number(value)?;
    let found = reference::field(reference::spec()?, id);
    let bits = FieldId::from_bits(id);
    if json {
        return Ok(output.json(&json!({
            "id": format!("{id:#018x}"),
            "name": found.map(|found| &found.row.name),
            "scope": found.map(|found| found.table.name.to_lowercase()),
            "field": found.map(|found| found.field),
            "element": found.map(|found| found.element),
            "context_code": bits.context_code(),
            "class_code": bits.class_code(),
            "field_code": bits.field_code(),
            "element_size": bits.element_size(),
            "last_element": bits.last_element(),
            "last_field": bits.last_field(),
        }))?);
    }
    let mut lines = Vec::new();
    if let Some(found) = found {
        lines.push(("scope", found.table.name.to_lowercase()));
        if found.row.num_of_fields.max(1) * found.row.num_of_elem.max(1) > 1 {
            let (fields, elements) = (found.row.num_of_fields.max(1), found.row.num_of_elem.max(1));
            let counted = found
                .row
                .count_from
                .as_ref()
                .map(|from| format!(", the real number is in {}", from.value));
            let counted = counted.unwrap_or_default();
            let what = format!(
                "field {} of {fields}{counted}, element {} of {elements}",
                found.field, found.element
            );
            lines.push(("index", what));
        }
        lines.extend(found.row.doc.clone().map(|doc| ("what it is", doc)));
    }
    lines.push((
        "context, class",
        format!("{}, {}", bits.context_code(), bits.class_code()),
    ));
    lines.push(("field code", format!("{:#x}", bits.field_code())));
    lines.push(("element size", format!("{} bytes", bits.element_size())));
    let name = found.map_or("no known field", |found| found.row.name.as_str());
    super::print(output, &format!("{id:#018x}  {name}"), &lines)
}
