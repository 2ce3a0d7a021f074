//! Brings a table up to date with what was imported, and says what changed.

use core::fmt;

use super::record::Imported;
use super::record::Record;
use super::record::Value;
use super::row::File;
use super::row::Line;
use super::row::Row;

/// What an import changes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Change {
    /// File of the specification.
    pub(super) file: String,
    /// Name of the row.
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// How a row changes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// The module has a row that the specification lacks.
    Added,
    /// The module has a leaf that the specification lacks; it has to be written by hand.
    Missing,
    /// The row has another name here, which stays.
    Named { ours: String },
    /// The module lacks a row that the specification has for it.
    Removed,
    /// The number that identifies the row is another.
    Renumbered { from: String, to: String },
    /// A key says something else.
    Changed {
        key: &'static str,
        from: Option<String>,
        to: Option<String>,
    },
}

impl Change {
    /// Whether the specification is as it should be only after it was changed by hand.
    pub(super) fn is_left(&self) -> bool {
        self.kind == Kind::Missing
    }

    /// Whether the specification is as it should be nevertheless.
    pub(super) fn is_harmless(&self) -> bool {
        matches!(self.kind, Kind::Named { .. })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none =
            |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        match &self.kind {
            Kind::Added => write!(f, "{}: added", self.name),
            Kind::Missing => write!(f, "{}: missing, to be written by hand", self.name),
            Kind::Named { ours } => write!(f, "{}: called {ours} here", self.name),
            Kind::Removed => write!(f, "{}: removed", self.name),
            Kind::Renumbered { from, to } => {
                write!(f, "{}: renumbered from {from} to {to}", self.name)
            }
            Kind::Changed { key, from, to } => {
                write!(
                    f,
                    "{}: {key} from {} to {}",
                    self.name,
                    or_none(from),
                    or_none(to)
                )
            }
        }
    }
}

/// Keys whose change is a renumbering.
const IDENTITY: [&str; 3] = ["id", "value", "encoding"];

/// Brings `file` up to date for `module`.
pub(super) fn merge(file: &mut File, module: &str, imported: &Imported) -> Vec<Change> {
    let (path, _) = imported.table.file();
    let before = file.modules();
    let mut all = before.clone();
    if !all.iter().any(|known| known == module) {
        all.push(module.to_owned());
        all.sort_by_key(|version| order(version));
    }
    if before != all {
        file.set_modules(&all);
        for line in &mut file.lines {
            if let Line::Row(row) = line
                && row.modules().is_none()
            {
                row.set_modules(Some(&before));
            }
        }
    }
    let mut merge = Merge {
        module,
        all,
        path,
        changes: Vec::new(),
        after: None,
        named: Vec::new(),
    };
    for record in &imported.records {
        merge.record(&mut file.lines, record, &imported.records);
    }
    merge.remove_others(&mut file.lines, &imported.records);
    merge.changes
}

/// Versions in the order of their numbers.
pub(super) fn order(version: &str) -> Vec<u32> {
    version
        .split('.')
        .filter_map(|part| part.parse().ok())
        .collect()
}

