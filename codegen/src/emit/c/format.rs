//! Enums and bit formats.

use super::Header;
use super::names::carrier;
use super::names::snake;
use crate::emit::constant_name as constant;
use crate::model::BitField;
use crate::model::BitItem;
use crate::model::Bits;
use crate::model::Format;
use crate::model::Spec;

pub(super) fn formats(spec: &Spec, header: &mut Header) {
    header.section(
        "Of each field: its bits in the word (_MASK); where they are contiguous, the lowest of them (_SHIFT); a getter and a \
         function that replaces it, which cuts off what does not fit. An address is handled as an address: its value is \
         shifted as the field says.",
    );
    header.line("#ifndef __ASSEMBLER__");
    for entity in &spec.enums {
        let name = snake(&entity.name);
        header.section(&entity.doc);
        header.names.push(format!("{name}_t"));
        header.line(&format!("typedef {} {name}_t;", carrier(entity.width)));
        for value in &entity.values {
            let constant = format!("{}_{}", name.to_uppercase(), constant(&value.name));
            header.define_u64(&constant, value.value, value.doc.as_deref());
        }
    }
    for format in &spec.formats {
        one_format(header, format);
    }
    header.line("\n#endif /* __ASSEMBLER__ */");
}

fn one_format(header: &mut Header, format: &Format) {
    let name = snake(&format.name);
    let upper = name.to_uppercase();
    header.line("");
    header.section(&format.doc);
    header.names.push(format!("{name}_t"));
    header.line(&format!("typedef {} {name}_t;", carrier(format.width)));
    let (mut reserved, mut ones) = (0, 0);
    for item in &format.items {
        if let BitItem::Reserved {
            bits, ones: set, ..
        } = item
        {
            let mask = bits.iter().fold(0, |all, bits| all | bits.mask());
            reserved |= mask;
            ones |= if *set { mask } else { 0 };
        }
    }
    header.define_u64(
        &format!("{upper}_RESERVED"),
        reserved,
        Some("Bits that have no freedom, and what they must be."),
    );
    header.define_u64(&format!("{upper}_RESERVED_VALUE"), ones, None);
    for item in &format.items {
        if let BitItem::Field(field) = item {
            one_field(header, format, &name, field, true);
        }
    }
    for view in &format.views {
        one_field(header, format, &name, view, false);
    }
}

fn one_field(header: &mut Header, format: &Format, name: &str, field: &BitField, writable: bool) {
    let upper = format!("{}_{}", name.to_uppercase(), field.name.to_uppercase());
    let mask = field.bits.iter().fold(0, |all, bits| all | bits.mask());
    let remark = match (&field.doc, writable) {
        (Some(doc), true) => format!("{}: {doc}", field.name),
        (Some(doc), false) => format!("{} (overlay): {doc}", field.name),
        (None, true) => field.name.clone(),
        (None, false) => format!("{} (overlay)", field.name),
    };
    header.section(&remark);
    header.define_u64(&format!("{upper}_MASK"), mask, None);
    if let [bits] = &field.bits[..] {
        header.define(&format!("{upper}_SHIFT"), &bits.low.to_string(), None);
    }
    let flag = field.width() == 1 && field.ty.as_ref().is_none_or(|ty| ty.value == "bool");
    let value = if flag {
        "bool"
    } else {
        carrier(field.width() + field.shift)
    };
    let function = format!("{name}_{}", field.name);
    let getter = if flag {
        format!("(word & {upper}_MASK) != 0")
    } else {
        format!("({value})({})", read(field, &upper))
    };
    header.line(&format!(
        "static inline {value} {function}({name}_t word)\n{{\n\treturn {getter};\n}}"
    ));
    header.names.push(function);
    if !writable {
        return;
    }
    let word = carrier(format.width);
    let written = if flag {
        format!("value ? word | {upper}_MASK : word & ~{upper}_MASK")
    } else {
        format!("(word & ~{upper}_MASK) | {}", write(field, &upper))
    };
    let with = format!("{name}_with_{}", field.name);
    header.line(&format!(
        "static inline {name}_t {with}({name}_t word, {value} value)\n{{\n\treturn ({word})({written});\n}}"
    ));
    header.names.push(with);
}

/// The field's value in the word called `word`.
fn read(field: &BitField, upper: &str) -> String {
    match &field.bits[..] {
        [bits] if bits.low == field.shift => format!("word & {upper}_MASK"),
        [bits] if field.shift == 0 => format!("(word & {upper}_MASK) >> {}", bits.low),
        [_] => format!("(word & {upper}_MASK) >> {upper}_SHIFT << {}", field.shift),
        _ => {
            let terms = field.pieces().map(|(bits, at)| {
                let at = at + field.shift;
                format!(
                    "((uint64_t)word >> {} & TDX_U64({:#x})) << {at}",
                    bits.low,
                    ones(bits)
                )
            });
            terms
                .map(|term| format!("({term})"))
                .collect::<Vec<_>>()
                .join(" | ")
        }
    }
}

/// The value called `value` in the places of the field.
fn write(field: &BitField, upper: &str) -> String {
    match &field.bits[..] {
        [bits] if bits.low == field.shift => format!("((uint64_t)value & {upper}_MASK)"),
        [_] if field.shift == 0 => format!("((uint64_t)value << {upper}_SHIFT & {upper}_MASK)"),
        [_] => format!(
            "((uint64_t)value >> {} << {upper}_SHIFT & {upper}_MASK)",
            field.shift
        ),
        _ => {
            let terms = field.pieces().map(|(bits, at)| {
                let at = at + field.shift;
                format!(
                    "((uint64_t)value >> {at} & TDX_U64({:#x})) << {}",
                    ones(bits),
                    bits.low
                )
            });
            terms
                .map(|term| format!("({term})"))
                .collect::<Vec<_>>()
                .join(" | ")
        }
    }
}

const fn ones(bits: Bits) -> u64 {
    bits.mask() >> bits.low
}
