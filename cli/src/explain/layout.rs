//! Formats, bit by bit, and structures, byte by byte.

use serde_json::json;
use tdx_codegen::emit::rust::type_size;
use tdx_codegen::model::BitItem;
use tdx_codegen::model::Spec;
use tdx_codegen::model::StructureField;
use tdx_codegen::model::StructureItem;

use super::Entry;
use super::cites;

pub(super) fn format(format: &tdx_codegen::model::Format) -> Entry {
    let row = |item: &BitItem| {
        let bits: Vec<String> = item.bits().iter().map(ToString::to_string).collect();
        let (name, doc) = match item {
            BitItem::Field(field) => (field.name.clone(), field.doc.clone().unwrap_or_default()),
            BitItem::Reserved { ones, .. } => {
                (String::new(), format!("reserved, {}", u8::from(*ones)))
            }
            BitItem::Ignored { .. } => (String::new(), "ignored".to_string()),
        };
        vec![bits.join(","), name, doc]
    };
    Entry {
        heading: format!("{}  format of {} bits", format.name, format.width),
        lines: vec![
            ("meaning", format.doc.clone()),
            ("sources", cites(&format.cite)),
        ],
        table: format.items.iter().map(row).collect(),
        json: json!({
            "kind": "format", "name": format.name, "width": format.width, "doc": format.doc,
            "fields": format.items.iter().filter_map(|item| match item {
                BitItem::Field(field) => Some(json!({
                    "name": field.name, "bits": field.bits.iter().map(ToString::to_string).collect::<Vec<_>>(), "doc": field.doc,
                })),
                _ => None,
            }).collect::<Vec<_>>(),
        }),
    }
}

pub(super) fn structure(spec: &Spec, structure: &tdx_codegen::model::Structure) -> Entry {
    let size = |field: &StructureField| type_size(spec, &field.ty.value).unwrap_or(field.size);
    let row = |item: &StructureItem| match item {
        StructureItem::Field(field) => vec![
            field.offset.to_string(),
            (size(field) * field.count.unwrap_or(1)).to_string(),
            field.name.clone(),
            field.doc.clone().unwrap_or_default(),
        ],
        StructureItem::Reserved { offset, size, .. } => {
            vec![
                offset.to_string(),
                size.to_string(),
                String::new(),
                "reserved".to_string(),
            ]
        }
    };
    Entry {
        heading: format!(
            "{}  structure of {} bytes, aligned to {}",
            structure.name, structure.size, structure.align
        ),
        lines: vec![
            ("meaning", structure.doc.clone()),
            ("sources", cites(&structure.cite)),
        ],
        table: structure.items.iter().map(row).collect(),
        json: json!({
            "kind": "structure", "name": structure.name, "size": structure.size, "align": structure.align, "doc": structure.doc,
            "fields": structure.items.iter().filter_map(|item| match item {
                StructureItem::Field(field) => Some(json!({
                    "name": field.name, "offset": field.offset, "size": size(field), "count": field.count, "type": field.ty.value,
                })),
                StructureItem::Reserved { .. } => None,
            }).collect::<Vec<_>>(),
        }),
    }
}
