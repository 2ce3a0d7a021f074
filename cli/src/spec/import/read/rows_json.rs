//! Rows of the generated sources as JSON: a list of objects with the same keys and names.

use serde_json::Value as Json;

use super::Contents;
use super::ReadError;
use super::field;
use super::msr;
use super::operand;
use super::state_rows;
use super::status;
use crate::spec::import::record::Imported;
use crate::spec::import::record::Record;
use crate::spec::import::record::Table;
use crate::spec::import::states;

pub(super) fn read(name: &str, rows: &[Json]) -> Result<Contents, ReadError> {
    let has = |key: &str| rows.first().is_some_and(|row| row.get(key).is_some());
    if has("number") {
        return Ok(Contents {
            tables: Vec::new(),
            allowed: states::from_json(rows),
            left_out: 0,
        });
    }
    let (table, records): (_, Result<Vec<Record>, _>) = if has("flags") && has("value") {
        let one = state_rows::op_state;
        (Table::OpStates, rows.iter().map(one).collect())
    } else if has("field_id") {
        let of_name = |(array, _): &&(&str, Table)| {
            let table = array.trim_end_matches("_sys");
            name.contains(&format!("metadata_{table}."))
        };
        let Some((_, table)) = Table::FIELDS.iter().find(of_name) else {
            return Err(ReadError::Unknown);
        };
        (*table, rows.iter().map(one_field).collect())
    } else if has("start") && has("read") {
        let one = |row: &Json| {
            let of = |key: &str| {
                let inner = row.get(key).cloned().unwrap_or_default();
                [text(&inner, "bitmap"), text(&inner, "action")]
            };
            let (name, range) = (text(row, "name"), [text(row, "start"), text(row, "end")]);
            let (read, write) = (of("read"), of("write"));
            msr(&name, words(&range), words(&read), words(&write))
        };
        (Table::Msrs, rows.iter().map(one).collect())
    } else if has("value") && has("name") {
        let is_status = rows.iter().any(|row| text(row, "value").starts_with("0x"));
        let table = if is_status {
            Table::Statuses
        } else {
            Table::Operands
        };
        let one = |row: &Json| {
            let name = text(row, "name");
            let value = text(row, "value");
            let value = crate::spec::constant::evaluate(&value)
                .ok_or_else(|| ReadError::row(&name, "value", &value))?;
            Ok(if is_status {
                status(&name, value)
            } else {
                operand(&name, value)
            })
        };
        (table, rows.iter().map(one).collect())
    } else {
        return Err(ReadError::Unknown);
    };
    let records = records?;
    Ok(Contents {
        allowed: Vec::new(),
        tables: vec![Imported { table, records }],
        left_out: 0,
    })
}

/// Two texts as they are borrowed.
fn words(texts: &[String; 2]) -> [&str; 2] {
    [&texts[0], &texts[1]]
}

/// The text of a string, number or flag; empty if there is none.
fn text(row: &Json, key: &str) -> String {
    match row.get(key) {
        Some(Json::String(text)) => text.clone(),
        Some(value @ (Json::Number(_) | Json::Bool(_))) => value.to_string(),
        _ => String::new(),
    }
}

fn one_field(row: &Json) -> Result<Record, ReadError> {
    let Json::Object(keys) = row else {
        return Err(ReadError::row("?", "row", row.to_string()));
    };
    let texts: Vec<(&str, String)> = keys
        .keys()
        .map(|key| (key.as_str(), text(row, key)))
        .collect();
    let get = |key: &str| {
        let found = texts.iter().find(|(name, _)| *name == key);
        found.map(|(_, text)| text.as_str())
    };
    field(text(row, "name"), false, get)
}
