//! Enums, bit formats and structures.

use super::Loader;
use super::modules::cites;
use super::record::Item;
use super::record::Record;
use super::trace::Use;
use crate::diagnostic::Code;
use crate::diagnostic::Diagnostic;
use crate::model::At;
use crate::model::BitField;
use crate::model::BitItem;
use crate::model::Bits;
use crate::model::Enum;
use crate::model::EnumValue;
use crate::model::Format;
use crate::model::Structure;
use crate::model::StructureField;
use crate::model::StructureItem;

impl Loader<'_> {
    pub(super) fn enumeration(&mut self, record: &mut Record<'_>) -> Option<()> {
        let entity = Enum {
            place: record.place(),
            name: record.required_text("name"),
            width: record.require_or_default("width", |item| {
                item.number_to(64)
                    .and_then(|width| u32::try_from(width).ok())
            }),
            doc: record
                .need("doc")
                .and_then(|item| item.text())
                .unwrap_or_default(),
            cite: cites(record),
            values: record.require_or_default("values", |list| {
                list.each(|item| {
                    let mut row = item.record()?;
                    let value = EnumValue {
                        place: row.place(),
                        name: row.required_text("name"),
                        value: row.required_number("value"),
                        doc: row.text("doc"),
                    };
                    row.finish()?;
                    Some(value)
                })
            }),
        };
        self.spec.enums.push(entity);
        Some(())
    }

    pub(super) fn format(&mut self, record: &mut Record<'_>) -> Option<()> {
        let width = record.require("width", |item| {
            let bits = item.number()?;
            if ![8, 16, 32, 64].contains(&bits) {
                let message = format!("a format of {bits} bits");
                item.reader.report(
                    Diagnostic::new(Code::OutOfRange, item.place(), message)
                        .help("a format has 8, 16, 32 or 64 bits; a longer one is a structure"),
                );
                return None;
            }
            u32::try_from(bits).ok()
        });
        let format = Format {
            place: record.place(),
            name: record
                .need("name")
                .and_then(|item| item.text())
                .unwrap_or_default(),
            width: width.unwrap_or_default(),
            modules: self.module_set(record, self.every_module()),
            variant_of: record.get("variant_of").and_then(|item| item.at_text()),
            doc: record
                .need("doc")
                .and_then(|item| item.text())
                .unwrap_or_default(),
            cite: cites(record),
            items: record
                .need("fields")
                .and_then(|list| list.each(bit_item))
                .unwrap_or_default(),
            views: record
                .optional("views", |list| list.each(view))
                .unwrap_or_default(),
        };
        // Without a width no bit can be said to be there or not.
        if width.is_some() {
            self.spec.formats.push(format);
        }
        Some(())
    }

    pub(super) fn structure(&mut self, record: &mut Record<'_>) -> Option<()> {
        let structure = Structure {
            place: record.place(),
            name: record.required_text("name"),
            size: record.required_u32("size"),
            align: record.required_u32("align"),
            modules: self.module_set(record, self.every_module()),
            variant_of: record.get("variant_of").and_then(|item| item.at_text()),
            doc: record
                .need("doc")
                .and_then(|item| item.text())
                .unwrap_or_default(),
            cite: cites(record),
            items: record
                .need("fields")
                .and_then(|list| list.each(structure_item))
                .unwrap_or_default(),
        };
        self.spec.structures.push(structure);
        Some(())
    }
}

fn bit_item(item: Item<'_>) -> Option<BitItem> {
    let mut row = item.record()?;
    let place = row.place();
    let bits = row.require_or_default("bits", bit_list);
    let read = if let Some(ones) = reserved(&mut row) {
        BitItem::Reserved { place, bits, ones }
    } else if row.flag("ignored") {
        row.text("doc");
        BitItem::Ignored { place, bits }
    } else {
        BitItem::Field(bit_field(&mut row, bits))
    };
    row.finish()?;
    Some(read)
}

/// Whether bits or bytes are reserved, and then as ones.
fn reserved(row: &mut Record<'_>) -> Option<bool> {
    let item = row.get("reserved")?;
    row.text("doc");
    let value = item.number_to(1);
    if value.is_none() {
        row.spoil();
    }
    Some(value == Some(1))
}

fn view(item: Item<'_>) -> Option<BitField> {
    let mut row = item.record()?;
    let bits = row.require_or_default("bits", bit_list);
    let view = bit_field(&mut row, bits);
    row.finish()?;
    Some(view)
}

fn bit_field(row: &mut Record<'_>, bits: Vec<Bits>) -> BitField {
    BitField {
        place: row.place(),
        name: row.required_text("name"),
        bits,
        ty: row.get("type").and_then(|item| item.at_text()),
        shift: row
            .optional("shift", |item| {
                item.number_to(63)
                    .and_then(|shift| u32::try_from(shift).ok())
            })
            .unwrap_or_default(),
        doc: row.text("doc"),
    }
}

fn bit_list(item: Item<'_>) -> Option<Vec<Bits>> {
    item.one_or_each(bit_range)
}

/// `"63"` or `"51:12"`.
pub(super) fn bit_range(item: Item<'_>) -> Option<Bits> {
    item.note(Use::Pattern("^ *[0-9]+ *(: *[0-9]+ *)?$"));
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let bits = match &item.node.value {
        crate::yaml::Value::Unsigned(bit) => u32::try_from(*bit).ok().map(|bit| Bits {
            high: bit,
            low: bit,
        }),
        crate::yaml::Value::Text(text) => match text.split_once(':') {
            Some((high, low)) => number(high)
                .zip(number(low))
                .map(|(high, low)| Bits { high, low }),
            None => number(text).map(|bit| Bits {
                high: bit,
                low: bit,
            }),
        },
        _ => None,
    };
    let problem = match bits {
        Some(bits) if bits.high < bits.low => "the high bit comes first",
        Some(bits) if bits.high > 63 => "bits are numbered from 0 to 63",
        Some(bits) => return Some(bits),
        None => "write bits as \"63\" or \"51:12\"",
    };
    item.reader
        .report(Diagnostic::new(Code::OutOfRange, item.place(), "these are no bits").help(problem));
    None
}

fn structure_item(item: Item<'_>) -> Option<StructureItem> {
    let mut row = item.record()?;
    let place = row.place();
    let offset = row.required_u32("offset");
    let read = if let Some(ones) = reserved(&mut row) {
        StructureItem::Reserved {
            place,
            offset,
            size: row.required_u32("size"),
            ones,
        }
    } else {
        let size = row.optional("size", |item| item.u32()).unwrap_or_default();
        let name = row.required_text("name");
        let ty: At<String> = row.require_or_default("type", |item| item.at_text());
        let count = row.get("count").and_then(|item| item.u32());
        StructureItem::Field(StructureField {
            place,
            offset,
            name,
            ty,
            size,
            count,
            doc: row.text("doc"),
        })
    };
    row.finish()?;
    Some(read)
}
