//! Facts of tables: modules, features, releases, statuses, ids, states, fields, MSRs.

use tdx_codegen::model::Callee;
use tdx_codegen::model::CpuidValues;
use tdx_codegen::model::FieldRow;
use tdx_codegen::model::FlagTable;
use tdx_codegen::model::Low;
use tdx_codegen::model::Spec;

use super::Facts;
use super::Kind;
use super::Scope;
use super::scope;
use super::unbound;

pub(super) fn add(spec: &Spec, facts: &mut Facts) {
    modules(spec, facts);
    cpuid(spec, facts);
    statuses(spec, facts);
    for row in &spec.operands {
        let scope = scope(spec, row.modules);
        let value = format!("{:#x}", row.value);
        facts.add(Kind::Operand, &row.name, "value", value, &scope);
    }
    states(spec, Kind::OpState, &spec.op_states, facts);
    states(spec, Kind::SeptState, &spec.sept_states, facts);
    states(spec, Kind::L2SeptState, &spec.l2_sept_states, facts);
    fields(spec, facts);
    for row in &spec.msrs {
        let scope = scope(spec, row.modules);
        let range = format!("{:#x} {:#x}", row.start, row.end);
        // Several reserved ranges share a name.
        let entity = format!("{:#x} {}", row.start, row.name);
        facts.add(Kind::Msr, &entity, "range", range, &scope);
        facts.add(Kind::Msr, &entity, "read", row.read.clone(), &scope);
        facts.add(Kind::Msr, &entity, "write", row.write.clone(), &scope);
    }
}

/// CPUID leaves: position, what is demanded, what is fixed, what is configured, what depends on XFAM.
fn cpuid(spec: &Spec, facts: &mut Facts) {
    for table in &spec.cpuid {
        let scope = scope(spec, table.modules);
        let name = |leaf: u32, subleaf: Option<u32>| {
            subleaf.map_or_else(
                || format!("{leaf:#x}"),
                |subleaf| format!("{leaf:#x}.{subleaf:#x}"),
            )
        };
        let words = |values: &CpuidValues| {
            let words: Vec<String> = values.iter().map(|value| format!("{value:#x}")).collect();
            words.join(" ")
        };
        let mut add = |entity: &str, aspect: &str, values: &CpuidValues| {
            if *values != [0; 4] {
                facts.add(Kind::Cpuid, entity, aspect, words(values), &scope);
            }
        };
        for row in &table.lookup {
            let entity = name(row.leaf, row.subleaf);
            add(&entity, "verify_mask", &row.verify_mask);
            add(&entity, "verify_value", &row.verify_value);
            add(&entity, "verify_same", &row.verify_same);
            add(&entity, "fixed0_or_dynamic", &row.fixed0_or_dynamic);
            add(&entity, "fixed1", &row.fixed1);
        }
        for row in &table.configurable {
            let entity = name(row.leaf, row.subleaf);
            add(&entity, "direct", &row.direct);
            add(&entity, "allow", &row.allow);
        }
        for row in &table.xfam_masks {
            let entity = name(row.leaf, row.subleaf);
            add(
                &entity,
                &format!("without XFAM bit {}", row.xfam_bit),
                &row.mask,
            );
        }
        for (index, row) in table.lookup.iter().enumerate() {
            let entity = name(row.leaf, row.subleaf);
            let place = row.config.map_or_else(
                || index.to_string(),
                |config| format!("{index} configurable {config}"),
            );
            facts.add(Kind::Cpuid, &entity, "index", place, &scope);
            if row.faulting {
                facts.add(Kind::Cpuid, &entity, "faulting", "yes".to_owned(), &scope);
            }
        }
    }
}

