//! Sources that Intel's tools generate for the module: C initialisers and macros.

use std::collections::HashMap;

use super::Contents;
use super::ReadError;
use super::field;
use super::operand;
use super::status;
use crate::spec::constant::constants;
use crate::spec::import::record::Imported;
use crate::spec::import::record::Record;
use crate::spec::import::record::Table;
use crate::spec::import::states;

pub(super) fn read(text: &str) -> Result<Contents, ReadError> {
    let array = |(name, _): &&(&str, Table)| text.contains(&format!("md_lookup_t {name}_lookup["));
    let tables = match Table::FIELDS.iter().find(array) {
        Some((_, table)) => vec![Imported {
            table: *table,
            records: fields(text)?,
        }],
        None => numbers(text),
    };
    Ok(Contents {
        tables,
        allowed: states::generated(text),
        left_out: 0,
    })
}

/// Status codes and operand ids.
fn numbers(text: &str) -> Vec<Imported> {
    let mut statuses = Vec::new();
    let mut operands = Vec::new();
    for constant in constants(text) {
        if let Some(name) = constant.name.strip_prefix("OPERAND_ID_") {
            operands.push(operand(name, constant.value));
        } else if constant.name.starts_with("TD") && constant.value & u64::from(u32::MAX) == 0 {
            statuses.push(status(&constant.name, constant.value));
        }
    }
    [(Table::Statuses, statuses), (Table::Operands, operands)]
        .into_iter()
        .filter(|(_, records)| !records.is_empty())
        .map(|(table, records)| Imported { table, records })
        .collect()
}

/// Rows of the form `{ // NAME // 12` with `.key = value` below. The row that ends the array has no name.
fn fields(text: &str) -> Result<Vec<Record>, ReadError> {
    let mut records = Vec::new();
    let mut row: Option<(String, HashMap<&str, &str>)> = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(name) = name(line) {
            row = Some((name.to_owned(), HashMap::new()));
        } else if let Some((_, keys)) = &mut row {
            keys.extend(assignments(line));
            if line.starts_with('}')
                && let Some((name, keys)) = row.take()
            {
                records.push(field(name, true, |key| keys.get(key).copied())?);
            }
        }
    }
    Ok(records)
}

/// The name in a comment `// NAME // 12`.
fn name(line: &str) -> Option<&str> {
    let (name, number) = line.strip_prefix("// ")?.rsplit_once(" // ")?;
    (!number.is_empty() && number.chars().all(|c| c.is_ascii_digit())).then(|| name.trim())
}

/// Pairs `.key = value` of a line.
fn assignments(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split(", .").filter_map(|part| {
        let (key, value) = part.trim_start_matches('.').split_once('=')?;
        let value = value.trim().trim_end_matches(',').trim();
        let value = value
            .strip_prefix('{')
            .and_then(|inside| inside.strip_suffix('}'))
            .and_then(|inside| inside.split_once('='))
            .map_or(value, |(_, raw)| raw.trim());
        Some((key.trim(), value))
    })
}
