//! `tdx explain`: all that is known of a leaf, status, field, format or state.

mod layout;
mod leaf;
mod states;

use clap::Args;
use serde_json::Value;
use serde_json::json;
use tdx_abi::field::FieldId;
use tdx_codegen::area;
use tdx_codegen::model::Callee;
use tdx_codegen::model::Cite;
use tdx_codegen::model::Spec;

use crate::decode;
use crate::error::Error;
use crate::output::Output;
use crate::reference;
use layout::format;
use layout::structure;
use leaf::leaf;
use states::states;

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
        // Any number has a class and a code; it is meant as an id only if the rest of it could be one.
        let id = FieldId::from_bits(number);
        let is_id = reference::field(spec, number).is_some_and(|found| {
            let base = FieldId::from_bits(found.row.id);
            id.reserved() == 0 && id.element_size_code() == base.element_size_code()
        });
        if is_id {
            entries.extend(field(spec, number));
        }
    }
    entries
}

fn cites(cites: &[Cite]) -> String {
    let one = |cite: &Cite| match &cite.at {
        Some(at) => format!("{}: {at}", cite.id.value),
        None => cite.id.value.clone(),
    };
    cites.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// The feature of `tdx-abi` without which it lacks what is in `area`, if there is one.
fn cargo_feature(area: &str) -> Option<(&'static str, String)> {
    (area != area::CORE).then(|| ("cargo feature", format!("`{area}` of tdx-abi")))
}

fn status(spec: &Spec, callee: Callee, value: u64) -> Entry {
    let reading = decode::StatusReading::new(spec, callee, value);
    let mut lines = reading.lines();
    // A code by itself has no low bits that could say something.
    lines.retain(|(label, _)| *label != "says");
    if let Some(row) = reading.row.filter(|_| callee == Callee::Module) {
        lines.push(("modules", spec.module_names(row.modules).join(", ")));
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
    let areas = area::Areas::of_statuses(spec, callee);
    lines.extend(
        reading
            .row
            .and_then(|row| cargo_feature(areas.of(&row.name))),
    );
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
    let modules = spec.module_names(row.modules);
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
    lines.extend(cargo_feature(area::of_field(spec, found.table, &row.name)));
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
