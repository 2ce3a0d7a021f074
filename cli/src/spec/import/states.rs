//! In which states a leaf is allowed: tables of leaf by state, kept in the files of the leaves.

use std::collections::HashMap;

use serde_json::Value as Json;
use tdx_codegen::source::Sources;

use super::merge::Change;
use super::merge::Kind;
use super::merge::order;
use super::row::File;
use super::row::Line;
use super::row::Row;
use super::row::list;
use super::row::written;

/// What a leaf's states are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    OpState,
    SeptState,
}

impl Gate {
    const fn key(self) -> &'static str {
        match self {
            Self::OpState => "op_states",
            Self::SeptState => "sept_states",
        }
    }

    /// File, list and key of the number of the states.
    const fn table(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::OpState => ("tables/op_states.yaml", "states", "value"),
            Self::SeptState => ("tables/sept_states.yaml", "l1", "index"),
        }
    }

    /// Keys of a leaf that stand behind this one.
    const fn before(self) -> &'static [&'static str] {
        match self {
            Self::OpState => &["sept_states:", "resume:", "yields:"],
            Self::SeptState => &["resume:", "yields:"],
        }
    }
}

/// The states of a leaf, by number or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum States {
    Columns(Vec<bool>),
    Names(Vec<String>),
}

/// A table of leaf by state for one kind of call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) gate: Gate,
    /// Folder of the leaves: `tdh` or `tdg`.
    pub(super) side: &'static str,
    /// Leaf number and states; a leaf that is missing is not gated.
    pub(super) rows: Vec<(u64, States)>,
}

/// The arrays in a generated source.
const ARRAYS: [(&str, Gate, &str); 4] = [
    ("seamcall_state_lookup", Gate::OpState, "tdh"),
    ("tdcall_state_lookup", Gate::OpState, "tdg"),
    ("seamcall_sept_state_lookup", Gate::SeptState, "tdh"),
    ("tdcall_sept_state_lookup", Gate::SeptState, "tdg"),
];

/// The tables in a generated source: arrays with rows `[12] = {0, 1, ..}`.
pub(super) fn generated(text: &str) -> Vec<Allowed> {
    let mut tables = Vec::new();
    for (array, gate, side) in ARRAYS {
        let Some((_, body)) = text.split_once(&format!("bool_t {array}[")) else {
            continue;
        };
        let body = body.split_once("};").map_or(body, |(body, _)| body);
        let rows = body.lines().filter_map(|line| {
            let (number, columns) = line.trim().strip_prefix('[')?.split_once("] = {")?;
            let columns = columns.split('}').next()?.split(',');
            let columns = columns.map(|column| column.trim() == "1").collect();
            Some((number.trim().parse().ok()?, States::Columns(columns)))
        });
        tables.push(Allowed {
            gate,
            side,
            rows: rows.collect(),
        });
    }
    tables
}

/// The tables in rows as JSON: leaves with `number`, `op_states` and `sept_states`.
pub(super) fn from_json(rows: &[Json]) -> Vec<Allowed> {
    let is = |prefix: &str| {
        let mut names = rows.iter().filter_map(|row| row.get("name")?.as_str());
        names.all(|name| name.starts_with(prefix))
    };
    let side = match (is("TDH."), is("TDG.")) {
        (true, false) => "tdh",
        (false, true) => "tdg",
        _ => return Vec::new(),
    };
    let table = |gate: Gate| {
        let rows = rows.iter().filter_map(|row| {
            let number = row.get("number")?.as_u64()?;
            let names = row.get(gate.key())?.as_array()?.iter();
            let names = names.filter_map(Json::as_str).map(str::to_owned);
            Some((number, States::Names(names.collect())))
        });
        Allowed {
            gate,
            side,
            rows: rows.collect(),
        }
    };
    vec![table(Gate::OpState), table(Gate::SeptState)]
}

/// Files that change, with their new text.
pub(super) type Files = Vec<(String, String)>;

/// Brings the leaves up to date for `module`; gives the files that change.
pub(super) fn merge(
    sources: &Sources,
    changed: &HashMap<String, String>,
    module: &str,
    allowed: &Allowed,
) -> Result<(Files, Vec<Change>), String> {
    let names = names(sources, module, allowed.gate)?;
    let mut files = Vec::new();
    let mut changes = Vec::new();
    let mut met = Vec::new();
    let folder = format!("leaves/{}/", allowed.side);
    for (_, source) in sources.iter() {
        let name = source.name();
        if !name.starts_with(&folder) || name.contains('@') {
            continue;
        }
        let text = changed
            .get(name)
            .map_or_else(|| source.text(), String::as_str);
        let Some(leaf) = Leaf::of(text) else {
            return Err(format!("{name}: no name or number"));
        };
        if !leaf.is_for(module) {
            continue;
        }
        met.push(leaf.number);
        let row = allowed
            .rows
            .iter()
            .find(|(number, _)| *number == leaf.number);
        let wanted = match row {
            None => None,
            Some((_, States::Names(names))) => Some(names.clone()),
            Some((_, States::Columns(columns))) => Some(
                names
                    .iter()
                    .filter(|(_, column)| columns.get(*column) == Some(&true))
                    .map(|(name, _)| name.clone())
                    .collect(),
            ),
        };
        if let Some((text, from)) = set(text, allowed.gate, module, wanted.as_deref())? {
            changes.push(Change {
                file: name.to_owned(),
                name: leaf.name.to_owned(),
                kind: Kind::Changed {
                    key: allowed.gate.key(),
                    from: from.map(|names| names.join(", ")),
                    to: wanted.map(|names| names.join(", ")),
                },
            });
            files.push((name.to_owned(), text));
        }
    }
    for (number, _) in &allowed.rows {
        if !met.contains(number) {
            changes.push(Change {
                file: folder.clone(),
                name: format!("the leaf with number {number}"),
                kind: Kind::Missing,
            });
        }
    }
    Ok((files, changes))
}

