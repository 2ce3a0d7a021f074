use serde_json::Value;
use serde_json::json;

use super::cites;
use super::hex;
use crate::emit::rust::type_size;
use crate::model::BitField;
use crate::model::BitItem;
use crate::model::Bits;
use crate::model::Spec;
use crate::model::StructureItem;

pub(super) fn enums(spec: &Spec) -> Vec<Value> {
    let rows = spec.enums.iter();
    rows.map(|row| {
        let values = row.values.iter();
        let values: Vec<Value> = values
            .map(|value| json!({ "name": value.name, "value": hex(value.value), "doc": value.doc }))
            .collect();
        json!({ "name": row.name, "width": row.width, "values": values, "doc": row.doc, "cite": cites(&row.cite) })
    })
    .collect()
}

pub(super) fn bits(bits: Bits) -> Value {
    json!({ "high": bits.high, "low": bits.low })
}

fn all_bits(list: &[Bits]) -> Vec<Value> {
    list.iter().copied().map(bits).collect()
}

fn bit_field(field: &BitField) -> Value {
    json!({
        "kind": "field", "name": field.name, "bits": all_bits(&field.bits),
        "type": field.ty.as_ref().map(|ty| &ty.value), "shift": field.shift, "doc": field.doc,
    })
}

pub(super) fn formats(spec: &Spec) -> Vec<Value> {
    let rows = spec.formats.iter();
    rows.map(|row| {
        let items = row.items.iter().map(|item| match item {
            BitItem::Field(field) => bit_field(field),
            BitItem::Reserved { bits, ones, .. } => {
                json!({ "kind": "reserved", "bits": all_bits(bits), "value": u8::from(*ones) })
            }
            BitItem::Ignored { bits, .. } => json!({ "kind": "ignored", "bits": all_bits(bits) }),
        });
        let items: Vec<Value> = items.collect();
        let views: Vec<Value> = row.views.iter().map(bit_field).collect();
        json!({
            "name": row.name, "width": row.width, "modules": spec.module_names(row.modules),
            "variant_of": row.variant_of.as_ref().map(|name| &name.value), "fields": items, "views": views, "doc": row.doc,
            "cite": cites(&row.cite),
        })
    })
    .collect()
}

pub(super) fn structures(spec: &Spec) -> Vec<Value> {
    let rows = spec.structures.iter();
    rows.map(|row| {
        let items = row.items.iter().map(|item| match item {
            StructureItem::Field(field) => {
                let element = match field.ty.value.as_str() {
                    "bytes" => Some(field.size),
                    ty => type_size(spec, ty),
                };
                json!({
                    "kind": "field", "offset": field.offset, "name": field.name, "type": field.ty.value,
                    "element_size": element, "count": field.count, "doc": field.doc,
                })
            }
            StructureItem::Reserved { offset, size, ones, .. } => {
                json!({ "kind": "reserved", "offset": offset, "size": size, "value": u8::from(*ones) })
            }
        });
        let items: Vec<Value> = items.collect();
        json!({
            "name": row.name, "size": row.size, "align": row.align, "modules": spec.module_names(row.modules),
            "variant_of": row.variant_of.as_ref().map(|name| &name.value), "fields": items, "doc": row.doc,
            "cite": cites(&row.cite),
        })
    })
    .collect()
}
