//! Where each entity stands in the book.

use std::collections::HashMap;

use super::page::Page;
use super::page::escaped;
use super::page::slug;
use crate::model::Callee;
use crate::model::Spec;

/// Paths below `src` of everything that has a name.
pub(super) struct Links {
    /// Leaves, formats, structures, enums, tables of fields.
    pages: HashMap<String, String>,
    statuses: HashMap<String, String>,
    op_states: HashMap<String, String>,
    sept_states: HashMap<String, String>,
    features: HashMap<String, String>,
    sources: HashMap<String, String>,
}

impl Links {
    pub(super) fn new(spec: &Spec) -> Self {
        let mut pages = HashMap::new();
        for leaf in &spec.leaves {
            pages.insert(leaf.name.clone(), format!("leaves/{}.md", leaf.name));
        }
        for name in spec.formats.iter().map(|format| &format.name) {
            pages.insert(name.clone(), format!("formats/{name}.md"));
        }
        for name in spec.structures.iter().map(|structure| &structure.name) {
            pages.insert(name.clone(), format!("structures/{name}.md"));
        }
        for name in spec.enums.iter().map(|entity| &entity.name) {
            pages.insert(name.clone(), format!("enums/{name}.md"));
        }
        for (name, path) in [
            ("OpState", "states/op_states.md"),
            ("SeptState", "states/sept_states.md"),
            ("L2SeptState", "states/l2_sept_states.md"),
        ] {
            pages.insert(name.to_owned(), path.to_owned());
        }
        let anchors = |path: &str, names: &mut dyn Iterator<Item = &String>| {
            names
                .map(|name| (name.clone(), format!("{path}#{}", slug(name))))
                .collect::<HashMap<String, String>>()
        };
        let mut statuses = HashMap::new();
        for table in &spec.statuses {
            let path = status_path(table.callee);
            for row in &table.rows {
                let target = format!("{path}#{}", slug(&row.name));
                // A name that the module has is the module's.
                if table.callee == Callee::Module || !statuses.contains_key(&row.name) {
                    statuses.insert(row.name.clone(), target);
                }
            }
        }
        Self {
            pages,
            statuses,
            op_states: anchors(
                "states/op_states.md",
                &mut spec.op_states.rows.iter().map(|row| &row.name),
            ),
            sept_states: anchors(
                "states/sept_states.md",
                &mut spec.sept_states.rows.iter().map(|row| &row.name),
            ),
            features: anchors(
                "modules/features.md",
                &mut spec.features.iter().map(|row| &row.name),
            ),
            sources: anchors("sources.md", &mut spec.sources.iter().map(|row| &row.id)),
        }
    }

    /// The name as a link from `page` to the entity's page, or as it is.
    pub(super) fn entity(&self, page: &Page, name: &str) -> String {
        link(page, &self.pages, name)
    }

    /// A status of a leaf; P-SEAMLDR's are on another page.
    pub(super) fn status(&self, page: &Page, name: &str, seamldr: bool) -> String {
        let own = format!("{}#{}", status_path(Callee::Seamldr), slug(name));
        if seamldr {
            return format!("[{}]({})", escaped(name), page.relative(&own));
        }
        link(page, &self.statuses, name)
    }

    pub(super) fn op_state(&self, page: &Page, name: &str) -> String {
        link(page, &self.op_states, name)
    }

    pub(super) fn sept_state(&self, page: &Page, name: &str) -> String {
        link(page, &self.sept_states, name)
    }

    pub(super) fn feature(&self, page: &Page, name: &str) -> String {
        link(page, &self.features, name)
    }

    pub(super) fn source(&self, page: &Page, id: &str) -> String {
        link(page, &self.sources, id)
    }

    /// A text in which names of entities are links.
    pub(super) fn prose(&self, page: &Page, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let name = word.trim_end_matches('.');
            let known = name.len() > 3 && !page.path.ends_with(&format!("/{name}.md"));
            if known && self.pages.contains_key(name) {
                out.push_str(&self.entity(page, name));
                out.push_str(&word[name.len()..]);
            } else if known && name.contains('_') && self.statuses.contains_key(name) {
                out.push_str(&link(page, &self.statuses, name));
                out.push_str(&word[name.len()..]);
            } else {
                out.push_str(&escaped(word));
            }
            let next = after.find(is_name).unwrap_or(after.len());
            let (between, following) = after.split_at(next);
            out.push_str(&escaped(between));
            rest = following;
        }
        out
    }
}

/// The page with the statuses of a callee.
pub(super) const fn status_path(callee: Callee) -> &'static str {
    match callee {
        Callee::Module => "statuses/module.md",
        Callee::Seamldr => "statuses/seamldr.md",
        Callee::Linux => "statuses/linux.md",
    }
}

fn link(page: &Page, targets: &HashMap<String, String>, name: &str) -> String {
    match targets.get(name) {
        Some(target) => format!("[{}]({})", escaped(name), page.relative(target)),
        None => escaped(name),
    }
}
