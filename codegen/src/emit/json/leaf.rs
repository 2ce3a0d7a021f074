use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::cites;
use super::hex;
use super::layout::bits;
use crate::model::Allowed;
use crate::model::At;
use crate::model::Evidence;
use crate::model::Kind;
use crate::model::LockMode;
use crate::model::Operand;
use crate::model::Part;
use crate::model::Spec;
use crate::model::Yields;

pub(super) fn leaves(spec: &Spec) -> Vec<Value> {
    let rows = spec.leaves.iter();
    rows.map(|row| {
        let dispatched = spec.modules.iter().filter(|module| {
            module.leaves.iter().any(|(name, versions)| {
                name.value == row.name && versions.iter().any(|version| row.versions.contains(version))
            })
        });
        let dispatched: Vec<&str> = dispatched.map(|module| module.name.as_str()).collect();
        let locks = row.locks.iter().map(|lock| {
            json!({
                "resource": lock.resource, "mode": lock.mode.name(),
                "host_priority": lock.host_priority, "operand": lock.operand, "when": lock.when,
            })
        });
        let locks: Vec<Value> = locks.collect();
        let resume: Map<String, Value> = row
            .resume
            .iter()
            .map(|resume| {
                let value = resume.set.map_or_else(|| json!("output"), hex);
                (resume.register.to_owned(), value)
            })
            .collect();
        json!({
            "name": row.name, "side": row.side.name(), "number": hex(row.number.value), "variant": row.variant,
            "versions": row.versions, "modules": spec.module_names(row.modules), "dispatched": dispatched,
            "feature": row.feature.as_ref().map(|name| &name.value), "contested": row.contested,
            "inputs": operands(&row.inputs), "outputs": operands(&row.outputs), "statuses": texts(&row.statuses),
            "locks": locks, "op_states": allowed(spec, &row.op_states), "sept_states": allowed(spec, &row.sept_states),
            "resume": resume,
            "yields": row.yields.map(Yields::name),
            "doc": row.doc, "cite": cites(&row.cite),
        })
    })
    .collect()
}

fn texts(list: &[At<String>]) -> Vec<&str> {
    list.iter().map(|text| text.value.as_str()).collect()
}

fn allowed(spec: &Spec, list: &[Allowed]) -> Vec<Value> {
    let rows = list.iter();
    rows.map(
        |row| json!({ "modules": spec.module_names(row.modules), "states": texts(&row.states) }),
    )
    .collect()
}

fn operands(list: &[Operand]) -> Vec<Value> {
    let operands = list.iter().map(|operand| {
        let meanings = operand.meanings.iter().map(|meaning| {
            let parts: Vec<Value> = meaning.parts.iter().map(part).collect();
            json!({ "on": texts(&meaning.on), "parts": parts })
        });
        let meanings: Vec<Value> = meanings.collect();
        let lock = operand.lock.map(LockMode::name);
        json!({ "register": operand.register, "lock": lock, "meanings": meanings })
    });
    operands.collect()
}

fn part(part: &Part) -> Value {
    let (ty, details) = kind(&part.kind);
    json!({
        "name": part.name, "bits": part.bits.map(bits), "type": ty, "details": details, "doc": part.doc,
    })
}

/// The type's name in the files, and what else they say of it.
fn kind(kind: &Kind) -> (String, Value) {
    let plain = |name: &str| (name.to_owned(), json!({}));
    match kind {
        Kind::Number(width) => (format!("u{width}"), json!({})),
        Kind::Bool => plain("bool"),
        Kind::Hpa { align } => ("hpa".to_owned(), json!({ "align": align })),
        Kind::Gpa { align } => ("gpa".to_owned(), json!({ "align": align })),
        Kind::PrivateGpa { align } => ("private_gpa".to_owned(), json!({ "align": align })),
        Kind::SharedGpa { align } => ("shared_gpa".to_owned(), json!({ "align": align })),
        Kind::Hkid => plain("hkid"),
        Kind::FieldId => plain("field_id"),
        Kind::Mapping { levels, evidence } => {
            let evidence = evidence.map(|Evidence::Tracked| "tracked");
            (
                "mapping".to_owned(),
                json!({ "levels": levels, "evidence": evidence }),
            )
        }
        Kind::Tdr => plain("tdr"),
        Kind::Tdvpr => plain("tdvpr"),
        Kind::Page { level, becomes } => {
            let level = level.map_or_else(|| json!("entry"), |level| json!(level));
            (
                "page".to_owned(),
                json!({ "level": level, "becomes": becomes }),
            )
        }
        Kind::Structure {
            of,
            align,
            guest,
            direction,
        } => {
            let name = if *guest {
                "guest_structure"
            } else {
                "structure"
            };
            (
                name.to_owned(),
                json!({ "of": of, "align": align, "direction": direction }),
            )
        }
        Kind::Format(name) => ("format".to_owned(), json!({ "format": name })),
        Kind::Unknown => plain("unknown"),
    }
}
