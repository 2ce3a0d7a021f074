//! Which area of the ABI something belongs to: what of `tdx-abi` is compiled is chosen by area.
//!
//! `areas.yaml` says which groups of leaves are an area. That of a format, enum, structure or status follows from who uses it,
//! that of a metadata field from who has access to it.

use alloc::collections::BTreeMap;
use alloc::collections::BTreeSet;

use crate::model::Area;
use crate::model::BitItem;
use crate::model::Callee;
use crate::model::FieldRow;
use crate::model::FieldTable;
use crate::model::Kind;
use crate::model::Leaf;
use crate::model::Side;
use crate::model::Spec;
use crate::model::StructureItem;

/// The area of what belongs to no other: it is always compiled.
pub const CORE: &str = "core";
/// The area of the tables of metadata fields, MSRs and CPUID, which the emitters know to belong there.
pub const TABLES: &str = "tables";

/// The area of `leaf`: the one with the longest group that it is in.
pub fn of_leaf<'s>(spec: &'s Spec, leaf: &Leaf) -> &'s str {
    let groups = spec
        .areas
        .iter()
        .flat_map(|area| area.groups.iter().map(move |group| (group, area)));
    let own = groups.filter(|(group, _)| is_in(leaf, &group.value));
    own.max_by_key(|(group, _)| group.value.len())
        .map_or(CORE, |(_, area)| &area.name)
}

/// Whether the name of `leaf` begins with `group`.
pub fn is_in(leaf: &Leaf, group: &str) -> bool {
    let rest = leaf.name.strip_prefix(group);
    rest.is_some_and(|rest| rest.starts_with('.'))
}

/// The area of the field `name` of `table`: the one that has the whole table, or the only one that has access.
///
/// It is [`CORE`] if hosts in production have access, or several areas; [`TABLES`] if none has.
pub fn of_field<'s>(spec: &'s Spec, table: &FieldTable, name: &str) -> &'s str {
    let has = |area: &&Area| area.types.iter().any(|ty| ty.value == table.name);
    if let Some(whole) = spec.areas.iter().find(has) {
        return &whole.name;
    }
    // Modules may differ in a field.
    let mut access = [false; FieldRow::MASKS.len()];
    for row in &table.rows {
        if row.name == name {
            for (any, mask) in access.iter_mut().zip(row.masks) {
                *any |= mask != 0;
            }
        }
    }
    let any = |masks: &[usize]| masks.iter().any(|mask| access[*mask]);
    if any(&FieldRow::PRODUCTION) {
        return CORE;
    }
    let mut areas = spec.areas.iter().filter(|area| any(&area.access));
    match (areas.next(), areas.next()) {
        (None, _) => TABLES,
        (Some(only), None) => &only.name,
        (Some(_), Some(_)) => CORE,
    }
}

const fn callee_of(leaf: &Leaf) -> Option<Callee> {
    match leaf.side {
        Side::Host | Side::Guest => Some(Callee::Module),
        Side::Seamldr => Some(Callee::Seamldr),
        Side::Vmcall => None,
    }
}

/// The areas that use each of what has a name: all types, or all statuses.
#[derive(Debug)]
pub struct Areas<'s>(BTreeMap<&'s str, BTreeSet<&'s str>>);

impl<'s> Areas<'s> {
    /// Those of the statuses of `callee` that leaves return.
    pub fn of_statuses(spec: &'s Spec, callee: Callee) -> Self {
        let mut areas: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for leaf in &spec.leaves {
            if callee_of(leaf) != Some(callee) {
                continue;
            }
            let area = of_leaf(spec, leaf);
            // What an output holds with a status is written in terms of its constant.
            let outputs = leaf.outputs.iter().flat_map(|operand| &operand.meanings);
            let statuses = outputs.flat_map(|meaning| &meaning.on);
            for status in leaf.statuses.iter().chain(statuses) {
                areas.entry(&status.value).or_default().insert(area);
            }
        }
        Self(areas)
    }

    /// Those of all types: follows every use of a type, from leaves and what `areas.yaml` names through the fields of types.
    ///
    /// A variant goes where the type goes that it is a variant of. What nothing uses is core.
    pub fn of_types(spec: &'s Spec) -> Self {
        let uses = uses(spec);
        let mut seeds: Vec<(&str, &str)> = Vec::new();
        for leaf in &spec.leaves {
            let area = of_leaf(spec, leaf);
            seeds.extend(types_of(leaf).map(|ty| (ty, area)));
        }
        for area in &spec.areas {
            seeds.extend(area.types.iter().map(|ty| (&*ty.value, &*area.name)));
        }
        let used: BTreeSet<&str> = uses
            .values()
            .flatten()
            .copied()
            .chain(seeds.iter().map(|(ty, _)| *ty))
            .collect();
        let unused = uses.keys().filter(|ty| !used.contains(*ty));
        seeds.extend(unused.map(|ty| (*ty, CORE)));
        let mut areas: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        while let Some((ty, area)) = seeds.pop() {
            if areas.entry(ty).or_default().insert(area) {
                let next = uses.get(ty).into_iter().flatten();
                seeds.extend(next.map(|used| (*used, area)));
            }
        }
        Self(areas)
    }

    /// The area of what is called `name`: the only one that uses it, or [`CORE`].
    pub fn of(&self, name: &str) -> &'s str {
        match self.0.get(name) {
            Some(areas) if areas.len() == 1 => areas.first().copied().unwrap_or(CORE),
            _ => CORE,
        }
    }
}

/// Names of the types in the operands of `leaf`.
fn types_of(leaf: &Leaf) -> impl Iterator<Item = &str> {
    let operands = leaf.inputs.iter().chain(&leaf.outputs);
    let parts = operands
        .flat_map(|operand| &operand.meanings)
        .flat_map(|meaning| &meaning.parts);
    parts.filter_map(|part| match &part.kind {
        Kind::Format(name) => Some(name.as_str()),
        Kind::Structure { of, .. } => of.as_deref(),
        _ => None,
    })
}

/// Each type with the types of its fields, and its variants.
fn uses(spec: &Spec) -> BTreeMap<&str, Vec<&str>> {
    let mut uses: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut variants: Vec<(&str, &str)> = Vec::new();
    for entity in &spec.enums {
        uses.entry(&entity.name).or_default();
    }
    for format in &spec.formats {
        let fields = format.items.iter().filter_map(|item| match item {
            BitItem::Field(field) => Some(field),
            _ => None,
        });
        let types = fields.chain(&format.views).filter_map(|f| f.ty.as_ref());
        let types = types.map(|ty| ty.value.as_str());
        uses.entry(&format.name).or_default().extend(types);
        let base = format.variant_of.as_ref();
        variants.extend(base.map(|base| (base.value.as_str(), format.name.as_str())));
    }
    for structure in &spec.structures {
        let types = structure.items.iter().filter_map(|item| match item {
            StructureItem::Field(field) => Some(field.ty.value.as_str()),
            StructureItem::Reserved { .. } => None,
        });
        uses.entry(&structure.name).or_default().extend(types);
        let base = structure.variant_of.as_ref();
        variants.extend(base.map(|base| (base.value.as_str(), structure.name.as_str())));
    }
    for (base, variant) in variants {
        uses.entry(base).or_default().push(variant);
    }
    uses
}
