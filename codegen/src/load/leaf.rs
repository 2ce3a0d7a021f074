//! Leaves and their operands.

use super::Loader;
use super::format::bit_range;
use super::modules::cites;
use super::one_of;
use super::question::Use;
use super::record::Item;
use super::record::Record;
use super::record::suggestion;
use crate::diagnostic::Code;
use crate::diagnostic::Diagnostic;
use crate::model::Allowed;
use crate::model::At;
use crate::model::Evidence;
use crate::model::Kind;
use crate::model::Leaf;
use crate::model::Lock;
use crate::model::LockMode;
use crate::model::Meaning;
use crate::model::Operand;
use crate::model::Part;
use crate::model::Resume;
use crate::model::Side;
use crate::model::Yields;
use crate::yaml::Value;

/// Registers that operands can be in, in the order in which they are listed.
pub(super) const REGISTERS: [&str; 15] = [
    "rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// What `type` of an operand may be.
const TYPES: [&str; 17] = [
    "u64",
    "u32",
    "u16",
    "u8",
    "bool",
    "hpa",
    "gpa",
    "private_gpa",
    "shared_gpa",
    "hkid",
    "field_id",
    "tdr",
    "tdvpr",
    "mapping",
    "page",
    "structure",
    "guest_structure",
];

const PAGE: u64 = 4096;

impl Loader<'_> {
    pub(super) fn leaf(&mut self, record: &mut Record<'_>) {
        let name = record.require("name", |item| item.at_text());
        let side = name.as_ref().and_then(|name| self.side(name));
        let limit = match side {
            Some(Side::Host | Side::Guest | Side::Seamldr) => 0xffff,
            Some(Side::Vmcall) | None => u64::MAX,
        };
        let number = record.need("number").and_then(|item| {
            Some(At {
                place: item.place(),
                value: item.number_to(limit)?,
            })
        });
        let leaf = Leaf {
            place: record.place(),
            name: name.unwrap_or_default().value,
            side: side.unwrap_or_default(),
            number: number.clone().unwrap_or_default(),
            variant: record.text("variant"),
            versions: match record.get("versions") {
                Some(list) => list.each(|item| item.number_to(255)).unwrap_or_default(),
                None => vec![0],
            },
            modules: self.module_set(record, self.every_module()),
            feature: record.get("feature").and_then(|item| item.at_text()),
            contested: record.flag("contested"),
            doc: record
                .need("doc")
                .and_then(|item| item.text())
                .unwrap_or_default(),
            cite: cites(record),
            inputs: operands(record, "inputs", false),
            outputs: operands(record, "outputs", true),
            statuses: names(record, "statuses"),
            locks: record
                .get("locks")
                .and_then(|list| list.each_mapping(lock))
                .unwrap_or_default(),
            op_states: self.allowed(record, "op_states"),
            sept_states: self.allowed(record, "sept_states"),
            resume: record.get("resume").and_then(resume).unwrap_or_default(),
            yields: record
                .get("yields")
                .and_then(|item| one_of(item, "evidence", &Yields::NAMES)),
        };
        if number.is_some() && side.is_some() {
            self.spec.leaves.push(leaf);
        } else {
            self.spec.unread.push(leaf.name);
        }
    }

    /// The side that a leaf's name begins with.
    fn side(&self, name: &At<String>) -> Option<Side> {
        let prefix = name.value.split('.').next().unwrap_or_default();
        let found = Side::PREFIXES.iter().find(|(known, _)| *known == prefix);
        if found.is_none() {
            let known: Vec<&str> = Side::PREFIXES.iter().map(|(known, _)| *known).collect();
            let message = format!("`{}` begins with no known side", name.value);
            self.reader.report(
                Diagnostic::new(Code::UnknownName, name.place, message).help(format!(
                    "a leaf's name begins with one of: {}",
                    known.join(", ")
                )),
            );
        }
        found.map(|(_, side)| *side)
    }

    fn allowed(&self, record: &mut Record<'_>, key: &'static str) -> Vec<Allowed> {
        let Some(list) = record.get(key) else {
            return Vec::new();
        };
        list.each_mapping(|row| Allowed {
            modules: self.module_set(row, self.every_module()),
            states: row.require_or_default("states", |list| list.each(|item| item.at_text())),
        })
        .unwrap_or_default()
    }
}

fn names(record: &mut Record<'_>, key: &'static str) -> Vec<At<String>> {
    record
        .get(key)
        .and_then(|list| list.each(|item| item.at_text()))
        .unwrap_or_default()
}

/// The number of a register in [`REGISTERS`].
fn register(item: Item<'_>) -> Option<usize> {
    item.note(Use::Names(&REGISTERS));
    let name = item.text()?;
    let found = REGISTERS.iter().position(|known| *known == name);
    if found.is_none() {
        let message = format!("no operand can be in `{name}`");
        item.reader.report(
            Diagnostic::new(Code::UnknownRegister, item.place(), message)
                .help(suggestion(&name, &REGISTERS)),
        );
    }
    found
}

fn operands(record: &mut Record<'_>, key: &'static str, output: bool) -> Vec<Operand> {
    let Some(entries) = record.get(key).and_then(|item| item.entries()) else {
        return Vec::new();
    };
    let mut list: Vec<(usize, Operand)> = Vec::new();
    for (key, value) in entries {
        let number = register(key);
        let Some(((meanings, lock), number)) = meanings(value, output).zip(number) else {
            continue;
        };
        let operand = Operand {
            place: key.place(),
            register: REGISTERS[number],
            meanings,
            lock,
        };
        let at = list.partition_point(|(before, _)| *before <= number);
        list.insert(at, (number, operand));
    }
    list.into_iter().map(|(_, operand)| operand).collect()
}

