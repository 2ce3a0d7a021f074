//! Pages of structures.

use super::Book;
use super::layout::field_anchor;
use super::layout::layout;
use super::page::Page;
use super::page::anchor;
use super::page::code;
use crate::emit::first_sentence;
use crate::emit::rust::type_size;
use crate::model::Structure;
use crate::model::StructureField;
use crate::model::StructureItem;

impl Book<'_> {
    pub(super) fn structures(&self) -> Vec<Page> {
        let structures = self.spec.structures.iter();
        structures
            .map(|structure| self.structure(structure))
            .collect()
    }

    fn structure(&self, structure: &Structure) -> Page {
        let mut page = Page::new(format!("structures/{}.md", structure.name), &structure.name);
        page.about = self.links.prose(&page, first_sentence(&structure.doc));
        page.text(&self.links.prose(&page, &structure.doc));
        let mut notes = format!("{} bytes, aligned to {}.", structure.size, structure.align);
        if structure.modules.iter().count() < self.spec.modules.len() {
            notes.push_str(&format!(
                " Modules {}.",
                self.module_names(structure.modules)
            ));
        }
        if let Some(of) = &structure.variant_of {
            notes.push_str(&format!(
                " A variant of {}.",
                self.links.entity(&page, &of.value)
            ));
        }
        page.text(&notes);
        page.text(&layout(structure, |field| {
            self.element(field) * field.count.unwrap_or(1)
        }));
        let rows = structure.items.iter().map(|item| match item {
            StructureItem::Reserved {
                offset, size, ones, ..
            } => {
                let value = if *ones {
                    "must be all ones"
                } else {
                    "must be 0"
                };
                vec![
                    place(*offset),
                    bytes(*size),
                    String::new(),
                    String::new(),
                    value.to_owned(),
                ]
            }
            StructureItem::Field(field) => {
                let element = self.element(field);
                let ty = self.links.entity(&page, &field.ty.value);
                let (size, ty) = match field.count {
                    Some(count) => (element * count, format!("{count} × {ty}")),
                    None => (element, ty),
                };
                vec![
                    format!("{}{}", anchor(&field_anchor(field)), place(field.offset)),
                    bytes(size),
                    code(&field.name),
                    ty,
                    self.links
                        .prose(&page, field.doc.as_deref().unwrap_or_default()),
                ]
            }
        });
        let rows: Vec<Vec<String>> = rows.collect();
        page.table(&["from byte", "size", "name", "type", ""], &rows);
        self.used_by(&mut page, &structure.name);
        self.sources_of(&mut page, &structure.cite);
        page
    }

    /// Bytes of one element of a field.
    fn element(&self, field: &StructureField) -> u32 {
        match field.ty.value.as_str() {
            "bytes" => field.size,
            ty => type_size(self.spec, ty).unwrap_or(1),
        }
    }
}

fn bytes(size: u32) -> String {
    let word = if size == 1 { "byte" } else { "bytes" };
    format!("{size} {word}")
}

fn place(offset: u32) -> String {
    format!("{offset} (`{offset:#x}`)")
}
