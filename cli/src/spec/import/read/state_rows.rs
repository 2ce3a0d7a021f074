//! States with their flags as JSON: OP_STATEs in a list, S-EPT states in one list for each kind of tree.

use serde_json::Map;
use serde_json::Value as Json;

use super::Contents;
use super::ReadError;
use crate::spec::constant::evaluate;
use crate::spec::import::record::Imported;
use crate::spec::import::record::Record;
use crate::spec::import::record::Table;
use crate::spec::import::record::Value;

/// Numbers of a S-EPT state that stand among its flags, and keys of a row.
const NUMBERS: [(&str, &str); 2] = [("public_state", "public"), ("index", "index")];

/// An OP_STATE: its number, its flags, and whether a service TD may be bound.
pub(super) fn op_state(row: &Json) -> Result<Record, ReadError> {
    let (name, flags) = (name(row), flags(row)?);
    let value = row.get("value").and_then(Json::as_u64);
    let value = value.ok_or_else(|| ReadError::row(&name, "value", "no number"))?;
    let mut set = Vec::new();
    let mut known = Vec::new();
    for (flag, is_set) in flags {
        let bit = is_set.as_u64().filter(|bit| *bit < 2);
        let bit = bit.ok_or_else(|| ReadError::row(&name, flag, is_set.to_string()))?;
        put(&mut set, &mut known, flag, bit != 0);
    }
    if let Some(allowed) = row.get("servtd_bind_allowed") {
        let allowed = allowed.as_bool();
        let allowed =
            allowed.ok_or_else(|| ReadError::row(&name, "servtd_bind_allowed", "no flag"))?;
        put(&mut set, &mut known, "servtd_bind_allowed", allowed);
    }
    Ok(Record {
        name,
        values: vec![
            ("value", Value::Decimal(value)),
            ("flags", Value::Flags { set, known }),
        ],
    })
}

/// The states of both trees.
pub(super) fn trees(object: &Map<String, Json>) -> Result<Contents, ReadError> {
    let mut tables = Vec::new();
    for (key, table) in [("l1", Table::SeptStates), ("l2", Table::L2SeptStates)] {
        let Some(Json::Array(rows)) = object.get(key) else {
            return Err(ReadError::row(key, "list", "missing"));
        };
        let records: Result<_, _> = rows.iter().map(sept_state).collect();
        tables.push(Imported {
            table,
            records: records?,
        });
    }
    Ok(Contents {
        tables,
        allowed: Vec::new(),
        left_out: 0,
    })
}

fn sept_state(row: &Json) -> Result<Record, ReadError> {
    let (name, flags) = (name(row), flags(row)?);
    let encoding = |key: &str| -> Result<Option<u64>, ReadError> {
        let Some(value) = row.get(key) else {
            return Ok(None);
        };
        let number = value.as_str().and_then(evaluate);
        let number = number.ok_or_else(|| ReadError::row(&name, key, value.to_string()))?;
        Ok(Some(number))
    };
    let own = encoding("encoding")?;
    let own = own.ok_or_else(|| ReadError::row(&name, "encoding", "missing"))?;
    let mut values = vec![("encoding", Value::mask(own))];
    if let Some(also) = encoding("also_with_d_bit")? {
        values.push(("also", Value::mask(also)));
    }
    let (mut set, mut known) = (Vec::new(), Vec::new());
    for (theirs, ours) in NUMBERS {
        let number = flags.get(theirs).and_then(Json::as_u64);
        let number = number.ok_or_else(|| ReadError::row(&name, theirs, "missing"))?;
        values.push((ours, Value::Decimal(number)));
    }
    if let Some(index) = row.get("table_index").and_then(Json::as_u64) {
        values.push(("table_index", Value::Decimal(index)));
    }
    for (flag, is_set) in flags {
        if NUMBERS.iter().any(|(theirs, _)| theirs == flag) {
            continue;
        }
        let bit = is_set.as_u64().filter(|bit| *bit < 2);
        let bit = bit.ok_or_else(|| ReadError::row(&name, flag, is_set.to_string()))?;
        put(&mut set, &mut known, flag, bit != 0);
    }
    values.push(("flags", Value::Flags { set, known }));
    Ok(Record { name, values })
}

fn name(row: &Json) -> String {
    let name = row.get("name").and_then(Json::as_str);
    name.unwrap_or("?").to_owned()
}

fn flags(row: &Json) -> Result<&Map<String, Json>, ReadError> {
    let flags = row.get("flags").and_then(Json::as_object);
    flags.ok_or_else(|| ReadError::row(name(row), "flags", "missing"))
}

fn put(set: &mut Vec<String>, known: &mut Vec<String>, flag: &str, is_set: bool) {
    known.push(flag.to_owned());
    if is_set {
        set.push(flag.to_owned());
    }
}
