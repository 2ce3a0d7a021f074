//! Changes of leaves.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::change::Edit;
use super::change::Edits;
use super::change::Judged;
use super::change::Level::Major;
use super::change::Level::Minor;
use super::change::Level::Patch;
use super::change::take;
use crate::spec::facts::BASE;
use crate::spec::facts::list_of;

/// Judges what changed of a leaf.
pub(super) fn judge(edits: Edits) -> Vec<Judged> {
    let mut lists: BTreeMap<String, Edits> = BTreeMap::new();
    for (aspect, edit) in edits {
        let (list, rest) = list_of(&aspect);
        lists
            .entry(list.to_owned())
            .or_default()
            .insert(rest.to_owned(), edit);
    }
    let mut found = Vec::new();
    for (list, edits) in lists {
        let name = list.strip_prefix('@').unwrap_or(BASE);
        let first = found.len();
        match edits.get("list") {
            Some(Edit::Added(versions)) => {
                let feature = match edits.get("feature") {
                    Some(Edit::Added(feature)) => format!(", needs {feature}"),
                    _ => String::new(),
                };
                let what = format!("operand list {name} added, {versions}{feature}");
                found.push(Judged::new(what, Minor, "the other operand lists stay"));
                continue;
            }
            Some(Edit::Removed(_)) => {
                let what = format!("operand list {name} removed");
                found.push(Judged::new(what, Major, "calls in that form are no more"));
                continue;
            }
            _ => operand_list(edits, &mut found),
        }
        if !name.is_empty() {
            for judged in &mut found[first..] {
                judged.what = format!("{name}: {}", judged.what);
            }
        }
    }
    found
}

fn operand_list(mut edits: Edits, found: &mut Vec<Judged>) {
    moved(&mut edits, found);
    states(&mut edits, found);
    let mut listed = |word, came: (&str, _, _), went: (&str, _, _)| {
        let (added, removed) = take(&mut edits, word);
        for (names, (text, level, why)) in [(added, came), (removed, went)] {
            if !names.is_empty() {
                found.push(Judged::new(
                    format!("{text} {}", names.join(", ")),
                    level,
                    why,
                ));
            }
        }
    };
    listed(
        "version",
        (
            "accepts version",
            Minor,
            "the versions before are accepted still",
        ),
        ("refuses version", Major, "calls of that version fail"),
    );
    listed(
        "status",
        ("may return", Minor, "decoding of statuses is total"),
        ("returns no more", Patch, "one status less to expect"),
    );
    listed(
        "resume",
        (
            "resuming takes",
            Major,
            "calls resumed in the old way go wrong",
        ),
        (
            "resuming takes no more",
            Major,
            "calls resumed in the old way go wrong",
        ),
    );
    found.extend(edits.into_iter().map(|(aspect, edit)| one(&aspect, &edit)));
}

/// Operands that are in another register now.
fn moved(edits: &mut Edits, found: &mut Vec<Judged>) {
    for word in ["in ", "out "] {
        let of = |edits: &Edits, is_added: bool| -> Vec<(String, String)> {
            let found = edits.iter().filter_map(|(aspect, edit)| {
                let value = match (edit, is_added) {
                    (Edit::Added(value) | Edit::Changed(_, value), true) => value,
                    (Edit::Removed(value) | Edit::Changed(value, _), false) => value,
                    _ => return None,
                };
                let register = aspect.strip_prefix(word)?;
                Some((register.to_owned(), value.clone()))
            });
            found.collect()
        };
        let (came, went) = (of(edits, true), of(edits, false));
        let mut done = BTreeSet::new();
        for (from, value) in &went {
            let Some((to, _)) = came.iter().find(|(to, now)| now == value && to != from) else {
                continue;
            };
            let name = value.split(':').next().unwrap_or_default();
            let what = format!("{} {name} moved from {from} to {to}", side(word));
            found.push(Judged::new(what, Major, "the register is part of the call"));
            done.extend([from.clone(), to.clone()]);
        }
        // A register of which both the old and the new content are accounted for has nothing else to tell.
        for register in done {
            let aspect = format!("{word}{register}");
            let is_told = match edits.get(&aspect) {
                Some(Edit::Changed(old, new)) => {
                    let moved_here = went
                        .iter()
                        .any(|(from, value)| value == new && *from != register);
                    let moved_away = came
                        .iter()
                        .any(|(to, value)| value == old && *to != register);
                    match (moved_here, moved_away) {
                        (true, true) => true,
                        (true, false) => {
                            let rest = Edit::Removed(old.clone());
                            edits.insert(aspect.clone(), rest);
                            false
                        }
                        (false, true) => {
                            let rest = Edit::Added(new.clone());
                            edits.insert(aspect.clone(), rest);
                            false
                        }
                        (false, false) => false,
                    }
                }
                _ => true,
            };
            if is_told {
                edits.remove(&aspect);
            }
        }
    }
}

fn side(word: &str) -> &'static str {
    if word.starts_with("in") {
        "input"
    } else {
        "output"
    }
}

