//! Tables: statuses, operand ids, states, metadata fields, MSRs.

use super::Loader;
use super::modules::cites;
use super::modules::optional_cites;
use super::one_of;
use super::record::Record;
use super::record::suggestion;
use crate::diagnostic::Code;
use crate::diagnostic::Diagnostic;
use crate::model::Callee;
use crate::model::FieldRow;
use crate::model::FieldTable;
use crate::model::Flag;
use crate::model::FlagTable;
use crate::model::Low;
use crate::model::ModuleSet;
use crate::model::MsrRow;
use crate::model::OperandId;
use crate::model::Retry;
use crate::model::StateRow;
use crate::model::StatusRow;
use crate::model::StatusTable;

const FIELD_TABLES: [(&str, ()); 5] = [
    ("GLOBAL", ()),
    ("TDR_TDCS", ()),
    ("TDVPS", ()),
    ("TD_VMCS", ()),
    ("TD_L2_VMCS", ()),
];

impl Loader<'_> {
    pub(super) fn statuses(&mut self, record: &mut Record<'_>) {
        let callee = record.require("callee", |item| one_of(item, "callee", &Callee::NAMES));
        let cite = cites(record);
        let modules = self.module_set(record, self.every_module());
        let rows = record.require_or_default("statuses", |list| {
            list.each_mapping(|row| StatusRow {
                place: row.place(),
                name: row.required_text("name"),
                value: row.required_number("value"),
                modules: self.module_set(row, modules),
                retry: row
                    .get("retry")
                    .and_then(|item| one_of(item, "way to retry", &Retry::NAMES)),
                low: row
                    .get("low")
                    .and_then(|item| one_of(item, "content", &Low::NAMES))
                    .unwrap_or_default(),
                contested: row.flag("contested"),
                doc: row.text("doc"),
                cause: row.text("cause"),
                remedy: row.text("remedy"),
                cite: optional_cites(row),
            })
        });
        if let Some(callee) = callee {
            self.spec.statuses.push(StatusTable { callee, cite, rows });
        }
    }

    pub(super) fn operands(&mut self, record: &mut Record<'_>) {
        cites(record);
        let modules = self.module_set(record, self.every_module());
        let rows = record.require_or_default("operands", |list| {
            list.each_mapping(|row| OperandId {
                place: row.place(),
                name: row.required_text("name"),
                value: row.required_u32("value"),
                modules: self.module_set(row, modules),
                doc: row.text("doc"),
            })
        });
        self.spec.operands.extend(rows);
    }

    pub(super) fn op_states(&mut self, record: &mut Record<'_>) {
        let cite = cites(record);
        let modules = self.module_set(record, self.every_module());
        let flags = flags(record);
        let rows = record.require_or_default("states", |list| {
            list.each_mapping(|row| self.state(row, "value", &flags, modules))
        });
        self.spec.op_states = FlagTable { flags, rows, cite };
    }

    pub(super) fn sept_states(&mut self, record: &mut Record<'_>) {
        let cite = cites(record);
        let modules = self.module_set(record, self.every_module());
        let flags = flags(record);
        let mut rows = |key| {
            record.require_or_default(key, |list| {
                list.each_mapping(|row| self.state(row, "encoding", &flags, modules))
            })
        };
        let (l1, l2) = (rows("l1"), rows("l2"));
        self.spec.sept_states = FlagTable {
            flags: flags.clone(),
            rows: l1,
            cite: cite.clone(),
        };
        self.spec.l2_sept_states = FlagTable {
            flags,
            rows: l2,
            cite,
        };
    }

    fn state(
        &self,
        row: &mut Record<'_>,
        value: &'static str,
        flags: &[Flag],
        modules: ModuleSet,
    ) -> StateRow {
        let set = row.require_or_default("flags", |list| {
            list.each(|flag| {
                let name = flag.text()?;
                let found = flags.iter().position(|known| known.name == name);
                if found.is_none() {
                    let known: Vec<&str> = flags.iter().map(|flag| flag.name.as_str()).collect();
                    let diagnostic = Diagnostic::new(
                        Code::UnknownName,
                        flag.place(),
                        format!("unknown flag `{name}`"),
                    );
                    flag.reader
                        .report(diagnostic.help(suggestion(&name, &known)));
                }
                found
            })
        });
        StateRow {
            place: row.place(),
            name: row.required_text("name"),
            value: row.require_or_default(value, |item| item.number_to(255)),
            also: row.get("also").and_then(|item| item.number_to(255)),
            public: row.get("public").and_then(|item| item.number()),
            index: row.get("index").and_then(|item| item.number()),
            table_index: row.get("table_index").and_then(|item| item.number()),
            flags: set,
            modules: self.module_set(row, modules),
            doc: row.text("doc"),
        }
    }

    pub(super) fn fields(&mut self, record: &mut Record<'_>) {
        let name = record.require_or_default("table", |item| {
            one_of(item, "field table", &FIELD_TABLES)?;
            item.text()
        });
        let cite = cites(record);
        let modules = self.module_set(record, self.every_module());
        let rows = record.require_or_default("fields", |list| {
            list.each_mapping(|row| self.field(row, &name, modules))
        });
        self.spec.fields.push(FieldTable {
            place: record.place(),
            name,
            modules,
            rows,
            cite,
        });
    }

    fn field(&self, row: &mut Record<'_>, table: &str, modules: ModuleSet) -> FieldRow {
        let mut masks = [0; 10];
        for (mask, name) in masks.iter_mut().zip(FieldRow::MASKS) {
            let key = match (table, name) {
                ("GLOBAL", "prod_rd") => "vmm_rd",
                ("GLOBAL", "prod_wr") => "vmm_wr",
                ("TD_L2_VMCS", "guest_rd") => "l1_vmm_rd",
                ("TD_L2_VMCS", "guest_wr") => "l1_vmm_wr",
                _ => name,
            };
            *mask = row.number_or(key, 0);
        }
        let attributes = row.get("attributes").and_then(|list| {
            list.each(|item| {
                let known: Vec<(&str, u8)> = FieldRow::ATTRIBUTES
                    .into_iter()
                    .zip([1, 2, 4, 8, 16, 32])
                    .collect();
                one_of(item, "attribute", &known)
            })
        });
        FieldRow {
            place: row.place(),
            name: row.required_text("name"),
            id: row.required_number("id"),
            modules: self.module_set(row, modules),
            num_of_fields: row
                .optional("num_of_fields", |item| item.u32())
                .unwrap_or(1),
            num_of_elem: row.optional("num_of_elem", |item| item.u32()).unwrap_or(1),
            offset: row.get("offset").and_then(|item| item.u32()),
            masks,
            mig_export: row.text("mig_export").unwrap_or_else(|| "NONE".to_owned()),
            mig_import: row.text("mig_import").unwrap_or_else(|| "NONE".to_owned()),
            special_rd: row.flag("special_rd"),
            special_wr: row.flag("special_wr"),
            attributes: attributes
                .unwrap_or_default()
                .into_iter()
                .fold(0, |all, bit| all | bit),
            count_from: row.get("count_from").and_then(|item| item.at_text()),
            doc: row.text("doc"),
        }
    }

    pub(super) fn msrs(&mut self, record: &mut Record<'_>) {
        cites(record);
        let modules = self.module_set(record, self.every_module());
        let rows = record.require_or_default("msrs", |list| {
            list.each_mapping(|row| MsrRow {
                place: row.place(),
                name: row.required_text("name"),
                start: row.required_u32("start"),
                end: row.required_u32("end"),
                modules: self.module_set(row, modules),
                read: row.required_text("read"),
                write: row.required_text("write"),
            })
        });
        self.spec.msrs.extend(rows);
    }
}

fn flags(record: &mut Record<'_>) -> Vec<Flag> {
    record.require_or_default("flags", |item| {
        let flags = item.entries()?.filter_map(|(key, value)| {
            Some(Flag {
                name: key.text()?,
                doc: value.text()?,
                modules: ModuleSet::default(),
            })
        });
        Some(flags.collect())
    })
}
