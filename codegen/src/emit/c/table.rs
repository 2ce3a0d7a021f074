//! Status codes, operand ids, modules, features and states.

use super::Header;
use crate::emit::constant_name as constant;
use crate::model::Callee;
use crate::model::FlagTable;
use crate::model::Spec;
use crate::model::StateRow;
use crate::model::StatusRow;

pub(super) fn statuses(spec: &Spec, header: &mut Header) {
    for (callee, prefix, list, what) in [
        (
            Callee::Module,
            "TDX_",
            "TDX_STATUS_CODES",
            "Status codes of the TDX module: RAX with bits 31:0 cleared. Bit 63 says that it is an error.",
        ),
        (
            Callee::Seamldr,
            "SEAMLDR_STATUS_",
            "SEAMLDR_STATUSES",
            "What P-SEAMLDR returns in RAX.",
        ),
        (
            Callee::Linux,
            "TDX_LINUX_",
            "TDX_LINUX_STATUSES",
            "What Linux reports for a call that did not reach the callee, and names that only Linux has.",
        ),
    ] {
        let tables = spec.statuses.iter().filter(|table| table.callee == callee);
        let mut rows: Vec<&StatusRow> = tables.flat_map(|table| &table.rows).collect();
        rows.sort_by_key(|row| (row.value, row.modules.is_empty()));
        header.section(what);
        let mut defined: Vec<(String, &StatusRow)> = Vec::new();
        for row in rows {
            let name = format!("{prefix}{}", constant(&row.name));
            match defined.iter().find(|(known, _)| *known == name) {
                Some((_, known)) if known.value == row.value => continue,
                Some(_) => defined.push((format!("{name}_{:X}", row.value), row)),
                None => defined.push((name, row)),
            }
        }
        for (name, row) in &defined {
            header.define_u64(name, row.value, row.doc.as_deref());
        }
        header.section(
            "X(constant, name, modules) for each of them; modules are bits as in tdx_state.h.",
        );
        header.table(
            list,
            defined
                .iter()
                .map(|(name, row)| format!("{name}, \"{}\", {:#x}", row.name, row.modules.0)),
        );
    }
    header.section("Operand ids: bits 31:0 of RAX with a status that is about an operand.");
    let mut seen: Vec<&str> = Vec::new();
    for row in &spec.operands {
        if !seen.contains(&row.name.as_str()) {
            let name = format!("TDX_OPERAND_ID_{}", constant(&row.name));
            header.define(&name, &row.value.to_string(), row.doc.as_deref());
            seen.push(&row.name);
        }
    }
}

pub(super) fn states(spec: &Spec, header: &mut Header) {
    header.section("Modules whose source is public, as bits of a set.");
    for (index, module) in spec.modules.iter().enumerate() {
        let name = format!("TDX_MODULE_{}", constant(&module.name));
        header.define(&name, &format!("{:#x}", 1u64 << index), None);
    }
    header.section("Bits of TDX_FEATURES0.");
    for feature in &spec.features {
        let name = format!("TDX_FEATURE_{}", constant(&feature.name));
        header.define_u64(&name, 1 << feature.bit, feature.doc.as_deref());
    }
    header.section("OP_STATE: where a TD is in its life.");
    table(header, spec, &spec.op_states, "TDX_OP_STATE_");
    header.section("States of entries of the L1 Secure-EPT: the bits of the state as Intel's table packs them.");
    table(header, spec, &spec.sept_states, "TDX_SEPT_STATE_");
    header.section(
        "States of entries of L2 Secure-EPTs: the bits of the state as Intel's table packs them.",
    );
    table(header, spec, &spec.l2_sept_states, "TDX_L2_SEPT_STATE_");
}

/// A number of a state, if it has one.
type Number = fn(&StateRow) -> Option<u64>;

fn table(header: &mut Header, spec: &Spec, table: &FlagTable, prefix: &str) {
    let values: [(&str, Number); 2] = [("", |row| Some(row.value)), ("PUBLIC_", |row| row.public)];
    for (infix, value) in values {
        if infix == "PUBLIC_" && table.rows.iter().any(|row| row.public.is_some()) {
            header.section("The numbers that leaves return for them.");
        }
        let mut defined: Vec<(String, u64)> = Vec::new();
        for row in &table.rows {
            let Some(number) = value(row) else { continue };
            let name = format!("{prefix}{infix}{}", constant(&row.name));
            let name = match defined.iter().find(|(known, _)| *known == name) {
                Some((_, known)) if *known == number => continue,
                Some(_) => format!("{name}_{}", modules(spec, row)),
                None => name,
            };
            header.define(&name, &format!("{number:#x}"), None);
            defined.push((name, number));
        }
    }
}

fn modules(spec: &Spec, row: &StateRow) -> String {
    let names = spec.module_names(row.modules);
    names
        .into_iter()
        .map(constant)
        .collect::<Vec<_>>()
        .join("_")
}
