//! Structures in memory: sizes, offsets, arrays, reserved bytes and every accessor, byte by byte.

use std::path::Path;

use tdx_abi::bytes;
use tdx_abi::format::*;
use tdx_codegen::model::Spec;
use tdx_codegen::model::Structure;
use tdx_codegen::model::StructureField;
use tdx_codegen::model::StructureItem;

use super::Builder as _;
use super::Raw as _;

/// Reads an element of a field, as bytes; `None` if there is no such element, or the bits are no value of its type.
type Get = fn(&[u8], usize) -> Option<Vec<u8>>;
/// The first structure with an element of a field replaced by one of the second structure; `None` as before.
type Set = fn(&[u8], usize, &[u8], usize) -> Option<Vec<u8>>;

struct Field {
    name: &'static str,
    offset: usize,
    count: Option<usize>,
    get: Get,
    set: Set,
}

struct Generated {
    name: &'static str,
    size: usize,
    size_of: usize,
    align_of: usize,
    new: Vec<u8>,
    default: Vec<u8>,
    round_trip: fn(&[u8]) -> Vec<u8>,
    is_reserved_valid: fn(&[u8]) -> bool,
    debug: fn(&[u8]) -> String,
    fields: Vec<Field>,
}

fn word(raw: u64) -> Vec<u8> {
    raw.to_le_bytes().to_vec()
}

macro_rules! count {
    ($ty:ident) => {
        None
    };
    ($ty:ident $count:ident) => {
        Some($ty::$count)
    };
}

macro_rules! get {
    (one $get:ident, $value:ident, $index:ident) => {
        ($index == 0)
            .then(|| $value.$get().raw(0))
            .flatten()
            .map(word)
    };
    (array $get:ident, $value:ident, $index:ident) => {
        $value.$get($index)?.raw(0).map(word)
    };
    (bytes $get:ident, $value:ident, $index:ident) => {
        ($index == 0).then(|| $value.$get().to_vec())
    };
    (nested $get:ident, $value:ident, $index:ident) => {
        ($index == 0).then(|| $value.$get().as_bytes().to_vec())
    };
    (nested_array $get:ident, $value:ident, $index:ident) => {
        Some($value.$get($index)?.as_bytes().to_vec())
    };
}

macro_rules! set {
    (one $get:ident $set:ident, $into:ident $at:ident, $from:ident $index:ident) => {{
        let _ = ($at, $index);
        $into.$set($from.$get().value()?);
    }};
    (array $get:ident $set:ident, $into:ident $at:ident, $from:ident $index:ident) => {
        $into.$set($at, $from.$get($index)?.value()?)?
    };
    (bytes $get:ident $set:ident, $into:ident $at:ident, $from:ident $index:ident) => {{
        let _ = ($at, $index);
        $into.$set($from.$get());
    }};
    (nested $get:ident $set:ident, $into:ident $at:ident, $from:ident $index:ident) => {{
        let _ = ($at, $index);
        $into.$set(&$from.$get());
    }};
    (nested_array $get:ident $set:ident, $into:ident $at:ident, $from:ident $index:ident) => {
        $into.$set($at, &$from.$get($index)?)?
    };
}

macro_rules! generated {
    ($($ty:ident [$(($get:ident $set:ident $offset:ident $kind:ident $($count:ident)?))*])*) => {
        fn all_generated() -> Vec<Generated> {
            vec![$({
                fn from(bytes: &[u8]) -> $ty {
                    $ty::from_bytes(bytes.try_into().expect("as long as the structure"))
                }
                Generated {
                    name: stringify!($ty),
                    size: $ty::SIZE,
                    size_of: size_of::<$ty>(),
                    align_of: align_of::<$ty>(),
                    new: $ty::new().as_bytes().to_vec(),
                    default: $ty::default().as_bytes().to_vec(),
                    round_trip: |bytes| {
                        let mut value = $ty::new();
                        value.as_bytes_mut().copy_from_slice(bytes);
                        assert_eq!(value, from(bytes));
                        value.as_bytes().to_vec()
                    },
                    is_reserved_valid: |bytes| from(bytes).is_reserved_valid(),
                    debug: |bytes| format!("{:?}", from(bytes)),
                    fields: vec![$(Field {
                        name: stringify!($get),
                        offset: $ty::$offset,
                        count: count!($ty $($count)?),
                        get: |bytes, index| {
                            let value = from(bytes);
                            get!($kind $get, value, index)
                        },
                        set: |into, at, other, index| {
                            let mut into = from(into);
                            let other = from(other);
                            set!($kind $get $set, into at, other index);
                            Some(into.as_bytes().to_vec())
                        },
                    }),*],
                }
            }),*]
        }
    };
}

