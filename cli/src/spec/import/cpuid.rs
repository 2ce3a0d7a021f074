//! CPUID virtualization: three lists that a module has as a whole, in a file of their own.

use std::collections::BTreeMap;
use std::collections::HashMap;

use tdx_codegen::source::Sources;

use super::merge::Change;
use super::merge::Kind;
use super::merge::order;
use super::read::ReadError;
use super::row::Row;
use super::row::list;
use super::row::written;
use super::states::Files;
use crate::spec::constant::evaluate;

/// The lists, in the order of a file.
const LISTS: [&str; 3] = ["lookup", "configurable", "xfam_masks"];

/// Keys of quadruples of the first two lists, with their names in the module's source.
const QUADRUPLES: [(&str, &str); 7] = [
    ("verify_mask", "verify_mask"),
    ("verify_value", "verify_value"),
    ("verify_same", "verify_same"),
    ("fixed0_or_dynamic", "fixed0_or_dynamic"),
    ("fixed1", "fixed1"),
    ("direct", "config_direct"),
    ("allow", "allow_direct"),
];

/// Subleaf or position that stands for none.
const NONE: u64 = u32::MAX as u64;

/// What the module's cpuid_configurations.c holds: rows of each list as a file of the specification has them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cpuid {
    pub(super) lists: [Vec<Row>; 3],
}

impl Cpuid {
    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.lists.iter().map(Vec::len).sum()
    }
}

/// An array of the source.
enum Array {
    Rows(usize),
    /// Masks of a leaf and subleaf.
    Masks(u64, u64),
}

/// Reads the tables, if `text` is a source with them.
pub(super) fn read(text: &str) -> Option<Result<Cpuid, ReadError>> {
    text.contains("cpuid_lookup_t cpuid_lookup[")
        .then(|| tables(text))
}

fn tables(text: &str) -> Result<Cpuid, ReadError> {
    let mut array: Option<Array> = None;
    let mut numbered: [BTreeMap<u64, Row>; 2] = [BTreeMap::new(), BTreeMap::new()];
    let mut masks = Vec::new();
    let mut open: Option<(u64, HashMap<&str, &str>)> = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(declared) = line.strip_prefix("const ") {
            let known = declared.strip_prefix("cpuid_");
            array = known.map_or(Ok(None), declaration)?;
        }
        match &array {
            Some(Array::Masks(leaf, subleaf)) => {
                let row = line.strip_prefix('[').and_then(|row| row.split_once("]={"));
                if let Some((bit, values)) = row {
                    let mut row = start(*leaf, *subleaf);
                    push(&mut row, "xfam_bit", number(bit, "xfam_bit")?.to_string());
                    push(&mut row, "mask", quadruple(values)?.unwrap_or_default());
                    masks.push(row);
                }
            }
            Some(Array::Rows(at)) => {
                if let Some((index, rest)) =
                    line.strip_prefix('[').and_then(|row| row.split_once(']'))
                {
                    let index = number(index, "index")?;
                    let leaf = rest.split_once(".leaf_subleaf =").map(|(_, leaf)| leaf);
                    open = Some((index, leaf.map(|leaf| ("leaf", leaf)).into_iter().collect()));
                } else if line.starts_with('}') {
                    if let Some((index, keys)) = open.take() {
                        numbered[*at].insert(index, row(index, &keys)?);
                    }
                } else if let Some((_, keys)) = &mut open {
                    keys.extend(
                        line.strip_prefix('.')
                            .and_then(|pair| pair.split_once(" = ")),
                    );
                }
            }
            None => {}
        }
    }
    let mut lists = numbered.into_iter().map(|rows| {
        let gap = rows.keys().zip(0_u64..).find(|(index, at)| *index != at);
        match gap {
            Some((_, missing)) => Err(ReadError::row(
                missing.to_string(),
                "row",
                "missing between others",
            )),
            None => Ok(rows.into_values().collect()),
        }
    });
    let mut next = || lists.next().unwrap_or_else(|| Ok(Vec::new()));
    Ok(Cpuid {
        lists: [next()?, next()?, masks],
    })
}

