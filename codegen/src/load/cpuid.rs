//! CPUID virtualization.

use super::Loader;
use super::modules::cites;
use super::record::Record;
use crate::model::CpuidConfigurable;
use crate::model::CpuidLookup;
use crate::model::CpuidTable;
use crate::model::CpuidValues;
use crate::model::CpuidXfamMask;

impl Loader<'_> {
    pub(super) fn cpuid(&mut self, record: &mut Record<'_>) {
        let table = CpuidTable {
            place: record.place(),
            modules: self.module_set(record, self.every_module()),
            cite: cites(record),
            lookup: record.require_or_default("lookup", |list| list.each_mapping(lookup)),
            configurable: record
                .require_or_default("configurable", |list| list.each_mapping(configurable)),
            xfam_masks: record
                .optional("xfam_masks", |list| list.each_mapping(xfam_mask))
                .unwrap_or_default(),
        };
        self.spec.cpuid.push(table);
    }
}

fn lookup(row: &mut Record<'_>) -> CpuidLookup {
    CpuidLookup {
        place: row.place(),
        leaf: row.required_u32("leaf"),
        subleaf: row.optional("subleaf", |item| item.u32()),
        faulting: row.flag("faulting"),
        verify_mask: values(row, "verify_mask"),
        verify_value: values(row, "verify_value"),
        verify_same: values(row, "verify_same"),
        fixed0_or_dynamic: values(row, "fixed0_or_dynamic"),
        fixed1: values(row, "fixed1"),
        config: row.optional("config", |item| item.u32()),
    }
}

fn configurable(row: &mut Record<'_>) -> CpuidConfigurable {
    CpuidConfigurable {
        place: row.place(),
        leaf: row.required_u32("leaf"),
        subleaf: row.optional("subleaf", |item| item.u32()),
        direct: values(row, "direct"),
        allow: values(row, "allow"),
    }
}

fn xfam_mask(row: &mut Record<'_>) -> CpuidXfamMask {
    CpuidXfamMask {
        place: row.place(),
        leaf: row.required_u32("leaf"),
        subleaf: row.optional("subleaf", |item| item.u32()),
        xfam_bit: row.require_or_default("xfam_bit", |item| item.number_to(63)),
        mask: values(row, "mask"),
    }
}

/// EAX, EBX, ECX and EDX; zeros if absent.
fn values(row: &mut Record<'_>, key: &'static str) -> CpuidValues {
    let values = row.optional(key, |item| {
        let list = item.each(|item| item.u32())?;
        let values = CpuidValues::try_from(list).ok();
        values.or_else(|| item.wrong("four numbers: eax, ebx, ecx, edx"))
    });
    values.unwrap_or_default()
}
