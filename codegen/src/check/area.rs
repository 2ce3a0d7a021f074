//! Areas: what they name exists, and no module of Rust is in two of them.

use alloc::collections::BTreeSet;

use super::unknown;
use crate::area;
use crate::diagnostic::Code;
use crate::diagnostic::Diagnostic;
use crate::model::Spec;

pub(super) fn check(spec: &Spec, out: &mut Vec<Diagnostic>) {
    let formats = spec.formats.iter().map(|format| format.name.as_str());
    let enums = spec.enums.iter().map(|entity| entity.name.as_str());
    let structures = spec.structures.iter().map(|entity| entity.name.as_str());
    let tables = spec.fields.iter().map(|table| table.name.as_str());
    let types = formats.chain(enums).chain(structures).chain(tables);
    let types: Vec<&str> = types.collect();
    let groups: BTreeSet<&str> = spec
        .leaves
        .iter()
        .filter_map(|leaf| {
            let mut dots = leaf.name.match_indices('.').map(|(at, _)| at);
            dots.nth(1).and_then(|end| leaf.name.get(..end))
        })
        .collect();
    let groups: Vec<&str> = groups.into_iter().collect();
    for (index, area) in spec.areas.iter().enumerate() {
        if area.name == area::CORE || spec.areas[..index].iter().any(|a| a.name == area.name) {
            let message = format!("the area `{}` is there already", area.name);
            out.push(
                Diagnostic::new(Code::Conflict, area.place, message)
                    .help("give it another name; `core` is what no area has"),
            );
        }
        for group in &area.groups {
            if group.value.split('.').count() > 2 {
                let message = format!("`{}` is less than a group", group.value);
                out.push(
                    Diagnostic::new(Code::OutOfRange, group.place, message)
                        .help("an area has whole groups, such as `TDH.IOMMU`, or a side"),
                );
            } else if !spec
                .leaves
                .iter()
                .any(|leaf| area::is_in(leaf, &group.value))
            {
                let place = group.place;
                out.push(unknown(
                    Code::UnknownName,
                    place,
                    "group",
                    &group.value,
                    &groups,
                ));
            }
            let mut before = spec.areas[..index].iter();
            if let Some(other) = before.find_map(|area| {
                let mut groups = area.groups.iter();
                groups.find(|other| other.value == group.value)
            }) {
                let message = format!("`{}` is in two areas", group.value);
                out.push(
                    Diagnostic::new(Code::Conflict, group.place, message)
                        .related(other.place, "it stands here already")
                        .help("remove one"),
                );
            }
        }
        for ty in &area.types {
            if !types.contains(&ty.value.as_str()) {
                let place = ty.place;
                out.push(unknown(Code::UnknownName, place, "type", &ty.value, &types));
            }
        }
    }
}
