//! Sources, features, releases and manifests.

use super::Loader;
use super::record::Item;
use super::record::Record;
use crate::diagnostic::Code;
use crate::diagnostic::Diagnostic;
use crate::model::Cite;
use crate::model::Feature;
use crate::model::Module;
use crate::model::Release;
use crate::model::SourceDocument;
use crate::yaml::Value;

impl Loader<'_> {
    pub(super) fn sources(&mut self, record: &mut Record<'_>) -> Option<()> {
        let rows = record.require_or_default("sources", |item| {
            item.each(|item| {
                let mut row = item.record()?;
                let source = SourceDocument {
                    place: row.place(),
                    id: row.required_text("id"),
                    title: row.required_text("title"),
                    number: row.text("number"),
                    url: row.text("url"),
                    license: row.text("license"),
                    commit: row.text("commit"),
                };
                row.finish()?;
                Some(source)
            })
        });
        self.spec.sources.extend(rows);
        Some(())
    }

    pub(super) fn features(&mut self, record: &mut Record<'_>) -> Option<()> {
        record.text("register");
        cites(record);
        let rows = record.require_or_default("features", |item| {
            item.each(|item| {
                let mut row = item.record()?;
                let feature = Feature {
                    place: row.place(),
                    name: row.required_text("name"),
                    bit: row.require_or_default("bit", |item| {
                        item.number_to(63).and_then(|bit| u32::try_from(bit).ok())
                    }),
                    contested: row.flag("contested"),
                    doc: row.text("doc"),
                    cite: optional_cites(&mut row),
                };
                row.finish()?;
                Some(feature)
            })
        });
        self.spec.features.extend(rows);
        Some(())
    }

    pub(super) fn releases(&mut self, record: &mut Record<'_>) -> Option<()> {
        cites(record);
        let rows = record.require_or_default("releases", |item| {
            item.each(|item| {
                let mut row = item.record()?;
                let release = Release {
                    place: row.place(),
                    version: row.required_text("version"),
                    features0: row.required_number("features0"),
                    min_update_from: row.text("min_update_from"),
                    min_seamldr: row
                        .get("min_seamldr")
                        .and_then(|list| list.each(|item| item.text()))
                        .unwrap_or_default(),
                    doc: row.text("doc"),
                };
                row.finish()?;
                Some(release)
            })
        });
        self.spec.releases.extend(rows);
        Some(())
    }

    pub(super) fn module(&mut self, record: &mut Record<'_>) -> Option<()> {
        let name = record.required_text("name");
        record.text("doc");
        let cite = cites(record);
        let features0 = record.get("features0").and_then(|item| item.number());
        let leaves = record.require_or_default("leaves", |item| {
            let rows = item.entries()?.filter_map(|(key, value)| {
                let versions = value.each(|item| {
                    item.number_to(255)
                        .and_then(|version| u8::try_from(version).ok())
                });
                Some((key.at_text()?, versions?))
            });
            Some(rows.collect())
        });
        let values = record.optional("values", |item| {
            let rows = item
                .entries()?
                .filter_map(|(key, value)| Some((key.at_text()?, value.number()?)));
            Some(rows.collect())
        });
        let reserved = record
            .get("reserved")
            .and_then(|list| list.each(|item| item.at_text()))
            .unwrap_or_default();
        self.spec.modules.push(Module {
            place: record.place(),
            name,
            features0,
            leaves,
            reserved,
            values: values.unwrap_or_default(),
            cite,
        });
        Some(())
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
        let mut record = item.record()?;
        let cite = Cite {
            id: record.require_or_default("id", |item| item.at_text()),
            at: record.text("at"),
        };
        record.finish()?;
        Some(cite)
    })
    .unwrap_or_default()
}
