//! Enums, bit formats and structures.

use super::Loader;
use super::modules::cites;
use super::question::Use;
use super::record::Item;
use super::record::Record;
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
    pub(super) fn enumeration(&mut self, record: &mut Record<'_>) {
        let entity = Enum {
            place: record.place(),
            name: record.required_text("name"),
            width: record.require_or_default("width", |item| item.number_to(64)),
            doc: record
                .need("doc")
                .and_then(|item| item.text())
                .unwrap_or_default(),
            cite: cites(record),
            values: record.require_or_default("values", |list| {
                list.each_mapping(|row| EnumValue {
                    place: row.place(),
                    name: row.required_text("name"),
                    value: row.required_number("value"),
                    doc: row.text("doc"),
                })
            }),
        };
        self.spec.enums.push(entity);
    }

    pub(super) fn format(&mut self, record: &mut Record<'_>) {
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
                .and_then(|list| list.each_mapping(bit_item))
                .unwrap_or_default(),
            views: record
                .optional("views", |list| list.each_mapping(view))
                .unwrap_or_default(),
        };
        // Without a width no bit can be said to be there or not.
        if width.is_some() {
            self.spec.formats.push(format);
        }
    }

    pub(super) fn structure(&mut self, record: &mut Record<'_>) {
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
                .and_then(|list| list.each_mapping(structure_item))
                .unwrap_or_default(),
        };
        self.spec.structures.push(structure);
    }
}

fn bit_item(row: &mut Record<'_>) -> BitItem {
    let place = row.place();
    let bits = row.require_or_default("bits", bit_list);
    if let Some(ones) = reserved(row) {
        BitItem::Reserved { place, bits, ones }
    } else if row.flag("ignored") {
        row.text("doc");
        BitItem::Ignored { place, bits }
    } else {
        BitItem::Field(bit_field(row, bits))
    }
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

fn view(row: &mut Record<'_>) -> BitField {
    let bits = row.require_or_default("bits", bit_list);
    bit_field(row, bits)
}

fn bit_field(row: &mut Record<'_>, bits: Vec<Bits>) -> BitField {
    BitField {
        place: row.place(),
        name: row.required_text("name"),
        bits,
        ty: row.get("type").and_then(|item| item.at_text()),
        shift: row
            .optional("shift", |item| item.number_to(63))
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

fn structure_item(row: &mut Record<'_>) -> StructureItem {
    let place = row.place();
    let offset = row.required_u32("offset");
    if let Some(ones) = reserved(row) {
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
    }
}
