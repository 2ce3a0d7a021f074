//! Who refers to a format, enum or structure.

use super::Book;
use super::page::Page;
use crate::model::BitItem;
use crate::model::Kind;
use crate::model::Leaf;
use crate::model::StructureItem;

impl Book<'_> {
    /// The section "Used by" of the entity called `name`.
    pub(super) fn used_by(&self, page: &mut Page, name: &str) {
        let mut users: Vec<&str> = Vec::new();
        for leaf in self.spec.leaves.iter().filter(|leaf| leaf_uses(leaf, name)) {
            users.push(&leaf.name);
        }
        for structure in &self.spec.structures {
            let uses = |item: &StructureItem| matches!(item, StructureItem::Field(field) if field.ty.value == name);
            if structure.items.iter().any(uses) {
                users.push(&structure.name);
            }
        }
        for format in &self.spec.formats {
            let of_items = format.items.iter().filter_map(|item| match item {
                BitItem::Field(field) => Some(field),
                _ => None,
            });
            let mut fields = of_items.chain(&format.views);
            if fields.any(|field| field.ty.as_ref().is_some_and(|ty| ty.value == name)) {
                users.push(&format.name);
            }
        }
        users.dedup();
        if users.is_empty() {
            return;
        }
        page.heading("Used by");
        let links: Vec<String> = users
            .iter()
            .map(|user| self.links.entity(page, user))
            .collect();
        page.text(&links.join(", "));
    }
}

fn leaf_uses(leaf: &Leaf, name: &str) -> bool {
    let operands = leaf.inputs.iter().chain(&leaf.outputs);
    let mut parts = operands
        .flat_map(|operand| &operand.meanings)
        .flat_map(|meaning| &meaning.parts);
    parts.any(|part| match &part.kind {
        Kind::Format(format) => format == name,
        Kind::Structure { of: Some(of), .. } => of == name,
        Kind::Mapping { .. } => name == "GpaMapping",
        Kind::FieldId => name == "FieldId",
        _ => false,
    })
}
