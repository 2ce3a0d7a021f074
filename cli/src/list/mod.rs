//! `tdx list`: tables of the ABI.

use clap::Args;
use clap::ValueEnum;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tdx_codegen::emit::first_sentence;
use tdx_codegen::model::Callee;
use tdx_codegen::model::Leaf;
use tdx_codegen::model::Side;
use tdx_codegen::model::Spec;

use crate::error::Error;
use crate::output::Output;
use crate::reference;
use crate::reference::LeafEntry;

/// Lists leaves, status codes, metadata fields and more.
#[derive(Debug, Args)]
pub struct Options {
    /// What to list.
    #[arg(value_enum)]
    what: What,
    /// Only what this module has, such as 1.5.01.
    #[arg(long, value_name = "VERSION")]
    module: Option<String>,
    /// Only leaves of this side.
    #[arg(long, value_enum)]
    side: Option<SideName>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// SEAMCALL, TDCALL and P-SEAMLDR leaves.
    Leaves,
    /// Status codes.
    Statuses,
    /// Operand ids.
    Operands,
    /// Metadata fields.
    Fields,
    /// Bit formats and structures in memory.
    Formats,
    /// S-EPT entry states and OP_STATEs.
    States,
    /// Released modules.
    Releases,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SideName {
    /// SEAMCALLs of the VMM to the TDX module.
    Host,
    /// TDCALLs of the guest to the TDX module.
    Guest,
    /// SEAMCALLs of the VMM to P-SEAMLDR.
    Seamldr,
    /// Calls of the guest to the VMM.
    Vmcall,
}

impl From<SideName> for Side {
    fn from(name: SideName) -> Self {
        match name {
            SideName::Host => Self::Host,
            SideName::Guest => Self::Guest,
            SideName::Seamldr => Self::Seamldr,
            SideName::Vmcall => Self::Vmcall,
        }
    }
}

/// A table: column headings, columns aligned to the right, rows of cells; and the same as JSON.
struct Listing {
    header: &'static [&'static str],
    right: &'static [usize],
    rows: Vec<(Vec<String>, Value)>,
}

/// Carries out `tdx list`.
pub fn list(options: &Options, output: &mut Output) -> Result<(), Error> {
    let spec = reference::spec()?;
    let module = options
        .module
        .as_deref()
        .map(|version| reference::module(spec, version))
        .transpose()?;
    let listing = match options.what {
        What::Leaves => leaves(spec, module, options.side),
        What::Statuses => statuses(spec, module),
        What::Operands => operands(spec, module),
        What::Fields => fields(spec, module),
        What::Formats => formats(spec, module),
        What::States => states(spec, module),
        What::Releases => releases(spec),
    };
    if options.json {
        let rows: Vec<&Value> = listing.rows.iter().map(|(_, json)| json).collect();
        output.json(&rows)?;
    } else {
        let rows = listing.rows.into_iter().map(|(cells, _)| cells).collect();
        output.table(listing.header, rows, listing.right)?;
    }
    Ok(())
}

fn leaves(spec: &Spec, module: Option<usize>, side: Option<SideName>) -> Listing {
    let wanted = side.map(Side::from);
    let shown = |leaf: &Leaf| wanted.map_or(leaf.side != Side::Vmcall, |side| leaf.side == side);
    let entries = reference::leaves(spec, module)
        .into_iter()
        .filter(|entry| shown(entry.leaf));
    let rows = entries.map(|entry| {
        let json = leaf_json(spec, &entry, module);
        let leaf = entry.leaf;
        let number = if leaf.side == Side::Seamldr {
            format!("{:#x}", leaf.number.value)
        } else {
            leaf.number.value.to_string()
        };
        let versions: Vec<String> = entry.versions.iter().map(u8::to_string).collect();
        let cells = vec![
            number,
            leaf.name.clone(),
            versions.join(","),
            entry.status().to_string(),
            spec.module_names(entry.dispatched).join(" "),
            leaf.feature
                .as_ref()
                .map(|feature| feature.value.clone())
                .unwrap_or_default(),
        ];
        (cells, json)
    });
    Listing {
        header: &["number", "leaf", "versions", "status", "modules", "feature"],
        right: &[0],
        rows: rows.collect(),
    }
}

/// A leaf for machines; states are those of `module`, else of the newest module that has it.
pub(crate) fn leaf_json(spec: &Spec, entry: &LeafEntry<'_>, module: Option<usize>) -> Value {
    let leaf = entry.leaf;
    let module = module.or_else(|| entry.dispatched.iter().last());
    let states = |allowed: &[tdx_codegen::model::Allowed]| -> Option<Vec<String>> {
        let row = allowed
            .iter()
            .find(|row| module.is_some_and(|index| row.modules.contains(index)))?;
        Some(row.states.iter().map(|state| state.value.clone()).collect())
    };
    let shown = entry.variant(entry.versions.last().copied().unwrap_or(0), module);
    let operands = |list: &[tdx_codegen::model::Operand]| -> Map<String, Value> {
        let named = |operand: &tdx_codegen::model::Operand| {
            let names: Vec<&str> = operand
                .meanings
                .iter()
                .flat_map(|meaning| meaning.parts.iter().map(|part| part.name.as_str()))
                .collect();
            (operand.register.to_string(), Value::from(names.join(", ")))
        };
        list.iter().map(named).collect()
    };
    json!({
        "name": leaf.name,
        "side": leaf.side.name(),
        "number": leaf.number.value,
        "versions": entry.versions,
        "status": entry.status(),
        "modules": spec.module_names(entry.dispatched),
        "feature": leaf.feature.as_ref().map(|feature| &feature.value),
        "inputs": operands(&shown.inputs),
        "outputs": operands(&shown.outputs),
        "op_states": states(&leaf.op_states),
        "sept_states": states(&leaf.sept_states),
        "contested": leaf.contested,
    })
}

