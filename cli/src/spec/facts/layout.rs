//! Facts of enums, formats and structures.

use std::collections::BTreeMap;

use tdx_codegen::emit::rust::type_size;
use tdx_codegen::model::At;
use tdx_codegen::model::BitField;
use tdx_codegen::model::BitItem;
use tdx_codegen::model::Bits;
use tdx_codegen::model::Format;
use tdx_codegen::model::ModuleSet;
use tdx_codegen::model::Spec;
use tdx_codegen::model::Structure;
use tdx_codegen::model::StructureItem;

use super::Facts;
use super::Kind;
use super::Scope;
use super::View;
use super::scope;
use super::unbound;

/// Aspect of a layout that names the one it is a variant of.
const VARIANT_OF: &str = "variant_of";

pub(super) fn add(spec: &Spec, facts: &mut Facts) {
    for entity in &spec.enums {
        let mut add = |aspect: &str, value: String| {
            facts.add(Kind::Enum, &entity.name, aspect, value, &everywhere(spec));
        };
        add("width", entity.width.to_string());
        for value in &entity.values {
            add(&format!("value {}", value.name), value.value.to_string());
        }
    }
    for entity in &spec.formats {
        format(spec, entity, facts);
    }
    for entity in &spec.structures {
        structure(spec, entity, facts);
    }
}

/// Every module, and what is bound to none if there is no module.
fn everywhere(spec: &Spec) -> Scope {
    let every = scope(spec, ModuleSet::first(spec.modules.len()));
    if every.is_empty() { unbound() } else { every }
}

fn pieces(bits: &[Bits]) -> String {
    let pieces: Vec<String> = bits.iter().map(Bits::to_string).collect();
    pieces.join(",")
}

fn bit_field(field: &BitField) -> String {
    let mut text = pieces(&field.bits);
    if let Some(At { value, .. }) = &field.ty {
        text.push(' ');
        text.push_str(value);
    }
    if field.shift > 0 {
        text.push_str(&format!(" << {}", field.shift));
    }
    text
}

fn format(spec: &Spec, entity: &Format, facts: &mut Facts) {
    let scope = scope(spec, entity.modules);
    let mut add = |aspect: &str, value: String| {
        facts.add(Kind::Format, &entity.name, aspect, value, &scope);
    };
    add("width", entity.width.to_string());
    if let Some(base) = &entity.variant_of {
        add(VARIANT_OF, base.value.clone());
    }
    let mut rest: BTreeMap<&str, Vec<Bits>> = BTreeMap::new();
    for item in &entity.items {
        let word = match item {
            BitItem::Field(field) => {
                add(&format!("field {}", field.name), bit_field(field));
                continue;
            }
            BitItem::Reserved { ones: false, .. } => "reserved",
            BitItem::Reserved { ones: true, .. } => "reserved ones",
            BitItem::Ignored { .. } => "ignored",
        };
        rest.entry(word).or_default().extend(item.bits());
    }
    for (word, bits) in rest {
        add(word, pieces(&bits));
    }
    for view in &entity.views {
        add(&format!("view {}", view.name), bit_field(view));
    }
}

fn structure(spec: &Spec, entity: &Structure, facts: &mut Facts) {
    let scope = scope(spec, entity.modules);
    let mut add = |aspect: &str, value: String| {
        facts.add(Kind::Structure, &entity.name, aspect, value, &scope);
    };
    add("size", entity.size.to_string());
    add("align", entity.align.to_string());
    if let Some(base) = &entity.variant_of {
        add(VARIANT_OF, base.value.clone());
    }
    let mut reserved: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for item in &entity.items {
        match item {
            StructureItem::Field(field) => {
                let size = type_size(spec, &field.ty.value).unwrap_or(field.size);
                let mut text = format!("{}+{size} {}", field.offset, field.ty.value);
                if let Some(count) = field.count {
                    text.push_str(&format!(" x {count}"));
                }
                add(&format!("field {}", field.name), text);
            }
            StructureItem::Reserved {
                offset, size, ones, ..
            } => {
                let word = if *ones { "reserved ones" } else { "reserved" };
                let text = format!("{offset}+{size}");
                reserved.entry(word).or_default().push(text);
            }
        }
    }
    for (word, bytes) in reserved {
        add(word, bytes.join(","));
    }
}

/// Gives a layout the name of the one it is a variant of if no other of that family is in the view.
pub(super) fn unify(view: &mut View) {
    let mut families: BTreeMap<(Kind, String), Vec<String>> = BTreeMap::new();
    for ((kind, name), aspects) in view.iter() {
        let base = aspects.get(VARIANT_OF).unwrap_or(name);
        families
            .entry((*kind, base.clone()))
            .or_default()
            .push(name.clone());
    }
    for ((kind, base), members) in families {
        let [only] = &members[..] else { continue };
        if let Some(mut aspects) = view.remove(&(kind, only.clone())) {
            aspects.remove(VARIANT_OF);
            view.insert((kind, base), aspects);
        }
    }
}
