//! Facts of leaves.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use tdx_codegen::model::Allowed;
use tdx_codegen::model::Bits;
use tdx_codegen::model::Evidence;
use tdx_codegen::model::Kind as Type;
use tdx_codegen::model::Leaf;
use tdx_codegen::model::Lock;
use tdx_codegen::model::Meaning;
use tdx_codegen::model::ModuleSet;
use tdx_codegen::model::Operand;
use tdx_codegen::model::Part;
use tdx_codegen::model::Spec;

use super::Facts;
use super::Kind;
use super::Scope;
use super::View;
use super::scope;
use super::unbound;

/// What the aspects of a leaf's base operand list begin with; those of others begin with `@`, their name and a blank.
pub(in crate::spec) const BASE: &str = "";

pub(super) fn add(spec: &Spec, facts: &mut Facts) {
    for leaf in &spec.leaves {
        operand_list(spec, leaf, facts);
        if leaf.variant.is_none() {
            dispatch(spec, leaf, facts);
        }
    }
}

/// Modules that dispatch `leaf` with one of the versions of this operand list; `None` among them if no manifest lists it.
fn modules(spec: &Spec, leaf: &Leaf) -> Scope {
    let mut set = ModuleSet::default();
    let mut is_listed = false;
    for (index, module) in spec.modules.iter().enumerate() {
        let row = module
            .leaves
            .iter()
            .find(|(name, _)| name.value == leaf.name);
        is_listed |= row.is_some();
        if leaf.modules.contains(index)
            && row.is_some_and(|(_, versions)| {
                leaf.versions
                    .iter()
                    .any(|version| versions.contains(version))
            })
        {
            set = set.with(index);
        }
    }
    if is_listed {
        scope(spec, set)
    } else {
        unbound()
    }
}

fn dispatch(spec: &Spec, leaf: &Leaf, facts: &mut Facts) {
    let number = format!("{:#x}", leaf.number.value);
    let mut is_known = false;
    for module in &spec.modules {
        let scope = Scope::from([Some(module.name.clone())]);
        let versions = module
            .leaves
            .iter()
            .find(|(name, _)| name.value == leaf.name);
        let is_reserved = module.reserved.iter().any(|name| name.value == leaf.name);
        let mut add = |aspect: &str, value: &str| {
            facts.add(Kind::Leaf, &leaf.name, aspect, value.to_owned(), &scope);
        };
        for version in versions.iter().flat_map(|(_, versions)| versions) {
            add(&format!("version {version}"), "accepted");
        }
        if is_reserved {
            add("reserved", "numbered, not dispatched");
        }
        if versions.is_some() || is_reserved {
            add("number", &number);
            is_known = true;
        }
    }
    if !is_known {
        facts.add(Kind::Leaf, &leaf.name, "number", number, &unbound());
    }
    for (word, gates) in [
        ("op_state", &leaf.op_states),
        ("sept_state", &leaf.sept_states),
    ] {
        for gate in gates {
            allowed(spec, leaf, word, gate, facts);
        }
    }
}

fn allowed(spec: &Spec, leaf: &Leaf, word: &str, gate: &Allowed, facts: &mut Facts) {
    let scope = scope(spec, gate.modules);
    let gated = format!("{word}s");
    facts.add(Kind::Leaf, &leaf.name, &gated, "gated".to_owned(), &scope);
    for state in &gate.states {
        let aspect = format!("{word} {}", state.value);
        facts.add(
            Kind::Leaf,
            &leaf.name,
            &aspect,
            "allowed".to_owned(),
            &scope,
        );
    }
}

fn operand_list(spec: &Spec, leaf: &Leaf, facts: &mut Facts) {
    let scope = modules(spec, leaf);
    let prefix = leaf
        .variant
        .as_ref()
        .map_or_else(|| BASE.to_owned(), |name| format!("@{name} "));
    let mut add = |aspect: &str, value: String| {
        let aspect = format!("{prefix}{aspect}");
        facts.add(Kind::Leaf, &leaf.name, &aspect, value, &scope);
    };
    if leaf.variant.is_some() {
        let versions: Vec<String> = leaf.versions.iter().map(u8::to_string).collect();
        add("list", format!("version {}", versions.join(", ")));
    }
    if let Some(feature) = &leaf.feature {
        add("feature", feature.value.clone());
    }
    for (word, operands) in [("in", &leaf.inputs), ("out", &leaf.outputs)] {
        for operand in operands {
            add(&format!("{word} {}", operand.register), text(operand));
        }
    }
    let mut seen = BTreeSet::new();
    for lock in &leaf.locks {
        let mut aspect = format!("lock {}", lock.resource);
        if let Some(operand) = &lock.operand {
            aspect = format!("{aspect} {operand}");
        }
        if !seen.insert(aspect.clone()) {
            aspect = format!("{aspect} again");
            seen.insert(aspect.clone());
        }
        add(&aspect, lock_text(lock));
    }
    for resume in &leaf.resume {
        let value = resume
            .set
            .map_or_else(|| "output".to_owned(), |bits| format!("or {bits:#x}"));
        add(&format!("resume {}", resume.register), value);
    }
    if let Some(yields) = leaf.yields {
        add("yields", yields.name().to_owned());
    }
    for status in &leaf.statuses {
        let aspect = format!("{prefix}status {}", status.value);
        let scope = known_in(spec, &status.value, &scope);
        facts.add(
            Kind::Leaf,
            &leaf.name,
            &aspect,
            "returned".to_owned(),
            &scope,
        );
    }
}

