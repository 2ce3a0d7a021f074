//! Leaves: what they name exists, and their operands make sense together.

use alloc::collections::BTreeMap;

use super::unknown;
use crate::diagnostic::Code;
use crate::diagnostic::Diagnostic;
use crate::diagnostic::Place;
use crate::model::Allowed;
use crate::model::At;
use crate::model::Callee;
use crate::model::Evidence;
use crate::model::FlagTable;
use crate::model::Kind;
use crate::model::Leaf;
use crate::model::Meaning;
use crate::model::Operand;
use crate::model::Part;
use crate::model::Side;
use crate::model::Spec;
use crate::model::Yields;

/// What the module may make of a page.
const BECOMES: [&str; 8] = [
    "tdr", "tdcx", "tdvpr", "tdvpx", "sept", "reg", "migsc", "pamt",
];

pub(super) fn check(spec: &Spec, out: &mut Vec<Diagnostic>) {
    let known = Known::of(spec);
    for leaf in &spec.leaves {
        known.leaf(spec, leaf, out);
    }
}

/// Names that there are, sorted.
struct Known<'s> {
    module: Vec<&'s str>,
    seamldr: Vec<&'s str>,
    words: Vec<&'s str>,
    structures: Vec<&'s str>,
    features: Vec<&'s str>,
}

impl<'s> Known<'s> {
    fn of(spec: &'s Spec) -> Self {
        let statuses = |callee| {
            let mut names = Vec::new();
            for table in spec.statuses.iter().filter(|table| table.callee == callee) {
                for row in &table.rows {
                    names.push(row.name.as_str());
                }
            }
            names
        };
        let enums = spec.enums.iter().map(|entity| entity.name.as_str());
        let mut known = Self {
            module: statuses(Callee::Module),
            seamldr: statuses(Callee::Seamldr),
            words: enums
                .chain(spec.formats.iter().map(|format| format.name.as_str()))
                .collect(),
            structures: spec
                .structures
                .iter()
                .map(|structure| structure.name.as_str())
                .collect(),
            features: spec
                .features
                .iter()
                .map(|feature| feature.name.as_str())
                .collect(),
        };
        for names in [
            &mut known.module,
            &mut known.seamldr,
            &mut known.words,
            &mut known.structures,
            &mut known.features,
        ] {
            names.sort_unstable();
        }
        known
    }

    fn leaf(&self, spec: &Spec, leaf: &Leaf, out: &mut Vec<Diagnostic>) {
        if leaf.versions.is_empty() {
            out.push(
                Diagnostic::new(
                    Code::MissingKey,
                    leaf.place,
                    format!("`{}` has no versions", leaf.name),
                )
                .help("leave `versions` out for version 0"),
            );
        }
        if let Some(feature) = &leaf.feature
            && !has(&self.features, &feature.value)
        {
            out.push(unknown(
                Code::UnknownName,
                feature.place,
                "feature",
                &feature.value,
                &self.features,
            ));
        }
        let statuses = match leaf.side {
            Side::Seamldr => &self.seamldr,
            Side::Vmcall => return,
            Side::Host | Side::Guest => &self.module,
        };
        self::statuses(&leaf.statuses, statuses, out);
        for operand in &leaf.outputs {
            for meaning in &operand.meanings {
                self::statuses(&meaning.on, statuses, out);
            }
        }
        states(spec, &leaf.op_states, &spec.op_states, "OP_STATE", out);
        states(
            spec,
            &leaf.sept_states,
            &spec.sept_states,
            "state of an entry",
            out,
        );
        let inputs = parts(&leaf.inputs);
        let outputs = parts(&leaf.outputs);
        for parts in [&inputs, &outputs] {
            for part in parts {
                self.part(part, out);
            }
        }
        for operands in [&leaf.inputs, &leaf.outputs] {
            for operand in operands {
                for meaning in &operand.meanings {
                    overlap(meaning, out);
                }
            }
        }
        repeated(&inputs, out);
        relations(leaf, &inputs, &outputs, out);
        for resume in &leaf.resume {
            if !leaf
                .inputs
                .iter()
                .any(|operand| operand.register == resume.register)
            {
                let message = format!("`resume` names {}, which is no input", resume.register);
                out.push(
                    Diagnostic::new(Code::UnknownRegister, leaf.place, message)
                        .help("a resumed call changes inputs only"),
                );
            }
        }
        if let Some(operand) = leaf.inputs.iter().find(|operand| operand.register == "rax") {
            out.push(
                Diagnostic::new(
                    Code::UnknownRegister,
                    operand.place,
                    "RAX holds leaf and version, no input",
                )
                .help("use another register"),
            );
        }
    }

    fn part(&self, part: &Part, out: &mut Vec<Diagnostic>) {
        let fine = part.name.starts_with(|c: char| c.is_ascii_lowercase())
            && part
                .name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !fine || ["self", "super", "crate"].contains(&part.name.as_str()) {
            out.push(
                Diagnostic::new(
                    Code::BadName,
                    part.place,
                    format!("`{}` cannot be an operand's name", part.name),
                )
                .help("use small letters, digits and `_`"),
            );
        }
        match &part.kind {
            Kind::Format(name) if !has(&self.words, name) => {
                out.push(unknown(
                    Code::UnknownName,
                    part.place,
                    "format or enum",
                    name,
                    &self.words,
                ));
            }
            Kind::Structure { of: Some(name), .. } if !has(&self.structures, name) => {
                out.push(unknown(
                    Code::UnknownName,
                    part.place,
                    "structure",
                    name,
                    &self.structures,
                ));
            }
            Kind::Page {
                becomes: Some(name),
                ..
            } if !BECOMES.contains(&name.as_str()) => {
                out.push(unknown(
                    Code::UnknownName,
                    part.place,
                    "kind of page",
                    name,
                    &BECOMES,
                ));
            }
            Kind::Page {
                level: Some(level), ..
            } if *level > 2 => {
                out.push(
                    Diagnostic::new(
                        Code::WrongLevel,
                        part.place,
                        format!("no page has level {level}"),
                    )
                    .help("pages have level 0 (4 KiB), 1 (2 MiB) or 2 (1 GiB)"),
                );
            }
            Kind::Mapping { levels, .. } => mapping_levels(part.place, levels, out),
            _ => {}
        }
    }
}

