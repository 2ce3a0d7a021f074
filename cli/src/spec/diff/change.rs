//! What a change of the ABI is, and how much it matters.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::spec::facts::Kind;

/// What semantic versioning asks for after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::spec) enum Level {
    /// No software can tell.
    Patch,
    /// What was written before goes on working.
    Minor,
    /// What was written before may fail or have to be changed.
    Major,
}

impl Level {
    /// Its name.
    pub(in crate::spec) const fn word(self) -> &'static str {
        match self {
            Self::Patch => "patch",
            Self::Minor => "minor",
            Self::Major => "major",
        }
    }
}

/// Whether an entity came, went, or is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::spec) enum Event {
    Added,
    Removed,
    Renamed,
    Changed,
}

/// A change of one entity.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(in crate::spec) struct Change {
    pub(in crate::spec) kind: Kind,
    pub(in crate::spec) entity: String,
    pub(in crate::spec) event: Event,
    /// What is different now.
    pub(in crate::spec) what: String,
    pub(in crate::spec) level: Level,
    /// Why it has that level.
    pub(in crate::spec) why: &'static str,
    /// Modules for which it holds; empty: bound to no module, or two modules were compared.
    pub(in crate::spec) modules: BTreeSet<String>,
}

/// What happened to one aspect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    Added(String),
    Removed(String),
    Changed(String, String),
}

/// What happened to the aspects of one entity.
pub(super) type Edits = BTreeMap<String, Edit>;

/// What two versions of the aspects of one entity differ in.
pub(super) fn edits(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Edits {
    let mut edits = Edits::new();
    for (aspect, value) in old {
        match new.get(aspect) {
            None => edits.insert(aspect.clone(), Edit::Removed(value.clone())),
            Some(now) if now != value => {
                edits.insert(aspect.clone(), Edit::Changed(value.clone(), now.clone()))
            }
            Some(_) => None,
        };
    }
    for (aspect, value) in new {
        if !old.contains_key(aspect) {
            edits.insert(aspect.clone(), Edit::Added(value.clone()));
        }
    }
    edits
}

/// A change as the functions that judge aspects give it.
pub(super) struct Judged {
    pub(super) what: String,
    pub(super) level: Level,
    pub(super) why: &'static str,
}

impl Judged {
    pub(super) fn new(what: impl Into<String>, level: Level, why: &'static str) -> Self {
        Self {
            what: what.into(),
            level,
            why,
        }
    }
}

/// Takes the edits whose aspect begins with `word` and a blank, and gives the rest of those added and of those removed.
pub(super) fn take(edits: &mut Edits, word: &str) -> (Vec<String>, Vec<String>) {
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    edits.retain(|aspect, edit| {
        let Some(rest) = aspect
            .strip_prefix(word)
            .and_then(|rest| rest.strip_prefix(' '))
        else {
            return true;
        };
        match edit {
            Edit::Added(_) => added.push(rest.to_owned()),
            Edit::Removed(_) => removed.push(rest.to_owned()),
            Edit::Changed(..) => return true,
        }
        false
    });
    (added, removed)
}
