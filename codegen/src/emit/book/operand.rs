//! Registers of a leaf.

use super::Book;
use super::diagram::Cell;
use super::diagram::diagram;
use super::page::Page;
use super::page::code;
use super::page::escaped;
use crate::emit::rust::SIZES;
use crate::model::Bits;
use crate::model::Evidence;
use crate::model::Kind;
use crate::model::LockMode;
use crate::model::Meaning;
use crate::model::Operand;
use crate::model::Side;

impl Book<'_> {
    pub(super) fn registers(
        &self,
        page: &mut Page,
        title: &str,
        operands: &[Operand],
        output: bool,
        side: Side,
    ) {
        if operands.is_empty() {
            return;
        }
        page.subheading(title);
        let mut rows = Vec::new();
        for operand in operands {
            for meaning in &operand.meanings {
                for (index, part) in meaning.parts.iter().enumerate() {
                    let register = operand.register.to_uppercase();
                    let register = match part.bits {
                        Some(bits) => format!("{register}\\[{bits}\\]"),
                        None => register,
                    };
                    // The page that is locked is the one that the first part names.
                    let lock = match operand.lock.filter(|_| index == 0) {
                        Some(LockMode::Shared) => "; locked shared",
                        Some(LockMode::Exclusive) => "; locked exclusive",
                        None => "",
                    };
                    let kind = format!("{}{lock}", self.kind(page, &part.kind));
                    let mut row = vec![register, code(&part.name), kind];
                    if output {
                        row.push(self.with(page, meaning, side));
                    }
                    let purpose = part.kind.purpose().filter(|_| !output);
                    let doc = part.doc.as_deref().or(purpose).unwrap_or_default();
                    row.push(self.links.prose(page, doc));
                    rows.push(row);
                }
            }
        }
        let header = ["register", "name", "what", "with", ""];
        let header: Vec<&str> = header
            .iter()
            .copied()
            .filter(|word| output || *word != "with")
            .collect();
        page.table(&header, &rows);
        for operand in operands {
            for meaning in operand
                .meanings
                .iter()
                .filter(|meaning| meaning.parts.len() > 1)
            {
                let register = operand.register.to_uppercase();
                page.text(&format!("{register}, bit by bit:"));
                page.text(&diagram(&register, 64, &parts(meaning)));
            }
        }
    }

    /// The statuses with which a register means something.
    fn with(&self, page: &Page, meaning: &Meaning, side: Side) -> String {
        let names = meaning.on.iter();
        let names: Vec<String> = names
            .map(|status| {
                self.links
                    .status(page, &status.value, side == Side::Seamldr)
            })
            .collect();
        match names.len() {
            0 => "success".to_owned(),
            1..=2 => names.join(", "),
            count => format!(
                "<details><summary>{count} statuses</summary>{}</details>",
                names.join(", ")
            ),
        }
    }

    fn kind(&self, page: &Page, kind: &Kind) -> String {
        let aligned = |what: &str, align: u64| match align {
            0 | 1 => what.to_owned(),
            align => format!("{what}, aligned to {}", bytes(align)),
        };
        match kind {
            Kind::Number(width) => format!("`u{width}`"),
            Kind::Bool => "flag".to_owned(),
            Kind::Hpa { align } => aligned("host-physical address", *align),
            Kind::Gpa { align } => aligned("guest-physical address", *align),
            Kind::PrivateGpa { align } => aligned("private guest-physical address", *align),
            Kind::SharedGpa { align } => aligned("shared guest-physical address", *align),
            Kind::Hkid => "KeyID".to_owned(),
            Kind::FieldId => format!("metadata field id ({})", self.links.entity(page, "FieldId")),
            Kind::Mapping { levels, evidence } => {
                let levels = levels
                    .iter()
                    .filter_map(|level| SIZES.get(usize::from(*level)));
                let levels = levels.copied().collect::<Vec<_>>().join(", ");
                let tracked = match evidence {
                    Some(Evidence::Tracked) => "; blocked and tracked before",
                    None => "",
                };
                let format = self.links.entity(page, "GpaMapping");
                format!("GPA and level ({format}): {levels}{tracked}")
            }
            Kind::Tdr => "TDR page of a TD".to_owned(),
            Kind::Tdvpr => "TDVPR page of a virtual processor".to_owned(),
            Kind::Page { level, becomes } => {
                let size = match level {
                    Some(level) => SIZES.get(usize::from(*level)).copied().unwrap_or_default(),
                    None => "size of the entry",
                };
                let becomes = becomes
                    .as_ref()
                    .map(|what| format!(", becomes {}", what.to_uppercase()));
                format!("page, {size}{}", becomes.unwrap_or_default())
            }
            Kind::Structure {
                of,
                align,
                guest,
                direction,
            } => {
                let of = of.as_ref().map(|name| self.links.entity(page, name));
                let of = of.unwrap_or_else(|| "buffer".to_owned());
                let whose = if *guest { "GPA" } else { "HPA" };
                let direction = direction
                    .as_ref()
                    .map(|direction| format!(" ({})", escaped(direction)));
                aligned(
                    &format!("{whose} of {of}{}", direction.unwrap_or_default()),
                    *align,
                )
            }
            Kind::Format(name) => self.links.entity(page, name),
            Kind::Unknown => String::new(),
        }
    }
}

fn bytes(count: u64) -> String {
    match count {
        count if count.is_multiple_of(1 << 20) => format!("{} MiB", count >> 20),
        count if count.is_multiple_of(1 << 10) => format!("{} KiB", count >> 10),
        count => format!("{count} bytes"),
    }
}

/// The parts of a register with the bits between them.
fn parts(meaning: &Meaning) -> Vec<Cell> {
    let mut parts: Vec<(Bits, &str)> = meaning
        .parts
        .iter()
        .filter_map(|part| part.bits.map(|bits| (bits, part.name.as_str())))
        .collect();
    parts.sort_by_key(|(bits, _)| core::cmp::Reverse(bits.high));
    let mut cells = Vec::new();
    let mut next: Option<u32> = Some(63);
    let gap = |cells: &mut Vec<Cell>, high: Option<u32>, low: u32| {
        if let Some(high) = high.filter(|high| *high >= low) {
            cells.push(Cell {
                bits: Bits { high, low },
                label: String::new(),
                target: None,
                class: "ignored",
            });
        }
    };
    for (bits, name) in parts {
        gap(&mut cells, next, bits.high + 1);
        cells.push(Cell {
            bits,
            label: name.to_owned(),
            target: None,
            class: "field",
        });
        next = bits.low.checked_sub(1);
    }
    gap(&mut cells, next, 0);
    cells
}
