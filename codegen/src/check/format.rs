//! Bits of formats and bytes of structures: each accounted for, each once.

use super::unknown;
use crate::diagnostic::Code;
use crate::diagnostic::Diagnostic;
use crate::diagnostic::Place;
use crate::emit::rust::type_size;
use crate::model::BitField;
use crate::model::BitItem;
use crate::model::Bits;
use crate::model::Format;
use crate::model::Spec;
use crate::model::Structure;
use crate::model::StructureItem;

const WORDS: [&str; 4] = ["u8", "u16", "u32", "u64"];
const ADDRESSES: [&str; 4] = ["Hpa", "Gpa", "PrivateGpa", "SharedGpa"];
const BUILT_IN: [&str; 5] = ["bool", "Level", "OpState", "SeptState", "L2SeptState"];

pub(super) fn check(spec: &Spec, out: &mut Vec<Diagnostic>) {
    for entity in &spec.enums {
        for value in entity
            .values
            .iter()
            .filter(|value| entity.width < 64 && value.value >> entity.width != 0)
        {
            let message = format!("{} does not fit in {} bits", value.value, entity.width);
            let help = "correct the value or the enum's `width`";
            out.push(Diagnostic::new(Code::OutOfRange, value.place, message).help(help));
        }
        for (index, value) in entity.values.iter().enumerate() {
            if let Some(before) = entity.values[..index]
                .iter()
                .find(|before| before.value == value.value)
            {
                let message = format!(
                    "`{}` and `{}` have one value, {}",
                    before.name, value.name, value.value
                );
                out.push(
                    Diagnostic::new(Code::Conflict, value.place, message)
                        .related(before.place, "the first one is here")
                        .help("correct one of them"),
                );
            }
        }
    }
    for format in &spec.formats {
        bits(format, out);
        for item in &format.items {
            if let BitItem::Field(field) = item {
                field_type(spec, field, out);
            }
        }
        format
            .views
            .iter()
            .for_each(|view| field_type(spec, view, out));
        if let Some(other) = &format.variant_of {
            let names: Vec<&str> = spec
                .formats
                .iter()
                .map(|format| format.name.as_str())
                .collect();
            if !names.contains(&other.value.as_str()) {
                out.push(unknown(
                    Code::UnknownName,
                    other.place,
                    "format",
                    &other.value,
                    &names,
                ));
            }
        }
    }
    for structure in &spec.structures {
        bytes(spec, structure, out);
    }
    if let Some(cycle) = spec
        .structures
        .iter()
        .find(|structure| holds_itself(spec, structure, &structure.name, 0))
    {
        out.push(
            Diagnostic::new(
                Code::Conflict,
                cycle.place,
                format!("`{}` holds itself", cycle.name),
            )
            .help("a structure cannot have a field of its own type"),
        );
    }
}

fn holds_itself(spec: &Spec, structure: &Structure, name: &str, depth: u32) -> bool {
    depth < 8
        && structure.items.iter().any(|item| match item {
            StructureItem::Field(field) => {
                field.ty.value == name
                    || spec.structures.iter().any(|inner| {
                        inner.name == field.ty.value
                            && inner.name != structure.name
                            && holds_itself(spec, inner, name, depth + 1)
                    })
            }
            StructureItem::Reserved { .. } => false,
        })
}

