//! Two sets of facts to a list of changes.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::change::Change;
use super::change::Event;
use super::change::Judged;
use super::change::Level;
use super::change::edits;
use super::layout;
use super::leaf;
use super::table;
use crate::spec::facts::Facts;
use crate::spec::facts::Kind;
use crate::spec::facts::View;

/// What `new` has otherwise than `old`: for each module that both know, and for what is bound to no module.
pub(in crate::spec) fn specifications(old: &Facts, new: &Facts) -> Vec<Change> {
    let (before, after) = (old.scopes(), new.scopes());
    let mut merged: BTreeMap<(Kind, String, String), Change> = BTreeMap::new();
    for module in before.union(&after) {
        if module.is_some() && !(before.contains(module) && after.contains(module)) {
            // The fact of kind `module` says so.
            continue;
        }
        let name = module.as_deref();
        for change in views(&old.view(name), &new.view(name)) {
            let key = (change.kind, change.entity.clone(), change.what.clone());
            let entry = merged.entry(key).or_insert(change);
            entry.modules.extend(module.clone());
        }
    }
    let mut changes: Vec<Change> = merged.into_values().collect();
    moved_between_scopes(&mut changes, old, new);
    changes
}

/// A leaf that was announced and is dispatched now, or the other way round, neither came nor went.
fn moved_between_scopes(changes: &mut Vec<Change>, old: &Facts, new: &Facts) {
    let names = |facts: &Facts| -> BTreeSet<(Kind, String)> {
        let scopes = facts.scopes();
        scopes
            .iter()
            .flat_map(|module| facts.view(module.as_deref()).into_keys())
            .collect()
    };
    let is_moved = |change: &Change, other: &BTreeSet<(Kind, String)>| {
        change.modules.is_empty() && other.contains(&(change.kind, change.entity.clone()))
    };
    let (before, after) = (names(old), names(new));
    changes.retain(|change| match change.event {
        Event::Added => !is_moved(change, &before),
        Event::Removed => !is_moved(change, &after),
        Event::Renamed | Event::Changed => true,
    });
}

/// What the module `new` has otherwise than the module `old`.
///
/// What the tables of one of them do not tell is left out: whole tables, and flags that its table lacks.
pub(in crate::spec) fn modules(old: &View, new: &View) -> Vec<Change> {
    let (mut old, mut new) = (old.clone(), new.clone());
    let tables = |view: &View| -> BTreeSet<(Kind, String)> {
        view.keys()
            .map(|(kind, entity)| table_of(*kind, entity))
            .collect()
    };
    let flags = |view: &View| -> BTreeSet<(Kind, String)> {
        let flags = view.iter().flat_map(|((kind, _), aspects)| {
            let flags = aspects.keys().filter(|aspect| aspect.starts_with("flag "));
            flags.map(|flag| (*kind, flag.clone()))
        });
        flags.collect()
    };
    let (before, after) = (tables(&old), tables(&new));
    let mut unknown = Vec::new();
    for (kind, table) in before.symmetric_difference(&after) {
        if !matches!(kind, Kind::Msr | Kind::Cpuid | Kind::Field) {
            continue;
        }
        unknown.push(Change {
            kind: *kind,
            entity: table.clone(),
            event: Event::Changed,
            what: "known of one of the modules only, and not compared".to_owned(),
            level: Level::Patch,
            why: "what is not known is no change",
            modules: BTreeSet::new(),
        });
        for view in [&mut old, &mut new] {
            view.retain(|(of, entity), _| table_of(*of, entity) != (*kind, table.clone()));
        }
    }
    let (before, after) = (flags(&old), flags(&new));
    for (kind, flag) in before.symmetric_difference(&after) {
        for view in [&mut old, &mut new] {
            for ((of, _), aspects) in view.iter_mut() {
                if of == kind {
                    aspects.remove(flag);
                }
            }
        }
    }
    let mut changes = views(&old, &new);
    changes.extend(unknown);
    changes
}

/// The table that an entity stands in.
fn table_of(kind: Kind, entity: &str) -> (Kind, String) {
    let table = match kind {
        Kind::Field => entity.split('.').next().unwrap_or_default(),
        _ => kind.word(),
    };
    (kind, table.to_owned())
}

