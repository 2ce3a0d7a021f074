//! MSR and CPUID virtualization, as tables that a program takes row by row.

use super::Header;
use crate::emit::constant_name as constant;
use crate::model::CpuidTable;
use crate::model::CpuidValues;
use crate::model::Spec;

pub(super) fn msrs(spec: &Spec, header: &mut Header) {
    header.section(
        "X(name, first, last, modules, read, write) for each range of MSRs; read and write say in words what RDMSR and WRMSR do in a TD.",
    );
    header.table(
        "TDX_MSRS",
        spec.msrs.iter().map(|row| {
            format!(
                "{}, {:#x}, {:#x}, {:#x}, {}, {}",
                text(&row.name),
                row.start,
                row.end,
                row.modules.0,
                text(&row.read),
                text(&row.write)
            )
        }),
    );
}

pub(super) fn cpuid(spec: &Spec, header: &mut Header) {
    header.section(
        "Values are four numbers each: EAX, EBX, ECX, EDX. The order is that of TDCS.CPUID_VALUES and of TD_PARAMS.CPUID_CONFIG.",
    );
    header.define(
        "TDX_CPUID_ANY_SUBLEAF",
        "0xffffffff",
        Some("Instead of a subleaf: it does not matter."),
    );
    header.define(
        "TDX_CPUID_NOT_CONFIGURABLE",
        "0xffffffff",
        Some("Instead of a position in TD_PARAMS.CPUID_CONFIG."),
    );
    for table in &spec.cpuid {
        one_table(spec, table, header);
    }
}

fn one_table(spec: &Spec, table: &CpuidTable, header: &mut Header) {
    let modules = spec.module_names(table.modules);
    let suffix: Vec<String> = modules.iter().map(|name| constant(name)).collect();
    let suffix = suffix.join("_");
    let of = modules.join(", ");
    header.section(&format!(
        "X(leaf, subleaf, faulting, config, verify_mask, verify_value, verify_same, fixed0_or_dynamic, fixed1) of {of}."
    ));
    header.table(
        &format!("TDX_CPUID_LOOKUP_{suffix}"),
        table.lookup.iter().map(|row| {
            format!(
                "{:#x}, {}, {}, {}, {}, {}, {}, {}, {}",
                row.leaf,
                subleaf(row.subleaf),
                u8::from(row.faulting),
                row.config
                    .map_or("TDX_CPUID_NOT_CONFIGURABLE".to_owned(), |at| at.to_string()),
                values(&row.verify_mask),
                values(&row.verify_value),
                values(&row.verify_same),
                values(&row.fixed0_or_dynamic),
                values(&row.fixed1)
            )
        }),
    );
    header.section(&format!(
        "X(leaf, subleaf, direct, allow) of {of}: what the host sets freely, and what it may clear."
    ));
    header.table(
        &format!("TDX_CPUID_CONFIGURABLE_{suffix}"),
        table.configurable.iter().map(|row| {
            format!(
                "{:#x}, {}, {}, {}",
                row.leaf,
                subleaf(row.subleaf),
                values(&row.direct),
                values(&row.allow)
            )
        }),
    );
    header.section(&format!("X(leaf, subleaf, xfam_bit, mask) of {of}: bits that are 0 for a TD whose XFAM lacks the bit."));
    header.table(
        &format!("TDX_CPUID_XFAM_MASKS_{suffix}"),
        table.xfam_masks.iter().map(|row| {
            format!(
                "{:#x}, {}, {}, {}",
                row.leaf,
                subleaf(row.subleaf),
                row.xfam_bit,
                values(&row.mask)
            )
        }),
    );
}

fn subleaf(subleaf: Option<u32>) -> String {
    subleaf.map_or("TDX_CPUID_ANY_SUBLEAF".to_owned(), |number| {
        format!("{number:#x}")
    })
}

fn values(values: &CpuidValues) -> String {
    values.map(|value| format!("{value:#x}")).join(", ")
}

/// A text as a C string.
fn text(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push(' '),
            // `??` begins a trigraph.
            '?' => out.push_str("\\?"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