fn statuses(spec: &Spec, module: Option<usize>) -> Listing {
    let has = |callee, modules: tdx_codegen::model::ModuleSet| {
        module.is_none_or(|index| callee == Callee::Module && modules.contains(index))
    };
    let rows = reference::statuses(spec).filter(|(callee, row)| has(*callee, row.modules)).map(|(callee, row)| {
        let name = reference::status_name(callee, row);
        let value = format!("{:#018x}", row.value);
        let modules = if callee == Callee::Module { spec.module_names(row.modules) } else { Vec::new() };
        let from = callee.name();
        let cells = vec![value.clone(), name.clone(), from.to_string(), modules.join(" ")];
        let json = json!({ "name": name, "value": value, "modules": modules, "from": from, "doc": row.doc });
        (cells, json)
    });
    Listing {
        header: &["value", "status", "from", "modules"],
        right: &[],
        rows: rows.collect(),
    }
}

fn operands(spec: &Spec, module: Option<usize>) -> Listing {
    let rows = spec
        .operands
        .iter()
        .filter(|row| module.is_none_or(|index| row.modules.contains(index)))
        .map(|row| {
            let modules = spec.module_names(row.modules);
            let cells = vec![row.value.to_string(), row.name.clone(), modules.join(" ")];
            (
                cells,
                json!({ "name": row.name, "value": row.value, "modules": modules }),
            )
        });
    Listing {
        header: &["id", "operand", "modules"],
        right: &[0],
        rows: rows.collect(),
    }
}

fn fields(spec: &Spec, module: Option<usize>) -> Listing {
    let rows = spec
        .fields
        .iter()
        .flat_map(|table| table.rows.iter().map(move |row| (table, row)));
    let rows = rows
        .filter(|(_, row)| module.is_none_or(|index| row.modules.contains(index)))
        .map(|(table, row)| {
            let scope = table.name.to_lowercase();
            let id = format!("{:#018x}", row.id);
            let modules = spec.module_names(row.modules);
            let cells = vec![
                id.clone(),
                row.name.clone(),
                scope.clone(),
                row.num_of_fields.to_string(),
                row.num_of_elem.to_string(),
                modules.join(" "),
            ];
            let json = json!({
                "name": row.name,
                "scope": scope,
                "id": id,
                "fields": row.num_of_fields,
                "elements": row.num_of_elem,
                "count_from": row.count_from.as_ref().map(|field| &field.value),
                "modules": modules,
            });
            (cells, json)
        });
    Listing {
        header: &["id", "field", "scope", "fields", "elements", "modules"],
        right: &[3, 4],
        rows: rows.collect(),
    }
}

fn formats(spec: &Spec, module: Option<usize>) -> Listing {
    let formats = spec.formats.iter().map(|format| {
        (
            &format.name,
            format.modules,
            "bits",
            format.width,
            &format.doc,
        )
    });
    let structures = spec
        .structures
        .iter()
        .map(|it| (&it.name, it.modules, "bytes", it.size, &it.doc));
    let all = formats
        .chain(structures)
        .filter(|row| module.is_none_or(|index| row.1.contains(index)));
    let rows = all.map(|(name, modules, unit, size, doc)| {
        let cells = vec![
            name.clone(),
            format!("{size} {unit}"),
            first_sentence(doc).to_string(),
        ];
        let modules = spec.module_names(modules);
        (
            cells,
            json!({ "name": name, "size": size, "unit": unit, "doc": doc, "modules": modules }),
        )
    });
    Listing {
        header: &["name", "size", "what it is"],
        right: &[1],
        rows: rows.collect(),
    }
}

fn states(spec: &Spec, module: Option<usize>) -> Listing {
    let tables = [
        ("op_state", &spec.op_states),
        ("sept", &spec.sept_states),
        ("l2_sept", &spec.l2_sept_states),
    ];
    let mut rows = Vec::new();
    for (kind, table) in tables {
        for row in table
            .rows
            .iter()
            .filter(|row| module.is_none_or(|index| row.modules.contains(index)))
        {
            let flags: Vec<&str> = row
                .flags
                .iter()
                .filter_map(|&flag| Some(&*table.flags.get(flag)?.name))
                .collect();
            let modules = spec.module_names(row.modules);
            let cells = vec![
                kind.to_string(),
                format!("{:#x}", row.value),
                row.name.clone(),
                modules.join(" "),
                flags.join(" "),
            ];
            let json = json!({
                "name": row.name,
                "kind": kind,
                "value": row.value,
                "public_state": row.public,
                "flags": flags,
                "modules": modules,
            });
            rows.push((cells, json));
        }
    }
    Listing {
        header: &["kind", "value", "state", "modules", "flags"],
        right: &[1],
        rows,
    }
}

fn releases(spec: &Spec) -> Listing {
    let rows = spec.releases.iter().map(|release| {
        let features: Vec<&str> = spec
            .features
            .iter()
            .filter(|feature| release.features0 >> feature.bit & 1 == 1)
            .map(|feature| feature.name.as_str())
            .collect();
        let features0 = format!("{:#x}", release.features0);
        let cells = vec![
            release.version.clone(),
            features0.clone(),
            release.min_update_from.clone().unwrap_or_default(),
            features.join(" "),
        ];
        let json = json!({
            "version": release.version,
            "tdx_features0": features0,
            "features": features,
            "min_update_from": release.min_update_from,
            "min_seamldr": release.min_seamldr,
        });
        (cells, json)
    });
    Listing {
        header: &[
            "version",
            "TDX_FEATURES0",
            "update from",
            "features with a known name",
        ],
        right: &[1],
        rows: rows.collect(),
    }
}
