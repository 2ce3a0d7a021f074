//! Generated accessors of every bit format against an interpreter that reads the model bit by bit, and of every structure
//! against one that goes byte by byte.
#![expect(
    clippy::type_complexity,
    reason = "a test binary: it has std, and a panic is how it fails"
)]

use std::path::Path;

use tdx_abi::Gpa;
use tdx_abi::Hpa;
use tdx_abi::L2SeptState;
use tdx_abi::Level;
use tdx_abi::OpState;
use tdx_abi::PrivateGpa;
use tdx_abi::SeptState;
use tdx_abi::SharedGpa;
use tdx_abi::format::*;
use tdx_codegen::model::BitField;
use tdx_codegen::model::BitItem;
use tdx_codegen::model::Format;

tdx_codegen_macros::format_list!();

/// A value as the number that stands in its bits; `None` if the bits are no value of the type.
trait Raw: Copy {
    fn raw(self, shift: u32) -> Option<u64>;
}

macro_rules! raw {
    ($($ty:ty: |$value:ident, $shift:ident| $raw:expr;)*) => {
        $(impl Raw for $ty {
            fn raw(self, $shift: u32) -> Option<u64> {
                let $value = self;
                Some($raw)
            }
        })*
    };
}

raw! {
    bool: |value, _shift| u64::from(value);
    u8: |value, _shift| u64::from(value);
    u16: |value, _shift| u64::from(value);
    u32: |value, _shift| u64::from(value);
    u64: |value, _shift| value;
    Hpa: |value, shift| value.bits() >> shift;
    Gpa: |value, shift| value.bits() >> shift;
    PrivateGpa: |value, shift| value.bits() >> shift;
    SharedGpa: |value, shift| value.bits() >> shift;
}

impl Raw for Option<Level> {
    fn raw(self, _: u32) -> Option<u64> {
        self.map(|level| level as u64)
    }
}

impl Raw for Option<OpState> {
    fn raw(self, _: u32) -> Option<u64> {
        self.map(|state| state as u64)
    }
}

impl Raw for Option<SeptState> {
    fn raw(self, _: u32) -> Option<u64> {
        self.map(|state| u64::from(state.encoding()))
    }
}

impl Raw for Option<L2SeptState> {
    fn raw(self, _: u32) -> Option<u64> {
        self.map(|state| u64::from(state.encoding()))
    }
}

/// Enums and nested formats: whatever turns into bits.
trait IntoWord: Copy {
    fn word(self) -> u64;
}

impl<T: IntoWord> Raw for T {
    fn raw(self, _: u32) -> Option<u64> {
        Some(self.word())
    }
}

macro_rules! words {
    ($($ty:ident)*) => {
        $(impl IntoWord for $ty {
            fn word(self) -> u64 {
                u64::from(self.into_bits())
            }
        })*
    };
}

for_each_enum!(words);

type With = fn(u64, u64) -> Option<u64>;

