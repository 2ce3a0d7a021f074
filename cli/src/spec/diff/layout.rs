//! Changes of enums, formats and structures.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::change::Edit;
use super::change::Edits;
use super::change::Judged;
use super::change::Level::Major;
use super::change::Level::Minor;
use crate::spec::facts::Kind;

/// Judges what changed of an enum, format or structure with these aspects before and now.
pub(super) fn judge(
    kind: Kind,
    mut edits: Edits,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
) -> Vec<Judged> {
    let mut found = Vec::new();
    let (before, after) = (Places::of(kind, old), Places::of(kind, new));
    renamed(&mut edits, &mut found);
    for (aspect, edit) in &edits {
        let (word, name) = aspect.split_once(' ').unwrap_or((aspect, ""));
        match (word, edit) {
            // Told with the fields that take or leave the place.
            ("reserved" | "ignored", _) => {}
            ("field", Edit::Added(place)) => found.push(defined(name, place, &before)),
            ("field", Edit::Removed(place)) => found.push(undefined(name, place, &after)),
            ("field", Edit::Changed(from, to)) => {
                let place = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
                found.push(if place(from) == place(to) {
                    Judged::new(
                        format!("{name} is {to}, was {from}"),
                        Major,
                        "the same bits mean something else",
                    )
                } else {
                    Judged::new(
                        format!("{name} moved to {to} from {from}"),
                        Major,
                        "the place is part of the layout",
                    )
                });
            }
            ("view", Edit::Added(place)) => found.push(Judged::new(
                format!("view {name} added ({place})"),
                Minor,
                "the bits stay as they are",
            )),
            ("value", Edit::Added(value)) => found.push(Judged::new(
                format!("{name} = {value} added"),
                Minor,
                "the value was not defined before",
            )),
            (_, Edit::Added(value)) => found.push(Judged::new(
                format!("{aspect}: {value}"),
                Major,
                "the layout is another",
            )),
            (_, Edit::Removed(value)) => found.push(Judged::new(
                format!("{aspect} removed ({value})"),
                Major,
                "what used it finds it no more",
            )),
            (_, Edit::Changed(from, to)) => found.push(Judged::new(
                format!("{aspect} is {to}, was {from}"),
                Major,
                "the number is part of the layout",
            )),
        }
    }
    let unit = if kind == Kind::Structure {
        "bytes"
    } else {
        "bits"
    };
    for (was, is, level, why) in [
        (
            "reserved",
            "ignored",
            Minor,
            "what had to be 0 may be anything",
        ),
        (
            "ignored",
            "reserved",
            Major,
            "old software may have put anything there",
        ),
        (
            "reserved",
            "reserved ones",
            Major,
            "what had to be 0 has to be 1",
        ),
        (
            "reserved ones",
            "reserved",
            Major,
            "what had to be 1 has to be 0",
        ),
    ] {
        let units: Vec<String> = before
            .units(was)
            .intersection(&after.units(is))
            .map(u32::to_string)
            .collect();
        if !units.is_empty() {
            let what = format!("{unit} {} {is}, were {was}", units.join(", "));
            found.push(Judged::new(what, level, why));
        }
    }
    found
}

/// Fields of the same place and type with another name.
fn renamed(edits: &mut Edits, found: &mut Vec<Judged>) {
    let added: Vec<(String, String)> = edits
        .iter()
        .filter_map(|(aspect, edit)| match edit {
            Edit::Added(value) => Some((aspect.clone(), value.clone())),
            _ => None,
        })
        .collect();
    for (to, value) in added {
        let word = to.split(' ').next().unwrap_or_default();
        let from = edits.iter().find_map(|(aspect, edit)| {
            let same = matches!(edit, Edit::Removed(was) if *was == value);
            (same && aspect.starts_with(word) && aspect.contains(' ')).then(|| aspect.clone())
        });
        if let Some(from) = from {
            let name = |aspect: &str| aspect.split(' ').next_back().unwrap_or_default().to_owned();
            found.push(Judged::new(
                format!("{} renamed {} ({value})", name(&from), name(&to)),
                Major,
                "source that names it has to be changed; the layout is the same",
            ));
            edits.remove(&from);
            edits.remove(&to);
        }
    }
}

fn defined(name: &str, place: &str, before: &Places) -> Judged {
    let place = Place::of(place);
    let text = &place.text;
    if before.covers("reserved", &place) || before.covers("reserved ones", &place) {
        return Judged::new(
            format!("{text} defined as {name}, was reserved"),
            Minor,
            "the bits had to have one value, which goes on meaning what it did",
        );
    }
    if before.covers("ignored", &place) {
        return Judged::new(
            format!("{text} defined as {name}, was ignored"),
            Major,
            "old software may have put anything there",
        );
    }
    Judged::new(
        format!("{name} added at {text}"),
        Major,
        "the bits meant something else before",
    )
}

fn undefined(name: &str, place: &str, after: &Places) -> Judged {
    let place = Place::of(place);
    let what = if after.covers("reserved", &place) || after.covers("reserved ones", &place) {
        "reserved"
    } else if after.covers("ignored", &place) {
        "ignored"
    } else {
        "used otherwise"
    };
    Judged::new(
        format!("{name} removed, {} now {what}", place.text),
        Major,
        "what sets or reads it no longer works",
    )
}

/// Bits or bytes.
struct Place {
    text: String,
    /// First and last.
    ranges: Vec<(u32, u32)>,
}

impl Place {
    /// Reads `51:12,3` as bits and `16+8` as bytes, with ` x N` for an array.
    fn of(text: &str) -> Self {
        let mut words = text.split(' ');
        let place = words.next().unwrap_or_default();
        let is_bits = !place.contains('+');
        let count = text
            .rsplit_once(" x ")
            .map_or(1, |(_, count)| count.parse().unwrap_or(1));
        let ranges = place.split(',').filter_map(|piece| {
            if is_bits {
                let (high, low) = piece.split_once(':').unwrap_or((piece, piece));
                return Some((low.parse().ok()?, high.parse().ok()?));
            }
            let (start, size) = piece.split_once('+')?;
            let start: u32 = start.parse().ok()?;
            let size: u32 = size.parse().ok()?;
            Some((start, start + (size * count).saturating_sub(1)))
        });
        let ranges = ranges.collect();
        let unit = match (is_bits, place.contains([':', ','])) {
            (true, true) => "bits",
            (true, false) => "bit",
            (false, _) => "bytes",
        };
        Self {
            text: format!("{unit} {place}"),
            ranges,
        }
    }
}

/// What is reserved or ignored.
struct Places(BTreeMap<&'static str, Vec<(u32, u32)>>);

impl Places {
    fn of(kind: Kind, aspects: &BTreeMap<String, String>) -> Self {
        let mut places = BTreeMap::new();
        if kind != Kind::Enum {
            for word in ["reserved", "reserved ones", "ignored"] {
                if let Some(value) = aspects.get(word) {
                    places.insert(word, Place::of(value).ranges);
                }
            }
        }
        Self(places)
    }

    /// Every bit or byte that is `word`.
    fn units(&self, word: &str) -> BTreeSet<u32> {
        let ranges = self.0.get(word).map(Vec::as_slice).unwrap_or_default();
        ranges.iter().flat_map(|(low, high)| *low..=*high).collect()
    }

    /// Whether all of `place` is `word`.
    fn covers(&self, word: &str, place: &Place) -> bool {
        let units = self.units(word);
        let mut wanted = place.ranges.iter().flat_map(|(low, high)| *low..=*high);
        !place.ranges.is_empty() && wanted.all(|unit| units.contains(&unit))
    }
}
