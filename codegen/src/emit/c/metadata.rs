//! Metadata fields.

use super::Header;
use crate::emit::constant_name as constant;
use crate::model::FieldRow;
use crate::model::FieldTable;
use crate::model::Spec;

pub(super) fn fields(spec: &Spec, header: &mut Header) {
    for table in &spec.fields {
        one_table(spec, table, header);
    }
}

fn one_table(spec: &Spec, table: &FieldTable, header: &mut Header) {
    header.line("");
    header.section(&format!(
        "Ids of the fields of {}: of the first element. Where modules differ, the id of a newer one ends with its name.",
        table.name
    ));
    let prefix = format!("TDX_FIELD_{}_", constant(&table.name));
    let mut rows: Vec<(String, &FieldRow)> = Vec::new();
    let mut defined: Vec<(String, u64)> = Vec::new();
    for row in &table.rows {
        let plain = format!("{prefix}{}", constant(&row.name));
        let newer = || {
            let first = row.modules.iter().find_map(|index| spec.modules.get(index));
            let module = first.map(|module| constant(&module.name));
            format!("{plain}_{}", module.unwrap_or_default())
        };
        let same = |name: &str| defined.iter().find(|(known, _)| known == name);
        let name = match same(&plain) {
            Some((_, id)) if *id != row.id => newer(),
            _ => plain,
        };
        if same(&name).is_none() {
            header.define_u64(&name, row.id, row.doc.as_deref());
            defined.push((name.clone(), row.id));
        }
        rows.push((name, row));
    }
    header.section(&format!(
        "X(id, name, modules, fields, elements, {}) for each row of {}. A mask has a bit set where the role may read or write it.",
        FieldRow::MASKS.join(", "),
        table.name
    ));
    header.table(
        &format!("TDX_FIELDS_{}", constant(&table.name)),
        rows.iter().map(|(name, row)| {
            let masks: Vec<String> = row
                .masks
                .iter()
                .map(|mask| format!("TDX_U64({mask:#x})"))
                .collect();
            format!(
                "{name}, \"{}\", {:#x}, {}, {}, {}",
                row.name,
                row.modules.0,
                row.num_of_fields,
                row.num_of_elem,
                masks.join(", ")
            )
        }),
    );
}
