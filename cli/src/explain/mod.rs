//! `tdx explain`: all that is known of a leaf, status, field, format or state.

use clap::Args;
use serde_json::Value;
use serde_json::json;
use tdx_codegen::emit::rust::type_size;
use tdx_codegen::model::BitItem;
use tdx_codegen::model::Callee;
use tdx_codegen::model::Cite;
use tdx_codegen::model::Leaf;
use tdx_codegen::model::LockMode;
use tdx_codegen::model::Operand;
use tdx_codegen::model::Spec;
use tdx_codegen::model::StructureField;
use tdx_codegen::model::StructureItem;

use crate::decode;
use crate::error::Error;
use crate::list;
use crate::output::Output;
use crate::reference;

/// Explains a leaf, a number, a status, a metadata field, a format or a state.
#[derive(Debug, Args)]
pub struct Options {
    /// Name (with or without TDX_, dots or underscores) or number.
    what: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Something that was found, ready to print.
struct Entry {
    heading: String,
    lines: Vec<(&'static str, String)>,
    table: Vec<Vec<String>>,
    json: Value,
}

/// Carries out `tdx explain`.
pub fn explain(options: &Options, output: &mut Output) -> Result<(), Error> {
    let spec = reference::spec()?;
    let mut entries = by_name(spec, &options.what);
    if entries.is_empty()
        && let Ok(number) = reference::number(&options.what)
    {
        entries = by_number(spec, number);
    }
    if entries.is_empty() {
        return Err(not_found(spec, &options.what));
    }
    if options.json {
        let entries: Vec<Value> = entries.into_iter().map(|entry| entry.json).collect();
        return Ok(output.json(&entries)?);
    }
    for (index, entry) in entries.into_iter().enumerate() {
        if index > 0 {
            use std::io::Write as _;
            writeln!(output)?;
        }
        decode::print(output, &entry.heading, &entry.lines)?;
        if !entry.table.is_empty() {
            output.table(&[], entry.table, &[])?;
        }
    }
    Ok(())
}

fn not_found(spec: &Spec, what: &str) -> Error {
    let close = reference::closest(what, names(spec));
    let hint = if close.is_empty() {
        String::new()
    } else {
        format!("; did you mean {}?", close.join(", "))
    };
    Error::Failed(format!("nothing is known of {what:?}{hint}"))
}

fn names(spec: &Spec) -> impl Iterator<Item = &str> {
    let leaves = spec.leaves.iter().map(|leaf| &*leaf.name);
    let statuses = reference::statuses(spec).map(|(_, row)| &*row.name);
    let operands = spec.operands.iter().map(|row| &*row.name);
    let fields = spec
        .fields
        .iter()
        .flat_map(|table| &table.rows)
        .map(|row| &*row.name);
    let formats = spec.formats.iter().map(|it| &*it.name);
    let structures = spec.structures.iter().map(|it| &*it.name);
    let enums = spec.enums.iter().map(|it| &*it.name);
    let states = [&spec.op_states, &spec.sept_states, &spec.l2_sept_states]
        .into_iter()
        .flat_map(|table| &table.rows);
    leaves
        .chain(statuses)
        .chain(operands)
        .chain(fields)
        .chain(formats)
        .chain(structures)
        .chain(enums)
        .chain(states.map(|row| &*row.name))
}

fn by_name(spec: &'static Spec, what: &str) -> Vec<Entry> {
    let wanted = reference::plain(what);
    let without_prefix = wanted.strip_prefix("TDX").map(str::to_string);
    let is = |name: &str| {
        let name = reference::plain(name);
        name == wanted
            || without_prefix
                .as_ref()
                .is_some_and(|wanted| name == *wanted)
    };
    let mut entries = Vec::new();
    entries.extend(
        reference::leaves(spec, None)
            .iter()
            .filter(|entry| is(&entry.leaf.name))
            .map(|entry| leaf(spec, entry)),
    );
    entries.extend(
        reference::statuses(spec)
            .filter(|(_, row)| is(&row.name))
            .map(|(callee, row)| status(spec, callee, row.value)),
    );
    entries.extend(spec.operands.iter().filter(|row| is(&row.name)).map(|row| {
        Entry {
            heading: format!("{}  operand id {}", row.name, row.value),
            lines: row
                .doc
                .clone()
                .map(|doc| ("meaning", doc))
                .into_iter()
                .collect(),
            table: Vec::new(),
            json: json!({ "kind": "operand", "name": row.name, "value": row.value }),
        }
    }));
    for table in &spec.fields {
        let mut seen = Vec::new();
        for row in table.rows.iter().filter(|row| is(&row.name)) {
            if !seen.contains(&row.id) {
                seen.push(row.id);
                entries.extend(field(spec, row.id));
            }
        }
    }
    entries.extend(spec.formats.iter().filter(|it| is(&it.name)).map(format));
    entries.extend(
        spec.structures
            .iter()
            .filter(|it| is(&it.name))
            .map(|it| structure(spec, it)),
    );
    entries.extend(spec.enums.iter().filter(|it| is(&it.name)).map(|it| Entry {
        heading: format!("{}  numbering of {} bits", it.name, it.width),
        lines: vec![("meaning", it.doc.clone()), ("sources", cites(&it.cite))],
        table: it
            .values
            .iter()
            .map(|value| vec![value.value.to_string(), value.name.clone(), value.doc.clone().unwrap_or_default()])
            .collect(),
        json: json!({
            "kind": "enum", "name": it.name, "doc": it.doc,
            "values": it.values.iter().map(|value| json!({ "name": value.name, "value": value.value })).collect::<Vec<_>>(),
        }),
    }));
    entries.extend(states(spec, is));
    entries
}

fn by_number(spec: &'static Spec, number: u64) -> Vec<Entry> {
    let mut entries = Vec::new();
    for entry in reference::leaves(spec, None) {
        if entry.leaf.number.value == number && entry.leaf.side != tdx_codegen::model::Side::Vmcall
        {
            entries.push(leaf(spec, &entry));
        }
    }
    if number >> 32 != 0 {
        for callee in [Callee::Module, Callee::Seamldr, Callee::Linux] {
            if reference::status(spec, callee, number).is_some() {
                entries.push(status(spec, callee, number));
            }
        }
        entries.extend(field(spec, number));
    }
    entries
}

fn leaf(spec: &Spec, entry: &reference::LeafEntry<'_>) -> Entry {
    let leaf = entry.leaf;
    let versions: Vec<String> = entry.versions.iter().map(u8::to_string).collect();
    let modules = reference::module_names(spec, entry.dispatched).join(", ");
    let status = match entry.status() {
        "dispatched" => format!("dispatched by {modules}, version {}", versions.join(", ")),
        "reserved" => "numbered, but dispatched by no module whose source is public".to_string(),
        _ => "known from one source only".to_string(),
    };
    let mut lines = vec![("what it does", leaf.doc.clone()), ("status", status)];
    lines.extend(
        leaf.feature
            .as_ref()
            .map(|feature| ("needs", format!("TDX_FEATURES0.{}", feature.value))),
    );
    for variant in &entry.variants {
        if let Some(name) = &variant.variant {
            let versions: Vec<String> = variant.versions.iter().map(u8::to_string).collect();
            lines.push((
                "also",
                format!("operand list {name}, version {}", versions.join(", ")),
            ));
        }
    }
    let locks: Vec<String> = leaf
        .locks
        .iter()
        .map(|lock| {
            let mode = if lock.mode == LockMode::Exclusive {
                "exclusive"
            } else {
                "shared"
            };
            let priority = if lock.host_priority {
                ", host priority"
            } else {
                ""
            };
            format!("{} {mode}{priority}", lock.resource)
        })
        .collect();
    if !locks.is_empty() {
        lines.push(("locks", locks.join("; ")));
    }
    for (label, allowed) in [
        ("OP_STATEs", &leaf.op_states),
        ("S-EPT states", &leaf.sept_states),
    ] {
        for row in allowed {
            let states: Vec<&str> = row.states.iter().map(|state| &*state.value).collect();
            lines.push((
                label,
                format!(
                    "{} (module {})",
                    states.join(", "),
                    reference::module_names(spec, row.modules).join(", ")
                ),
            ));
        }
    }
    let statuses: Vec<&str> = leaf.statuses.iter().map(|status| &*status.value).collect();
    if !statuses.is_empty() {
        lines.push(("statuses", statuses.join(", ")));
    }
    lines.push(("sources", cites(&leaf.cite)));
    let mut table = Vec::new();
    for variant in &entry.variants {
        table.extend(operands(variant, "in", &variant.inputs));
        table.extend(operands(variant, "out", &variant.outputs));
    }
    Entry {
        heading: format!(
            "{}  {} leaf {}",
            leaf.name,
            reference::side_name(leaf.side),
            number(leaf)
        ),
        lines,
        table,
        json: list::leaf_json(spec, entry, None),
    }
}

fn number(leaf: &Leaf) -> String {
    let number = leaf.number.value;
    if number < 10 {
        number.to_string()
    } else {
        format!("{number} ({number:#x})")
    }
}

fn operands(leaf: &Leaf, direction: &str, list: &[Operand]) -> Vec<Vec<String>> {
    let direction = match &leaf.variant {
        Some(variant) => format!("{direction} ({variant})"),
        None => direction.to_string(),
    };
    let mut rows = Vec::new();
    for operand in list {
        for meaning in &operand.meanings {
            let on: Vec<&str> = meaning.on.iter().map(|status| &*status.value).collect();
            for part in &meaning.parts {
                let register = part.bits.map_or_else(
                    || operand.register.to_string(),
                    |bits| format!("{}[{bits}]", operand.register),
                );
                let doc = part.doc.clone().unwrap_or_default();
                let on = if on.is_empty() {
                    String::new()
                } else {
                    format!("with {}", on.join(", "))
                };
                rows.push(vec![
                    direction.clone(),
                    register,
                    part.name.clone(),
                    [doc, on].join(" ").trim().to_string(),
                ]);
            }
        }
    }
    rows
}

fn cites(cites: &[Cite]) -> String {
    let one = |cite: &Cite| match &cite.at {
        Some(at) => format!("{}: {at}", cite.id.value),
        None => cite.id.value.clone(),
    };
    cites.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn status(spec: &Spec, callee: Callee, value: u64) -> Entry {
    let reading = decode::StatusReading::new(spec, callee, value);
    let mut lines = reading.lines();
    // A code by itself has no low bits that could say something.
    lines.retain(|(label, _)| *label != "says");
    if let Some(row) = reading.row.filter(|_| callee == Callee::Module) {
        lines.push((
            "modules",
            reference::module_names(spec, row.modules).join(", "),
        ));
        let returned: Vec<&str> = spec
            .leaves
            .iter()
            .filter(|leaf| {
                leaf.variant.is_none()
                    && leaf.statuses.iter().any(|status| status.value == row.name)
            })
            .map(|leaf| &*leaf.name)
            .collect();
        if !returned.is_empty() && returned.len() <= 24 {
            lines.push(("returned by", returned.join(", ")));
        }
    }
    let name = reading.name().unwrap_or_default();
    Entry {
        heading: format!("{name}  status {value:#018x}"),
        lines,
        table: Vec::new(),
        json: reading.json(),
    }
}

fn field(spec: &'static Spec, id: u64) -> Option<Entry> {
    let found = reference::field(spec, id)?;
    let row = found.row;
    let modules = reference::module_names(spec, row.modules);
    let mut lines = Vec::new();
    lines.extend(row.doc.clone().map(|doc| ("meaning", doc)));
    lines.push(("scope", found.table.name.to_lowercase()));
    lines.push((
        "size",
        format!(
            "{} fields of {} elements",
            row.num_of_fields.max(1),
            row.num_of_elem.max(1)
        ),
    ));
    lines.extend(
        row.count_from
            .as_ref()
            .map(|from| ("real count", format!("in {}", from.value))),
    );
    for (name, mask) in tdx_codegen::model::FieldRow::MASKS.iter().zip(row.masks) {
        if mask != 0 {
            lines.push((name, format!("{mask:#x}")));
        }
    }
    lines.push(("modules", modules.join(", ")));
    Some(Entry {
        heading: format!("{}  metadata field {:#018x}", row.name, row.id),
        lines,
        table: Vec::new(),
        json: json!({
            "kind": "field", "name": row.name, "scope": found.table.name.to_lowercase(), "id": format!("{:#018x}", row.id),
            "fields": row.num_of_fields, "elements": row.num_of_elem, "modules": modules,
        }),
    })
}

fn format(format: &tdx_codegen::model::Format) -> Entry {
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

fn structure(spec: &Spec, structure: &tdx_codegen::model::Structure) -> Entry {
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

fn states(spec: &Spec, is: impl Fn(&str) -> bool) -> Vec<Entry> {
    let tables = [
        ("OP_STATE", &spec.op_states),
        ("S-EPT state", &spec.sept_states),
        ("L2 S-EPT state", &spec.l2_sept_states),
    ];
    let mut entries = Vec::new();
    for (kind, table) in tables {
        for row in table.rows.iter().filter(|row| is(&row.name)) {
            let flags: Vec<&str> = row
                .flags
                .iter()
                .filter_map(|&flag| Some(&*table.flags.get(flag)?.name))
                .collect();
            let allowed = spec.leaves.iter().filter(|leaf| {
                let lists = if kind == "OP_STATE" {
                    &leaf.op_states
                } else {
                    &leaf.sept_states
                };
                kind != "L2 S-EPT state"
                    && lists
                        .iter()
                        .any(|list| list.states.iter().any(|state| state.value == row.name))
            });
            let allowed: Vec<&str> = allowed.map(|leaf| &*leaf.name).collect();
            let mut lines = Vec::new();
            lines.extend(row.doc.clone().map(|doc| ("meaning", doc)));
            lines.push(("flags", flags.join(", ")));
            lines.push((
                "modules",
                reference::module_names(spec, row.modules).join(", "),
            ));
            if !allowed.is_empty() {
                lines.push(("legal for", allowed.join(", ")));
            }
            entries.push(Entry {
                heading: format!("{}  {kind} {:#x}", row.name, row.value),
                lines,
                table: Vec::new(),
                json: json!({ "kind": kind, "name": row.name, "value": row.value, "flags": flags, "leaves": allowed }),
            });
        }
    }
    entries
}
