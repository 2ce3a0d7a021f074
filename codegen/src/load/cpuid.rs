//! CPUID virtualization.

use super::Loader;
use super::modules::cites;
use super::record::Item;
use super::record::Record;
use crate::model::CpuidConfigurable;
use crate::model::CpuidLookup;
use crate::model::CpuidTable;
use crate::model::CpuidValues;
use crate::model::CpuidXfamMask;

impl Loader<'_> {
    pub(super) fn cpuid(&mut self, record: &mut Record<'_>) -> Option<()> {
        let table = CpuidTable {
            place: record.place(),
            modules: self.module_set(record, self.every_module()),
            cite: cites(record),
            lookup: record.require_or_default("lookup", |list| list.each(lookup)),
            configurable: record.require_or_default("configurable", |list| list.each(configurable)),
            xfam_masks: record
                .optional("xfam_masks", |list| list.each(xfam_mask))
                .unwrap_or_default(),
        };
        self.spec.cpuid.push(table);
        Some(())
    }
}

fn lookup(item: Item<'_>) -> Option<CpuidLookup> {
    let mut row = item.record()?;
    let lookup = CpuidLookup {
        place: row.place(),
        leaf: row.required_u32("leaf"),
        subleaf: row.optional("subleaf", |item| item.u32()),
        faulting: row.flag("faulting"),
        verify_mask: values(&mut row, "verify_mask"),
        verify_value: values(&mut row, "verify_value"),
        verify_same: values(&mut row, "verify_same"),
        fixed0_or_dynamic: values(&mut row, "fixed0_or_dynamic"),
        fixed1: values(&mut row, "fixed1"),
        config: row.optional("config", |item| item.u32()),
    };
    row.finish()?;
    Some(lookup)
}

fn configurable(item: Item<'_>) -> Option<CpuidConfigurable> {
    let mut row = item.record()?;
    let configurable = CpuidConfigurable {
        place: row.place(),
        leaf: row.required_u32("leaf"),
        subleaf: row.optional("subleaf", |item| item.u32()),
        direct: values(&mut row, "direct"),
        allow: values(&mut row, "allow"),
    };
    row.finish()?;
    Some(configurable)
}

fn xfam_mask(item: Item<'_>) -> Option<CpuidXfamMask> {
    let mut row = item.record()?;
    let mask = CpuidXfamMask {
        place: row.place(),
        leaf: row.required_u32("leaf"),
        subleaf: row.optional("subleaf", |item| item.u32()),
        xfam_bit: row.require_or_default("xfam_bit", |item| {
            item.number_to(63).and_then(|bit| u32::try_from(bit).ok())
        }),
        mask: values(&mut row, "mask"),
    };
    row.finish()?;
    Some(mask)
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