fn has(sorted: &[&str], name: &str) -> bool {
    sorted.binary_search(&name).is_ok()
}

/// Sets of levels for which `tdx_abi::level::Within` is implemented.
const LEVEL_SETS: [u8; 12] = [
    1, 2, 4, 8, 16, 0b11, 0b110, 0b111, 0b1110, 0b1111, 0b1_1110, 0b1_1111,
];

fn mapping_levels(place: Place, levels: &[u8], out: &mut Vec<Diagnostic>) {
    let mask = levels
        .iter()
        .fold(0u8, |mask, level| mask | 1 << level.min(&7));
    // Levels that do not exist were reported and left out when the file was read.
    if mask != 0 && !LEVEL_SETS.contains(&mask) {
        let message = format!("{levels:?} is no usual set of levels");
        out.push(Diagnostic::new(Code::WrongLevel, place, message).help(
            "usual are a single level, [0, 1], [1, 2], [0, 1, 2], and the tables [1, 2, 3, 4]",
        ));
    }
}

fn parts(operands: &[Operand]) -> Vec<&Part> {
    let mut all = Vec::new();
    for operand in operands {
        for meaning in &operand.meanings {
            all.extend(&meaning.parts);
        }
    }
    all
}

fn statuses(named: &[At<String>], known: &[&str], out: &mut Vec<Diagnostic>) {
    for status in named {
        if !has(known, &status.value) {
            out.push(unknown(
                Code::UnknownStatus,
                status.place,
                "status",
                &status.value,
                known,
            ));
        }
    }
}

fn states(
    spec: &Spec,
    allowed: &[Allowed],
    table: &FlagTable,
    what: &str,
    out: &mut Vec<Diagnostic>,
) {
    let known: Vec<&str> = table.rows.iter().map(|row| row.name.as_str()).collect();
    for row in allowed {
        for state in &row.states {
            let rows = table.rows.iter().filter(|known| known.name == state.value);
            let has = rows.fold(0, |set, known| set | known.modules.0);
            if !known.contains(&state.value.as_str()) {
                out.push(unknown(
                    Code::UnknownName,
                    state.place,
                    what,
                    &state.value,
                    &known,
                ));
            } else if let Some(module) = row.modules.iter().find(|module| has >> module & 1 == 0)
                && let Some(module) = spec.modules.get(module)
            {
                let message = format!("module {} has no {what} `{}`", module.name, state.value);
                out.push(
                    Diagnostic::new(Code::UnknownName, state.place, message)
                        .help("remove the state, or the module from `modules`"),
                );
            }
        }
    }
}

fn overlap(meaning: &Meaning, out: &mut Vec<Diagnostic>) {
    for (index, part) in meaning.parts.iter().enumerate() {
        let mask = part.bits.map_or(u64::MAX, |bits| bits.mask());
        let clash = meaning.parts[..index]
            .iter()
            .find(|other| other.bits.map_or(u64::MAX, |bits| bits.mask()) & mask != 0);
        if let Some(other) = clash {
            let message = format!(
                "`{}` and `{}` share bits of one register",
                other.name, part.name
            );
            out.push(
                Diagnostic::new(Code::Overlap, part.place, message)
                    .related(other.place, "the first one is here")
                    .help("give each part its own `bits`"),
            );
        }
    }
}

fn repeated(parts: &[&Part], out: &mut Vec<Diagnostic>) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, part) in parts.iter().enumerate() {
        if let Some(before) = seen.insert(&part.name, index) {
            out.push(
                Diagnostic::new(
                    Code::Conflict,
                    part.place,
                    format!("two inputs are called `{}`", part.name),
                )
                .related(parts[before].place, "the first one is here")
                .help("rename one of them"),
            );
        }
    }
}

/// Operands that hang on each other.
fn relations(leaf: &Leaf, inputs: &[&Part], outputs: &[&Part], out: &mut Vec<Diagnostic>) {
    let tdr = inputs.iter().any(|part| part.kind == Kind::Tdr);
    let mapping = inputs
        .iter()
        .any(|part| matches!(part.kind, Kind::Mapping { .. }));
    for part in inputs {
        if matches!(
            part.kind,
            Kind::Mapping {
                evidence: Some(Evidence::Tracked),
                ..
            }
        ) && !tdr
        {
            out.push(
                Diagnostic::new(
                    Code::MissingKey,
                    part.place,
                    "`evidence` without a TDR operand",
                )
                .help("the evidence names the TD too: add the operand of type `tdr`"),
            );
        }
    }
    for part in [inputs, outputs].into_iter().flatten() {
        if matches!(part.kind, Kind::Page { level: None, .. }) && !mapping {
            out.push(
                Diagnostic::new(
                    Code::WrongLevel,
                    part.place,
                    "`level: entry` without a `mapping` operand",
                )
                .help("give the page's level as a number"),
            );
        }
    }
    if leaf.yields == Some(Yields::Blocked) && !(tdr && mapping) {
        out.push(
            Diagnostic::new(
                Code::MissingKey,
                leaf.place,
                "`yields: blocked` without a `mapping` and a `tdr` operand",
            )
            .help("add the operands"),
        );
    }
}
