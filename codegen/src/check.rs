//! Contradictions in a specification whose files are well-formed.
//!
//! What passes here can be emitted: every name that becomes an identifier is one, and everything named exists.

mod area;
mod cpuid;
mod format;
mod leaf;
mod names;
mod table;

use crate::diagnostic::Code;
use crate::diagnostic::Diagnostic;
use crate::diagnostic::Place;
use crate::load::closest;
use crate::model::Cite;
use crate::model::Spec;
use crate::parallel::both;

/// Everything that contradicts something else.
pub fn check(spec: &Spec) -> Vec<Diagnostic> {
    let (mut out, rest) = both(
        || {
            let mut out = Vec::new();
            cites(spec, &mut out);
            names::check(spec, &mut out);
            table::check(spec, &mut out);
            out
        },
        || {
            let mut out = Vec::new();
            cpuid::check(spec, &mut out);
            format::check(spec, &mut out);
            leaf::check(spec, &mut out);
            area::check(spec, &mut out);
            out
        },
    );
    out.extend(rest);
    out
}

fn cites(spec: &Spec, out: &mut Vec<Diagnostic>) {
    let known: Vec<&str> = spec
        .sources
        .iter()
        .map(|source| source.id.as_str())
        .collect();
    let mut check = |cites: &[Cite]| {
        for cite in cites {
            if !known.contains(&cite.id.value.as_str()) {
                out.push(unknown(
                    Code::UnknownName,
                    cite.id.place,
                    "source",
                    &cite.id.value,
                    &known,
                ));
            }
        }
    };
    for entity in &spec.features {
        check(&entity.cite);
    }
    for entity in &spec.modules {
        check(&entity.cite);
    }
    for table in &spec.statuses {
        check(&table.cite);
        for row in &table.rows {
            check(&row.cite);
        }
    }
    for entity in &spec.fields {
        check(&entity.cite);
    }
    for entity in &spec.cpuid {
        check(&entity.cite);
    }
    for entity in &spec.enums {
        check(&entity.cite);
    }
    for entity in &spec.formats {
        check(&entity.cite);
    }
    for entity in &spec.structures {
        check(&entity.cite);
    }
    for entity in &spec.leaves {
        check(&entity.cite);
    }
    check(&spec.op_states.cite);
    check(&spec.sept_states.cite);
}

/// A name that nothing defines, with the closest one that something does.
fn unknown(code: Code, place: Place, what: &str, name: &str, known: &[&str]) -> Diagnostic {
    let diagnostic = Diagnostic::new(code, place, format!("no {what} is called `{name}`"));
    diagnostic.help(match closest(name, known.iter().copied()) {
        Some(best) => format!("did you mean `{best}`?"),
        None => format!(
            "{} of them are defined; add it, or correct the name",
            known.len()
        ),
    })
}