/// The array that `const cpuid_` and this begin.
fn declaration(text: &str) -> Result<Option<Array>, ReadError> {
    if text.starts_with("lookup_t cpuid_lookup[") {
        return Ok(Some(Array::Rows(0)));
    }
    if text.starts_with("configurable_t cpuid_configurable[") {
        return Ok(Some(Array::Rows(1)));
    }
    let name = text
        .split_once(" xfam_mask_")
        .and_then(|(_, rest)| rest.split_once('['))
        .and_then(|(name, _)| name.split_once('_'));
    let Some((leaf, subleaf)) = name else {
        return Ok(None);
    };
    Ok(Some(Array::Masks(
        number(leaf, "leaf")?,
        number(subleaf, "subleaf")?,
    )))
}

/// A row of one of the first two lists.
fn row(index: u64, keys: &HashMap<&str, &str>) -> Result<Row, ReadError> {
    let missing = |key: &str| ReadError::row(index.to_string(), key, "missing");
    let get = |key: &str| {
        let value = keys.get(key).copied();
        value.map(|value| value.trim_end_matches(','))
    };
    if get("valid_entry") != Some("true") {
        return Err(missing("valid_entry"));
    }
    let leaf = get("leaf").ok_or_else(|| missing("leaf"))?;
    let part = |key: &str| -> Result<u64, ReadError> {
        let value = leaf
            .split_once(&format!(".{key} = "))
            .and_then(|(_, rest)| rest.split([',', '}']).next());
        number(value.ok_or_else(|| missing(key))?, key)
    };
    let mut row = start(part("leaf")?, part("subleaf")?);
    if get("faulting") == Some("true") {
        push(&mut row, "faulting", "true".to_owned());
    }
    let config = get("config_index").filter(|config| *config != "CPUID_CONFIG_NULL_IDX");
    if let Some(config) = config {
        let config = number(config, "config_index")?;
        if config != NONE {
            push(&mut row, "config", config.to_string());
        }
    }
    for (ours, theirs) in QUADRUPLES {
        if let Some(values) = get(theirs)
            && let Some(text) = quadruple(values)?
        {
            push(&mut row, ours, text);
        }
    }
    Ok(row)
}

fn start(leaf: u64, subleaf: u64) -> Row {
    let mut row = Row { pairs: Vec::new() };
    push(&mut row, "leaf", format!("{leaf:#x}"));
    if subleaf != NONE {
        push(&mut row, "subleaf", format!("{subleaf:#x}"));
    }
    row
}

fn push(row: &mut Row, key: &str, value: String) {
    row.pairs.push((key.to_owned(), value));
}

fn number(text: &str, key: &str) -> Result<u64, ReadError> {
    let value = evaluate(text.trim()).filter(|value| *value <= NONE);
    value.ok_or_else(|| ReadError::row(key, "number", text))
}

/// `.ebx = 0x3f, .edx = 1` as `[0x0, 0x3f, 0x0, 0x1]`; nothing if all are 0.
fn quadruple(text: &str) -> Result<Option<String>, ReadError> {
    let mut values = [0_u64; 4];
    for part in text.trim_matches(['{', '}', ',', ' ']).split(',') {
        let Some((register, value)) = part.split_once('=') else {
            continue;
        };
        let register = register.trim();
        let at = [".eax", ".ebx", ".ecx", ".edx"]
            .iter()
            .position(|known| *known == register);
        let at = at.ok_or_else(|| ReadError::row("values", "register", register))?;
        values[at] = number(value.trim_matches(['}', ' ']), register)?;
    }
    let text = values.map(|value| format!("{value:#x}")).join(", ");
    Ok((values != [0; 4]).then(|| format!("[{text}]")))
}

