//! Structures in memory.

use super::Header;
use super::names::member;
use super::names::snake;
use crate::emit::rust::type_size;
use crate::model::Spec;
use crate::model::Structure;
use crate::model::StructureItem;

pub(super) fn structures(spec: &Spec, header: &mut Header) {
    header.section(
        "Packed, so that a structure may lie anywhere; _ALIGN is what the callee asks for.",
    );
    header.line("#ifndef __ASSEMBLER__");
    let mut done: Vec<&str> = Vec::new();
    // What a structure contains stands before it.
    while done.len() < spec.structures.len() {
        let before = done.len();
        for structure in &spec.structures {
            let waits = parts(structure).any(|part| {
                spec.structures.iter().any(|known| known.name == part) && !done.contains(&part)
            });
            if !done.contains(&structure.name.as_str()) && !waits {
                one_structure(spec, header, structure);
                done.push(&structure.name);
            }
        }
        if done.len() == before {
            break;
        }
    }
    header.line("\n#endif /* __ASSEMBLER__ */");
}

/// Types of the fields.
fn parts(structure: &Structure) -> impl Iterator<Item = &str> {
    structure.items.iter().filter_map(|item| match item {
        StructureItem::Field(field) => Some(field.ty.value.as_str()),
        StructureItem::Reserved { .. } => None,
    })
}

fn one_structure(spec: &Spec, header: &mut Header, structure: &Structure) {
    let name = snake(&structure.name);
    let upper = name.to_uppercase();
    header.section(&structure.doc);
    header.names.push(name.clone());
    header.names.push(format!("{name}_t"));
    header.line(&format!("typedef struct TDX_PACKED {name} {{"));
    let mut asserts = vec![format!(
        "TDX_STATIC_ASSERT(sizeof({name}_t) == {}, \"size of {}\");",
        structure.size, structure.name
    )];
    for item in &structure.items {
        let (declaration, member, offset, doc) = match item {
            StructureItem::Reserved {
                offset, size, ones, ..
            } => {
                let member = format!("reserved_{offset}");
                let must = if *ones { "All ones." } else { "Zero." };
                (
                    format!("uint8_t {member}[{size}]"),
                    member,
                    *offset,
                    Some(must.to_owned()),
                )
            }
            StructureItem::Field(field) => {
                let member = member(&field.name);
                let ty = type_name(spec, &field.ty.value);
                let declaration = match field.count {
                    _ if field.ty.value == "bytes" => format!("uint8_t {member}[{}]", field.size),
                    Some(count) => format!("{ty} {member}[{count}]"),
                    None => format!("{ty} {member}"),
                };
                (declaration, member, field.offset, field.doc.clone())
            }
        };
        if let Some(doc) = doc {
            for line in comment(&doc) {
                header.line(&format!("\t{line}"));
            }
        }
        header.line(&format!("\t{declaration};"));
        asserts.push(format!(
            "TDX_STATIC_ASSERT(offsetof({name}_t, {member}) == {offset}, \"offset of {}.{member}\");",
            structure.name
        ));
    }
    header.line(&format!("}} {name}_t;"));
    header.define(
        &format!("{upper}_ALIGN"),
        &structure.align.to_string(),
        None,
    );
    for assert in asserts {
        header.line(&assert);
    }
}

fn comment(text: &str) -> Vec<String> {
    let lines = super::names::wrapped(text);
    let last = lines.len() - 1;
    let lines = lines.iter().enumerate().map(|(index, line)| {
        let begin = if index == 0 { "/* " } else { " * " };
        let end = if index == last { " */" } else { "" };
        format!("{begin}{line}{end}")
    });
    lines.collect()
}

fn type_name(spec: &Spec, ty: &str) -> String {
    let is_named = spec.structures.iter().any(|known| known.name == ty)
        || spec.formats.iter().any(|known| known.name == ty)
        || spec.enums.iter().any(|known| known.name == ty);
    if is_named {
        return format!("{}_t", snake(ty));
    }
    let bytes = type_size(spec, ty).unwrap_or(1);
    super::names::carrier(bytes * 8).to_owned()
}
