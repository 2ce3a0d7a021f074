//! A leaf with its operands, locks, states and statuses.

use tdx_codegen::area;
use tdx_codegen::model::Leaf;
use tdx_codegen::model::Operand;
use tdx_codegen::model::Side;
use tdx_codegen::model::Spec;

use super::Entry;
use super::cargo_feature;
use super::cites;
use crate::list;
use crate::reference;

pub(super) fn leaf(spec: &Spec, entry: &reference::LeafEntry<'_>) -> Entry {
    let leaf = entry.leaf;
    let versions: Vec<String> = entry.versions.iter().map(u8::to_string).collect();
    let modules = spec.module_names(entry.dispatched).join(", ");
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
    let area = area::of_leaf(spec, leaf);
    if leaf.side != Side::Vmcall {
        lines.extend(cargo_feature(area));
    }
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
            let mode = lock.mode.name();
            let priority = if lock.host_priority {
                ", host priority"
            } else {
                ""
            };
            let when = lock.when.as_ref().map(|when| format!(", {when}"));
            let when = when.unwrap_or_default();
            format!("{} {mode}{priority}{when}", lock.resource)
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
                    spec.module_names(row.modules).join(", ")
                ),
            ));
        }
    }
    if !leaf.statuses.is_empty() {
        lines.push(("statuses", spec.statuses_of(leaf)));
    }
    lines.push(("sources", cites(&leaf.cite)));
    let mut table = Vec::new();
    for variant in &entry.variants {
        table.extend(operands(variant, "in", &variant.inputs));
        table.extend(operands(variant, "out", &variant.outputs));
    }
    Entry {
        heading: format!("{}  {} leaf {}", leaf.name, leaf.side.name(), number(leaf)),
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
    let input = direction == "in";
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
                let purpose = part.kind.purpose().filter(|_| input);
                let doc = part.doc.as_deref().or(purpose).unwrap_or_default();
                let on = if on.is_empty() {
                    String::new()
                } else {
                    format!("With {}.", on.join(", "))
                };
                rows.push(vec![
                    direction.clone(),
                    register,
                    part.name.clone(),
                    [doc, &on].join(" ").trim().to_string(),
                ]);
            }
        }
    }
    rows
}
