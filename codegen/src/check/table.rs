//! Tables and manifests.

use alloc::collections::BTreeMap;

use super::unknown;
use crate::diagnostic::Code;
use crate::diagnostic::Diagnostic;
use crate::diagnostic::Place;
use crate::model::Callee;
use crate::model::FieldRow;
use crate::model::FlagTable;
use crate::model::Leaf;
use crate::model::ModuleSet;
use crate::model::Named;
use crate::model::Side;
use crate::model::Spec;

pub(super) fn check(spec: &Spec, out: &mut Vec<Diagnostic>) {
    for table in &spec.statuses {
        let plain: Vec<_> = table.rows.iter().filter(|row| !row.contested).collect();
        claims(plain.iter().copied(), "status", |row| row.name.clone(), out);
        claims(
            plain.iter().copied(),
            "status value",
            |row| format!("{:#018x}", row.value),
            out,
        );
        for row in table
            .rows
            .iter()
            .filter(|row| table.callee == Callee::Module && row.value & 0xffff_ffff != 0)
        {
            let message = format!("`{}` has bits 31:0 set", row.name);
            out.push(Diagnostic::new(Code::OutOfRange, row.place, message).help(
                "a status code of the module has details there; the code's own bits 31:0 are 0",
            ));
        }
    }
    claims(
        spec.operands.iter(),
        "operand id",
        |row| row.name.clone(),
        out,
    );
    claims(
        spec.operands.iter(),
        "operand number",
        |row| row.value.to_string(),
        out,
    );
    states(&spec.op_states, 31, out);
    states(&spec.sept_states, 127, out);
    states(&spec.l2_sept_states, 127, out);
    for table in &spec.fields {
        claims(table.rows.iter(), "field", |row| row.name.clone(), out);
        claims(
            table.rows.iter(),
            "field id",
            |row| format!("{:#018x}", row.id & !(1 << 63)),
            out,
        );
    }
    values(spec, out);
    let mut rows: Vec<&FieldRow> = Vec::new();
    for table in &spec.fields {
        rows.extend(&table.rows);
    }
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    for row in rows {
        if let Some(from) = &row.count_from
            && !names.contains(&from.value.as_str())
        {
            out.push(unknown(
                Code::UnknownName,
                from.place,
                "field",
                &from.value,
                &names,
            ));
        }
    }
    features(spec, out);
    manifests(spec, out);
}

/// Rows that claim one key in one module.
fn claims<'r, R: Named + 'r>(
    rows: impl Iterator<Item = &'r R>,
    what: &str,
    key: fn(&R) -> String,
    out: &mut Vec<Diagnostic>,
) {
    let rows: Vec<(String, &R)> = rows.map(|row| (key(row), row)).collect();
    let mut claims: Vec<Vec<(ModuleSet, Place)>> = Vec::new();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (key, row) in &rows {
        let (modules, place) = (row.modules(), row.place());
        let index = *seen.entry(key).or_insert(claims.len());
        if index == claims.len() {
            claims.push(Vec::new());
        }
        let mut before = claims[index].iter();
        if let Some((_, other)) = before.find(|(claimed, _)| !claimed.and(modules).is_empty()) {
            let message = format!("two rows have the {what} `{key}` in one module");
            out.push(
                Diagnostic::new(Code::Conflict, place, message)
                    .related(*other, "the first one is here")
                    .help("correct one, or give each its own `modules`"),
            );
        }
        claims[index].push((modules, place));
    }
}

fn states(table: &FlagTable, max: u64, out: &mut Vec<Diagnostic>) {
    claims(table.rows.iter(), "state", |row| row.name.clone(), out);
    for row in table.rows.iter().filter(|row| row.value > max) {
        let message = format!("`{}` has the value {:#x}", row.name, row.value);
        out.push(
            Diagnostic::new(Code::OutOfRange, row.place, message)
                .help(format!("the largest one is {max:#x}")),
        );
    }
}