/// Brings the file of the module's table up to date; gives the files that change.
pub(super) fn merge(
    sources: &Sources,
    changed: &HashMap<String, String>,
    module: &str,
    cpuid: &Cpuid,
) -> (Files, Vec<Change>) {
    let mut files = Vec::new();
    let tables = sources.iter().map(|(_, source)| {
        let text = changed.get(source.name()).map(String::as_str);
        (source.name(), text.unwrap_or_else(|| source.text()))
    });
    let of_cpuid = tables.filter(|(_, text)| text.lines().any(|line| line == "kind: cpuid"));
    let found = of_cpuid
        .map(|(name, text)| (name, text, modules(text)))
        .find(|(_, _, modules)| modules.iter().any(|known| known == module));
    let own = format!("tables/cpuid_{}.yaml", module.replace('.', "_"));
    let mut changes = Vec::new();
    let file = found.as_ref().map_or(&*own, |(name, _, _)| name);
    for (at, key) in LISTS.into_iter().enumerate() {
        let before = found
            .as_ref()
            .map_or_else(Vec::new, |(_, text, _)| rows(text, key));
        let imported = &cpuid.lists[at];
        for row in imported {
            let kind = match before.iter().find(|old| label(old) == label(row)) {
                None => Kind::Added,
                Some(old) if same(old, row) => continue,
                Some(old) => Kind::Changed {
                    key,
                    from: Some(shown(old)),
                    to: Some(shown(row)),
                },
            };
            changes.push(change(file, key, row, kind));
        }
        for old in &before {
            if imported.iter().all(|row| label(row) != label(old)) {
                changes.push(change(file, key, old, Kind::Removed));
            }
        }
        let moved = before
            .iter()
            .zip(imported)
            .find(|(old, row)| label(old) != label(row));
        if let Some((_, row)) = moved.filter(|_| before.len() == imported.len()) {
            let kind = Kind::Changed {
                key: "position",
                from: None,
                to: None,
            };
            changes.push(change(file, key, row, kind));
        }
    }
    if changes.is_empty() {
        return (files, changes);
    }
    let head = match &found {
        Some((name, text, shared)) if shared.len() > 1 => {
            let mut others = shared.clone();
            others.retain(|known| known != module);
            others.sort_by_key(|version| order(version));
            let line = format!("modules: {}", written(shared));
            let text = text.replacen(&line, &format!("modules: {}", written(&others)), 1);
            files.push(((*name).to_owned(), text));
            None
        }
        Some((_, text, _)) => text
            .split_once("lookup:\n")
            .map(|(head, _)| head.to_owned()),
        None => None,
    };
    let is_new = head.is_none();
    let head = head.unwrap_or_else(|| {
        format!(
            "# yaml-language-server: $schema=../schema/cpuid.schema.json\nkind: cpuid\nmodules: [\"{module}\"]\ncite: {{ id: tdx-module-{module}, at: cpuid_configurations.c }}\n"
        )
    });
    let mut text = head;
    for (key, rows) in LISTS.into_iter().zip(&cpuid.lists) {
        let nothing = if rows.is_empty() { " []" } else { "" };
        text.push_str(&format!("{key}:{nothing}\n"));
        for row in rows {
            text.push_str(&row.text());
            text.push('\n');
        }
    }
    files.push((if is_new { own } else { file.to_owned() }, text));
    (files, changes)
}

fn modules(text: &str) -> Vec<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("modules:"));
    line.map(list).unwrap_or_default()
}

/// The rows of a list.
fn rows(text: &str, key: &str) -> Vec<Row> {
    let start = format!("{key}:");
    let after = text.lines().skip_while(|line| line.trim_end() != start);
    let own = after
        .skip(1)
        .take_while(|line| line.starts_with([' ', '#']) || line.is_empty());
    own.filter_map(Row::parse).collect()
}

/// What tells rows of a list apart.
fn label(row: &Row) -> [Option<u64>; 3] {
    ["leaf", "subleaf", "xfam_bit"].map(|key| row.get(key).and_then(evaluate))
}

/// Whether two rows say the same.
fn same(ours: &Row, theirs: &Row) -> bool {
    let plain = |row: &Row| -> BTreeMap<String, String> {
        let pairs = row.pairs.iter();
        pairs
            .map(|(key, value)| (key.clone(), value.replace(' ', "").to_lowercase()))
            .collect()
    };
    plain(ours) == plain(theirs)
}

fn shown(row: &Row) -> String {
    row.text().trim_start_matches("  - ").to_owned()
}

fn change(file: &str, list: &str, row: &Row, kind: Kind) -> Change {
    let mut name = format!("{list} of leaf {}", row.get("leaf").unwrap_or_default());
    for (key, word) in [("subleaf", "subleaf"), ("xfam_bit", "XFAM bit")] {
        if let Some(value) = row.get(key) {
            name.push_str(&format!(", {word} {value}"));
        }
    }
    Change {
        file: file.to_owned(),
        name,
        kind,
    }
}
