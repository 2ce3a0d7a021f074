//! Names and numbers of somebody else against ours.

use tdx_codegen::model::Callee;
use tdx_codegen::model::Side;
use tdx_codegen::model::Spec;

use crate::reference::plain;
use crate::spec::constant::Constant;

/// How a number of somebody else differs from ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Difference {
    /// The name is ours, the number is not.
    Value,
    /// Neither the name nor the number is ours.
    Unknown,
    /// The number is ours under another name.
    Name,
    /// It agrees with one of our entries, and there is another for the same number or name.
    Contested,
    /// The field ids differ in bit 63 alone, which does not count.
    Bit63,
    /// The field ids name the same field with another element size or context.
    Form,
}

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Finding {
    pub(super) line: usize,
    pub(super) name: String,
    #[serde(serialize_with = "hexadecimal")]
    pub(super) value: u64,
    pub(super) kind: Difference,
    /// What the specification says instead.
    pub(super) ours: String,
}

fn hexadecimal<S: serde::Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:#x}"))
}

/// Bits 31:0 of RAX, which are no part of a status code.
const LOW: u64 = u32::MAX as u64;
/// Bit of a field id that does not count.
const NON_ARCH: u64 = 1 << 63;
/// Bits of a field id that tell fields of a table apart: class code and field code.
const FIELD: u64 = 0x3f << 56 | 0x00ff_ffff;

/// What a constant is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Status,
    Operand,
    Leaf(Side),
    Field,
    Feature,
}

/// An entry of the specification: one name, one number.
struct Entry {
    subject: Subject,
    /// Name without punctuation.
    key: String,
    /// Name to show.
    name: String,
    value: u64,
    /// Who says so, if that needs saying.
    by: String,
}

/// The specification, arranged for comparison.
pub(super) struct Ours {
    entries: Vec<Entry>,
}

/// What became of a constant.
pub(super) enum Outcome {
    /// It has nothing to do with the TDX ABI.
    Unrelated,
    /// It agrees.
    Agrees,
    /// It differs.
    Differs(Finding),
}

impl Ours {
    /// Everything in `spec` that has a name and a number.
    pub(super) fn new(spec: &Spec) -> Self {
        let mut entries = Vec::new();
        let mut add = |subject, name: &str, shown: String, value, by: String| {
            entries.push(Entry {
                subject,
                key: plain(name),
                name: shown,
                value,
                by,
            });
        };
        for table in &spec.statuses {
            for row in &table.rows {
                let by = if row.contested {
                    row.cite.iter().map(|cite| cite.id.value.clone()).collect()
                } else {
                    match table.callee {
                        Callee::Module => String::new(),
                        Callee::Seamldr => "P-SEAMLDR".to_owned(),
                        Callee::Linux => "Linux".to_owned(),
                    }
                };
                let name = row.name.strip_prefix("TDX_").unwrap_or(&row.name);
                add(Subject::Status, name, row.name.clone(), row.value, by);
            }
        }
        for row in &spec.operands {
            let value = u64::from(row.value);
            add(
                Subject::Operand,
                &row.name,
                row.name.clone(),
                value,
                String::new(),
            );
        }
        for leaf in spec.leaves.iter().filter(|leaf| leaf.variant.is_none()) {
            let sources: Vec<&str> = leaf.cite.iter().map(|cite| &*cite.id.value).collect();
            let value = leaf.number.value & !(u64::from(leaf.side == Side::Seamldr) << 63);
            let subject = Subject::Leaf(leaf.side);
            add(
                subject,
                &leaf.name,
                leaf.name.clone(),
                value,
                sources.join(", "),
            );
        }
        for table in &spec.fields {
            for row in &table.rows {
                let modules = spec.module_names(row.modules).join(", ");
                add(
                    Subject::Field,
                    &row.name,
                    format!("{} of {}", row.name, table.name),
                    row.id,
                    modules,
                );
            }
        }
        for feature in &spec.features {
            let by = feature
                .cite
                .iter()
                .map(|cite| cite.id.value.clone())
                .collect();
            add(
                Subject::Feature,
                &feature.name,
                feature.name.clone(),
                1 << feature.bit,
                by,
            );
        }
        Self { entries }
    }

