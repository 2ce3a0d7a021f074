//! Leaf numbers, with registers in comments.

use super::Header;
use crate::emit::constant_name as constant;
use crate::model::Leaf;
use crate::model::Operand;
use crate::model::Side;
use crate::model::Spec;

pub(super) fn leaves(spec: &Spec, header: &mut Header) {
    header.section("RAX of a call of this version of a leaf.");
    header.define(
        "TDX_LEAF(number, version)",
        "((number) | ((version) << 16))",
        None,
    );
    header.section("RAX bit that sends a SEAMCALL to P-SEAMLDR.");
    header.define_u64("TDX_SEAMLDR_CALL", 1 << 63, None);
    for (side, what) in [
        (Side::Host, "SEAMCALL leaves of the TDX module."),
        (Side::Guest, "TDCALL leaves of the TDX module."),
        (Side::Seamldr, "SEAMCALL leaves of P-SEAMLDR, with bit 63."),
        (
            Side::Vmcall,
            "TDG.VP.VMCALL sub-functions: R11, with R10 equal to 0.",
        ),
    ] {
        header.line("");
        header.section(what);
        let mut leaves: Vec<&Leaf> = spec
            .leaves
            .iter()
            .filter(|leaf| leaf.side == side)
            .collect();
        leaves.sort_by_key(|leaf| (leaf.number.value, leaf.name.clone(), leaf.variant.clone()));
        let mut versions: Vec<String> = Vec::new();
        for leaf in leaves {
            header.section(&about(spec, leaf));
            let name = constant(&leaf.name);
            if leaf.variant.is_none() {
                match side {
                    Side::Host | Side::Guest => {
                        header.define(&name, &leaf.number.value.to_string(), None);
                    }
                    Side::Seamldr => header.define_u64(&name, leaf.rax(0), None),
                    Side::Vmcall => header.define_u64(&name, leaf.number.value, None),
                }
            }
            for version in leaf.versions.iter().filter(|version| **version > 0) {
                let versioned = format!("{name}_V{version}");
                if !versions.contains(&versioned) {
                    header.define(&versioned, &format!("TDX_LEAF({name}, {version})"), None);
                    versions.push(versioned);
                }
            }
        }
    }
}

fn about(spec: &Spec, leaf: &Leaf) -> String {
    let mut text = leaf.name.clone();
    if leaf.versions != [0] {
        let versions: Vec<String> = leaf.versions.iter().map(u8::to_string).collect();
        text.push_str(&format!(", version {}", versions.join(", ")));
    }
    let names = spec.module_names(leaf.modules);
    if names.len() < spec.modules.len() {
        text.push_str(&format!(" ({})", names.join(", ")));
    }
    if let Some(feature) = &leaf.feature {
        text.push_str(&format!(", needs {}", feature.value));
    }
    text.push_str(&format!(": {}", leaf.doc));
    operands(&mut text, "in: ", &leaf.inputs);
    operands(&mut text, "out:", &leaf.outputs);
    text
}

fn operands(text: &mut String, word: &str, operands: &[Operand]) {
    let registers = operands.iter().map(|operand| {
        let meanings = operand.meanings.iter().map(|meaning| {
            let parts = meaning.parts.iter().map(|part| match part.bits {
                Some(bits) => format!("{} [{bits}]", part.name),
                None => part.name.clone(),
            });
            parts.collect::<Vec<_>>().join(" and ")
        });
        let meanings = meanings.collect::<Vec<_>>().join(" or ");
        format!("{} = {meanings}", operand.register.to_uppercase())
    });
    let registers: Vec<String> = registers.collect();
    if !registers.is_empty() {
        text.push_str(&format!("\n{word} {}", registers.join(", ")));
    }
}
