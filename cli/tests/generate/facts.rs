//! Intel's tables as extracted from the modules' sources.

use std::fs;

use serde_json::Value;

use super::command::repository;

pub(crate) const MODULES: [&str; 3] = ["1.5.01", "1.5.34", "2.0.18"];

/// Names and numbers of a table.
pub(crate) fn numbers(module: &str, table: &str, number: &str) -> Vec<(String, u64)> {
    let rows = rows(module, table);
    let rows = rows.as_array().unwrap().iter();
    let rows: Vec<_> = rows
        .map(|row| {
            (
                row["name"].as_str().unwrap().to_owned(),
                value(&row[number]),
            )
        })
        .collect();
    assert!(rows.len() > 10, "{module} {table}");
    rows
}

/// A table.
pub(crate) fn rows(module: &str, table: &str) -> Value {
    let path = repository(&format!(
        "tests/data/facts/tdx-module-{module}/{table}.json"
    ));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A number, or a text that is one in hexadecimal.
pub(crate) fn value(value: &Value) -> u64 {
    match value {
        Value::String(text) => u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap(),
        other => other.as_u64().unwrap(),
    }
}
