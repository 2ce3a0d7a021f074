//! Sources, features, releases and manifests.

use super::Loader;
use super::position;
use super::record::Item;
use super::record::Record;
use crate::diagnostic::Code;
use crate::diagnostic::Diagnostic;
use crate::model::Area;
use crate::model::At;
use crate::model::Cite;
use crate::model::Feature;
use crate::model::FieldRow;
use crate::model::Module;
use crate::model::Release;
use crate::model::SourceDocument;
use crate::yaml::Value;

impl Loader<'_> {
    pub(super) fn sources(&mut self, record: &mut Record<'_>) {
        let rows = record.require_or_default("sources", |item| {
            item.each_mapping(|row| SourceDocument {
                place: row.place(),
                id: row.required_text("id"),
                title: row.required_text("title"),
                number: row.text("number"),
                url: row.text("url"),
                license: row.text("license"),
                commit: row.text("commit"),
            })
        });
        self.spec.sources.extend(rows);
    }

    pub(super) fn features(&mut self, record: &mut Record<'_>) {
        record.text("register");
        cites(record);
        let rows = record.require_or_default("features", |item| {
            item.each_mapping(|row| Feature {
                place: row.place(),
                name: row.required_text("name"),
                bit: row.require_or_default("bit", |item| item.number_to(63)),
                contested: row.flag("contested"),
                doc: row.text("doc"),
                cite: optional_cites(row),
            })
        });
        self.spec.features.extend(rows);
    }

    pub(super) fn areas(&mut self, record: &mut Record<'_>) {
        let rows = record.require_or_default("areas", |item| {
            item.each_mapping(|row| Area {
                place: row.place(),
                name: row.required_text("name"),
                doc: row.required_text("doc"),
                groups: names(row, "groups"),
                types: names(row, "types"),
                access: row
                    .get("access")
                    .and_then(|list| list.each(|item| position(item, "mask", &FieldRow::MASKS)))
                    .unwrap_or_default(),
            })
        });
        self.spec.areas.extend(rows);
    }

    pub(super) fn releases(&mut self, record: &mut Record<'_>) {
        cites(record);
        let rows = record.require_or_default("releases", |item| {
            item.each_mapping(|row| Release {
                place: row.place(),
                version: row.required_text("version"),
                features0: row.required_number("features0"),
                min_update_from: row.text("min_update_from"),
                min_seamldr: row
                    .get("min_seamldr")
                    .and_then(|list| list.each(|item| item.text()))
                    .unwrap_or_default(),
                doc: row.text("doc"),
            })
        });
        self.spec.releases.extend(rows);
    }

    pub(super) fn module(&mut self, record: &mut Record<'_>) {
        let name = record.required_text("name");
        record.text("doc");
        let cite = cites(record);
        let features0 = record.get("features0").and_then(|item| item.number());
        let leaves = record.require_or_default("leaves", |item| {
            let rows = item.entries()?.filter_map(|(key, value)| {
                let versions = value.each(|item| item.number_to(255));
                Some((key.at_text()?, versions?))
            });
            Some(rows.collect())
        });
        let numbers = |item: Item<'_>| {
            let rows = item
                .entries()?
                .filter_map(|(key, value)| Some((key.at_text()?, value.number()?)));
            Some(rows.collect())
        };
        let values = record.optional("values", numbers);
        let limits = record.optional("limits", numbers);
        let reserved = record
            .get("reserved")
            .and_then(|list| list.each(|item| item.at_text()))
            .unwrap_or_default();
        let module = Module {
            place: record.place(),
            name,
            features0,
            leaves,
            reserved,
            values: values.unwrap_or_default(),
            limits: limits.unwrap_or_default(),
            cite,
        };
        let modules = &mut self.spec.modules;
        let at = modules.partition_point(|before| before.name <= module.name);
        modules.insert(at, module);
    }
}

/// The sources of a file, which must be there.
pub(super) fn cites(record: &mut Record<'_>) -> Vec<Cite> {
    let Some(item) = record.need("cite") else {
        return Vec::new();
    };
    let list = cite_list(item);
    if list.is_empty() && matches!(item.node.value, Value::List(_)) {
        item.reader.report(
            Diagnostic::new(Code::MissingCite, item.place(), "`cite` is empty")
                .help("every fact names its source: `cite: { id: <source>, at: <where> }`"),
        );
    }
    list
}

pub(super) fn optional_cites(record: &mut Record<'_>) -> Vec<Cite> {
    record.get("cite").map(cite_list).unwrap_or_default()
}

fn cite_list(item: Item<'_>) -> Vec<Cite> {
    item.one_or_each(|item| {
        item.mapping(|record| Cite {
            id: record.require_or_default("id", |item| item.at_text()),
            at: record.text("at"),
        })
    })
    .unwrap_or_default()
}

/// The list of names under `key`, if there is one.
fn names(record: &mut Record<'_>, key: &'static str) -> Vec<At<String>> {
    let list = record.get(key);
    list.and_then(|list| list.each(|item| item.at_text()))
        .unwrap_or_default()
}
