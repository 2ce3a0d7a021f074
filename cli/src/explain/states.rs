//! OP_STATEs and states of S-EPT entries.

use serde_json::json;
use tdx_codegen::model::Spec;

use super::Entry;

pub(super) fn states(spec: &Spec, is: impl Fn(&str) -> bool) -> Vec<Entry> {
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
            lines.push(("modules", spec.module_names(row.modules).join(", ")));
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
