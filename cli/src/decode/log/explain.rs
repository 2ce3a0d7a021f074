//! What to say about a finding.

use serde_json::Value;
use serde_json::json;
use tdx_codegen::model::Callee;
use tdx_codegen::model::Kind;
use tdx_codegen::model::Leaf as LeafSpec;
use tdx_codegen::model::Meaning;
use tdx_codegen::model::Operand;
use tdx_codegen::model::Part;
use tdx_codegen::model::Side;
use tdx_codegen::model::Spec;

use super::scan::Condition;
use super::scan::Failure;
use super::scan::Finding;
use super::scan::Leaf;
use super::scan::Registers;
use crate::decode::StatusReading;
use crate::decode::leaf::LeafReading;
use crate::reference;

/// What is said about a line.
pub(super) struct Explanation {
    pub(super) json: Value,
    pub(super) lines: Vec<String>,
}

/// The call that following register lines belong to.
struct Call {
    leaf: Option<&'static LeafSpec>,
    rax: u64,
    line: u64,
}

/// What was seen so far, as far as it matters.
pub(super) struct Context {
    spec: &'static Spec,
    last: Option<Call>,
}

/// Registers are printed right after the failure; other CPUs' lines may come between.
const REGISTERS_WITHIN_LINES: u64 = 8;

impl Context {
    pub(super) fn new(spec: &'static Spec) -> Self {
        Self { spec, last: None }
    }

    /// What to say about `finding` in line `line`.
    pub(super) fn explain(&mut self, line: u64, finding: Finding) -> Option<Explanation> {
        match finding {
            Finding::Failure(failure) => Some(self.failure(line, &failure)),
            Finding::Registers(registers) => self.registers(line, &registers),
            Finding::Condition(condition) => Some(self.condition(line, condition)),
        }
    }

    fn failure(&mut self, line: u64, failure: &Failure) -> Explanation {
        let (callee, leaf, version) = self.leaf(failure.leaf.as_ref());
        let reading = StatusReading::new(self.spec, callee, failure.value);
        let leaf_name = leaf
            .map(|leaf| leaf.name.clone())
            .or_else(|| match &failure.leaf {
                Some(Leaf::Named(name)) => Some(name.clone()),
                _ => None,
            });
        let status = reading.name();
        let mut lines = vec![format!(
            "{}{} returned {}",
            leaf_name.as_deref().unwrap_or("an unknown leaf"),
            if version > 0 {
                format!(" version {version}")
            } else {
                String::new()
            },
            status
                .as_deref()
                .unwrap_or("a status that no known module has"),
        )];
        lines.extend(
            reading
                .lines()
                .into_iter()
                .filter(|(label, _)| *label != "class")
                .map(|(label, text)| format!("{label}: {text}")),
        );
        lines.extend(register_lines(
            self.spec,
            leaf,
            &reading,
            &failure.registers,
        ));
        let json = json!({
            "line": line,
            "leaf": leaf_name,
            "status": status,
            "operand": reading.operand,
            "value": format!("{:#018x}", failure.value),
            "detail": reading.low,
            "retry": reading.retry(),
            "remedy": reading.row.and_then(|row| row.remedy.as_deref()),
        });
        self.last = Some(Call {
            leaf,
            rax: failure.value,
            line,
        });
        Explanation { json, lines }
    }

    /// Who was called, by which leaf, in which version.
    fn leaf(&self, leaf: Option<&Leaf>) -> (Callee, Option<&'static LeafSpec>, u8) {
        let callee = |leaf: Option<&LeafSpec>| match leaf.map(|leaf| leaf.side) {
            Some(Side::Seamldr) => Callee::Seamldr,
            _ => Callee::Module,
        };
        match leaf {
            None => (Callee::Module, None, 0),
            Some(Leaf::Named(name)) => {
                let found = self
                    .spec
                    .leaves
                    .iter()
                    .find(|leaf| leaf.name == *name && leaf.variant.is_none());
                (callee(found), found, 0)
            }
            Some(Leaf::Seamcall(rax) | Leaf::Tdcall(rax)) => {
                let reading =
                    LeafReading::new(self.spec, *rax, matches!(leaf, Some(Leaf::Tdcall(_))));
                let found = reading.leaves.first().copied();
                let callee = if *rax >> 63 == 1 {
                    Callee::Seamldr
                } else {
                    callee(found)
                };
                (callee, found, reading.version)
            }
        }
    }

    fn registers(&mut self, line: u64, registers: &Registers) -> Option<Explanation> {
        let call = self
            .last
            .as_ref()
            .filter(|call| line - call.line <= REGISTERS_WITHIN_LINES)?;
        let (callee, leaf) = match call.leaf.map(|leaf| leaf.side) {
            Some(Side::Seamldr) => (Callee::Seamldr, call.leaf),
            _ => (Callee::Module, call.leaf),
        };
        let reading = StatusReading::new(self.spec, callee, call.rax);
        let mut lines = register_lines(self.spec, leaf, &reading, registers);
        lines.extend(unexplained(leaf, &reading, registers, call.line));
        let json = json!({
            "line": line,
            "leaf": leaf.map(|leaf| &leaf.name),
            "status": reading.name(),
            "operand": reading.operand,
            "value": format!("{:#018x}", call.rax),
            "registers": lines,
        });
        Some(Explanation { json, lines })
    }