for_each_structure!(generated);

fn patterns(size: usize) -> Vec<Vec<u8>> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut list = vec![vec![0; size], vec![0xff; size]];
    // No two bytes near each other are the same.
    list.push((0..size).map(|at| (at * 7 + at / 256) as u8).collect());
    for _ in 0..8 {
        list.push(
            (0..size)
                .map(|_| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random as u8
                })
                .collect(),
        );
    }
    list
}

/// First byte, number of bytes, and the value that they must have.
fn reserved(structure: &Structure) -> Vec<(usize, usize, u8)> {
    let ranges = structure.items.iter().filter_map(|item| match item {
        StructureItem::Reserved {
            offset, size, ones, ..
        } => Some((
            *offset as usize,
            *size as usize,
            if *ones { 0xff } else { 0 },
        )),
        StructureItem::Field(_) => None,
    });
    ranges.collect()
}

fn check_reserved(structure: &Structure, generated: &Generated) {
    let name = &structure.name;
    let ranges = reserved(structure);
    let mut new = vec![0; generated.size];
    for (at, size, value) in &ranges {
        new[*at..at + size].fill(*value);
    }
    assert_eq!(generated.new, new, "{name}::new");
    assert_eq!(generated.default, new, "{name}::default");
    for filler in [0x00, 0xff, 0x5a] {
        let mut bytes = vec![filler; generated.size];
        for (at, size, value) in &ranges {
            bytes[*at..at + size].fill(*value);
        }
        assert!((generated.is_reserved_valid)(&bytes), "{name}");
        for at in 0..generated.size {
            let within = |range: &&(usize, usize, u8)| (range.0..range.0 + range.1).contains(&at);
            bytes[at] ^= 1 << (at % 8);
            assert_eq!(
                (generated.is_reserved_valid)(&bytes),
                ranges.iter().find(within).is_none(),
                "{name}, byte {at}"
            );
            bytes[at] ^= 1 << (at % 8);
        }
    }
}

/// Bytes of an element of the field, from what the specification says of its type.
fn element_size(spec: &Spec, field: &StructureField) -> usize {
    let ty = field.ty.value.as_str();
    let bits = |width: u32| match width {
        0..=8 => 1,
        9..=16 => 2,
        17..=32 => 4,
        _ => 8,
    };
    match ty {
        "bytes" => return field.size as usize,
        "u8" => return 1,
        "u16" => return 2,
        "u32" => return 4,
        "u64" | "Hpa" | "Gpa" | "PrivateGpa" | "SharedGpa" => return 8,
        _ => {}
    }
    let formats = spec.formats.iter().filter(|format| format.name == ty);
    let enums = spec.enums.iter().filter(|entity| entity.name == ty);
    let structures = spec.structures.iter().filter(|other| other.name == ty);
    let sizes: Vec<usize> = formats
        .map(|format| bits(format.width))
        .chain(enums.map(|entity| bits(entity.width)))
        .chain(structures.map(|structure| structure.size as usize))
        .collect();
    assert_eq!(sizes.len(), 1, "{ty} is one type");
    sizes[0]
}

fn check_field(
    name: &str,
    field: &StructureField,
    size: usize,
    generated: &Field,
    patterns: &[Vec<u8>],
) {
    let name = format!("{name}.{}", field.name);
    let offset = field.offset as usize;
    let count = field.count.map_or(1, |count| count as usize);
    assert_eq!(
        generated.name.trim_start_matches("r#"),
        field.name,
        "{name}"
    );
    assert_eq!(generated.offset, offset, "{name}");
    assert_eq!(
        generated.count,
        field.count.map(|count| count as usize),
        "{name}"
    );
    for (number, bytes) in patterns.iter().enumerate() {
        let other = &patterns[(number + 3) % patterns.len()];
        for index in 0..count {
            let at = offset + index * size;
            let from = count - 1 - index;
            let wanted = &other[offset + from * size..][..size];
            if let Some(got) = (generated.get)(bytes, index) {
                assert_eq!(&got[..size.min(got.len())], &bytes[at..at + size], "{name}");
                assert!(
                    got[size.min(got.len())..].iter().all(|byte| *byte == 0),
                    "{name}"
                );
            } else {
                assert!(field.ty.value.ends_with("State"), "{name} is read");
            }
            if let Some(got) = (generated.set)(bytes, index, other, from) {
                let mut expected = bytes.clone();
                expected[at..at + size].copy_from_slice(wanted);
                assert_eq!(got, expected, "{name}, element {index}");
            } else {
                assert!(field.ty.value.ends_with("State"), "{name} is written");
            }
        }
        if field.count.is_some() {
            for beyond in [count, count + 1, usize::MAX] {
                assert_eq!((generated.get)(bytes, beyond), None, "{name}");
                assert_eq!((generated.set)(bytes, beyond, other, 0), None, "{name}");
            }
        }
    }
}

