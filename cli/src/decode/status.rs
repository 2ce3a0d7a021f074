//! `tdx decode status`.

use serde_json::Value;
use serde_json::json;
use tdx_abi::format::StatusBits;
use tdx_codegen::model::Callee;
use tdx_codegen::model::Low;
use tdx_codegen::model::Retry;
use tdx_codegen::model::Spec;
use tdx_codegen::model::StatusRow;

use crate::error::Error;
use crate::output::Output;
use crate::reference;

/// A raw RAX after a call, with what is known of it.
pub(crate) struct StatusReading<'s> {
    pub(crate) rax: u64,
    pub(crate) callee: Callee,
    pub(crate) row: Option<&'s StatusRow>,
    /// What RAX bits 31:0 say beside the code.
    pub(crate) low: Option<String>,
    /// The operand, where the low bits name one.
    pub(crate) operand: Option<String>,
}

const ERROR: u64 = 1 << 63;

impl<'s> StatusReading<'s> {
    /// Reads `rax` as returned by `callee`; Linux's own codes are recognised whoever was called.
    pub(crate) fn new(spec: &'s Spec, callee: Callee, rax: u64) -> Self {
        let own = reference::status(spec, callee, rax).map(|row| (callee, row));
        let linux = || reference::status(spec, Callee::Linux, rax).map(|row| (Callee::Linux, row));
        let (callee, row) = match own.or_else(linux) {
            Some((callee, row)) => (callee, Some(row)),
            None => (callee, None),
        };
        let low = u32::try_from(rax & u64::from(u32::MAX)).unwrap_or(0);
        let kind = row.filter(|_| callee == Callee::Module).map(|row| row.low);
        let name = || {
            reference::operand(spec, low).map_or_else(|| format!("operand {low}"), str::to_string)
        };
        let operand = (kind == Some(Low::Operand)).then(name);
        let low = match kind {
            None => None,
            Some(Low::Operand) => operand.clone().map(|operand| format!("operand {operand}")),
            Some(Low::Level) => Some(format!("level {low}")),
            Some(Low::ExitReason) => Some(format!("VM exit reason {}", low & 0xffff)),
            Some(Low::Count) => Some(format!("count {low}")),
            Some(Low::Field | Low::Detail) if low != 0 => Some(format!("detail {low:#x}")),
            Some(Low::None) if low != 0 => Some(format!("unexpected low bits {low:#x}")),
            Some(Low::None | Low::Field | Low::Detail) => None,
        };
        Self {
            rax,
            callee,
            row,
            low,
            operand,
        }
    }

    /// The name, with `TDX_` where the module returned it.
    pub(crate) fn name(&self) -> Option<String> {
        self.row.map(|row| reference::status_name(self.callee, row))
    }

    /// Whether the call failed.
    pub(crate) fn is_error(&self) -> bool {
        self.rax & ERROR != 0
    }

    /// How to call again.
    pub(crate) fn retry(&self) -> Option<&'static str> {
        self.row?.retry.map(Retry::name)
    }

    /// The status whose hexadecimal digits were read as decimal ones.
    fn without_prefix(&self) -> Option<u64> {
        let digits = self.rax.to_string();
        let meant = u64::from_str_radix(&digits, 16).ok()?;
        let known = reference::spec().ok()?;
        (digits.len() == 16 && reference::status(known, self.callee, meant).is_some())
            .then_some(meant)
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "value": format!("{:#018x}", self.rax),
            "name": self.name(),
            "operand": self.operand,
            "error": self.is_error(),
            "retry": self.retry(),
            "detail": self.low,
            "doc": self.row.and_then(|row| row.doc.as_deref()),
            "cause": self.row.and_then(|row| row.cause.as_deref()),
            "remedy": self.row.and_then(|row| row.remedy.as_deref()),
        })
    }

    /// What to tell a person: heading and text.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        let class = match (self.callee, self.is_error()) {
            (_, false) if self.row.is_none() && self.rax != 0 => {
                "no error, unless RAX was changed since"
            }
            (Callee::Module, false) if self.rax >> 32 != 0 => "success with information",
            (_, false) => "success",
            (_, true) => "error",
        };
        lines.push(("class", class.to_string()));
        let set = StatusBits::from_bits(self.rax & !self.row.map_or(u64::MAX, |row| row.value));
        if self.callee == Callee::Module && set.fatal() {
            let text = "This leaf has set FATAL in the code: the TD cannot be continued.";
            lines.push(("bit 61", text.to_string()));
        }
        if self.callee == Callee::Module && set.host_recoverability_hint() {
            let text = "This leaf has set HOST_RECOVERABILITY_HINT in the code: the host may mend it and go on.";
            lines.push(("bit 60", text.to_string()));
        }
        lines.extend(self.low.clone().map(|low| ("says", low)));
        let again = match self.retry() {
            Some("busy") => Some("the same call later"),
            Some("restartable") => Some("the same call from scratch"),
            Some("resumable") => Some("with the registers as returned"),
            _ => None,
        };
        lines.extend(again.map(|text| ("call again", text.to_string())));
        if self.row.is_none()
            && let Some(meant) = self.without_prefix()
        {
            lines.push(("did you mean", format!("{meant:#018x}, written with 0x")));
        }
        if let Some(row) = self.row {
            lines.extend(row.doc.clone().map(|text| ("meaning", text)));
            lines.extend(row.cause.clone().map(|text| ("cause", text)));
            lines.extend(row.remedy.clone().map(|text| ("what to do", text)));
        }
        lines
    }
}

pub(super) fn decode(
    value: &str,
    callee: Callee,
    json: bool,
    output: &mut Output,
) -> Result<(), Error> {
    let rax = reference::number(value)?;
    let reading = StatusReading::new(reference::spec()?, callee, rax);
    if json {
        return Ok(output.json(&reading.json())?);
    }
    let name = reading
        .name()
        .unwrap_or_else(|| "unknown status".to_string());
    super::print(output, &format!("{rax:#018x}  {name}"), &reading.lines())
}