/// In which states the leaf is allowed.
fn states(edits: &mut Edits, found: &mut Vec<Judged>) {
    for (word, shown) in [("op_state", "OP_STATE"), ("sept_state", "S-EPT state")] {
        let gate = edits.remove(&format!("{word}s"));
        let (added, removed) = take(edits, word);
        match gate {
            Some(Edit::Added(_)) => {
                let what = format!("allowed only in {shown} {}", added.join(", "));
                found.push(Judged::new(what, Major, "it was allowed in every state"));
                continue;
            }
            Some(Edit::Removed(_)) => {
                let what = format!("allowed in every {shown}");
                found.push(Judged::new(what, Minor, "what was allowed still is"));
                continue;
            }
            _ => {}
        }
        if !added.is_empty() {
            let what = format!("allowed in {shown} {} too", added.join(", "));
            found.push(Judged::new(what, Minor, "what was allowed still is"));
        }
        if !removed.is_empty() {
            let what = format!("not allowed in {shown} {}", removed.join(", "));
            found.push(Judged::new(what, Major, "calls in that state fail"));
        }
    }
}

fn one(aspect: &str, edit: &Edit) -> Judged {
    let (word, rest) = aspect.split_once(' ').unwrap_or((aspect, ""));
    match (word, edit) {
        ("number", Edit::Changed(old, new)) => Judged::new(
            format!("renumbered from {old} to {new}"),
            Major,
            "the old number means another leaf or none",
        ),
        ("reserved", Edit::Added(_)) => {
            Judged::new("reserved, not dispatched", Major, "calls fail")
        }
        ("reserved", Edit::Removed(_)) => {
            Judged::new("no longer reserved", Minor, "calls failed before")
        }
        ("feature", Edit::Added(feature)) => Judged::new(
            format!("needs {feature}"),
            Major,
            "platforms without that feature refuse it",
        ),
        ("feature", Edit::Removed(feature)) => Judged::new(
            format!("needs {feature} no more"),
            Minor,
            "it can be called more often",
        ),
        ("feature", Edit::Changed(old, new)) => Judged::new(
            format!("needs {new} instead of {old}"),
            Major,
            "platforms without that feature refuse it",
        ),
        ("lock", edit) => lock(rest, edit),
        ("in" | "out", edit) => operand(word, rest, edit),
        (_, Edit::Added(new)) => Judged::new(
            format!("{aspect}: {new}"),
            Major,
            "callers have to take it into account",
        ),
        (_, Edit::Removed(old)) => Judged::new(
            format!("{aspect}: no longer {old}"),
            Major,
            "callers may rely on it",
        ),
        (_, Edit::Changed(old, new)) => Judged::new(
            format!("{aspect}: {new} instead of {old}"),
            Major,
            "callers may rely on it",
        ),
    }
}

fn operand(word: &str, register: &str, edit: &Edit) -> Judged {
    let input = word == "in";
    let side = side(word);
    match edit {
        Edit::Added(new) => Judged::new(
            format!("{side} {register} added ({new})"),
            if input { Major } else { Minor },
            if input {
                "old calls leave the register to chance"
            } else {
                "the register was not defined before"
            },
        ),
        Edit::Removed(old) => Judged::new(
            format!("{side} {register} removed ({old})"),
            Major,
            "calls that give or expect it do not fit",
        ),
        Edit::Changed(old, new) => {
            let named = |text: &str| {
                text.split_once(": ")
                    .map(|(name, rest)| (name.to_owned(), rest.to_owned()))
            };
            if let (Some((before, a)), Some((after, b))) = (named(old), named(new))
                && a == b
            {
                return Judged::new(
                    format!("{side} {register} renamed from {before} to {after}"),
                    Major,
                    "source that names it has to be changed; the call is the same",
                );
            }
            Judged::new(
                format!("{side} {register}: {new}, was {old}"),
                Major,
                "the register means something else",
            )
        }
    }
}

fn lock(resource: &str, edit: &Edit) -> Judged {
    let mode = |text: &str| text.split(',').next().unwrap_or_default().to_owned();
    match edit {
        Edit::Added(new) if mode(new) == "exclusive" => Judged::new(
            format!("locks {resource} ({new})"),
            Major,
            "calls that ran side by side exclude each other",
        ),
        Edit::Added(new) => Judged::new(
            format!("locks {resource} ({new})"),
            Minor,
            "BUSY is answered by calling again, as before",
        ),
        Edit::Removed(old) => Judged::new(
            format!("no longer locks {resource} ({old})"),
            Minor,
            "more can run side by side",
        ),
        Edit::Changed(old, new) => {
            let (level, why) = match (&*mode(old), &*mode(new)) {
                ("shared", "exclusive") => {
                    (Major, "calls that ran side by side exclude each other")
                }
                ("exclusive", "shared") => (Minor, "more can run side by side"),
                _ => (Minor, "the mode is the same"),
            };
            Judged::new(format!("lock {resource}: {new}, was {old}"), level, why)
        }
    }
}