fn modules(spec: &Spec, facts: &mut Facts) {
    for module in &spec.modules {
        let scope = Scope::from([Some(module.name.clone())]);
        for (field, value) in &module.values {
            let entity = format!("GLOBAL.{}", field.value);
            facts.add(Kind::Field, &entity, "fixed", format!("{value:#x}"), &scope);
        }
        for (name, value) in &module.limits {
            let aspect = format!("limit {}", name.value);
            facts.add(
                Kind::Module,
                &module.name,
                &aspect,
                value.to_string(),
                &unbound(),
            );
        }
        let features = module
            .features0
            .map_or_else(|| "unknown".to_owned(), |bits| format!("{bits:#x}"));
        facts.add(
            Kind::Module,
            &module.name,
            "features0",
            features,
            &unbound(),
        );
    }
    for feature in &spec.features {
        let contested = if feature.contested { " contested" } else { "" };
        let value = format!("{}{contested}", feature.bit);
        facts.add(Kind::Feature, &feature.name, "bit", value, &unbound());
    }
    for release in &spec.releases {
        let features = format!("{:#x}", release.features0);
        facts.add(
            Kind::Release,
            &release.version,
            "features0",
            features,
            &unbound(),
        );
    }
}

fn statuses(spec: &Spec, facts: &mut Facts) {
    for table in &spec.statuses {
        for row in &table.rows {
            let (prefix, scope) = match table.callee {
                Callee::Module => ("", scope(spec, row.modules)),
                Callee::Seamldr => ("SEAMLDR ", unbound()),
                Callee::Linux => ("Linux ", unbound()),
            };
            let mut entity = format!("{prefix}{}", row.name);
            // Two sources, two values: two entities.
            if row.contested {
                let by = row.cite.iter().map(|cite| cite.id.value.as_str());
                entity = format!("{entity} ({})", by.collect::<Vec<_>>().join(", "));
            }
            let value = format!("{:#018x}", row.value);
            facts.add(Kind::Status, &entity, "value", value, &scope);
            if let Some(retry) = &row.retry {
                let retry = retry.name().to_owned();
                facts.add(Kind::Status, &entity, "retry", retry, &scope);
            }
            if row.low != Low::None {
                let low = row.low.name().to_owned();
                facts.add(Kind::Status, &entity, "low", low, &scope);
            }
        }
    }
}

fn states(spec: &Spec, kind: Kind, table: &FlagTable, facts: &mut Facts) {
    for row in &table.rows {
        let scope = scope(spec, row.modules);
        let mut number = |aspect, value: Option<u64>| {
            if let Some(value) = value {
                facts.add(kind, &row.name, aspect, format!("{value:#x}"), &scope);
            }
        };
        number("value", Some(row.value));
        number("also", row.also);
        number("public", row.public);
        for flag in row.flags.iter().filter_map(|flag| table.flags.get(*flag)) {
            let aspect = format!("flag {}", flag.name);
            facts.add(kind, &row.name, &aspect, "set".to_owned(), &scope);
        }
    }
}

fn fields(spec: &Spec, facts: &mut Facts) {
    for table in &spec.fields {
        for row in &table.rows {
            let entity = format!("{}.{}", table.name, row.name);
            let scope = scope(spec, row.modules);
            let mut add =
                |aspect, value: String| facts.add(Kind::Field, &entity, aspect, value, &scope);
            add("id", format!("{:#018x}", row.id));
            add(
                "count",
                format!("{} x {}", row.num_of_fields, row.num_of_elem),
            );
            if let Some(from) = &row.count_from {
                add("count_from", from.value.clone());
            }
            let masks = FieldRow::MASKS.iter().zip(row.masks);
            let masks: Vec<String> = masks
                .filter(|(_, mask)| *mask != 0)
                .map(|(name, mask)| format!("{name}={mask:#x}"))
                .collect();
            if !masks.is_empty() {
                add("access", masks.join(" "));
            }
            if (row.mig_export.as_str(), row.mig_import.as_str()) != ("NONE", "NONE") {
                add(
                    "migration",
                    format!("{} / {}", row.mig_export, row.mig_import),
                );
            }
            let attributes = FieldRow::ATTRIBUTES.iter().enumerate();
            let special = [
                ("special_rd", row.special_rd),
                ("special_wr", row.special_wr),
            ];
            let words: Vec<&str> = attributes
                .filter(|(bit, _)| row.attributes & (1 << bit) != 0)
                .map(|(_, name)| *name)
                .chain(
                    special
                        .iter()
                        .filter(|(_, set)| *set)
                        .map(|(name, _)| *name),
                )
                .collect();
            if !words.is_empty() {
                add("attributes", words.join(" "));
            }
        }
    }
}
