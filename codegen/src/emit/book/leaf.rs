//! Pages of leaves.

use super::Book;
use super::page::Page;
use super::page::code;
use super::page::escaped;
use crate::emit::first_sentence;
use crate::model::Allowed;
use crate::model::Cite;
use crate::model::Leaf;
use crate::model::ModuleSet;
use crate::model::Side;
use crate::model::Yields;

impl Book<'_> {
    pub(super) fn leaf_group(&self, path: &str, title: &str, text: &str, leaves: &[&Leaf]) -> Page {
        let mut page = Page::new(path, title);
        page.text(text);
        let rows = leaves.iter().map(|leaf| {
            vec![
                number(leaf),
                self.links.entity(&page, &leaf.name),
                self.dispatched(leaf),
                self.links.prose(&page, first_sentence(&leaf.doc)),
            ]
        });
        let rows: Vec<Vec<String>> = rows.collect();
        page.table(&["number", "leaf", "modules", ""], &rows);
        page
    }

    pub(super) fn leaf(&self, leaf: &Leaf) -> Page {
        let mut page = Page::new(format!("leaves/{}.md", leaf.name), &leaf.name);
        page.text(&self.links.prose(&page, &leaf.doc));
        let mut facts = vec![vec!["number".to_owned(), number(leaf)]];
        let mut fact = |name: &str, text: String| facts.push(vec![name.to_owned(), text]);
        fact("also written", spellings(&leaf.name));
        match leaf.side {
            Side::Host | Side::Guest => {
                let dispatched = self.dispatched(leaf);
                fact(
                    "dispatched by",
                    if dispatched.is_empty() {
                        "no module whose source is public".to_owned()
                    } else {
                        dispatched
                    },
                );
                let reserved =
                    self.spec.modules.iter().filter(|module| {
                        module.reserved.iter().any(|name| name.value == leaf.name)
                    });
                let reserved: Vec<&str> = reserved.map(|module| module.name.as_str()).collect();
                if !reserved.is_empty() {
                    fact("numbered, not dispatched by", reserved.join(", "));
                }
            }
            Side::Seamldr => fact("RAX", format!("`{:#x}`", leaf.rax(0))),
            Side::Vmcall => fact("R11", format!("`{:#x}`", leaf.number.value)),
        }
        if let Some(feature) = &leaf.feature {
            fact("needs", self.links.feature(&page, &feature.value));
        }
        if leaf.contested {
            fact(
                "contested",
                "sources disagree on this number, or only one knows it".to_owned(),
            );
        }
        page.table(&["", ""], &facts);
        let mut lists = vec![leaf];
        let variants = self.spec.leaves.iter();
        lists.extend(variants.filter(|other| other.name == leaf.name && other.variant.is_some()));
        let several = lists.len() > 1;
        for list in lists {
            self.operand_list(&mut page, list, several);
        }
        self.allowed(
            &mut page,
            "Allowed OP_STATEs",
            &leaf.op_states,
            |page, name| self.links.op_state(page, name),
        );
        self.allowed(
            &mut page,
            "Allowed states of the entry",
            &leaf.sept_states,
            |page, name| self.links.sept_state(page, name),
        );
        self.sources_of(&mut page, &leaf.cite);
        page
    }

    /// Modules that dispatch the leaf, with the versions that each accepts.
    fn dispatched(&self, leaf: &Leaf) -> String {
        let modules = self.spec.modules.iter().filter_map(|module| {
            let accepted = module
                .leaves
                .iter()
                .find(|(name, _)| name.value == leaf.name);
            accepted.map(|(_, versions)| match &versions[..] {
                [0] => module.name.clone(),
                versions => {
                    let versions: Vec<String> = versions.iter().map(u8::to_string).collect();
                    format!("{} (versions {})", module.name, versions.join(", "))
                }
            })
        });
        modules.collect::<Vec<_>>().join(", ")
    }

    fn operand_list(&self, page: &mut Page, leaf: &Leaf, several: bool) {
        if several {
            let versions: Vec<String> = leaf.versions.iter().map(u8::to_string).collect();
            let mut title = format!("Version {}", versions.join(", "));
            if let Some(variant) = leaf
                .variant
                .as_deref()
                .filter(|variant| !is_version(variant))
            {
                title.push_str(&format!(": {variant}"));
            }
            page.heading(&title);
            if leaf.variant.is_some() {
                page.text(&self.links.prose(page, &leaf.doc));
            }
            let modules = self.module_names(leaf.modules);
            let only = leaf.modules.iter().count() < self.spec.modules.len();
            let feature = leaf.feature.as_ref();
            if only || leaf.variant.is_some() && feature.is_some() {
                let needs = feature.map(|feature| self.links.feature(page, &feature.value));
                let needs = needs
                    .map(|needs| format!("; needs {needs}"))
                    .unwrap_or_default();
                page.text(&format!("Modules {modules}{needs}."));
            }
        }
        self.registers(page, "Registers in", &leaf.inputs, false, leaf.side);
        self.registers(page, "Registers out", &leaf.outputs, true, leaf.side);
        self.locks(page, leaf);
        if !leaf.statuses.is_empty() {
            page.subheading(if leaf.side == Side::Vmcall {
                "Answers"
            } else {
                "Statuses"
            });
            let names = leaf.statuses.iter();
            let names = names.map(|status| {
                let name = self
                    .links
                    .status(page, &status.value, leaf.side == Side::Seamldr);
                match self.spec.limited_to(leaf, &status.value) {
                    Some(modules) => format!("{name} ({})", self.module_names(modules)),
                    None => name,
                }
            });
            let names: Vec<String> = names.collect();
            page.text(&names.join(", "));
        }
        self.after(page, leaf);
        if leaf.variant.is_some() {
            let sources = leaf.cite.iter().map(|cite| self.source(page, cite));
            page.text(&format!(
                "Sources: {}",
                sources.collect::<Vec<_>>().join("; ")
            ));
        }
    }

    fn locks(&self, page: &mut Page, leaf: &Leaf) {
        if leaf.locks.is_empty() {
            return;
        }
        page.subheading("Locks");
        let rows = leaf.locks.iter().map(|lock| {
            let priority = if lock.host_priority {
                "host has priority"
            } else {
                ""
            };
            vec![
                code(&lock.resource),
                lock.mode.name().to_owned(),
                lock.operand
                    .as_ref()
                    .map(|operand| code(&operand.to_uppercase()))
                    .unwrap_or_default(),
                [priority, lock.when.as_deref().unwrap_or_default()]
                    .iter()
                    .filter(|text| !text.is_empty())
                    .map(|text| escaped(text))
                    .collect::<Vec<_>>()
                    .join("; "),
            ]
        });
        let rows: Vec<Vec<String>> = rows.collect();
        page.table(&["resource", "mode", "named by", ""], &rows);
    }

    /// How an interrupted call goes on, and what success is evidence of.
    fn after(&self, page: &mut Page, leaf: &Leaf) {
        if !leaf.resume.is_empty() {
            page.subheading("After an interrupt");
            page.text("The call goes on with the same inputs, except:");
            page.list(leaf.resume.iter().map(|resume| {
                let register = resume.register.to_uppercase();
                match resume.set {
                    None => format!("`{register}` as the interrupted call returned it"),
                    Some(bits) => format!("`{register}` with the bits `{bits:#x}` set"),
                }
            }));
        }
        let yields = match leaf.yields {
            None => return,
            Some(Yields::Blocked) => {
                "After success the entry is blocked: no new translation of it can be made."
            }
            Some(Yields::Tracked) => {
                "After success the TD's epoch has moved on: what was blocked before can be removed once no virtual processor is left in the old epoch."
            }
            Some(Yields::Reclaimed) => "After success the page is the host's again.",
        };
        page.text(&self.links.prose(page, yields));
    }

    fn allowed(
        &self,
        page: &mut Page,
        title: &str,
        allowed: &[Allowed],
        link: impl Fn(&Page, &str) -> String,
    ) {
        if allowed.is_empty() {
            return;
        }
        page.heading(title);
        let rows = allowed.iter().map(|row| {
            let states = row.states.iter().map(|state| link(page, &state.value));
            vec![
                self.module_names(row.modules),
                states.collect::<Vec<_>>().join(", "),
            ]
        });
        let rows: Vec<Vec<String>> = rows.collect();
        page.table(&["modules", "states"], &rows);
    }

    pub(super) fn module_names(&self, set: ModuleSet) -> String {
        self.spec.module_names(set).join(", ")
    }

    pub(super) fn sources_of(&self, page: &mut Page, cites: &[Cite]) {
        if cites.is_empty() {
            return;
        }
        page.heading("Sources");
        let items = cites.iter().map(|cite| self.source(page, cite));
        let items: Vec<String> = items.collect();
        page.list(items.into_iter());
    }

    fn source(&self, page: &Page, cite: &Cite) -> String {
        let source = self.links.source(page, &cite.id.value);
        match &cite.at {
            Some(at) => format!("{source}: {}", escaped(at)),
            None => source,
        }
    }
}

fn number(leaf: &Leaf) -> String {
    match leaf.side {
        Side::Vmcall => format!("`{:#x}`", leaf.number.value),
        _ => leaf.number.value.to_string(),
    }
}

fn is_version(variant: &str) -> bool {
    variant
        .strip_prefix('V')
        .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()))
}

/// Other ways to write a leaf's name, so that the book's search, which knows whole words only, finds them.
fn spellings(name: &str) -> String {
    let mut all = vec![code(&name.replace('.', "_"))];
    let parts = name
        .match_indices('.')
        .filter_map(|(at, _)| name.get(at + 1..));
    all.extend(parts.filter(|part| part.contains('.')).map(code));
    all.push(name.replace(['.', '_'], " ").to_lowercase());
    all.join(", ")
}