    fn condition(&self, line: u64, condition: Condition) -> Explanation {
        let name = match condition {
            Condition::ModuleNotLoaded => "TDX_SEAMCALL_VMFAILINVALID",
            Condition::NotInVmxOperation => "TDX_SEAMCALL_UD",
            Condition::NotEnabledByFirmware => "TDX_SEAMCALL_GP",
        };
        let mut rows = reference::statuses(self.spec);
        let row = rows.find(|(callee, row)| {
            *callee == Callee::Linux
                && row.name.trim_start_matches("TDX_") == name.trim_start_matches("TDX_")
        });
        let value = row.map_or(0, |(_, row)| row.value);
        let reading = StatusReading::new(self.spec, Callee::Linux, value);
        let mut lines = vec![format!("the kernel's {name}")];
        lines.extend(
            reading
                .lines()
                .into_iter()
                .filter(|(label, _)| *label != "class")
                .map(|(label, text)| format!("{label}: {text}")),
        );
        let json = json!({ "line": line, "leaf": null, "status": name, "operand": null, "value": format!("{value:#018x}") });
        Explanation { json, lines }
    }
}

/// What output registers mean with the status that came with them.
fn register_lines(
    spec: &'static Spec,
    leaf: Option<&'static LeafSpec>,
    reading: &StatusReading<'_>,
    registers: &Registers,
) -> Vec<String> {
    let (Some(leaf), Some(row)) = (leaf, reading.row) else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for (name, value) in registers {
        let returned = meanings(&leaf.outputs, name)
            .filter(|it| it.on.iter().any(|status| status.value == row.name));
        let mut parts: Vec<&Part> = returned.flat_map(|meaning| &meaning.parts).collect();
        if parts.is_empty() {
            // What the call was about stands in its input still.
            parts.extend(
                meanings(&leaf.inputs, name)
                    .flat_map(|it| &it.parts)
                    .filter(|part| part.kind == Kind::FieldId),
            );
        }
        for part in parts {
            let raw = part
                .bits
                .map_or(*value, |bits| (value & bits.mask()) >> bits.low);
            lines.push(format!(
                "{name}, {}: {}",
                part.name,
                describe(spec, &part.kind, raw)
            ));
        }
    }
    lines
}

/// What to say of the registers of a line of their own to which the leaf gives no meaning with that status.
fn unexplained(
    leaf: Option<&LeafSpec>,
    reading: &StatusReading<'_>,
    registers: &Registers,
    of_line: u64,
) -> Option<String> {
    let (Some(leaf), Some(row)) = (leaf, reading.row) else {
        return Some(format!("registers after the call of line {of_line}"));
    };
    let known = |register: &str| {
        meanings(&leaf.outputs, register)
            .any(|it| it.on.iter().any(|status| status.value == row.name))
            || meanings(&leaf.inputs, register)
                .flat_map(|it| &it.parts)
                .any(|part| part.kind == Kind::FieldId)
    };
    let rest: Vec<String> = registers
        .iter()
        .filter(|(register, _)| !known(register))
        .map(|(register, value)| {
            let input: Vec<&str> = meanings(&leaf.inputs, register)
                .flat_map(|it| &it.parts)
                .map(|part| &*part.name)
                .collect();
            match &*input {
                [] => register.clone(),
                _ if *value == 0 => register.clone(),
                names => format!("{register} (on input: {})", names.join(", ")),
            }
        })
        .collect();
    (!rest.is_empty()).then(|| {
        format!(
            "{} after the call of line {of_line}: {} returns nothing in {} with {}",
            if registers.iter().all(|(_, value)| *value == 0) {
                "all 0"
            } else {
                "registers"
            },
            leaf.name,
            rest.join(", "),
            reading.name().unwrap_or_default(),
        )
    })
}

fn meanings<'s>(operands: &'s [Operand], register: &str) -> impl Iterator<Item = &'s Meaning> {
    operands
        .iter()
        .filter(move |operand| operand.register == register)
        .flat_map(|operand| &operand.meanings)
}

fn describe(spec: &'static Spec, kind: &Kind, value: u64) -> String {
    match kind {
        Kind::Format(name) => match reference::format(spec, name) {
            Some(format) => {
                let (parts, _) = reference::take_apart(spec, format, value);
                let shown = parts
                    .into_iter()
                    .filter(|part| part.value != 0 || part.meaning.is_some())
                    .map(|part| {
                        format!(
                            "{} {}",
                            part.name,
                            part.meaning.unwrap_or_else(|| format!("{:#x}", part.value))
                        )
                    });
                let shown: Vec<String> = shown.collect();
                format!(
                    "{value:#x}{}{}",
                    if shown.is_empty() { "" } else { " = " },
                    shown.join(", ")
                )
            }
            None => format!("{value:#x}"),
        },
        Kind::FieldId => match reference::field(spec, value) {
            Some(found) => format!("{value:#x} = {}", found.row.name),
            None => format!("{value:#x}"),
        },
        _ => format!("{value:#x}"),
    }
}