fn bits(format: &Format, out: &mut Vec<Diagnostic>) {
    let mut taken: Vec<(Bits, &BitItem)> = Vec::new();
    let mut mask = 0u64;
    let mut previous: Option<(u32, Place)> = None;
    for item in &format.items {
        for bits in item.bits() {
            if bits.high >= format.width {
                let message = format!("bits {bits} lie outside {} bits", format.width);
                out.push(
                    Diagnostic::new(Code::OutOfRange, item.place(), message)
                        .help("correct the bits or the format's `width`"),
                );
                continue;
            }
            if let Some((other, before)) = taken
                .iter()
                .find(|(other, _)| other.mask() & bits.mask() != 0)
            {
                let message = format!("bits {bits} are already taken by {}", item_name(before));
                out.push(
                    Diagnostic::new(Code::Overlap, item.place(), message)
                        .related(
                            before.place(),
                            format!("{} has bits {other}", item_name(before)),
                        )
                        .help("each bit belongs to one field; an overlay is a view"),
                );
            }
            taken.push((*bits, item));
            mask |= bits.mask();
        }
        let top = item
            .bits()
            .iter()
            .map(|bits| bits.high)
            .max()
            .unwrap_or_default();
        if let Some((before, place)) = previous
            && top > before
        {
            out.push(
                Diagnostic::new(
                    Code::OutOfRange,
                    item.place(),
                    "fields stand from the top bit down",
                )
                .related(place, format!("this one begins at bit {before}"))
                .help("move the field up"),
            );
        }
        previous = Some((top, item.place()));
    }
    let all = Bits {
        high: format.width - 1,
        low: 0,
    }
    .mask();
    let missing = ranges(all & !mask);
    if !missing.is_empty() {
        let list = missing
            .iter()
            .map(Bits::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        let message = format!("`{}` says nothing about bits {list}", format.name);
        out.push(
            Diagnostic::new(Code::Unaccounted, format.place, message)
                .help("name them, or write `reserved: 0`, `reserved: 1` or `ignored: true`"),
        );
    }
    for view in &format.views {
        for bits in view.bits.iter().filter(|bits| bits.high >= format.width) {
            let message = format!("bits {bits} lie outside {} bits", format.width);
            out.push(
                Diagnostic::new(Code::OutOfRange, view.place, message)
                    .help("correct the bits of the view"),
            );
        }
    }
}

/// Runs of set bits, from the top.
fn ranges(mask: u64) -> Vec<Bits> {
    let mut list: Vec<Bits> = Vec::new();
    for bit in (0..64).rev().filter(|bit| mask >> bit & 1 != 0) {
        match list.last_mut() {
            Some(last) if last.low == bit + 1 => last.low = bit,
            _ => list.push(Bits {
                high: bit,
                low: bit,
            }),
        }
    }
    list
}

fn item_name(item: &BitItem) -> String {
    match item {
        BitItem::Field(field) => format!("`{}`", field.name),
        BitItem::Reserved { .. } => "a reserved range".to_owned(),
        BitItem::Ignored { .. } => "an ignored range".to_owned(),
    }
}

fn field_type(spec: &Spec, field: &BitField, out: &mut Vec<Diagnostic>) {
    let width = field.width();
    if width > 64 {
        out.push(
            Diagnostic::new(
                Code::OutOfRange,
                field.place,
                format!("`{}` has {width} bits", field.name),
            )
            .help("a field has at most 64 bits"),
        );
    }
    let Some(ty) = &field.ty else { return };
    let name = ty.value.as_str();
    let too_narrow = |bits: u32| width > bits;
    let limit = match name {
        "u8" | "SeptState" | "L2SeptState" | "Level" => Some(8),
        "u16" => Some(16),
        "u32" | "OpState" => Some(32),
        "bool" => Some(1),
        name if WORDS.contains(&name) || ADDRESSES.contains(&name) => Some(64),
        name => {
            let entity = spec
                .enums
                .iter()
                .find(|entity| entity.name == name)
                .map(|entity| entity.width.next_power_of_two().max(8));
            entity.or_else(|| {
                spec.formats
                    .iter()
                    .find(|format| format.name == name)
                    .map(|format| format.width)
            })
        }
    };
    match limit {
        None => {
            let known: Vec<&str> = WORDS.into_iter().chain(ADDRESSES).chain(BUILT_IN).collect();
            let known: Vec<&str> = known
                .into_iter()
                .chain(spec.enums.iter().map(|entity| entity.name.as_str()))
                .chain(spec.formats.iter().map(|format| format.name.as_str()))
                .collect();
            out.push(unknown(Code::UnknownName, ty.place, "type", name, &known));
        }
        Some(limit) if too_narrow(limit) => {
            let message = format!(
                "`{}` has {width} bits, more than a {name} can hold",
                field.name
            );
            out.push(
                Diagnostic::new(Code::OutOfRange, ty.place, message)
                    .help(format!("a {name} has {limit}")),
            );
        }
        Some(_) => {}
    }
    if field.shift != 0 && !ADDRESSES.contains(&name) {
        out.push(
            Diagnostic::new(Code::OutOfRange, field.place, "only addresses are shifted").help(
                format!(
                    "remove `shift`, or make the type one of {}",
                    ADDRESSES.join(", ")
                ),
            ),
        );
    }
}

fn bytes(spec: &Spec, structure: &Structure, out: &mut Vec<Diagnostic>) {
    if !structure.align.is_power_of_two() || structure.align > 1 << 29 {
        let message = format!(
            "`{}` is aligned to {} bytes",
            structure.name, structure.align
        );
        out.push(
            Diagnostic::new(Code::OutOfRange, structure.place, message)
                .help("an alignment is a power of two"),
        );
    }
    let mut next = 0u64;
    let mut before: Option<Place> = None;
    for item in &structure.items {
        let (place, offset, size, name) = match item {
            StructureItem::Reserved {
                place,
                offset,
                size,
                ..
            } => (*place, *offset, u64::from(*size), "a reserved range"),
            StructureItem::Field(field) => {
                let Some(size) = element_size(spec, field, out) else {
                    return;
                };
                (
                    field.place,
                    field.offset,
                    size * u64::from(field.count.unwrap_or(1)),
                    field.name.as_str(),
                )
            }
        };
        let offset = u64::from(offset);
        if offset < next {
            let diagnostic = Diagnostic::new(
                Code::Overlap,
                place,
                format!("byte {offset} is already taken"),
            );
            let diagnostic = diagnostic.help(format!("the field before ends at byte {}", next - 1));
            out.push(match before {
                Some(before) => diagnostic.related(before, "by this one"),
                None => diagnostic,
            });
        } else if offset > next {
            let message = format!(
                "`{}` says nothing about bytes {next} to {}",
                structure.name,
                offset - 1
            );
            out.push(
                Diagnostic::new(Code::Unaccounted, place, message).help(format!(
                    "add `{{ offset: {next}, reserved: 0, size: {} }}` before {name}",
                    offset - next
                )),
            );
        }
        next = next.max(offset + size);
        before = Some(place);
    }
    let size = u64::from(structure.size);
    if next < size {
        let message = format!(
            "`{}` says nothing about bytes {next} to {}",
            structure.name,
            size - 1
        );
        out.push(
            Diagnostic::new(Code::Unaccounted, structure.place, message).help(format!(
                "add `{{ offset: {next}, reserved: 0, size: {} }}`",
                size - next
            )),
        );
    } else if next > size {
        let message = format!(
            "the fields of `{}` end at byte {next}, after its {size} bytes",
            structure.name
        );
        out.push(
            Diagnostic::new(Code::OutOfRange, before.unwrap_or(structure.place), message)
                .help("correct the field or the structure's `size`"),
        );
    }
}

fn element_size(
    spec: &Spec,
    field: &crate::model::StructureField,
    out: &mut Vec<Diagnostic>,
) -> Option<u64> {
    if field.ty.value == "bytes" {
        if field.size == 0 || field.count.is_some() {
            out.push(
                Diagnostic::new(
                    Code::MissingKey,
                    field.place,
                    format!("`{}` needs a `size` and no `count`", field.name),
                )
                .help("`bytes` is an array already"),
            );
            return None;
        }
        return Some(u64::from(field.size));
    }
    let size = type_size(spec, &field.ty.value);
    if size.is_none() {
        let known = WORDS.into_iter().chain(ADDRESSES).chain(["bytes"]);
        let known = known.chain(spec.enums.iter().map(|entity| entity.name.as_str()));
        let known = known.chain(spec.formats.iter().map(|entity| entity.name.as_str()));
        let known: Vec<&str> = known
            .chain(spec.structures.iter().map(|entity| entity.name.as_str()))
            .collect();
        out.push(unknown(
            Code::UnknownName,
            field.ty.place,
            "type",
            &field.ty.value,
            &known,
        ));
    }
    size.map(u64::from)
}