#[test]
fn structures_agree_with_the_interpreter() {
    let spec = tdx_codegen::read(Path::new(tdx_spec::DIRECTORY))
        .expect("the specification has no mistakes")
        .spec;
    let generated = all_generated();
    assert!(generated.len() > 30);
    assert_eq!(generated.len(), spec.structures.len());
    let mut unaligned = 0;
    for (structure, generated) in spec.structures.iter().zip(&generated) {
        let name = &structure.name;
        let size = structure.size as usize;
        assert_eq!(generated.name, name);
        assert_eq!(generated.size, size, "{name}");
        assert_eq!(
            generated.size_of,
            size.next_multiple_of(structure.align as usize),
            "{name}"
        );
        assert_eq!(generated.align_of, structure.align as usize, "{name}");
        let patterns = patterns(size);
        for bytes in &patterns {
            assert_eq!(&(generated.round_trip)(bytes), bytes, "{name}");
        }
        check_reserved(structure, generated);
        let fields = structure.items.iter().filter_map(|item| match item {
            StructureItem::Field(field) => Some(field),
            StructureItem::Reserved { .. } => None,
        });
        let fields: Vec<&StructureField> = fields.collect();
        assert_eq!(fields.len(), generated.fields.len(), "{name}");
        let mut covered = vec![0u8; size];
        for (at, size, _) in reserved(structure) {
            covered[at..at + size].iter_mut().for_each(|n| *n += 1);
        }
        let debug = (generated.debug)(&patterns[2]);
        for (field, generated) in fields.iter().zip(&generated.fields) {
            let size = element_size(&spec, field);
            check_field(name, field, size, generated, &patterns);
            let (at, count) = (field.offset as usize, field.count.unwrap_or(1) as usize);
            let bytes = size * count;
            covered[at..at + bytes].iter_mut().for_each(|n| *n += 1);
            unaligned += usize::from(field.ty.value != "bytes" && !at.is_multiple_of(size));
            assert!(
                field.count.is_some() || debug.contains(&field.name),
                "{debug}"
            );
        }
        assert!(
            covered.iter().all(|n| *n == 1),
            "each byte of {name} is one field's or reserved"
        );
    }
    assert!(unaligned > 0, "fields at odd places are among them");
}

/// What lies outside of a buffer reads as 0 and is not written, whatever the offset.
#[test]
fn short_buffers_are_no_reason_to_panic() {
    let whole: Vec<u8> = (1..=24).collect();
    for length in 0..=whole.len() {
        let short = &whole[..length];
        for at in (0..=whole.len() + 8).chain([usize::MAX - 8, usize::MAX]) {
            let inside = |size: usize| at.checked_add(size).is_some_and(|end| end <= length);
            let chunk: &[u8; 8] = bytes::chunk(short, at);
            if inside(8) {
                assert_eq!(chunk, &short[at..at + 8]);
            } else {
                assert_eq!(chunk, &[0; 8]);
            }
            let read = u64::from_le_bytes(*chunk);
            assert_eq!(bytes::u64_at(short, at), read);
            assert_eq!(bytes::u8_at(short, at) == 0, !inside(1));
            assert_eq!(bytes::u16_at(short, at) == 0, !inside(2));
            assert_eq!(bytes::u32_at(short, at) == 0, !inside(4));
            let mut written = short.to_vec();
            bytes::put_u64(&mut written, at, u64::MAX);
            for (place, byte) in written.iter().enumerate() {
                let changed = place >= at && place - at < 8;
                assert_eq!(*byte, if changed { 0xff } else { short[place] });
            }
        }
    }
}
