//! Pages of bit formats and enums.

use super::Book;
use super::diagram::cells;
use super::diagram::diagram;
use super::diagram::field_anchor;
use super::page::Page;
use super::page::anchor;
use super::page::code;
use crate::emit::first_sentence;
use crate::model::BitField;
use crate::model::BitItem;
use crate::model::Bits;
use crate::model::Format;

impl Book<'_> {
    pub(super) fn formats(&self) -> Vec<Page> {
        let formats = self.spec.formats.iter();
        formats.map(|format| self.format(format)).collect()
    }

    fn format(&self, format: &Format) -> Page {
        let mut page = Page::new(format!("formats/{}.md", format.name), &format.name);
        page.about = self.links.prose(&page, first_sentence(&format.doc));
        page.text(&self.links.prose(&page, &format.doc));
        let mut notes = format!("{} bits.", format.width);
        if format.modules.iter().count() < self.spec.modules.len() {
            notes.push_str(&format!(" Modules {}.", self.module_names(format.modules)));
        }
        if let Some(of) = &format.variant_of {
            notes.push_str(&format!(
                " A variant of {}.",
                self.links.entity(&page, &of.value)
            ));
        }
        let variants = self.spec.formats.iter().filter(|other| {
            other
                .variant_of
                .as_ref()
                .is_some_and(|of| of.value == format.name)
        });
        let variants: Vec<String> = variants
            .map(|other| self.links.entity(&page, &other.name))
            .collect();
        if !variants.is_empty() {
            notes.push_str(&format!(" Variants: {}.", variants.join(", ")));
        }
        page.text(&notes);
        page.text(&diagram(&format.name, format.width, &cells(format)));
        let rows = format.items.iter().map(|item| match item {
            BitItem::Field(field) => self.bit_field(&page, field),
            BitItem::Reserved { bits, ones, .. } => {
                let value = if *ones { "must be 1" } else { "must be 0" };
                vec![
                    bit_text(bits),
                    String::new(),
                    String::new(),
                    value.to_owned(),
                ]
            }
            BitItem::Ignored { bits, .. } => {
                vec![
                    bit_text(bits),
                    String::new(),
                    String::new(),
                    "ignored".to_owned(),
                ]
            }
        });
        let rows: Vec<Vec<String>> = rows.collect();
        page.table(&["bits", "name", "type", ""], &rows);
        if !format.views.is_empty() {
            page.heading("Overlays");
            page.text("Other ways to read the same bits.");
            let views = format.views.iter().map(|view| self.bit_field(&page, view));
            let views: Vec<Vec<String>> = views.collect();
            page.table(&["bits", "name", "type", ""], &views);
        }
        self.used_by(&mut page, &format.name);
        self.sources_of(&mut page, &format.cite);
        page
    }

    fn bit_field(&self, page: &Page, field: &BitField) -> Vec<String> {
        let ty = match &field.ty {
            Some(ty) => self.links.entity(page, &ty.value),
            None if field.width() == 1 => "flag".to_owned(),
            None => "number".to_owned(),
        };
        let mut doc = self
            .links
            .prose(page, field.doc.as_deref().unwrap_or_default());
        if field.shift > 0 {
            let space = if doc.is_empty() { "" } else { " " };
            doc.push_str(&format!(
                "{space}The value is these bits shifted left by {}.",
                field.shift
            ));
        }
        vec![
            format!("{}{}", anchor(&field_anchor(field)), bit_text(&field.bits)),
            code(&field.name),
            ty,
            doc,
        ]
    }

    pub(super) fn enums(&self) -> Vec<Page> {
        let enums = self.spec.enums.iter().map(|entity| {
            let mut page = Page::new(format!("enums/{}.md", entity.name), &entity.name);
            page.about = self.links.prose(&page, first_sentence(&entity.doc));
            page.text(&self.links.prose(&page, &entity.doc));
            let rows = entity.values.iter().map(|value| {
                let doc = value.doc.as_deref().unwrap_or_default();
                vec![
                    code(&value.name),
                    format!("{} (`{:#x}`)", value.value, value.value),
                    self.links.prose(&page, doc),
                ]
            });
            let rows: Vec<Vec<String>> = rows.collect();
            page.table(&["name", "value", ""], &rows);
            self.used_by(&mut page, &entity.name);
            self.sources_of(&mut page, &entity.cite);
            page
        });
        enums.collect()
    }
}

fn bit_text(bits: &[Bits]) -> String {
    let bits: Vec<String> = bits.iter().map(Bits::to_string).collect();
    bits.join(" and ")
}
