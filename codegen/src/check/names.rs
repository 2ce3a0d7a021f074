//! Names: each becomes an identifier, and no two entities claim one.

use alloc::collections::BTreeMap;

use crate::diagnostic::Code;
use crate::diagnostic::Diagnostic;
use crate::diagnostic::Place;
use crate::model::BitItem;
use crate::model::Leaf;
use crate::model::Spec;
use crate::model::StructureItem;

pub(super) fn check(spec: &Spec, out: &mut Vec<Diagnostic>) {
    types(spec, out);
    for entity in &spec.enums {
        let all = entity.values.iter();
        let all: Vec<_> = all
            .map(|value| (value.name.as_str(), value.place))
            .collect();
        distinct(&all, "value", out);
        for value in &entity.values {
            form(&value.name, value.place, Form::Constant, out);
        }
    }
    for format in &spec.formats {
        let mut all = Vec::new();
        for item in &format.items {
            if let BitItem::Field(field) = item {
                all.push((field.name.as_str(), field.place));
            }
        }
        for field in &format.views {
            all.push((field.name.as_str(), field.place));
        }
        forms(&all, Form::Field, out);
        distinct(&all, "field", out);
    }
    for structure in &spec.structures {
        let mut all = Vec::new();
        for item in &structure.items {
            if let StructureItem::Field(field) = item {
                all.push((field.name.as_str(), field.place));
            }
        }
        forms(&all, Form::Field, out);
        distinct(&all, "field", out);
    }
    for table in &spec.statuses {
        for row in &table.rows {
            form(&row.name, row.place, Form::Constant, out);
        }
    }
    for row in &spec.operands {
        form(&row.name, row.place, Form::Constant, out);
    }
    for row in &spec.features {
        form(&row.name, row.place, Form::Constant, out);
    }
    for table in [&spec.op_states, &spec.sept_states, &spec.l2_sept_states] {
        for row in &table.rows {
            form(&row.name, row.place, Form::Constant, out);
        }
    }
    for table in &spec.fields {
        for row in &table.rows {
            form(&row.name, row.place, Form::Free, out);
        }
    }
    leaves(spec, out);
}

/// Formats, enums and structures share one module of Rust, and types written by hand have names too.
fn types(spec: &Spec, out: &mut Vec<Diagnostic>) {
    let mut all = Vec::new();
    for entity in &spec.enums {
        all.push((entity.name.as_str(), entity.place));
    }
    for entity in &spec.formats {
        all.push((entity.name.as_str(), entity.place));
    }
    for entity in &spec.structures {
        all.push((entity.name.as_str(), entity.place));
    }
    forms(&all, Form::Type, out);
    distinct(&all, "type", out);
}

