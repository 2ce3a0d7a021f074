//! Takes values apart by the formats of the specification.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tdx_codegen::model::BitField;
use tdx_codegen::model::BitItem;
use tdx_codegen::model::Bits;
use tdx_codegen::model::Format;
use tdx_codegen::model::Spec;

/// One named part of a value.
pub(crate) struct Part<'s> {
    /// Bits, such as `51:12`.
    pub(crate) bits: String,
    /// Name.
    pub(crate) name: &'s str,
    /// The part's value, shifted as the format says.
    pub(crate) value: u64,
    /// What the value stands for, if it has a name.
    pub(crate) meaning: Option<String>,
    /// What the part is for.
    pub(crate) doc: Option<&'s str>,
}

/// The format with this name.
pub(crate) fn format<'s>(spec: &'s Spec, name: &str) -> Option<&'s Format> {
    spec.formats.iter().find(|format| format.name == name)
}

/// Fields and views of `value`, and the bits that are set although they are reserved.
pub(crate) fn take_apart<'s>(
    spec: &'s Spec,
    format: &'s Format,
    value: u64,
) -> (Vec<Part<'s>>, u64) {
    let mut parts = Vec::new();
    let mut reserved = if format.width < 64 {
        value >> format.width << format.width
    } else {
        0
    };
    for item in &format.items {
        match item {
            BitItem::Field(field) => parts.push(part(spec, field, value)),
            BitItem::Reserved { bits, ones, .. } => {
                let mask = bits.iter().fold(0, |mask, bits| mask | bits.mask());
                reserved |= if *ones { !value } else { value } & mask;
            }
            BitItem::Ignored { .. } => {}
        }
    }
    parts.extend(format.views.iter().map(|view| part(spec, view, value)));
    (parts, reserved)
}

fn part<'s>(spec: &'s Spec, field: &'s BitField, value: u64) -> Part<'s> {
    let gathered = gather(&field.bits, value);
    let bits: Vec<String> = field.bits.iter().map(Bits::to_string).collect();
    Part {
        bits: bits.join(","),
        name: &field.name,
        value: gathered << field.shift,
        meaning: field
            .ty
            .as_ref()
            .and_then(|ty| named(spec, &ty.value, gathered)),
        doc: field.doc.as_deref(),
    }
}

/// The pieces of a split field put together, the high part first.
fn gather(pieces: &[Bits], value: u64) -> u64 {
    pieces.iter().fold(0, |gathered, bits| {
        let piece = (value & bits.mask()) >> bits.low;
        if bits.width() >= 64 {
            piece
        } else {
            gathered << bits.width() | piece
        }
    })
}

/// Name of `value` in the enum or state table that `ty` names.
fn named(spec: &Spec, ty: &str, value: u64) -> Option<String> {
    let state = |table: &tdx_codegen::model::FlagTable| {
        let row = table
            .rows
            .iter()
            .find(|row| row.value == value || row.also == Some(value))?;
        Some(row.name.clone())
    };
    match ty {
        "OpState" => state(&spec.op_states),
        "SeptState" => state(&spec.sept_states),
        "L2SeptState" => state(&spec.l2_sept_states),
        "Level" => tdx_abi::Level::new(u8::try_from(value).ok()?)
            .map(|level| crate::output::bytes(level.size())),
        _ => {
            let values = &spec.enums.iter().find(|it| it.name == ty)?.values;
            Some(values.iter().find(|it| it.value == value)?.name.clone())
        }
    }
}

/// The parts for machines: name to number, or to the number's name where it has one.
pub(crate) fn parts_json(parts: &[Part<'_>]) -> Value {
    let pair = |part: &Part<'_>| {
        let value = part
            .meaning
            .as_ref()
            .map_or_else(|| json!(part.value), |meaning| json!(meaning));
        (part.name.to_string(), value)
    };
    Value::Object(parts.iter().map(pair).collect::<Map<_, _>>())
}
