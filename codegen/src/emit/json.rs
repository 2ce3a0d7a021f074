//! The whole model as JSON, with a JSON Schema that documents it.
//!
//! Every key of an object is always there: what is unknown is `null`, what there is none of is `[]`. Numbers of up to 64 bits
//! are texts in hexadecimal, because many readers of JSON know 53 bits only.

mod layout;
mod leaf;
mod table;

use serde_json::Value;
use serde_json::json;

use super::File;
use crate::model::Cite;
use crate::model::Spec;

/// The JSON Schema of what [`value`] returns.
pub const SCHEMA: &str = include_str!("json/schema.json");

/// `tdx-abi.json` and `tdx-abi.schema.json`.
pub fn files(spec: &Spec) -> Vec<File> {
    let mut text = format!("{:#}", value(spec));
    text.push('\n');
    vec![
        File::new("tdx-abi.json", text),
        File::new("tdx-abi.schema.json", SCHEMA),
    ]
}

/// The model.
pub fn value(spec: &Spec) -> Value {
    json!({
        "$schema": "tdx-abi.schema.json",
        "sources": table::sources(spec),
        "modules": table::modules(spec),
        "releases": table::releases(spec),
        "features": table::features(spec),
        "statuses": table::statuses(spec),
        "operands": table::operands(spec),
        "op_states": table::states(spec, &spec.op_states),
        "sept_states": table::states(spec, &spec.sept_states),
        "l2_sept_states": table::states(spec, &spec.l2_sept_states),
        "fields": table::fields(spec),
        "msrs": table::msrs(spec),
        "cpuid": table::cpuid(spec),
        "enums": layout::enums(spec),
        "formats": layout::formats(spec),
        "structures": layout::structures(spec),
        "leaves": leaf::leaves(spec),
    })
}

fn hex(number: u64) -> Value {
    Value::String(format!("{number:#x}"))
}

fn cites(list: &[Cite]) -> Vec<Value> {
    list.iter()
        .map(|cite| json!({ "id": cite.id.value, "at": cite.at }))
        .collect()
}
