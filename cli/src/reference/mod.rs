//! The specification that the command was built with, and look-ups in it.

mod bits;
mod close;
mod leaves;

use std::sync::LazyLock;

use tdx_abi::field::FieldId;
use tdx_abi::format::StatusBits;
use tdx_codegen::model::Callee;
use tdx_codegen::model::FieldRow;
use tdx_codegen::model::FieldTable;
use tdx_codegen::model::Spec;
use tdx_codegen::model::StatusRow;
use tdx_codegen::source::Sources;

pub(crate) use bits::Part;
pub(crate) use bits::format;
pub(crate) use bits::parts_json;
pub(crate) use bits::take_apart;
pub(crate) use close::closest;
pub(crate) use close::plain;
pub(crate) use leaves::LeafEntry;
pub(crate) use leaves::leaves;

use crate::error::Error;

static SPECIFICATION: LazyLock<Result<Spec, String>> = LazyLock::new(|| {
    tdx_codegen::from_sources(Sources::embedded())
        .map(|read| read.spec)
        .map_err(|mistakes| mistakes.to_string())
});

/// The specification.
pub(crate) fn spec() -> Result<&'static Spec, Error> {
    SPECIFICATION.as_ref().map_err(|mistakes| {
        Error::Failed(format!("the built-in specification is broken: {mistakes}"))
    })
}

/// Index of the module with this version; a leading `v` and the case do not matter.
pub(crate) fn module(spec: &Spec, version: &str) -> Result<usize, Error> {
    let wanted = version.trim_start_matches(['v', 'V']);
    spec.modules
        .iter()
        .position(|module| module.name == wanted)
        .ok_or_else(|| {
            let known: Vec<&str> = spec
                .modules
                .iter()
                .map(|module| module.name.as_str())
                .collect();
            Error::Failed(format!(
                "no tables of module {version}; known are {}",
                known.join(", ")
            ))
        })
}

/// A status as people know it: with `TDX_` where the TDX module returns it.
pub(crate) fn status_name(callee: Callee, row: &StatusRow) -> String {
    match callee {
        // The only name of the module's header without the prefix.
        Callee::Module if row.name == "TD_VMCS_FIELD_ERROR" => row.name.clone(),
        Callee::Module => format!("TDX_{}", row.name),
        Callee::Seamldr | Callee::Linux => row.name.clone(),
    }
}

/// Rows of every callee.
pub(crate) fn statuses(spec: &Spec) -> impl Iterator<Item = (Callee, &StatusRow)> {
    spec.statuses
        .iter()
        .flat_map(|table| table.rows.iter().map(|row| (table.callee, row)))
}

/// The status that `rax` holds when `callee` returned it. Of rows that sources disagree about, the uncontested comes first.
///
/// The module may set FATAL and HOST_RECOVERABILITY_HINT in any code: one that is not known as it is, is looked up without.
pub(crate) fn status(spec: &Spec, callee: Callee, rax: u64) -> Option<&StatusRow> {
    let with_code = |code| {
        let tables = spec.statuses.iter();
        tables
            .filter(|table| table.callee == callee)
            .flat_map(|table| &table.rows)
            .filter(|row| row.value == code)
            .min_by_key(|row| row.contested)
    };
    if callee != Callee::Module {
        return with_code(rax);
    }
    let code = StatusBits::from_bits(rax).with_low(0);
    with_code(code.into_bits()).or_else(|| {
        let plain = code.with_fatal(false).with_host_recoverability_hint(false);
        with_code(plain.into_bits())
    })
}

/// Name of an operand id.
pub(crate) fn operand(spec: &Spec, id: u32) -> Option<&str> {
    spec.operands
        .iter()
        .find(|operand| operand.value == id)
        .map(|operand| &*operand.name)
}

/// A field, and which element of it an id names.
#[derive(Clone, Copy)]
pub(crate) struct FieldElement {
    pub(crate) table: &'static FieldTable,
    pub(crate) row: &'static FieldRow,
    pub(crate) field: u32,
    pub(crate) element: u32,
}

/// The field that `id` names; bit 63 does not count. The newest module's row comes first.
pub(crate) fn field(spec: &'static Spec, id: u64) -> Option<FieldElement> {
    let rows = spec
        .fields
        .iter()
        .flat_map(|table| table.rows.iter().map(move |row| (table, row)));
    let wanted = FieldId::from_bits(id);
    let matches = rows.filter_map(|(table, row)| {
        let base = FieldId::from_bits(row.id);
        if (base.context_code(), base.class_code()) != (wanted.context_code(), wanted.class_code())
        {
            return None;
        }
        // Of VMCS fields an odd code names the upper half of the one before.
        let step = if base.inc_size() { 2 } else { 1 };
        let index = wanted.field_code().checked_sub(base.field_code())? / step;
        let elements = row.num_of_elem.max(1);
        let found = FieldElement {
            table,
            row,
            field: index / elements,
            element: index % elements,
        };
        (index < row.num_of_fields.max(1).saturating_mul(elements)).then_some(found)
    });
    matches.max_by_key(|found| found.row.modules)
}

/// A number as people write it: `0x` hexadecimal, else decimal; `_` may group digits.
pub(crate) fn number(text: &str) -> Result<u64, Error> {
    let digits = text.replace('_', "");
    let parsed = match digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    parsed.map_err(|_| {
        Error::Failed(format!(
            "{text:?} is not a 64-bit number; write 0x for hexadecimal"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        assert_eq!(
            number("0xC000_0B08_0000_0001").ok(),
            Some(0xc000_0b08_0000_0001)
        );
        assert_eq!(number("33").ok(), Some(33));
        for wrong in ["", "0x", "12ab", "0x10000000000000000", "-1"] {
            assert!(number(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn codes_of_vmcs_fields_go_in_steps_of_two() {
        let spec = spec().unwrap();
        for (id, name, number) in [
            (0x0024_0003_0000_2000, "I/O-Bitmap Address n", 0),
            (0x0024_0003_0000_2002, "I/O-Bitmap Address n", 1),
            (0x0024_0003_0000_2004, "MSR-Bitmap Address", 0),
            (0x0024_0003_0000_2810, "PDPTEn", 3),
        ] {
            let found = field(spec, id).unwrap();
            assert_eq!((&*found.row.name, found.field), (name, number), "{id:#x}");
        }
    }

    #[test]
    fn bit_63_of_a_field_id_does_not_count() {
        let spec = spec().unwrap();
        for id in [0x9110_0003_0000_0016, 0x1110_0003_0000_0016] {
            assert_eq!(field(spec, id).unwrap().row.name, "CONFIG_FLAGS");
        }
    }
}
