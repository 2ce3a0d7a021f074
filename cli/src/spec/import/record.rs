//! What an import brings, whatever it was read from.

use core::fmt;

use super::row::list;

/// A table of the specification that can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Statuses,
    Operands,
    Msrs,
    Global,
    TdrTdcs,
    Tdvps,
    TdVmcs,
    TdL2Vmcs,
    OpStates,
    SeptStates,
    L2SeptStates,
}

impl Table {
    /// The tables of metadata fields, by the name of the array in the module's generated sources.
    pub(super) const FIELDS: [(&'static str, Self); 5] = [
        ("global_sys", Self::Global),
        ("tdr_tdcs", Self::TdrTdcs),
        ("tdvps", Self::Tdvps),
        ("td_l2_vmcs", Self::TdL2Vmcs),
        ("td_vmcs", Self::TdVmcs),
    ];

    /// File of the specification and key of its list.
    pub(super) const fn file(self) -> (&'static str, &'static str) {
        match self {
            Self::Statuses => ("tables/statuses.yaml", "statuses"),
            Self::Operands => ("tables/operands.yaml", "operands"),
            Self::Msrs => ("tables/msrs.yaml", "msrs"),
            Self::Global => ("fields/global.yaml", "fields"),
            Self::TdrTdcs => ("fields/tdr_tdcs.yaml", "fields"),
            Self::Tdvps => ("fields/tdvps.yaml", "fields"),
            Self::TdVmcs => ("fields/td_vmcs.yaml", "fields"),
            Self::TdL2Vmcs => ("fields/td_l2_vmcs.yaml", "fields"),
            Self::OpStates => ("tables/op_states.yaml", "states"),
            Self::SeptStates => ("tables/sept_states.yaml", "l1"),
            Self::L2SeptStates => ("tables/sept_states.yaml", "l2"),
        }
    }
}

/// Keys that a row has even where they are 0.
const PLACES: [&str; 4] = ["offset", "start", "end", "encoding"];

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A number that is written in decimal.
    Decimal(u64),
    /// A number that is written in hexadecimal with this many digits at least.
    Hexadecimal(u64, usize),
    /// A word.
    Word(String),
    /// A flag.
    Flag(bool),
    /// A list of words.
    Words(Vec<&'static str>),
    /// A list of flags, of which the source knows more than those that are set.
    Flags {
        /// Those that are set.
        set: Vec<String>,
        /// All; what else a row has is not for this source to say.
        known: Vec<String>,
    },
}

impl Value {
    /// A hexadecimal number of no particular length.
    pub(super) const fn mask(value: u64) -> Self {
        Self::Hexadecimal(value, 1)
    }

    /// A hexadecimal number of 64 bits.
    pub(super) const fn wide(value: u64) -> Self {
        Self::Hexadecimal(value, 16)
    }

    /// Whether a row that lacks `key` says the same.
    pub(super) fn is_default(&self, key: &str) -> bool {
        match self {
            Self::Decimal(value) => key.starts_with("num_of") && *value == 1,
            Self::Hexadecimal(value, digits) => {
                *digits == 1 && *value == 0 && !PLACES.contains(&key)
            }
            Self::Word(word) => word == "NONE",
            Self::Flag(flag) => !flag,
            Self::Words(words) => words.is_empty(),
            Self::Flags { .. } => false,
        }
    }

    /// What a row says that said `before`: its own flags, of which the source knows nothing, stay.
    pub(super) fn over(&self, before: Option<&str>) -> String {
        let Self::Flags { set, known } = self else {
            return self.to_string();
        };
        let mut flags = list(before.unwrap_or_default());
        flags.retain(|flag| !known.contains(flag) || set.contains(flag));
        for flag in set {
            if !flags.contains(flag) {
                flags.push(flag.clone());
            }
        }
        format!("[{}]", flags.join(", "))
    }

    /// Whether `text`, as it stands in a row, says the same.
    pub(super) fn is_written_as(&self, text: &str) -> bool {
        match self {
            Self::Decimal(value) | Self::Hexadecimal(value, _) => {
                let plain = text.replace('_', "");
                let read = plain.strip_prefix("0x").map_or_else(
                    || plain.parse().ok(),
                    |digits| u64::from_str_radix(digits, 16).ok(),
                );
                read == Some(*value)
            }
            Self::Word(_) | Self::Flag(_) => self.to_string() == text.trim_matches('"'),
            Self::Words(words) => {
                let inside = text.trim_start_matches('[').trim_end_matches(']');
                inside.split(',').map(str::trim).eq(words.iter().copied())
            }
            Self::Flags { set, known } => {
                let written = list(text);
                known
                    .iter()
                    .all(|flag| written.contains(flag) == set.contains(flag))
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decimal(value) => value.fmt(f),
            Self::Hexadecimal(value, digits) => write!(f, "{value:#0width$x}", width = digits + 2),
            Self::Word(word) => word.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
            Self::Words(words) => write!(f, "[{}]", words.join(", ")),
            Self::Flags { set, .. } => write!(f, "[{}]", set.join(", ")),
        }
    }
}

/// A row as the source has it; keys in the order in which a row of the specification has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) values: Vec<(&'static str, Value)>,
}

/// A table as the source has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Imported {
    pub(super) table: Table,
    pub(super) records: Vec<Record>,
}
