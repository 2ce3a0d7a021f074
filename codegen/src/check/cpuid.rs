//! CPUID virtualization.

use crate::diagnostic::Code;
use crate::diagnostic::Diagnostic;
use crate::model::CpuidTable;
use crate::model::Spec;

pub(super) fn check(spec: &Spec, out: &mut Vec<Diagnostic>) {
    for (position, table) in spec.cpuid.iter().enumerate() {
        one(table, out);
        let earlier = &spec.cpuid[..position];
        if let Some(other) = earlier
            .iter()
            .find(|other| !other.modules.and(table.modules).is_empty())
        {
            out.push(
                Diagnostic::new(
                    Code::Conflict,
                    table.place,
                    "two CPUID tables for one module",
                )
                .related(other.place, "the other")
                .help("give each table `modules` of its own"),
            );
        }
    }
}

fn one(table: &CpuidTable, out: &mut Vec<Diagnostic>) {
    for (position, row) in table.lookup.iter().enumerate() {
        let name = (row.leaf, row.subleaf);
        let earlier = &table.lookup[..position];
        if let Some(other) = earlier
            .iter()
            .find(|other| (other.leaf, other.subleaf) == name)
        {
            out.push(
                Diagnostic::new(
                    Code::Conflict,
                    row.place,
                    format!("CPUID leaf {:#x} stands twice", row.leaf),
                )
                .related(other.place, "it stands here already")
                .help("remove one of them"),
            );
        }
        for word in 0..4 {
            if row.verify_value[word] & !row.verify_mask[word] != 0 {
                out.push(
                    Diagnostic::new(
                        Code::OutOfRange,
                        row.place,
                        format!(
                            "CPUID leaf {:#x} demands bits {:#x} that `verify_mask` does not cover",
                            row.leaf,
                            row.verify_value[word] & !row.verify_mask[word]
                        ),
                    )
                    .help("`verify_value` is compared under `verify_mask`"),
                );
            }
        }
        let configurable = row
            .config
            .map(|config| table.configurable.get(config as usize));
        if let Some(found) = configurable
            && found.is_none_or(|found| (found.leaf, found.subleaf) != name)
        {
            out.push(
                Diagnostic::new(
                    Code::Conflict,
                    row.place,
                    format!("`config` of CPUID leaf {:#x} is not its row", row.leaf),
                )
                .help("`config` is the position in `configurable`, from 0"),
            );
        }
    }
    let rows = table
        .configurable
        .iter()
        .map(|row| (row.place, row.leaf, row.subleaf));
    let masks = table
        .xfam_masks
        .iter()
        .map(|row| (row.place, row.leaf, row.subleaf));
    for (place, leaf, subleaf) in rows.chain(masks) {
        let mut known = table.lookup.iter();
        if !known.any(|row| (row.leaf, row.subleaf) == (leaf, subleaf)) {
            out.push(
                Diagnostic::new(
                    Code::UnknownName,
                    place,
                    format!("no CPUID leaf {leaf:#x} with that subleaf in `lookup`"),
                )
                .help("add it there, or correct the number"),
            );
        }
    }
}