    /// Compares one constant.
    pub(super) fn compare(&self, constant: &Constant) -> Outcome {
        let Some((subject, name)) = self.subject(constant) else {
            return Outcome::Unrelated;
        };
        let key = plain(&name);
        let mut named = self.of(subject).filter(|entry| entry.key == key).peekable();
        let (kind, ours) = if named.peek().is_some() {
            let named: Vec<&Entry> = named.collect();
            match self.same_name(subject, constant.value, &named) {
                Some(difference) => difference,
                None => return Outcome::Agrees,
            }
        } else {
            let same: Vec<&Entry> = self
                .of(subject)
                .filter(|entry| matches(subject, constant.value, entry.value))
                .collect();
            if same.is_empty() {
                (Difference::Unknown, "no such name or number".to_owned())
            } else {
                let names: Vec<&str> = same.iter().map(|entry| &*entry.name).collect();
                (Difference::Name, format!("called {}", names.join(", ")))
            }
        };
        Outcome::Differs(Finding {
            line: constant.line,
            name: constant.container.as_ref().map_or_else(
                || constant.name.clone(),
                |container| format!("{container}::{}", constant.name),
            ),
            value: constant.value,
            kind,
            ours,
        })
    }

    fn of(&self, subject: Subject) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(move |entry| entry.subject == subject)
    }

    /// What differs although the name is ours.
    fn same_name(
        &self,
        subject: Subject,
        value: u64,
        named: &[&Entry],
    ) -> Option<(Difference, String)> {
        let shown = |entries: &[&Entry]| {
            let one = |entry: &&Entry| {
                let by = if entry.by.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", entry.by)
                };
                let number = number(entry.value);
                format!("{number}{by}")
            };
            let mut texts: Vec<String> = entries.iter().map(one).collect();
            texts.dedup();
            texts.join("; ")
        };
        let (agreeing, others): (Vec<&Entry>, Vec<&Entry>) = named
            .iter()
            .partition(|entry| matches(subject, value, entry.value));
        if subject == Subject::Field {
            let exact = named.iter().any(|entry| entry.value == value);
            let other_form = named.iter().filter(|entry| {
                entry.value != value && entry.value & !NON_ARCH == value & !NON_ARCH
            });
            let other_form: Vec<&Entry> = other_form.copied().collect();
            if !other_form.is_empty() {
                let text = format!("also {}; compare with bit 63 masked", shown(&other_form));
                return Some((Difference::Bit63, text));
            }
            let same_field = named
                .iter()
                .any(|entry| entry.value & FIELD == value & FIELD);
            let kind = if same_field {
                Difference::Form
            } else {
                Difference::Value
            };
            return (!exact).then(|| (kind, shown(named)));
        }
        if agreeing.is_empty() {
            return Some((Difference::Value, shown(named)));
        }
        if !others.is_empty() && agreeing.iter().all(|entry| !entry.by.is_empty()) {
            return Some((Difference::Contested, format!("also {}", shown(&others))));
        }
        let rivals: Vec<String> = self
            .of(subject)
            .filter(|entry| {
                matches!(subject, Subject::Leaf(_) | Subject::Feature)
                    && entry.value == agreeing[0].value
                    && entry.key != agreeing[0].key
            })
            .map(|entry| format!("{} ({})", entry.name, entry.by))
            .collect();
        (!rivals.is_empty()).then(|| (Difference::Contested, format!("also {}", rivals.join("; "))))
    }

    /// What a constant is about, judged by its name and the enum that it is in, and its name as we
    /// would write it.
    fn subject(&self, constant: &Constant) -> Option<(Subject, String)> {
        let upper = constant.name.to_ascii_uppercase();
        let upper = upper.trim_start_matches('_');
        for (start, subject, instead) in PREFIXES {
            if let Some(rest) = upper.strip_prefix(start) {
                let rest = rest.strip_suffix("_LEAF").unwrap_or(rest);
                let subject = subject.filter(|_| !PARAMETERS.iter().any(|end| rest.ends_with(end)));
                return subject.map(|subject| (subject, format!("{instead}{rest}")));
            }
        }
        if let Some(container) = &constant.container
            && let Some(subject) = of_container(container)
        {
            let name = match subject {
                Subject::Leaf(side) => format!("{}_{}", prefix(side), constant.name),
                _ => constant.name.clone(),
            };
            return Some((subject, name));
        }
        if let Some(name) = self.field(upper, constant.value) {
            return Some((Subject::Field, name));
        }
        let name = upper
            .strip_prefix("TDX_")
            .or_else(|| upper.starts_with("TD_").then_some(upper))?;
        let key = plain(name);
        let is_ours = self.of(Subject::Status).any(|entry| entry.key == key);
        let looks_like_one = constant.value >= 1 << 62
            && constant.value & LOW == 0
            && constant.value & 0xffff << 32 != 0
            && !name.contains("MASK");
        (is_ours || looks_like_one).then(|| (Subject::Status, name.to_owned()))
    }

    /// The field that a name ends with, if the number can be a field id.
    fn field(&self, upper: &str, value: u64) -> Option<String> {
        if value & !NON_ARCH <= LOW {
            return None;
        }
        let upper = ["_FIELD_CODE", "_FIELD_ID"]
            .iter()
            .find_map(|end| upper.strip_suffix(end))
            .unwrap_or(upper);
        let ends_with = |name: &str| {
            upper == name
                || FIELD_PREFIXES
                    .iter()
                    .any(|start| upper.strip_prefix(start) == Some(name))
        };
        self.entries
            .iter()
            .filter(|entry| entry.subject == Subject::Field)
            .filter_map(|entry| entry.name.split(' ').next())
            .find(|name| ends_with(name))
            .map(str::to_owned)
    }
}