/// What `new` has otherwise than `old`.
fn views(old: &View, new: &View) -> Vec<Change> {
    let mut changes = Vec::new();
    let renamed = renamed(old, new);
    for ((kind, entity), aspects) in old {
        let name = renamed.get(&(*kind, entity.clone()));
        let mut change = |event, judged: Judged| {
            changes.push(Change {
                kind: *kind,
                entity: entity.clone(),
                event,
                what: judged.what,
                level: judged.level,
                why: judged.why,
                modules: BTreeSet::new(),
            });
        };
        if let Some(name) = name {
            let judged = Judged::new(
                format!("renamed {name}"),
                Level::Major,
                "what names it has to be changed; the number is the same",
            );
            change(Event::Renamed, judged);
        }
        let now = new.get(&(*kind, name.unwrap_or(entity).clone()));
        let Some(now) = now else {
            change(
                Event::Removed,
                Judged::new("removed", Level::Major, "what used it finds it no more"),
            );
            continue;
        };
        let edits = edits(aspects, now);
        let judged = match kind {
            Kind::Leaf => leaf::judge(edits),
            Kind::Enum | Kind::Format | Kind::Structure => {
                layout::judge(*kind, edits, aspects, now)
            }
            _ => table::judge(*kind, edits),
        };
        for judged in judged {
            change(Event::Changed, judged);
        }
    }
    let names: BTreeSet<(Kind, &String)> = renamed
        .iter()
        .map(|((kind, _), name)| (*kind, name))
        .collect();
    for ((kind, entity), aspects) in new {
        if old.contains_key(&(*kind, entity.clone())) || names.contains(&(*kind, entity)) {
            continue;
        }
        changes.push(Change {
            kind: *kind,
            entity: entity.clone(),
            event: Event::Added,
            what: added(*kind, aspects),
            level: Level::Minor,
            why: "nothing used it before",
            modules: BTreeSet::new(),
        });
    }
    changes.sort_by(|a, b| (a.kind, &a.entity).cmp(&(b.kind, &b.entity)));
    changes
}

fn added(kind: Kind, aspects: &BTreeMap<String, String>) -> String {
    let mut text = "added".to_owned();
    if let Some((_, number)) = identity(kind, "", aspects) {
        text = format!("{text}, {number}");
    }
    if let Some(feature) = aspects.get("feature") {
        text = format!("{text}, needs {feature}");
    }
    if kind == Kind::Leaf && aspects.contains_key("reserved") {
        text.push_str(", not dispatched");
    }
    text
}

/// The number by which an entity is the same whatever its name.
fn identity<'a>(
    kind: Kind,
    entity: &'a str,
    aspects: &'a BTreeMap<String, String>,
) -> Option<(&'a str, &'a String)> {
    let (aspect, part) = match kind {
        Kind::Leaf => ("number", entity.split('.').next().unwrap_or_default()),
        Kind::Field => ("id", entity.split('.').next().unwrap_or_default()),
        Kind::Status | Kind::Operand => ("value", ""),
        Kind::OpState | Kind::SeptState | Kind::L2SeptState => ("value", ""),
        Kind::Msr => ("range", ""),
        Kind::Feature => ("bit", ""),
        Kind::Module
        | Kind::Release
        | Kind::Cpuid
        | Kind::Enum
        | Kind::Format
        | Kind::Structure => return None,
    };
    Some((part, aspects.get(aspect)?))
}

/// Names that went, with the name that came for the same number.
fn renamed(old: &View, new: &View) -> BTreeMap<(Kind, String), String> {
    let only = |view: &View, other: &View| {
        let mut found: BTreeMap<(Kind, String, String), Vec<String>> = BTreeMap::new();
        for ((kind, entity), aspects) in view {
            if other.contains_key(&(*kind, entity.clone())) {
                continue;
            }
            if let Some((part, number)) = identity(*kind, entity, aspects) {
                let key = (*kind, part.to_owned(), number.clone());
                found.entry(key).or_default().push(entity.clone());
            }
        }
        found
    };
    let after = only(new, old);
    let mut renamed = BTreeMap::new();
    for (key, names) in only(old, new) {
        if let ([from], Some([to])) = (&names[..], after.get(&key).map(Vec::as_slice)) {
            renamed.insert((key.0, from.clone()), to.clone());
        }
    }
    renamed
}