fn meanings(item: Item<'_>, output: bool) -> Option<(Vec<Meaning>, Option<LockMode>)> {
    item.mapping(|row| {
        let lock = row
            .get("lock")
            .and_then(|item| one_of(item, "lock mode", &LockMode::NAMES));
        let mut list = vec![meaning(row, output)];
        if output {
            let also = row.optional("also", |list| list.each_mapping(|row| meaning(row, output)));
            list.extend(also.unwrap_or_default());
        }
        (list, lock)
    })
}

fn meaning(row: &mut Record<'_>, output: bool) -> Meaning {
    let place = row.place();
    let on = if output { names(row, "on") } else { Vec::new() };
    let parts = match row.get("parts") {
        Some(list) => {
            let parts = list.each_mapping(part);
            if parts.is_none() {
                row.spoil();
            }
            parts.unwrap_or_default()
        }
        None => vec![part(row)],
    };
    row.text("doc");
    Meaning { place, parts, on }
}

fn part(row: &mut Record<'_>) -> Part {
    Part {
        place: row.place(),
        name: row.required_text("name"),
        kind: kind(row).unwrap_or_else(|| {
            row.spoil();
            Kind::Unknown
        }),
        bits: row.optional("bits", bit_range),
        doc: row.text("doc"),
    }
}

/// Asks for every key that only some types have: which of them belong here nobody can say without a type.
fn ask_type_keys(row: &mut Record<'_>) {
    for key in TYPE_KEYS {
        row.get(key);
    }
}

/// Keys that only some types have.
const TYPE_KEYS: [&str; 7] = [
    "align",
    "levels",
    "evidence",
    "level",
    "becomes",
    "of",
    "direction",
];

fn kind(row: &mut Record<'_>) -> Option<Kind> {
    if let Some(format) = row.get("format") {
        return Some(Kind::Format(format.text()?));
    }
    let Some(item) = row.get("type") else {
        return Some(Kind::Number(64));
    };
    item.note(Use::Names(&TYPES));
    let Some(name) = item.text() else {
        ask_type_keys(row);
        return None;
    };
    let mut align = |default| row.number_or("align", default);
    Some(match name.as_str() {
        "u64" => Kind::Number(64),
        "u32" => Kind::Number(32),
        "u16" => Kind::Number(16),
        "u8" => Kind::Number(8),
        "bool" => Kind::Bool,
        "hpa" => Kind::Hpa { align: align(1) },
        "gpa" => Kind::Gpa { align: align(1) },
        "private_gpa" => Kind::PrivateGpa { align: align(1) },
        "shared_gpa" => Kind::SharedGpa { align: align(1) },
        "hkid" => Kind::Hkid,
        "field_id" => Kind::FieldId,
        "tdr" => Kind::Tdr,
        "tdvpr" => Kind::Tdvpr,
        "mapping" => Kind::Mapping {
            levels: row.require_or_default("levels", |list| list.each(level)),
            evidence: row
                .get("evidence")
                .and_then(|item| one_of(item, "evidence", &[("tracked", Evidence::Tracked)])),
        },
        "page" => Kind::Page {
            level: match row.get("level") {
                None => Some(0),
                Some(item) if matches!(&item.node.value, Value::Text(text) if text == "entry") => {
                    None
                }
                Some(item) => Some(level(item)?),
            },
            becomes: row.text("becomes"),
        },
        "structure" | "guest_structure" => Kind::Structure {
            align: align(PAGE),
            of: row.text("of"),
            guest: name == "guest_structure",
            direction: row.text("direction"),
        },
        _ => {
            let diagnostic = Diagnostic::new(
                Code::UnknownName,
                item.place(),
                format!("unknown type `{name}`"),
            );
            item.reader
                .report(diagnostic.help(suggestion(&name, &TYPES)));
            ask_type_keys(row);
            return None;
        }
    })
}

fn level(item: Item<'_>) -> Option<u8> {
    item.note(Use::Max(4));
    let level = item.number()?;
    if level <= 4 {
        return u8::try_from(level).ok();
    }
    let message = format!("there is no level {level}");
    item.reader.report(
        Diagnostic::new(Code::WrongLevel, item.place(), message)
            .help("levels are 0 (4 KiB), 1 (2 MiB), 2 (1 GiB), 3 (512 GiB) and 4 (256 TiB)"),
    );
    None
}

fn lock(row: &mut Record<'_>) -> Lock {
    let lock = Lock {
        resource: row.required_text("resource"),
        mode: row.require_or_default("mode", |item| one_of(item, "lock mode", &LockMode::NAMES)),
        host_priority: row.flag("host_priority"),
        operand: row.text("operand"),
        when: row.text("when"),
    };
    row.text("doc");
    lock
}

fn resume(item: Item<'_>) -> Option<Vec<Resume>> {
    Some(
        item.entries()?
            .filter_map(|(key, value)| {
                let set = match &value.node.value {
                    Value::Text(text) if text == "output" => None,
                    _ => Some(value.number()?),
                };
                Some(Resume {
                    register: REGISTERS[register(key)?],
                    set,
                })
            })
            .collect(),
    )
}