/// What the generated code makes of one format.
struct Generated {
    name: &'static str,
    round_trip: fn(u64) -> u64,
    reserved: u64,
    is_reserved_valid: fn(u64) -> bool,
    debug: fn(u64) -> String,
    getters: Vec<(&'static str, fn(u64, u32) -> Option<u64>)>,
    /// Replaces the field in the first word by the field of the second.
    builders: Vec<(&'static str, With)>,
    new: u64,
}

/// A value that a builder takes, from what the getter returns.
trait Builder {
    type Value;
    fn value(self) -> Option<Self::Value>;
}

macro_rules! builder {
    ($($ty:ty)*) => {
        $(impl Builder for $ty {
            type Value = Self;
            fn value(self) -> Option<Self> {
                Some(self)
            }
        })*
    };
}

builder! { bool u8 u16 u32 u64 Hpa Gpa PrivateGpa SharedGpa }
for_each_enum!(builder);

impl<T> Builder for Option<T> {
    type Value = T;
    fn value(self) -> Self {
        self
    }
}

macro_rules! generated {
    ($($ty:ident $word:ident [$($field:ident $with:ident),*] [$($view:ident),*])*) => {
        $(impl IntoWord for $ty {
            fn word(self) -> u64 {
                u64::from(self.into_bits())
            }
        }

        impl Builder for $ty {
            type Value = Self;
            fn value(self) -> Option<Self> {
                Some(self)
            }
        })*

        fn all_generated() -> Vec<Generated> {
            vec![$(Generated {
                name: stringify!($ty),
                round_trip: |bits| u64::from($ty::from_bits(bits as $word).into_bits()),
                reserved: u64::from($ty::RESERVED),
                is_reserved_valid: |bits| $ty::from_bits(bits as $word).is_reserved_valid(),
                debug: |bits| format!("{:?}", $ty::from_bits(bits as $word)),
                getters: vec![
                    $((stringify!($field), |bits, shift| $ty::from_bits(bits as $word).$field().raw(shift)),)*
                    $((stringify!($view), |bits, shift| $ty::from_bits(bits as $word).$view().raw(shift)),)*
                ],
                builders: vec![
                    $((stringify!($field), |into, from| {
                        let value = $ty::from_bits(from as $word).$field().value()?;
                        Some(u64::from($ty::from_bits(into as $word).$with(value).into_bits()))
                    }),)*
                ],
                new: u64::from($ty::new().into_bits()),
            },)*]
        }
    };
}

for_each_format!(generated);

#[path = "codegen/structures.rs"]
mod structures;

/// Bits of the word that belong to the field, from the lowest bit of the value up.
fn positions(field: &BitField) -> Vec<u32> {
    field
        .bits
        .iter()
        .rev()
        .flat_map(|bits| bits.low..=bits.high)
        .collect()
}

fn read(field: &BitField, word: u64) -> u64 {
    let mut value = 0;
    for (to, from) in positions(field).into_iter().enumerate() {
        if word & 1 << from != 0 {
            value |= 1 << to;
        }
    }
    value
}

fn write(field: &BitField, mut word: u64, value: u64) -> u64 {
    for (from, to) in positions(field).into_iter().enumerate() {
        word &= !(1 << to);
        if value & 1 << from != 0 {
            word |= 1 << to;
        }
    }
    word
}

/// Whether a bit pattern is a value of the field's type.
fn is_value(field: &BitField, raw: u64) -> bool {
    match field.ty.as_ref().map(|ty| ty.value.as_str()) {
        Some("Level") => raw <= 4,
        Some("SeptState") => SeptState::from_encoding(raw as u8)
            .is_some_and(|state| u64::from(state.encoding()) == raw),
        Some("L2SeptState") => L2SeptState::from_encoding(raw as u8).is_some(),
        Some("OpState") => raw <= 12,
        _ => true,
    }
}

fn words(width: u32) -> Vec<u64> {
    let all = if width == 64 {
        u64::MAX
    } else {
        (1 << width) - 1
    };
    let mut list = vec![
        0,
        all,
        0xaaaa_aaaa_aaaa_aaaa & all,
        0x5555_5555_5555_5555 & all,
    ];
    for bit in 0..width {
        list.extend([1 << bit, all & !(1 << bit)]);
    }
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..500 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        list.push(random & all);
    }
    list
}

fn named(format: &Format) -> Vec<&BitField> {
    let fields = format.items.iter().filter_map(|item| match item {
        BitItem::Field(field) => Some(field),
        _ => None,
    });
    fields.collect()
}

fn check(format: &Format, generated: &Generated) {
    let words = words(format.width);
    let fields = named(format);
    let all: Vec<&BitField> = fields.iter().copied().chain(&format.views).collect();
    assert_eq!(all.len(), generated.getters.len(), "{}", format.name);
    for &word in &words {
        assert_eq!(
            (generated.round_trip)(word),
            word,
            "{} keeps its bits",
            format.name
        );
        for (field, (name, get)) in all.iter().zip(&generated.getters) {
            assert_eq!(field.name, name.trim_start_matches("r#"));
            let wanted = read(field, word);
            match get(word, field.shift) {
                // A state's second encoding reads as the state, whose encoding has the D bit clear.
                Some(got) if field.ty.as_ref().is_some_and(|ty| ty.value == "SeptState") => {
                    assert!(
                        got == wanted || got | 1 == wanted,
                        "{}.{name} of {word:#x}",
                        format.name
                    );
                }
                Some(got) => assert_eq!(got, wanted, "{}.{name} of {word:#x}", format.name),
                None => assert!(
                    !is_value(field, wanted),
                    "{}.{name} of {word:#x}",
                    format.name
                ),
            }
        }
    }
    for (index, (field, (name, with))) in fields.iter().zip(&generated.builders).enumerate() {
        assert_eq!(field.name, name.trim_start_matches("r#"));
        for (i, &into) in words.iter().enumerate() {
            let from = words[(i * 7 + index) % words.len()];
            let value = read(field, from);
            if let Some(got) = with(into, from)
                && is_value(field, value)
            {
                assert_eq!(
                    got,
                    write(field, into, value),
                    "{}.with_{name} of {value:#x} into {into:#x}",
                    format.name
                );
            }
        }
    }
    check_reserved(format, generated, &words);
}

fn check_reserved(format: &Format, generated: &Generated, words: &[u64]) {
    let mut reserved = 0u64;
    let mut ones = 0u64;
    for item in &format.items {
        if let BitItem::Reserved {
            bits,
            ones: all_ones,
            ..
        } = item
        {
            for bit in bits.iter().flat_map(|bits| bits.low..=bits.high) {
                reserved |= 1 << bit;
                ones |= u64::from(*all_ones) << bit;
            }
        }
    }
    assert_eq!(generated.reserved, reserved, "{}", format.name);
    assert_eq!(generated.new, ones, "{}::new", format.name);
    for &word in words {
        assert_eq!(
            (generated.is_reserved_valid)(word),
            word & reserved == ones,
            "{} of {word:#x}",
            format.name
        );
    }
    let debug = (generated.debug)(0);
    assert!(debug.starts_with(&format.name), "{debug}");
    for field in named(format) {
        assert!(
            debug.contains(&field.name),
            "{} prints {}: {debug}",
            format.name,
            field.name
        );
    }
}

#[test]
fn accessors_agree_with_the_interpreter() {
    let spec = tdx_codegen::read(Path::new(tdx_spec::DIRECTORY))
        .expect("the specification has no mistakes")
        .spec;
    let generated = all_generated();
    assert!(generated.len() > 70);
    assert_eq!(generated.len(), spec.formats.len());
    for (format, generated) in spec.formats.iter().zip(&generated) {
        assert_eq!(format.name, generated.name);
        check(format, generated);
    }
}

/// The formats once more, by `bitfield_struct` where it can carry them.
mod library {
    tdx_codegen_macros::formats!(root = tdx_abi, bitfield = bitfield_struct::bitfield);
}

/// What `Debug` writes of the fields, in the order of their names.
fn fields(value: &impl core::fmt::Debug) -> Vec<String> {
    let text = format!("{value:?}");
    let (_, fields) = text.split_once('{').expect("fields");
    let mut fields: Vec<String> = fields
        .trim_end_matches('}')
        .split(',')
        .map(|field| field.trim().to_owned())
        .collect();
    fields.sort();
    fields
}

macro_rules! agree {
    ($($name:ident: $word:ty;)*) => {
        /// Formats that the library can carry.
        const CARRIED: &[&str] = &[$(stringify!($name)),*];

        #[test]
        fn accessors_agree_with_bitfield_struct() {
            $({
                assert_eq!($name::new().into_bits(), library::$name::new().into_bits());
                assert_eq!($name::RESERVED, library::$name::RESERVED);
                let mut bits: u64 = 1;
                for _ in 0..1_000 {
                    // The multiplier of Knuth's MMIX.
                    bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let word = (bits >> 32) as $word;
                    let (ours, theirs) = ($name::from_bits(word), library::$name::from_bits(word));
                    assert_eq!(ours.into_bits(), theirs.into_bits());
                    assert_eq!(fields(&ours), fields(&theirs));
                }
            })*
        }
    };
}

agree! {
    ExitReason: u32;
    GpaAttributeFlagsVm: u16;
    GpaAttributesVm: u16;
    MsrConfigControls: u8;
    SysInfoAttributes: u32;
}

#[test]
fn the_library_is_asked_for_all_that_it_can_carry() {
    let spec = tdx_codegen::read(Path::new(tdx_spec::DIRECTORY))
        .expect("the specification has no mistakes")
        .spec;
    let carried: Vec<&str> = spec
        .formats
        .iter()
        .filter(|format| tdx_codegen::emit::rust::fits_bitfield_struct(format))
        .map(|format| &*format.name)
        .collect();
    assert_eq!(carried, CARRIED);
}
