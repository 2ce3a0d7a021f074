//! Changes of modules, features, releases, statuses, ids, states, fields and MSRs.

use super::change::Edit;
use super::change::Edits;
use super::change::Judged;
use super::change::Level;
use super::change::Level::Major;
use super::change::Level::Minor;
use super::change::Level::Patch;
use super::change::take;
use crate::spec::facts::Kind;

/// Bit of a metadata field id that does not count.
const NON_ARCH: u64 = 1 << 63;

/// Judges what changed of a row.
pub(super) fn judge(kind: Kind, mut edits: Edits) -> Vec<Judged> {
    let mut found = Vec::new();
    let (set, cleared) = take(&mut edits, "flag");
    for (flags, word) in [(set, "set"), (cleared, "cleared")] {
        if !flags.is_empty() {
            found.push(Judged::new(
                format!("{word}: {}", flags.join(", ")),
                Major,
                "what holds in the state is part of every check",
            ));
        }
    }
    for (aspect, edit) in edits {
        found.push(match (kind, &*aspect, edit) {
            (Kind::Field, "id", Edit::Changed(old, new)) => renumbered(&old, &new),
            (Kind::Field, "access", edit) => access(&edit),
            (Kind::Field, "count", Edit::Changed(old, new)) => count(&old, &new),
            (Kind::Field, "count_from", edit) => {
                told(&aspect, &edit, Minor, "the maximum stays as it is")
            }
            (Kind::Field, "migration", edit) => told(
                &aspect,
                &edit,
                Major,
                "what a migration stream has to carry differs",
            ),
            (Kind::Field, "attributes", edit) => told(
                &aspect,
                &edit,
                Minor,
                "the value is read and written as before",
            ),
            (Kind::Status, "retry", edit) => told(
                &aspect,
                &edit,
                Major,
                "callers decide by it whether and how to call again",
            ),
            (Kind::Status, "low", edit) => {
                told(&aspect, &edit, Major, "RAX bits 31:0 mean something else")
            }
            (Kind::SeptState | Kind::L2SeptState, "also", edit @ Edit::Added(_)) => {
                told(&aspect, &edit, Minor, "the first encoding stays")
            }
            (Kind::Field, "fixed", edit) => told(
                &aspect,
                &edit,
                Minor,
                "software reads the field from the platform",
            ),
            (Kind::Cpuid, _, edit) | (Kind::Msr, "read" | "write", edit) => {
                told(&aspect, &edit, Major, "guests see another behaviour")
            }
            (Kind::Module | Kind::Release, _, edit) => told(
                &aspect,
                &edit,
                Patch,
                "software reads TDX_FEATURES0 from the platform",
            ),
            (Kind::Feature, _, Edit::Changed(old, new))
                if old.split(' ').next() == new.split(' ').next() =>
            {
                Judged::new(
                    format!("bit {new}, was {old}"),
                    Patch,
                    "the bit is the same",
                )
            }
            (_, _, edit) => told(&aspect, &edit, Major, "the number is part of the ABI"),
        });
    }
    found
}

fn told(aspect: &str, edit: &Edit, level: Level, why: &'static str) -> Judged {
    let what = match edit {
        Edit::Added(new) => format!("{aspect}: {new}, was none"),
        Edit::Removed(old) => format!("{aspect}: none, was {old}"),
        Edit::Changed(old, new) => format!("{aspect}: {new}, was {old}"),
    };
    Judged::new(what, level, why)
}

fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn renumbered(old: &str, new: &str) -> Judged {
    let what = format!("renumbered from {old} to {new}");
    match (number(old), number(new)) {
        (Some(a), Some(b)) if a ^ b == NON_ARCH => {
            Judged::new(what, Patch, "bit 63 of a field id does not count")
        }
        _ => Judged::new(what, Major, "the old id means another field or none"),
    }
}

fn count(old: &str, new: &str) -> Judged {
    let what = format!("{new} elements, was {old}");
    let pair = |text: &str| -> Option<(u32, u32)> {
        let (fields, elements) = text.split_once(" x ")?;
        Some((fields.parse().ok()?, elements.parse().ok()?))
    };
    match (pair(old), pair(new)) {
        (Some(a), Some(b)) if b.0 >= a.0 && b.1 == a.1 => {
            Judged::new(what, Minor, "the ids of the old ones stay")
        }
        _ => Judged::new(what, Major, "ids that were valid are not, or mean others"),
    }
}

/// Masks of what each role may read and write.
fn access(edit: &Edit) -> Judged {
    let (old, new) = match edit {
        Edit::Added(new) => ("", new.as_str()),
        Edit::Removed(old) => (old.as_str(), ""),
        Edit::Changed(old, new) => (old.as_str(), new.as_str()),
    };
    let masks = |text: &str| -> Vec<(String, u64)> {
        text.split(' ')
            .filter_map(|word| {
                let (name, mask) = word.split_once('=')?;
                Some((name.to_owned(), number(mask)?))
            })
            .collect()
    };
    let (old, new) = (masks(old), masks(new));
    let of = |list: &[(String, u64)], name: &str| {
        list.iter()
            .find(|(known, _)| known == name)
            .map_or(0, |(_, mask)| *mask)
    };
    let mut names: Vec<&String> = old.iter().chain(&new).map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    let mut texts = Vec::new();
    let mut lost = false;
    for name in names {
        let (a, b) = (of(&old, name), of(&new, name));
        if a != b {
            texts.push(format!("{name} {b:#x}, was {a:#x}"));
            lost |= a & !b != 0;
        }
    }
    let what = format!("access: {}", texts.join("; "));
    if lost {
        Judged::new(
            what,
            Major,
            "bits that could be read or written cannot be any more",
        )
    } else {
        Judged::new(what, Minor, "what could be read or written still can")
    }
}
