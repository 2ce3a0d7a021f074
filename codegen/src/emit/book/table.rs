//! Pages of tables: statuses, states, metadata fields, modules, MSRs, sources.

use super::Book;
use super::links::status_path;
use super::page::Page;
use super::page::anchor;
use super::page::code;
use super::page::escaped;
use crate::model::Callee;
use crate::model::FieldRow;
use crate::model::FlagTable;
use crate::model::Low;
use crate::model::ModuleSet;
use crate::model::Retry;
use crate::model::Side;
use crate::model::StatusRow;

impl Book<'_> {
    pub(super) fn statuses(&self) -> Vec<Page> {
        let mut pages: Vec<Page> = Vec::new();
        for (callee, title, about) in [
            (
                Callee::Module,
                "Statuses of the TDX module",
                "RAX with bits 31:0 cleared. Bit 63 says that it is an error; bits 31:0 may hold more.",
            ),
            (
                Callee::Seamldr,
                "Statuses of P-SEAMLDR",
                "RAX after a call of P-SEAMLDR.",
            ),
            (
                Callee::Linux,
                "Statuses of Linux",
                "What Linux reports for a call that did not reach the callee, and names that Linux has and Intel's header has not.",
            ),
        ] {
            let mut page = Page::new(status_path(callee), title);
            page.about = escaped(about);
            page.text(&escaped(about));
            let tables = self
                .spec
                .statuses
                .iter()
                .filter(|table| table.callee == callee);
            let mut rows: Vec<&StatusRow> = tables.flat_map(|table| &table.rows).collect();
            rows.sort_by_key(|row| (row.value, row.modules.is_empty()));
            let mut seen: Vec<&str> = Vec::new();
            let rows = rows.iter().map(|row| {
                let place = first_anchor(&mut seen, &row.name);
                vec![
                    format!("{place}{}<br>`{:#018x}`", code(&row.name), row.value),
                    self.status_text(&page, callee, row),
                ]
            });
            let rows: Vec<Vec<String>> = rows.collect();
            page.table(&["status", ""], &rows);
            let table = self
                .spec
                .statuses
                .iter()
                .find(|table| table.callee == callee);
            self.sources_of(&mut page, table.map_or(&[], |table| &table.cite));
            pages.push(page);
        }
        let mut page = Page::new("statuses/operands.md", "Operand ids");
        page.about =
            "What bits 31:0 of RAX name with a status that is about an operand.".to_owned();
        page.text(&page.about.clone());
        let mut operands: Vec<_> = self.spec.operands.iter().collect();
        operands.sort_by_key(|row| row.value);
        let rows = operands.iter().map(|row| {
            vec![
                row.value.to_string(),
                code(&row.name),
                self.only(row.modules),
                self.links
                    .prose(&page, row.doc.as_deref().unwrap_or_default()),
            ]
        });
        let rows: Vec<Vec<String>> = rows.collect();
        page.table(&["id", "name", "modules", ""], &rows);
        pages.push(page);
        pages
    }

    fn status_text(&self, page: &Page, callee: Callee, row: &StatusRow) -> String {
        let mut parts = Vec::new();
        let mut say = |word: &str, text: &Option<String>| {
            if let Some(text) = text {
                parts.push(format!("{word}{}", self.links.prose(page, text)));
            }
        };
        say("", &row.doc);
        say("*Usual cause:* ", &row.cause);
        say("*What to do:* ", &row.remedy);
        match row.retry {
            Some(Retry::Busy) => parts.push("Call again later.".to_owned()),
            Some(Retry::Restartable) => parts.push("Make the same call again.".to_owned()),
            Some(Retry::Resumable) => {
                parts.push("Call again with the registers as returned.".to_owned())
            }
            None => {}
        }
        match row.low {
            Low::None => {}
            Low::Operand => parts.push("Bits 31:0 name an operand.".to_owned()),
            Low::Level => parts.push("Bits 31:0 hold a level.".to_owned()),
            Low::ExitReason => parts.push("Bits 31:0 hold a VM exit reason.".to_owned()),
            Low::Count => parts.push("Bits 31:0 hold a count.".to_owned()),
            Low::Field => parts.push("Bits 31:0 hold a part of a metadata field id.".to_owned()),
            Low::Detail => parts.push("Bits 31:0 say more.".to_owned()),
        }
        let modules = self.only(row.modules);
        if callee == Callee::Module && !modules.is_empty() {
            parts.push(format!("Modules {modules}."));
        }
        if row.contested {
            parts.push("Sources disagree on the name or the value.".to_owned());
        }
        let seamldr = callee == Callee::Seamldr;
        let leaves = self.spec.leaves.iter().filter(|leaf| {
            (leaf.side == Side::Seamldr) == seamldr
                && leaf.side != Side::Vmcall
                && callee != Callee::Linux
                && leaf.statuses.iter().any(|status| status.value == row.name)
        });
        let mut names: Vec<&str> = leaves.map(|leaf| leaf.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let links: Vec<String> = names
            .iter()
            .map(|name| self.links.entity(page, name))
            .collect();
        match links.len() {
            0 => {}
            1..=4 => parts.push(format!("Returned by {}.", links.join(", "))),
            count => parts.push(format!(
                "<details><summary>Returned by {count} leaves</summary>{}</details>",
                links.join(", ")
            )),
        }
        parts.join(" ")
    }

    /// The modules, if they are not all.
    fn only(&self, set: ModuleSet) -> String {
        if set.iter().count() >= self.spec.modules.len() {
            String::new()
        } else {
            self.module_names(set)
        }
    }

    pub(super) fn states(&self) -> Vec<Page> {
        let spec = self.spec;
        vec![
            self.state_table("states/op_states.md", "OP_STATE", "Where a TD is in its life.", &spec.op_states),
            self.state_table("states/sept_states.md", "States of Secure-EPT entries", "Entries of a TD's own tree; the encoding is the bits of the state as Intel's table packs them.", &spec.sept_states),
            self.state_table("states/l2_sept_states.md", "States of L2 Secure-EPT entries", "Entries of the trees of L2 VMs.", &spec.l2_sept_states),
        ]
    }

    fn state_table(&self, path: &str, title: &str, about: &str, table: &FlagTable) -> Page {
        let mut page = Page::new(path, title);
        page.about = escaped(about);
        page.text(&escaped(about));
        let mut seen: Vec<&str> = Vec::new();
        let rows = table.rows.iter().map(|row| {
            let place = first_anchor(&mut seen, &row.name);
            let value = match row.also {
                Some(also) => format!("`{:#x}`, `{also:#x}`", row.value),
                None => format!("`{:#x}`", row.value),
            };
            let flags = row.flags.iter().filter_map(|index| table.flags.get(*index));
            let flags: Vec<String> = flags.map(|flag| code(&flag.name)).collect();
            vec![
                format!("{place}{}", code(&row.name)),
                value,
                row.public
                    .map(|public| public.to_string())
                    .unwrap_or_default(),
                self.only(row.modules),
                [
                    row.doc.as_deref().map(escaped).unwrap_or_default(),
                    flags.join(", "),
                ]
                .join(" "),
            ]
        });
        let rows: Vec<Vec<String>> = rows.collect();
        page.table(
            &["state", "value", "returned as", "modules", "flags"],
            &rows,
        );
        page.heading("Flags");
        let flags = table
            .flags
            .iter()
            .map(|flag| vec![code(&flag.name), self.links.prose(&page, &flag.doc)]);
        let flags: Vec<Vec<String>> = flags.collect();
        page.table(&["flag", ""], &flags);
        self.sources_of(&mut page, &table.cite);
        page
    }

    pub(super) fn fields(&self) -> Vec<Page> {
        let tables = self.spec.fields.iter().map(|table| {
            let path = format!("fields/{}.md", table.name.to_lowercase());
            let mut page = Page::new(path, &format!("Fields of {}", table.name));
            page.about = format!("{} rows.", table.rows.len());
            page.text(&format!(
                "The id of the first element; how many elements a field and how many fields an array have at most; what each role may \
                 read and write. Ids are of the format {}. Masks have a bit set where a role may: prod and dbg are the host, for a production TD (or the module) and \
                 a debug TD; guest is the TD itself (of an L2 VMCS, its L1 VMM); migtd is the migration TD; export and import are migration. Modules whose table is known: {}.",
                self.links.entity(&page, "FieldId"),
                self.module_names(table.modules)
            ));
            let rows = table.rows.iter().map(|row| {
                let masks = FieldRow::MASKS.iter().zip(row.masks).filter(|(_, mask)| *mask != 0);
                let masks: Vec<String> = masks.map(|(name, mask)| format!("{} `{mask:#x}`", escaped(name))).collect();
                let mut text = Vec::new();
                if let Some(doc) = &row.doc {
                    text.push(self.links.prose(&page, doc));
                }
                if row.modules != table.modules {
                    text.push(format!("Module {}.", self.module_names(row.modules)));
                }
                if !masks.is_empty() {
                    text.push(masks.join(", "));
                }
                vec![
                    format!("{}<br>`{:#018x}`", code(&row.name), row.id),
                    format!("{} × {}", row.num_of_fields, row.num_of_elem),
                    text.join(" "),
                ]
            });
            let rows: Vec<Vec<String>> = rows.collect();
            page.table(&["field", "fields × elements", "access"], &rows);
            self.sources_of(&mut page, &table.cite);
            page
        });
        tables.collect()
    }

    pub(super) fn modules(&self) -> Vec<Page> {
        let mut pages = Vec::new();
        for module in &self.spec.modules {
            let mut page = Page::new(
                format!("modules/{}.md", module.name),
                &format!("Module {}", module.name),
            );
            page.about = format!("{} leaves.", module.leaves.len());
            let rows = module.leaves.iter().map(|(name, versions)| {
                let versions: Vec<String> = versions.iter().map(u8::to_string).collect();
                vec![self.links.entity(&page, &name.value), versions.join(", ")]
            });
            let rows: Vec<Vec<String>> = rows.collect();
            if let Some(features) = module.features0 {
                page.text(&format!("TDX\\_FEATURES0: `{features:#x}`."));
            }
            page.heading("Dispatched leaves");
            page.table(&["leaf", "versions"], &rows);
            if !module.reserved.is_empty() {
                page.heading("Numbered, not dispatched");
                let names: Vec<String> = module
                    .reserved
                    .iter()
                    .map(|name| self.links.entity(&page, &name.value))
                    .collect();
                page.text(&names.join(", "));
            }
            let numbers = [
                ("Fixed global fields", "field", &module.values),
                ("Limits that no field tells", "name", &module.limits),
            ];
            for (heading, what, rows) in numbers {
                if rows.is_empty() {
                    continue;
                }
                page.heading(heading);
                let rows = rows.iter().map(|(name, value)| {
                    vec![code(&name.value), format!("{value} (`{value:#x}`)")]
                });
                let rows: Vec<Vec<String>> = rows.collect();
                page.table(&[what, "value"], &rows);
            }
            self.sources_of(&mut page, &module.cite);
            pages.push(page);
        }
        pages.push(self.releases());
        pages.push(self.features());
        pages
    }

    fn releases(&self) -> Page {
        let mut page = Page::new("modules/releases.md", "Releases");
        page.about = "Released modules with their features.".to_owned();
        page.text("A leaf is there if the features say so, not because of a version.");
        let rows = self.spec.releases.iter().map(|row| {
            vec![
                escaped(&row.version),
                format!("`{:#x}`", row.features0),
                escaped(row.min_update_from.as_deref().unwrap_or_default()),
                escaped(&row.min_seamldr.join(", ")),
                self.links
                    .prose(&page, row.doc.as_deref().unwrap_or_default()),
            ]
        });
        let rows: Vec<Vec<String>> = rows.collect();
        page.table(
            &[
                "version",
                "TDX\\_FEATURES0",
                "update from",
                "P-SEAMLDR from",
                "",
            ],
            &rows,
        );
        page
    }

    fn features(&self) -> Page {
        let mut page = Page::new("modules/features.md", "TDX_FEATURES0");
        page.about = "What a module supports, bit by bit.".to_owned();
        let rows = self.spec.features.iter().map(|row| {
            let released = self
                .spec
                .releases
                .iter()
                .filter(|release| release.features0 >> row.bit & 1 != 0);
            let released: Vec<&str> = released.map(|release| release.version.as_str()).collect();
            let contested = if row.contested { " Contested." } else { "" };
            vec![
                row.bit.to_string(),
                format!("{}{}", anchor(&row.name), code(&row.name)),
                escaped(&released.join(", ")),
                format!(
                    "{}{contested}",
                    self.links
                        .prose(&page, row.doc.as_deref().unwrap_or_default())
                ),
            ]
        });
        let rows: Vec<Vec<String>> = rows.collect();
        page.table(&["bit", "feature", "set in releases", ""], &rows);
        page
    }

    pub(super) fn msrs(&self) -> Page {
        let mut page = Page::new("msrs.md", "MSR virtualization");
        page.text("The bit of the MSR bitmap (fixed, or by a setting of the TD), and what the module does with an access that exits.");
        let rows = self.spec.msrs.iter().map(|row| {
            let range = if row.start == row.end {
                format!("`{:#x}`", row.start)
            } else {
                format!("`{:#x}` to `{:#x}`", row.start, row.end)
            };
            vec![
                range,
                code(&row.name),
                escaped(&row.read),
                escaped(&row.write),
                self.only(row.modules),
            ]
        });
        let rows: Vec<Vec<String>> = rows.collect();
        page.table(&["MSR", "name", "RDMSR", "WRMSR", "modules"], &rows);
        page
    }

    pub(super) fn sources(&self) -> Page {
        let mut page = Page::new("sources.md", "Sources");
        let rows = self.spec.sources.iter().map(|row| {
            let title = match &row.url {
                Some(url) => format!("[{}]({url})", escaped(&row.title)),
                None => escaped(&row.title),
            };
            let details = [
                ("", &row.number),
                ("commit ", &row.commit),
                ("licence ", &row.license),
            ];
            let details = details.iter().filter_map(|(word, text)| {
                text.as_ref().map(|text| format!("{word}{}", escaped(text)))
            });
            vec![
                format!("{}{}", anchor(&row.id), code(&row.id)),
                title,
                details.collect::<Vec<_>>().join(", "),
            ]
        });
        let rows: Vec<Vec<String>> = rows.collect();
        page.table(&["id", "source", ""], &rows);
        page
    }
}

/// The anchor of a row: of two rows of one name the first is where links lead.
fn first_anchor<'r>(seen: &mut Vec<&'r str>, name: &'r str) -> String {
    if seen.contains(&name) {
        return String::new();
    }
    seen.push(name);
    anchor(name)
}