/// Starts of names, what they say, and what our name starts with instead. The longer come first.
const PREFIXES: [(&str, Option<Subject>, &str); 12] = [
    ("TDX_FEATURES0_", Some(Subject::Feature), ""),
    ("TDX_OPERAND_ID_", Some(Subject::Operand), ""),
    ("OPERAND_ID_", Some(Subject::Operand), ""),
    ("TDH_", Some(Subject::Leaf(Side::Host)), "TDH_"),
    ("TDG_", Some(Subject::Leaf(Side::Guest)), "TDG_"),
    ("P_SEAMLDR_", Some(Subject::Leaf(Side::Seamldr)), "SEAMLDR_"),
    ("TDVMCALL_STATUS_", None, ""),
    ("TDVMCALL_", Some(Subject::Leaf(Side::Vmcall)), "TDVMCALL_"),
    ("TDCALL_STATUS_", Some(Subject::Status), ""),
    ("TDCALL_", Some(Subject::Leaf(Side::Guest)), "TDG_"),
    ("SEAMCALL_TDH_", Some(Subject::Leaf(Side::Host)), "TDH_"),
    ("SEAMCALL_", Some(Subject::Leaf(Side::Host)), "TDH_"),
];

/// Ends of names of what belongs to a leaf and is none.
const PARAMETERS: [&str; 8] = [
    "_CMD",
    "_MASK",
    "_SHIFT",
    "_SIZE",
    "_ALIGN",
    "_ALIGNMENT",
    "_MAX",
    "_VERSION",
];

/// What stands before the name of a field.
const FIELD_PREFIXES: [&str; 12] = [
    "TDCS_",
    "TDR_",
    "TDVPS_",
    "MD_FIELD_ID_",
    "TD_MD_FIELD_ID_",
    "TDX_MD_FIELD_ID_",
    "TDX_FIELD_CODE_",
    "TDX_FIELD_ID_",
    "MD_TDCS_",
    "MD_TDR_",
    "MD_TDVPS_",
    "MD_SYS_",
];

fn prefix(side: Side) -> &'static str {
    Side::PREFIXES
        .iter()
        .find(|(_, of)| *of == side)
        .map_or("", |(prefix, _)| prefix)
}

/// What the members of an enum of this name are.
fn of_container(container: &str) -> Option<Subject> {
    let name = plain(container);
    let is_result = ["RESULT", "ERROR", "STATUS"]
        .iter()
        .any(|word| name.contains(word));
    let about = |word: &str| name.contains(word);
    if about("VMCALL") {
        (!is_result).then_some(Subject::Leaf(Side::Vmcall))
    } else if about("TDCALL") || about("SEAMCALL") {
        Some(if is_result {
            Subject::Status
        } else if about("TDCALL") {
            Subject::Leaf(Side::Guest)
        } else {
            Subject::Leaf(Side::Host)
        })
    } else {
        (about("TDX") && is_result).then_some(Subject::Status)
    }
}

/// Whether two numbers are the same, in any of the forms that people write.
fn matches(subject: Subject, theirs: u64, ours: u64) -> bool {
    match subject {
        Subject::Status => {
            theirs == ours
                || ours & LOW == 0
                    && (theirs & !LOW == ours && ours != 0 || theirs <= LOW && theirs << 32 == ours)
        }
        Subject::Leaf(Side::Seamldr) => theirs & !(1 << 63) == ours,
        Subject::Field => theirs & !NON_ARCH == ours & !NON_ARCH,
        Subject::Feature => theirs == ours || theirs < 64 && 1 << theirs == ours,
        Subject::Operand | Subject::Leaf(_) => theirs == ours,
    }
}

/// A number as it is usually written.
pub(super) fn number(value: u64) -> String {
    if value < 0x1_0000 {
        value.to_string()
    } else {
        format!("{value:#x}")
    }
}