fn leaves(spec: &Spec, out: &mut Vec<Diagnostic>) {
    let mut bases: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, leaf) in spec.leaves.iter().enumerate() {
        if leaf.variant.is_some() {
            continue;
        }
        leaf.name
            .split('.')
            .for_each(|part| form(part, leaf.place, Form::Constant, out));
        if let Some(before) = bases.insert(&leaf.name, index) {
            let before = &spec.leaves[before];
            out.push(
                Diagnostic::new(
                    Code::Conflict,
                    leaf.place,
                    format!("the leaf `{}` stands in two files", leaf.name),
                )
                .related(before.place, "it is here already")
                .help("remove one, or give it a `variant`"),
            );
        }
    }
    let mut variants: Vec<&Leaf> = Vec::new();
    for leaf in &spec.leaves {
        let Some(variant) = &leaf.variant else {
            continue;
        };
        form(variant, leaf.place, Form::Type, out);
        let Some(base) = bases
            .get(leaf.name.as_str())
            .map(|base| &spec.leaves[*base])
        else {
            out.push(
                Diagnostic::new(
                    Code::UnknownName,
                    leaf.place,
                    format!("`{}` has no file without `variant`", leaf.name),
                )
                .help("the base file of a leaf carries its number and state tables"),
            );
            continue;
        };
        if base.number.value != leaf.number.value {
            let message = format!(
                "variant {variant} of `{}` has another number than its base",
                leaf.name
            );
            out.push(
                Diagnostic::new(Code::Conflict, leaf.number.place, message)
                    .related(
                        base.number.place,
                        format!("the base has {}", base.number.value),
                    )
                    .help("a leaf has one number; another leaf needs a name of its own"),
            );
        }
        let same = |before: &&&Leaf| before.name == leaf.name && before.variant == leaf.variant;
        if let Some(before) = variants.iter().find(same) {
            out.push(
                Diagnostic::new(
                    Code::Conflict,
                    leaf.place,
                    format!("`{}` has variant {variant} twice", leaf.name),
                )
                .related(before.place, "it is here already")
                .help("give one of them another `variant`"),
            );
        }
        variants.push(leaf);
    }
    let mut numbered: Vec<&Leaf> = Vec::new();
    for leaf in spec.leaves.iter().filter(|leaf| leaf.variant.is_none()) {
        let same =
            |before: &&&Leaf| before.side == leaf.side && before.number.value == leaf.number.value;
        match numbered.iter().find(same) {
            None => numbered.push(leaf),
            Some(before) if before.contested && leaf.contested => {}
            Some(before) => {
                let message = format!(
                    "`{}` and `{}` have one number, {}",
                    before.name, leaf.name, leaf.number.value
                );
                out.push(
                    Diagnostic::new(Code::Conflict, leaf.number.place, message)
                        .related(before.number.place, format!("`{}` has it", before.name))
                        .help("correct one, or say `contested: true` in both if sources disagree"),
                );
            }
        }
    }
}

fn forms(names: &[(&str, Place)], wanted: Form, out: &mut Vec<Diagnostic>) {
    for (name, place) in names {
        form(name, *place, wanted, out);
    }
}

/// How a name must look.
#[derive(Clone, Copy)]
enum Form {
    /// `SeptEntry`.
    Type,
    /// `mem_type`.
    Field,
    /// `OPERAND_BUSY`.
    Constant,
    /// Anything with a letter or digit in it.
    Free,
}

fn form(name: &str, place: Place, form: Form, out: &mut Vec<Diagnostic>) {
    let mut letters = name.chars();
    let first = letters.next();
    let (fine, help) = match form {
        Form::Type => (
            first.is_some_and(|c| c.is_ascii_uppercase())
                && letters.all(|c| c.is_ascii_alphanumeric()),
            "a type's name has letters and digits and begins with a capital, such as `SeptEntry`",
        ),
        Form::Field => (
            first.is_some_and(|c| c.is_ascii_lowercase())
                && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
                && !RESERVED.contains(&name),
            "a field's name has small letters, digits and `_`, such as `mem_type`, and is no word of Rust",
        ),
        Form::Constant => (
            name.chars().any(|c| c.is_ascii_alphanumeric())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
            "such a name has letters, digits and `_` only",
        ),
        Form::Free => (
            name.chars().any(|c| c.is_ascii_alphanumeric()),
            "a name has at least one letter or digit",
        ),
    };
    if !fine {
        out.push(
            Diagnostic::new(
                Code::BadName,
                place,
                format!("`{name}` cannot be a name here"),
            )
            .help(help),
        );
    }
}

/// Words of Rust that cannot even be raw identifiers, and names that every format has.
const RESERVED: [&str; 9] = [
    "self",
    "super",
    "crate",
    "new",
    "from_bits",
    "into_bits",
    "fmt",
    "default",
    "is_reserved_valid",
];

fn distinct(names: &[(&str, Place)], what: &str, out: &mut Vec<Diagnostic>) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, (name, place)) in names.iter().enumerate() {
        if let Some(before) = seen.get(name) {
            out.push(
                Diagnostic::new(
                    Code::Conflict,
                    *place,
                    format!("two {what}s are called `{name}`"),
                )
                .related(names[*before].1, "the first one is here")
                .help("rename one of them"),
            );
        } else {
            seen.insert(name, index);
        }
    }
}
