//! Sources that Intel's tools generate for the module: C initialisers and macros.

use std::collections::HashMap;

use super::Contents;
use super::ReadError;
use super::field;
use super::msr;
use super::operand;
use super::status;
use crate::spec::constant::constants;
use crate::spec::import::record::Imported;
use crate::spec::import::record::Record;
use crate::spec::import::record::Table;
use crate::spec::import::states;

pub(super) fn read(text: &str) -> Result<Contents, ReadError> {
    let array = |(name, _): &&(&str, Table)| text.contains(&format!("md_lookup_t {name}_lookup["));
    if text.contains("msr_lookup_t msr_lookup[") {
        let records = msrs(text)?;
        return Ok(Contents {
            tables: vec![Imported {
                table: Table::Msrs,
                records,
            }],
            allowed: Vec::new(),
            left_out: 0,
        });
    }
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

/// Rows of the form `{ // 12 - NAME` with `.key = value` below.
fn msrs(text: &str) -> Result<Vec<Record>, ReadError> {
    let mut records = Vec::new();
    let mut row: Option<(&str, HashMap<&str, &str>)> = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some((number, name)) = line
            .strip_prefix("// ")
            .and_then(|comment| comment.split_once(" - "))
            && number.chars().all(|c| c.is_ascii_digit())
        {
            row = Some((name.trim(), HashMap::new()));
        } else if let Some((_, keys)) = &mut row {
            keys.extend(assignments(line));
            if line.starts_with('}')
                && let Some((name, keys)) = row.take()
            {
                let get = |key: &str| keys.get(key).copied().unwrap_or_default();
                records.push(msr(
                    name,
                    [get("start_address"), get("end_address")],
                    [get("rd_bit_meaning"), get("rd_action")],
                    [get("wr_bit_meaning"), get("wr_action")],
                )?);
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