/// The part of `scope` that has this status: a leaf's list is that of all its modules together.
fn known_in(spec: &Spec, status: &str, scope: &Scope) -> Scope {
    let rows = spec.statuses.iter().flat_map(|table| &table.rows);
    let known: Scope = rows
        .filter(|row| row.name == status)
        .flat_map(|row| super::scope(spec, row.modules))
        .collect();
    scope
        .iter()
        .filter(|module| module.is_none() || known.contains(*module))
        .cloned()
        .collect()
}

fn lock_text(lock: &Lock) -> String {
    let mut text = lock.mode.name().to_owned();
    if lock.host_priority {
        text.push_str(", host priority");
    }
    if let Some(when) = &lock.when {
        text.push_str(&format!(", when {when}"));
    }
    text
}

fn text(operand: &Operand) -> String {
    let mut text: Vec<String> = operand.meanings.iter().map(meaning).collect();
    if let Some(lock) = operand.lock {
        text.push(format!("locked {}", lock.name()));
    }
    text.join("; ")
}

fn meaning(meaning: &Meaning) -> String {
    let parts: Vec<String> = meaning.parts.iter().map(part).collect();
    let mut text = parts.join(" + ");
    if !meaning.on.is_empty() {
        let on: Vec<&str> = meaning.on.iter().map(|name| name.value.as_str()).collect();
        text.push_str(&format!(" on {}", on.join(" ")));
    }
    text
}

fn part(part: &Part) -> String {
    let bits = part
        .bits
        .map_or_else(String::new, |bits: Bits| format!(" in {bits}"));
    format!("{}: {}{bits}", part.name, type_text(&part.kind))
}

fn type_text(kind: &Type) -> String {
    let aligned = |word: &str, align: u64| match align {
        0 | 1 => word.to_owned(),
        _ => format!("{word} aligned {align}"),
    };
    match kind {
        Type::Number(bits) => format!("u{bits}"),
        Type::Bool => "bool".to_owned(),
        Type::Hpa { align } => aligned("hpa", *align),
        Type::Gpa { align } => aligned("gpa", *align),
        Type::PrivateGpa { align } => aligned("private_gpa", *align),
        Type::SharedGpa { align } => aligned("shared_gpa", *align),
        Type::Hkid => "hkid".to_owned(),
        Type::FieldId => "field_id".to_owned(),
        Type::Mapping { levels, evidence } => {
            let levels: Vec<String> = levels.iter().map(u8::to_string).collect();
            let evidence = match evidence {
                Some(Evidence::Tracked) => " tracked",
                None => "",
            };
            format!("mapping of levels {}{evidence}", levels.join(" "))
        }
        Type::Tdr => "tdr".to_owned(),
        Type::Tdvpr => "tdvpr".to_owned(),
        Type::Page { level, becomes } => {
            let level = level.map_or_else(|| "entry".to_owned(), |level| level.to_string());
            let becomes = becomes
                .as_ref()
                .map_or_else(String::new, |kind| format!(" becomes {kind}"));
            format!("page of level {level}{becomes}")
        }
        Type::Structure {
            of,
            align,
            guest,
            direction,
        } => {
            let word = if *guest {
                "guest_structure"
            } else {
                "structure"
            };
            let mut text = aligned(word, *align);
            for more in [of, direction].into_iter().flatten() {
                text.push(' ');
                text.push_str(more);
            }
            text
        }
        Type::Format(name) => name.clone(),
        Type::Unknown => "unknown".to_owned(),
    }
}

/// The operand list that an aspect belongs to, and the rest of the aspect.
pub(in crate::spec) fn list_of(aspect: &str) -> (&str, &str) {
    match aspect.split_once(' ') {
        Some((list, rest)) if list.starts_with('@') => (list, rest),
        _ => (BASE, aspect),
    }
}

/// Where only one operand list of a leaf applies and that is no base list, names it as the base.
pub(super) fn unify(view: &mut View) {
    for ((kind, _), aspects) in view.iter_mut() {
        if *kind != Kind::Leaf {
            continue;
        }
        let is_operand = |rest: &str| rest.starts_with("in ") || rest.starts_with("status ");
        let lists: BTreeSet<String> = aspects
            .keys()
            .map(|aspect| list_of(aspect))
            .filter(|(list, rest)| *list != BASE || is_operand(rest))
            .map(|(list, _)| list.to_owned())
            .collect();
        if lists.len() != 1 || lists.contains(BASE) {
            continue;
        }
        let renamed: BTreeMap<String, String> = aspects
            .iter()
            .map(|(aspect, value)| (list_of(aspect).1.to_owned(), value.clone()))
            .filter(|(aspect, _)| aspect != "list")
            .collect();
        *aspects = renamed;
    }
}
