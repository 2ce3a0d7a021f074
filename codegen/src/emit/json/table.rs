use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::cites;
use super::hex;
use crate::model::At;
use crate::model::FieldRow;
use crate::model::FlagTable;
use crate::model::Retry;
use crate::model::Spec;

pub(super) fn sources(spec: &Spec) -> Vec<Value> {
    let rows = spec.sources.iter();
    rows.map(|row| {
        json!({
            "id": row.id, "title": row.title, "number": row.number, "url": row.url, "license": row.license,
            "commit": row.commit,
        })
    })
    .collect()
}

pub(super) fn modules(spec: &Spec) -> Vec<Value> {
    let rows = spec.modules.iter();
    rows.map(|row| {
        let leaves: Map<String, Value> = row
            .leaves
            .iter()
            .map(|(name, versions)| (name.value.clone(), json!(versions)))
            .collect();
        let reserved: Vec<&str> = row.reserved.iter().map(|name| name.value.as_str()).collect();
        let numbers = |rows: &[(At<String>, u64)]| -> Map<String, Value> {
            rows.iter()
                .map(|(name, value)| (name.value.clone(), hex(*value)))
                .collect()
        };
        let (values, limits) = (numbers(&row.values), numbers(&row.limits));
        json!({
            "name": row.name, "features0": row.features0.map(hex), "leaves": leaves, "reserved": reserved, "values": values,
            "limits": limits,
            "cite": cites(&row.cite),
        })
    })
    .collect()
}

pub(super) fn releases(spec: &Spec) -> Vec<Value> {
    let rows = spec.releases.iter();
    rows.map(|row| {
        json!({
            "version": row.version, "features0": hex(row.features0), "min_update_from": row.min_update_from,
            "min_seamldr": row.min_seamldr, "doc": row.doc,
        })
    })
    .collect()
}

pub(super) fn features(spec: &Spec) -> Vec<Value> {
    let rows = spec.features.iter();
    rows.map(|row| {
        json!({
            "name": row.name, "bit": row.bit, "contested": row.contested, "doc": row.doc, "cite": cites(&row.cite),
        })
    })
    .collect()
}

pub(super) fn statuses(spec: &Spec) -> Vec<Value> {
    let tables = spec.statuses.iter();
    tables
        .flat_map(|table| table.rows.iter().map(move |row| (table, row)))
        .map(|(table, row)| {
            // What a row does not cite, the head of its file does.
            let cite = if row.cite.is_empty() { &table.cite } else { &row.cite };
            json!({
                "callee": table.callee.name(), "name": row.name, "value": hex(row.value),
                "modules": spec.module_names(row.modules), "retry": row.retry.map(Retry::name),
                "low": row.low.name(), "contested": row.contested, "doc": row.doc, "cause": row.cause,
                "remedy": row.remedy, "cite": cites(cite),
            })
        })
        .collect()
}

pub(super) fn operands(spec: &Spec) -> Vec<Value> {
    let rows = spec.operands.iter();
    rows.map(|row| {
        json!({
            "name": row.name, "value": row.value, "modules": spec.module_names(row.modules), "doc": row.doc,
        })
    })
    .collect()
}

pub(super) fn states(spec: &Spec, table: &FlagTable) -> Value {
    let flags: Map<String, Value> = table
        .flags
        .iter()
        .map(|flag| (flag.name.clone(), json!(flag.doc)))
        .collect();
    let rows = table.rows.iter().map(|row| {
        let flags = row.flags.iter().filter_map(|index| table.flags.get(*index));
        let flags: Vec<&str> = flags.map(|flag| flag.name.as_str()).collect();
        json!({
            "name": row.name, "value": row.value, "also": row.also, "public": row.public, "index": row.index,
            "table_index": row.table_index, "flags": flags, "modules": spec.module_names(row.modules), "doc": row.doc,
        })
    });
    let rows: Vec<Value> = rows.collect();
    json!({ "flags": flags, "states": rows, "cite": cites(&table.cite) })
}

pub(super) fn fields(spec: &Spec) -> Vec<Value> {
    let tables = spec.fields.iter();
    tables
        .flat_map(|table| table.rows.iter().map(move |row| (table, row)))
        .map(|(table, row)| {
            let masks: Map<String, Value> = FieldRow::MASKS
                .iter()
                .zip(row.masks)
                .map(|(name, mask)| ((*name).to_owned(), hex(mask)))
                .collect();
            let attributes = FieldRow::ATTRIBUTES.iter().enumerate();
            let attributes = attributes.filter(|(bit, _)| row.attributes & 1 << bit != 0);
            let attributes: Vec<&str> = attributes.map(|(_, name)| *name).collect();
            json!({
                "scope": table.name, "name": row.name, "id": hex(row.id), "modules": spec.module_names(row.modules),
                "fields": row.num_of_fields, "elements": row.num_of_elem, "offset": row.offset, "masks": masks,
                "mig_export": row.mig_export, "mig_import": row.mig_import, "special_rd": row.special_rd,
                "special_wr": row.special_wr, "attributes": attributes,
                "count_from": row.count_from.as_ref().map(|name| &name.value), "doc": row.doc, "cite": cites(&table.cite),
            })
        })
        .collect()
}

pub(super) fn msrs(spec: &Spec) -> Vec<Value> {
    let rows = spec.msrs.iter();
    rows.map(|row| {
        json!({
            "name": row.name, "start": row.start, "end": row.end, "modules": spec.module_names(row.modules),
            "read": row.read, "write": row.write,
        })
    })
    .collect()
}

pub(super) fn cpuid(spec: &Spec) -> Vec<Value> {
    let tables = spec.cpuid.iter();
    tables
        .map(|table| {
            let lookup = table.lookup.iter().map(|row| {
                json!({
                    "leaf": row.leaf, "subleaf": row.subleaf, "faulting": row.faulting,
                    "verify_mask": row.verify_mask, "verify_value": row.verify_value, "verify_same": row.verify_same,
                    "fixed0_or_dynamic": row.fixed0_or_dynamic, "fixed1": row.fixed1, "config": row.config,
                })
            });
            let lookup: Vec<Value> = lookup.collect();
            let configurable = table.configurable.iter();
            let configurable = configurable
                .map(|row| json!({ "leaf": row.leaf, "subleaf": row.subleaf, "direct": row.direct, "allow": row.allow }));
            let configurable: Vec<Value> = configurable.collect();
            let masks = table.xfam_masks.iter();
            let masks = masks
                .map(|row| json!({ "leaf": row.leaf, "subleaf": row.subleaf, "xfam_bit": row.xfam_bit, "mask": row.mask }));
            let masks: Vec<Value> = masks.collect();
            json!({
                "modules": spec.module_names(table.modules), "lookup": lookup, "configurable": configurable,
                "xfam_masks": masks, "cite": cites(&table.cite),
            })
        })
        .collect()
}
