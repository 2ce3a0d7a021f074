//! The documentation of a leaf's type.

use core::fmt::Write as _;

use super::text::doc;
use crate::model::Allowed;
use crate::model::Leaf;
use crate::model::LockMode;
use crate::model::Meaning;
use crate::model::Side;
use crate::model::Spec;

/// What the leaf does, its number, registers, locks, states, statuses and sources.
pub(super) fn leaf_doc(spec: &Spec, leaf: &Leaf) -> String {
    let mut text = doc(&leaf.doc);
    let version = leaf.versions.first().copied().unwrap_or(0);
    let callee = if leaf.side == Side::Seamldr {
        "P-SEAMLDR leaf"
    } else {
        "leaf"
    };
    let _ = write!(
        text,
        "\n\n`{}`, {callee} {}, version {version}.",
        leaf.name, leaf.number.value
    );
    let modules = spec.module_names(spec.dispatchers(leaf));
    if !modules.is_empty() {
        let _ = write!(text, " Dispatched by {}.", modules.join(", "));
    }
    if let Some(feature) = &leaf.feature {
        let _ = write!(text, " Needs {}.", feature.value);
    }
    if !leaf.outputs.is_empty() {
        text.push_str("\n\nOutputs: ");
        let outputs = leaf.outputs.iter().flat_map(|operand| {
            operand.meanings.iter().map(|meaning| {
                format!(
                    "{} = {}",
                    operand.register.to_uppercase(),
                    meaning_text(meaning)
                )
            })
        });
        text.push_str(&outputs.collect::<Vec<_>>().join("; "));
        text.push('.');
    }
    if !leaf.locks.is_empty() {
        let locks = leaf.locks.iter().map(|lock| {
            let mode = match lock.mode {
                LockMode::Shared => "shared",
                LockMode::Exclusive => "exclusive",
            };
            let priority = if lock.host_priority {
                ", host priority"
            } else {
                ""
            };
            let when = lock.when.as_ref().map(|when| format!(", {when}"));
            let when = when.unwrap_or_default();
            format!("{} ({mode}{priority}{when})", lock.resource)
        });
        let _ = write!(text, "\n\nLocks: {}.", locks.collect::<Vec<_>>().join(", "));
    }
    states(&mut text, spec, "OP_STATEs", &leaf.op_states);
    states(&mut text, spec, "Entry states", &leaf.sept_states);
    if !leaf.statuses.is_empty() {
        let _ = write!(text, "\n\nStatuses: {}.", spec.statuses_of(leaf));
    }
    let cites = leaf.cite.iter().map(|cite| match &cite.at {
        Some(at) => format!("{}, {at}", cite.id.value),
        None => cite.id.value.clone(),
    });
    let _ = write!(
        text,
        "\n\nSource: {}.",
        cites.collect::<Vec<_>>().join("; ")
    );
    text
}

fn meaning_text(meaning: &Meaning) -> String {
    let names = meaning
        .parts
        .iter()
        .map(|part| format!("`{}`", part.name))
        .collect::<Vec<_>>()
        .join(", ");
    match meaning.on.len() {
        0 => names,
        1..=3 => {
            let on = meaning
                .on
                .iter()
                .map(|on| on.value.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            format!("{names} with {on}")
        }
        n => format!("{names} with {n} statuses"),
    }
}

fn states(text: &mut String, spec: &Spec, what: &str, allowed: &[Allowed]) {
    for row in allowed {
        let modules = spec.module_names(row.modules).join(", ");
        let states = row
            .states
            .iter()
            .map(|state| state.value.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        let _ = write!(text, "\n\n{what} ({modules}): {states}.");
    }
}