struct Merge<'m> {
    module: &'m str,
    /// Modules of the file.
    all: Vec<String>,
    path: &'static str,
    changes: Vec<Change>,
    /// Name and number of the row behind which a new one goes.
    after: Option<(String, Option<(&'static str, Value)>)>,
    /// Names of rows that are called otherwise in the source.
    named: Vec<String>,
}

impl Merge<'_> {
    fn change(&mut self, name: &str, kind: Kind) {
        self.changes.push(Change {
            file: self.path.to_owned(),
            name: name.to_owned(),
            kind,
        });
    }

    /// The modules of a row.
    fn of(&self, row: &Row) -> Vec<String> {
        row.modules().unwrap_or_else(|| self.all.clone())
    }

    fn is_for_module(&self, row: &Row) -> bool {
        self.of(row).iter().any(|known| known == self.module)
    }

    fn set_modules(&self, row: &mut Row, mut modules: Vec<String>) {
        modules.sort_by_key(|version| order(version));
        row.set_modules((modules != self.all).then_some(&modules));
    }

    fn without(&self, row: &Row) -> Vec<String> {
        let mut modules = self.of(row);
        modules.retain(|known| known != self.module);
        modules
    }

    /// The module's row with the record's number, if the source has none of that row's name.
    fn renamed(&self, lines: &[Line], record: &Record, records: &[Record]) -> Option<usize> {
        let (key, number) = record.values.first()?;
        lines.iter().position(|line| {
            let Line::Row(row) = line else { return false };
            self.is_for_module(row)
                && row.get(key).is_some_and(|text| number.is_written_as(text))
                && records.iter().all(|other| other.name != row.name())
        })
    }

    fn record(&mut self, lines: &mut Vec<Line>, record: &Record, records: &[Record]) {
        let mut own = None;
        let mut equal = None;
        let mut last = None;
        for (at, line) in lines.iter().enumerate() {
            let Line::Row(row) = line else { continue };
            if row.name() == record.name {
                if !stands_for(row, record, records) {
                    continue;
                }
                last = Some(at);
                if self.is_for_module(row) {
                    own = Some(at);
                } else if differences(row, record).is_empty() {
                    equal = Some(at);
                }
            }
        }
        if let Some(at) = own {
            self.update(lines, at, record);
        } else if let Some(at) = self.renamed(lines, record, records) {
            if let Some(Line::Row(row)) = lines.get(at) {
                let ours = row.name().to_owned();
                self.named.push(ours.clone());
                self.after = Some((ours.clone(), record.values.first().cloned()));
                self.change(&record.name, Kind::Named { ours });
            }
            self.update(lines, at, record);
            return;
        } else if let Some(at) = equal {
            self.change(&record.name, Kind::Added);
            if let Some(Line::Row(row)) = lines.get_mut(at) {
                let mut modules = self.of(row);
                modules.push(self.module.to_owned());
                self.set_modules(row, modules);
            }
        } else {
            self.change(&record.name, Kind::Added);
            let at = last.or_else(|| self.position(lines)).map_or(0, |at| at + 1);
            let mut row = Row { pairs: Vec::new() };
            row.set("name", Some(quoted(&record.name)), &[]);
            self.fill(&mut row, record);
            self.set_modules(&mut row, vec![self.module.to_owned()]);
            lines.insert(at, Line::Row(row));
        }
        self.after = Some((record.name.clone(), record.values.first().cloned()));
    }

    /// Where the row before the new one is.
    fn position(&self, lines: &[Line]) -> Option<usize> {
        let (name, number) = self.after.as_ref()?;
        lines.iter().rposition(|line| {
            let Line::Row(row) = line else { return false };
            let has_number = number.as_ref().is_none_or(|(key, number)| {
                row.get(key).is_some_and(|text| number.is_written_as(text))
            });
            row.name() == name && has_number
        })
    }

    fn fill(&self, row: &mut Row, record: &Record) {
        let mut before = vec!["name", "modules"];
        for (key, value) in &record.values {
            let text = (!value.is_default(key)).then(|| value.over(row.get(key)));
            row.set(key, text, &before);
            before.push(key);
        }
    }

    /// Changes the row of the module, apart from other modules' if it is for them too.
    fn update(&mut self, lines: &mut Vec<Line>, at: usize, record: &Record) {
        let Some(Line::Row(row)) = lines.get_mut(at) else {
            return;
        };
        let found = differences(row, record);
        if found.is_empty() {
            return;
        }
        let others = self.without(row);
        let mut changed = row.clone();
        self.fill(&mut changed, record);
        if others.is_empty() {
            *row = changed;
        } else {
            self.set_modules(row, others);
            self.set_modules(&mut changed, vec![self.module.to_owned()]);
            lines.insert(at + 1, Line::Row(changed));
        }
        for kind in found {
            self.change(&record.name, kind);
        }
    }

    /// Takes the module away from rows that were not imported.
    fn remove_others(&mut self, lines: &mut Vec<Line>, records: &[Record]) {
        let mut kept = Vec::with_capacity(lines.len());
        for line in lines.drain(..) {
            let Line::Row(mut row) = line else {
                kept.push(line);
                continue;
            };
            let name = row.name().to_owned();
            let is_imported = self.named.contains(&name)
                || records
                    .iter()
                    .any(|record| stands_for(&row, record, records));
            if self.is_for_module(&row) && !is_imported {
                self.change(&name, Kind::Removed);
                let others = self.without(&row);
                if others.is_empty() {
                    continue;
                }
                self.set_modules(&mut row, others);
            }
            kept.push(Line::Row(row));
        }
        *lines = kept;
    }
}

/// Whether the row is that of the record: of records that share a name, the one with the same number.
fn stands_for(row: &Row, record: &Record, records: &[Record]) -> bool {
    let of_name = records.iter().filter(|other| other.name == record.name);
    let is_only = of_name.take(2).count() < 2;
    row.name() == record.name
        && (is_only
            || record.values.first().is_some_and(|(key, number)| {
                row.get(key).is_some_and(|text| number.is_written_as(text))
            }))
}

/// What the row says otherwise than the record.
fn differences(row: &Row, record: &Record) -> Vec<Kind> {
    let mut found = Vec::new();
    for (key, value) in &record.values {
        let written = row.get(key);
        let same = written.map_or_else(|| value.is_default(key), |text| value.is_written_as(text));
        if same {
            continue;
        }
        let from = written.map(str::to_owned);
        let to = (!value.is_default(key)).then(|| value.over(written));
        found.push(match (from, to) {
            (Some(from), Some(to)) if IDENTITY.contains(key) => Kind::Renumbered { from, to },
            (from, to) => Kind::Changed { key, from, to },
        });
    }
    found
}

/// A name as YAML wants it.
fn quoted(name: &str) -> String {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ' ' | '(' | ')' | '/' | '.');
    if !name.is_empty()
        && name.chars().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
    {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
    }
}