/// Names and columns of the states of a module, in the order of the table.
fn names(sources: &Sources, module: &str, gate: Gate) -> Result<Vec<(String, usize)>, String> {
    let (path, list, key) = gate.table();
    let source = sources.iter().find(|(_, source)| source.name() == path);
    let text = source.map(|(_, source)| source.text()).unwrap_or_default();
    let file = File::parse(text, list).map_err(|mistake| format!("{path}: {mistake}"))?;
    let mut names = Vec::new();
    for line in &file.lines {
        let Line::Row(row) = line else { continue };
        let modules = row.modules();
        let is_for_module = modules.is_none_or(|modules| modules.iter().any(|it| it == module));
        if let Some(column) = row.get(key).and_then(|text| text.parse().ok())
            && is_for_module
        {
            names.push((row.name().to_owned(), column));
        }
    }
    Ok(names)
}

/// The head of a leaf's file.
struct Leaf<'t> {
    name: &'t str,
    number: u64,
    modules: Option<Vec<String>>,
    contested: bool,
}

impl<'t> Leaf<'t> {
    fn of(text: &'t str) -> Option<Self> {
        let get = |key: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(key))?;
            Some(value.trim())
        };
        Some(Self {
            name: get("name:")?,
            number: get("number:")?.parse().ok()?,
            modules: get("modules:").map(list),
            contested: get("contested:") == Some("true"),
        })
    }

    /// Contested numbers are not the module's unless it is named.
    fn is_for(&self, module: &str) -> bool {
        match &self.modules {
            Some(modules) => modules.iter().any(|known| known == module),
            None => !self.contested,
        }
    }
}

/// A file's new text and the states that it named before.
type NewText = (String, Option<Vec<String>>);

/// The text with other states for a module, and what it said before; `None` if it says the same.
fn set(
    text: &str,
    gate: Gate,
    module: &str,
    wanted: Option<&[String]>,
) -> Result<Option<NewText>, String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let start = lines
        .iter()
        .position(|line| *line == format!("{}:", gate.key()));
    let first = start.map_or(lines.len(), |start| start + 1);
    let count = lines
        .iter()
        .skip(first)
        .take_while(|line| line.starts_with("  - {"));
    let count = count.count();
    let mut rows = Vec::new();
    for line in lines.iter().skip(first).take(count) {
        let row = Row::parse(line).ok_or_else(|| format!("not a row on one line: {line}"))?;
        let modules = row.modules().ok_or_else(|| format!("no modules: {line}"))?;
        let states = row.get("states").map(list).unwrap_or_default();
        rows.push((modules, states));
    }
    let own = rows
        .iter()
        .position(|(modules, _)| modules.iter().any(|it| it == module));
    let from = own.map(|at| rows[at].1.clone());
    let same = match (&from, wanted) {
        (Some(from), Some(wanted)) => {
            from.len() == wanted.len() && from.iter().all(|state| wanted.contains(state))
        }
        (None, None) => true,
        _ => false,
    };
    if same {
        return Ok(None);
    }
    for (modules, _) in &mut rows {
        modules.retain(|known| known != module);
    }
    rows.retain(|(modules, _)| !modules.is_empty());
    if let Some(wanted) = wanted {
        let equal = rows.iter_mut().find(|(_, states)| states == wanted);
        if let Some((modules, _)) = equal {
            modules.push(module.to_owned());
            modules.sort_by_key(|version| order(version));
        } else {
            rows.push((vec![module.to_owned()], wanted.to_vec()));
        }
    }
    rows.sort_by_key(|(modules, _)| modules.first().map(|version| order(version)));
    let rows = rows.iter().map(|(modules, states)| {
        format!(
            "  - {{ modules: {}, states: [{}] }}",
            written(modules),
            states.join(", ")
        )
    });
    let mut rows: Vec<String> = rows.collect();
    let range = match start {
        Some(start) if rows.is_empty() => start..first + count,
        Some(_) => first..first + count,
        None => {
            rows.insert(0, format!("{}:", gate.key()));
            let behind = |line: &String| gate.before().iter().any(|key| line.starts_with(key));
            let at = lines.iter().position(behind).unwrap_or(lines.len());
            at..at
        }
    };
    lines.splice(range, rows);
    let mut text = lines.join("\n");
    text.push('\n');
    Ok(Some((text, from)))
}
