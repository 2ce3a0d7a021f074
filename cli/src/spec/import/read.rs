//! Finds out what a file is, and reads the tables in it.

mod generated;
mod intel_json;
mod rows_json;
mod state_rows;

use serde_json::Value as Json;

use super::record::Imported;
use super::record::Record;
use super::record::Value;
use super::states::Allowed;

/// Why a file cannot be imported.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// It is of no known kind.
    #[error(
        "neither Intel's JSON tables, nor a generated source of the module, nor rows of one as JSON"
    )]
    Unknown,
    /// It is JSON that ends too early, or is broken.
    #[error("broken JSON")]
    Json(#[from] serde_json::Error),
    /// A row lacks something, or has something that cannot be read.
    #[error("row {row}: {key} is {found}")]
    Row {
        /// Its name or number.
        row: String,
        /// What should be there.
        key: String,
        /// What is there.
        found: String,
    },
}

impl ReadError {
    /// `row` has `found` where `key` should be.
    pub(super) fn row(row: impl Into<String>, key: &str, found: impl Into<String>) -> Self {
        Self::Row {
            row: row.into(),
            key: key.to_owned(),
            found: found.into(),
        }
    }
}

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) tables: Vec<Imported>,
    /// In which states leaves are allowed.
    pub(super) allowed: Vec<Allowed>,
    /// Rows of a kind that is not imported.
    pub(super) left_out: usize,
}

/// Reads the tables in a file called `name`.
pub(super) fn read(name: &str, text: &str) -> Result<Contents, ReadError> {
    let contents = if text.trim_start().starts_with(['{', '[']) {
        match serde_json::from_str(text)? {
            Json::Object(object) if object.contains_key("l1") => state_rows::trees(&object)?,
            Json::Object(object) => intel_json::read(&object)?,
            Json::Array(rows) => rows_json::read(name, &rows)?,
            _ => return Err(ReadError::Unknown),
        }
    } else {
        generated::read(text)?
    };
    let is_empty =
        contents.tables.is_empty() && contents.allowed.iter().all(|it| it.rows.is_empty());
    if is_empty && contents.left_out == 0 {
        return Err(ReadError::Unknown);
    }
    Ok(contents)
}

/// Masks in the order in which a row has them, by their names in the module's sources.
const MASKS: [(&str, &str); 14] = [
    ("vmm_rd", "vmm_rd_mask"),
    ("vmm_wr", "vmm_wr_mask"),
    ("prod_rd", "prod_rd_mask"),
    ("prod_wr", "prod_wr_mask"),
    ("dbg_rd", "dbg_rd_mask"),
    ("dbg_wr", "dbg_wr_mask"),
    ("guest_rd", "guest_rd_mask"),
    ("guest_wr", "guest_wr_mask"),
    ("migtd_rd", "migtd_rd_mask"),
    ("migtd_wr", "migtd_wr_mask"),
    ("l1_vmm_rd", "l1_vmm_rd_mask"),
    ("l1_vmm_wr", "l1_vmm_wr_mask"),
    ("export", "export_mask"),
    ("import", "import_mask"),
];

/// Classes of migration.
const CLASSES: [&str; 2] = ["mig_export", "mig_import"];

/// Flags, by their names in the module's sources.
const FLAGS: [(&str, &str); 2] = [
    ("special_rd", "special_rd_handling"),
    ("special_wr", "special_wr_handling"),
];

/// A field: the keys that `get` has, in the order of a row. A number is given as text in hexadecimal,
/// octal or decimal, or as an expression.
fn field<'t>(
    name: String,
    attributes: bool,
    get: impl Fn(&str) -> Option<&'t str>,
) -> Result<Record, ReadError> {
    let number = |key: &str| -> Result<Option<u64>, ReadError> {
        let Some(text) = get(key) else {
            return Ok(None);
        };
        let value = crate::spec::constant::evaluate(text);
        value
            .map(Some)
            .ok_or_else(|| ReadError::row(&name, key, text))
    };
    let id = number("field_id")?.ok_or_else(|| ReadError::row(&name, "field_id", "missing"))?;
    let mut values = vec![("id", Value::wide(id))];
    if let Some(offset) = number("offset")? {
        values.push(("offset", Value::mask(offset)));
    }
    for key in ["num_of_fields", "num_of_elem"] {
        if let Some(count) = number(key)? {
            values.push((key, Value::Decimal(count)));
        }
    }
    for (key, theirs) in MASKS {
        if let Some(mask) = number(theirs)? {
            values.push((key, Value::mask(mask)));
        }
    }
    for key in CLASSES {
        if let Some(class) = get(key) {
            let class = class.trim_start_matches("MIG_").to_owned();
            values.push((key, Value::Word(class)));
        }
    }
    for (key, theirs) in FLAGS {
        // Rows as JSON leave out what is false.
        let flag = get(theirs).unwrap_or("false");
        if !["true", "false"].contains(&flag) {
            return Err(ReadError::row(&name, theirs, flag));
        }
        values.push((key, Value::Flag(flag == "true")));
    }
    if attributes {
        let bits = number("attributes")?.unwrap_or(0);
        let names = tdx_codegen::model::FieldRow::ATTRIBUTES;
        let set = names
            .iter()
            .enumerate()
            .filter(|(bit, _)| bits >> bit & 1 != 0);
        let set = set.map(|(_, name)| *name).collect();
        values.push(("attributes", Value::Words(set)));
    }
    Ok(Record { name, values })
}

/// A status code as the module's header has it, and as ours is called.
fn status(name: &str, value: u64) -> Record {
    Record {
        name: name.strip_prefix("TDX_").unwrap_or(name).to_owned(),
        values: vec![("value", Value::wide(value))],
    }
}

/// A range of MSRs; what is done for RDMSR and WRMSR is the bitmap's bit and the action, as Intel names them.
fn msr(
    name: &str,
    range: [&str; 2],
    read: [&str; 2],
    write: [&str; 2],
) -> Result<Record, ReadError> {
    let mut values = Vec::new();
    for (key, text) in ["start", "end"].into_iter().zip(range) {
        let value =
            crate::spec::constant::evaluate(text).ok_or_else(|| ReadError::row(name, key, text))?;
        values.push((key, Value::mask(value)));
    }
    for (key, [bitmap, action]) in [("read", read), ("write", write)] {
        let (Some(bitmap), Some(action)) = (
            bitmap.strip_prefix("MSR_BITMAP_"),
            action.strip_prefix("MSR_ACTION_"),
        ) else {
            return Err(ReadError::row(name, key, format!("{bitmap} {action}")));
        };
        values.push((key, Value::Word(format!("{bitmap} {action}"))));
    }
    Ok(Record {
        name: name.to_owned(),
        values,
    })
}

fn operand(name: &str, value: u64) -> Record {
    Record {
        name: name.to_owned(),
        values: vec![("value", Value::Decimal(value))],
    }
}
