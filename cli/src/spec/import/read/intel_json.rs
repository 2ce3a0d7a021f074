//! The JSON tables that Intel publishes, in the shape of 2022 and in that of 2025: every value a string, null or a list of
//! strings; keys with stray blanks and case.

use serde_json::Map;
use serde_json::Value as Json;

use super::Contents;
use super::ReadError;
use crate::spec::import::record::Imported;
use crate::spec::import::record::Record;
use crate::spec::import::record::Table;
use crate::spec::import::record::Value;

/// Masks by their keys, plain.
const MASKS: [(&str, &str); 8] = [
    ("prod_rd", "host vmm rd mask for a production td"),
    ("prod_wr", "host vmm wr mask for a production td"),
    ("dbg_rd", "host vmm rd mask for a debug td"),
    ("dbg_wr", "host vmm wr mask for a debug td"),
    ("guest_rd", "guest rd mask"),
    ("guest_wr", "guest wr mask"),
    ("migtd_rd", "migration td rd mask"),
    ("migtd_wr", "migration td wr mask"),
];

pub(super) fn read(object: &Map<String, Json>) -> Result<Contents, ReadError> {
    let info = object
        .get("Header")
        .and_then(|header| header.get("Info"))
        .and_then(Json::as_str)
        .unwrap_or_default()
        .to_ascii_lowercase();
    let Some(Json::Array(rows)) = object.get("Fields") else {
        return Err(ReadError::Unknown);
    };
    let table = if info.contains("global") {
        Table::Global
    } else if info.contains("vcpu") {
        Table::Tdvps
    } else if info.contains("td-scope") || info.contains("td scope") {
        Table::TdrTdcs
    } else {
        return Err(ReadError::Unknown);
    };
    let mut records = Vec::new();
    let mut left_out = 0;
    for row in rows {
        let keys = Keys::of(row)?;
        let record = record(&keys)?;
        // The VMCS has tables of its own, whose ids are formed otherwise.
        let is_vmcs = table == Table::Tdvps && keys.get("class").is_some_and(is_vmcs);
        if is_vmcs {
            left_out += 1;
        } else {
            records.push(record);
        }
    }
    let tables = vec![Imported { table, records }];
    Ok(Contents {
        tables,
        allowed: Vec::new(),
        left_out,
    })
}

fn is_vmcs(class: &str) -> bool {
    class.to_ascii_uppercase().contains("VMCS")
}

/// A row's keys in lower case without blanks around, its values as text.
struct Keys(Vec<(String, String)>);

impl Keys {
    fn of(row: &Json) -> Result<Self, ReadError> {
        let Json::Object(row) = row else {
            return Err(ReadError::row("?", "row", row.to_string()));
        };
        let text = |value: &Json| match value {
            Json::String(text) => text.trim().to_owned(),
            Json::Number(number) => number.to_string(),
            _ => String::new(),
        };
        let pairs = row.iter();
        let pairs = pairs.map(|(key, value)| (key.trim().to_ascii_lowercase(), text(value)));
        Ok(Self(pairs.collect()))
    }

    /// The value of a key, if it says anything.
    fn get(&self, key: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(name, _)| name == key)?;
        let says_nothing = value.is_empty() || value.eq_ignore_ascii_case("n/a");
        (!says_nothing).then_some(value.as_str())
    }
}

fn record(keys: &Keys) -> Result<Record, ReadError> {
    let name = keys.get("field name").unwrap_or("?").to_owned();
    let bad = |key: &str| ReadError::row(&name, key, keys.get(key).unwrap_or("missing"));
    let number = |key: &str| keys.get(key).and_then(crate::spec::constant::evaluate);
    let base = "base field_id (hex)";
    let id = number(base).ok_or_else(|| bad(base))?;
    let mut values = vec![("id", Value::wide(id))];
    for (key, theirs) in [
        ("num_of_fields", ["num fields", "max num fields"]),
        ("num_of_elem", ["num elements", "num elements"]),
    ] {
        let Some(theirs) = theirs.iter().find(|theirs| keys.get(theirs).is_some()) else {
            continue;
        };
        let count = number(theirs).ok_or_else(|| bad(theirs))?;
        values.push((key, Value::Decimal(count)));
    }
    let bytes = number("element size (bytes)").unwrap_or(8);
    let all = if bytes < 8 {
        (1 << (8 * bytes)) - 1
    } else {
        u64::MAX
    };
    for (key, theirs) in MASKS {
        if keys.get(theirs).is_some() {
            let mask = number(theirs).ok_or_else(|| bad(theirs))?;
            values.push((key, Value::mask(mask & all)));
        }
    }
    Ok(Record { name, values })
}