fn features(spec: &Spec, out: &mut Vec<Diagnostic>) {
    for (index, feature) in spec.features.iter().enumerate() {
        for before in &spec.features[..index] {
            let contested = before.contested && feature.contested;
            if before.name == feature.name || before.bit == feature.bit && !contested {
                let message = format!(
                    "`{}` and `{}` claim one name or bit",
                    before.name, feature.name
                );
                out.push(
                    Diagnostic::new(Code::Conflict, feature.place, message)
                        .related(before.place, format!("bit {}", before.bit))
                        .help("correct one, or say `contested: true` in both if sources disagree"),
                );
            }
        }
    }
}

fn manifests(spec: &Spec, out: &mut Vec<Diagnostic>) {
    let read = spec.leaves.iter().map(|leaf| leaf.name.as_str());
    let mut names: Vec<&str> = read.chain(spec.unread.iter().map(String::as_str)).collect();
    names.sort_unstable();
    for (index, module) in spec.modules.iter().enumerate() {
        for before in spec.modules[..index]
            .iter()
            .filter(|before| before.name == module.name)
        {
            out.push(
                Diagnostic::new(
                    Code::Conflict,
                    module.place,
                    format!("module {} has two manifests", module.name),
                )
                .related(before.place, "the first one is here")
                .help("remove one"),
            );
        }
        for name in module
            .leaves
            .iter()
            .map(|(name, _)| name)
            .chain(&module.reserved)
        {
            if names.binary_search(&&*name.value).is_err() {
                out.push(unknown(
                    Code::UnknownName,
                    name.place,
                    "leaf",
                    &name.value,
                    &names,
                ));
            }
        }
        for name in &module.reserved {
            if let Some((other, _)) = module
                .leaves
                .iter()
                .find(|(other, _)| other.value == name.value)
            {
                out.push(
                    Diagnostic::new(
                        Code::Conflict,
                        name.place,
                        format!("`{}` is dispatched and reserved", name.value),
                    )
                    .related(other.place, "it is dispatched here")
                    .help("a reserved leaf has a number only"),
                );
            }
        }
        for (name, versions) in &module.leaves {
            let lists = spec.leaves.iter().filter(|leaf| leaf.name == name.value);
            let lists: Vec<&Leaf> = lists.collect();
            for version in versions {
                let mut lists = lists.iter();
                let described = lists
                    .any(|leaf| leaf.modules.contains(index) && leaf.versions.contains(version));
                let known = names.binary_search(&&*name.value).is_ok()
                    && !spec.unread.contains(&name.value);
                if *version > 7 {
                    let message = format!("`{}` has version {version}", name.value);
                    out.push(
                        Diagnostic::new(Code::OutOfRange, name.place, message)
                            .help("versions go from 0 to 7"),
                    );
                } else if known && !described {
                    let message = format!(
                        "version {version} of `{}` in module {} has no operand list",
                        name.value, module.name
                    );
                    out.push(Diagnostic::new(Code::MissingKey, name.place, message).help(format!(
                        "add {version} to `versions` of a file of that leaf, or a file `{}@V{version}.yaml`",
                        name.value
                    )));
                }
            }
        }
    }
    for leaf in spec
        .leaves
        .iter()
        .filter(|leaf| leaf.side == Side::Seamldr && leaf.versions != [0])
    {
        out.push(
            Diagnostic::new(
                Code::OutOfRange,
                leaf.place,
                "a leaf of P-SEAMLDR has no versions",
            )
            .help("remove `versions`"),
        );
    }
}

/// What a manifest fixes must be fields that its module has.
fn values(spec: &Spec, out: &mut Vec<Diagnostic>) {
    let global = spec.fields.iter().filter(|table| table.name == "GLOBAL");
    let global: Vec<_> = global.flat_map(|table| &table.rows).collect();
    for (index, module) in spec.modules.iter().enumerate() {
        let known: Vec<&str> = global
            .iter()
            .filter(|row| row.modules.contains(index))
            .map(|row| row.name.as_str())
            .collect();
        for (name, _) in &module.values {
            if !known.contains(&name.value.as_str()) {
                let what = "field of the table GLOBAL of this module";
                let code = Code::UnknownName;
                out.push(unknown(code, name.place, what, &name.value, &known));
            }
        }
    }
}
