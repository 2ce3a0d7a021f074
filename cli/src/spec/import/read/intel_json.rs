//! The JSON tables that Intel publishes, in the shape of 2022 and in that of 2025: every value a string, null or a list of
//! strings; keys with stray blanks and case.

use serde_json::Map;
use serde_json::Value as Json;
use tdx_abi::field;
use tdx_abi::field::FieldId;

use super::Contents;
use super::ReadError;
use crate::spec::import::record::Imported;
use crate::spec::import::record::Record;
use crate::spec::import::record::Table;
use crate::spec::import::record::Value;

/// The key of the id of a field's first element.
const ID: &str = "base field_id (hex)";
/// Bit from which on the class stands in an id.
const CLASS: u32 = FieldId::from_bits(u64::MAX)
    .bits()
    .with_class_code(0)
    .into_bits()
    .trailing_ones();

/// Masks of a field of an L2 VMCS: what is the guest's for other fields is the L1 VMM's there.
const L2_MASKS: [(&str, &str); 6] = [
    MASKS[0],
    MASKS[1],
    MASKS[2],
    MASKS[3],
    ("l1_vmm_rd", MASKS[4].1),
    ("l1_vmm_wr", MASKS[5].1),
];

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
    let mut td_vmcs = Vec::new();
    let mut l2_vmcs = Vec::new();
    let mut left_out = 0;
    for row in rows {
        let keys = Keys::of(row)?;
        // VMCSs have tables of their own.
        let vmcs = if table == Table::Tdvps && keys.get("class").is_some_and(is_vmcs) {
            number(&keys, ID).and_then(vm)
        } else {
            None
        };
        match vmcs {
            None => records.push(record(&keys, &MASKS)?),
            Some(0) => td_vmcs.push(record(&keys, &MASKS)?),
            Some(1) => l2_vmcs.push(l2_record(&keys)?),
            // The same fields once more.
            Some(_) => left_out += 1,
        }
    }
    let tables = [
        (table, records),
        (Table::TdVmcs, td_vmcs),
        (Table::TdL2Vmcs, l2_vmcs),
    ];
    let tables = tables.into_iter();
    let tables = tables
        .filter(|(_, records)| !records.is_empty())
        .map(|(table, records)| Imported { table, records })
        .collect();
    Ok(Contents {
        tables,
        allowed: Vec::new(),
        left_out,
    })
}

fn is_vmcs(class: &str) -> bool {
    class.to_ascii_uppercase().contains("VMCS")
}

/// The VM whose VMCS has the field with this id: 0 for the TD's own, 1 to 3 for L2 VMs.
fn vm(id: u64) -> Option<usize> {
    let class = FieldId::from_bits(id).class_code();
    let vms = [
        field::td_vmcs::VPID,
        field::tdvps::L2_VMCS_1,
        field::tdvps::L2_VMCS_2,
        field::tdvps::L2_VMCS_3,
    ];
    vms.iter().position(|id| id.class_code() == class)
}

/// A field of the VMCS of the first L2 VM: the table of the module has the ids that it would have in the TD's.
fn l2_record(keys: &Keys) -> Result<Record, ReadError> {
    let mut record = record(keys, &L2_MASKS)?;
    let (_, value) = &mut record.values[0];
    if let Some(id) = number(keys, ID) {
        let class = u64::from(field::tdvps::L2_VMCS_1.class_code()) << CLASS;
        *value = Value::wide(id & !class);
    }
    Ok(record)
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

/// The number of a key.
fn number(keys: &Keys, key: &str) -> Option<u64> {
    keys.get(key).and_then(crate::spec::constant::evaluate)
}

fn record(keys: &Keys, masks: &[(&'static str, &str)]) -> Result<Record, ReadError> {
    let name = keys.get("field name").unwrap_or("?").to_owned();
    let bad = |key: &str| ReadError::row(&name, key, keys.get(key).unwrap_or("missing"));
    let number = |key: &str| number(keys, key);
    let id = number(ID).ok_or_else(|| bad(ID))?;
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
    for (key, theirs) in masks {
        if keys.get(theirs).is_some() {
            let mask = number(theirs).ok_or_else(|| bad(theirs))?;
            values.push((*key, Value::mask(mask & all)));
        }
    }
    Ok(Record { name, values })
}
