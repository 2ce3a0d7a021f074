//! Bits of a word as a drawing, once for wide windows and once for narrow ones; a style sheet shows one of them.
//!
//! Lines and letters take the colour of the text around them, so that the drawing is legible on every background.

use core::fmt::Write as _;

use super::page::html;
use super::page::slug;
use crate::model::BitField;
use crate::model::BitItem;
use crate::model::Bits;
use crate::model::Format;

/// A run of bits.
pub(super) struct Cell {
    pub(super) bits: Bits,
    /// What is written in it; empty for bits that mean nothing.
    pub(super) label: String,
    /// The row of the table below that explains it.
    pub(super) target: Option<String>,
    pub(super) class: &'static str,
}

/// The cells of a format, from the top bit.
pub(super) fn cells(format: &Format) -> Vec<Cell> {
    let mut cells: Vec<Cell> = format.items.iter().flat_map(item).collect();
    cells.sort_by_key(|cell| core::cmp::Reverse(cell.bits.low));
    cells
}

fn item(item: &BitItem) -> Vec<Cell> {
    let cell = |bits: &Bits, label: String, target: Option<String>, class| Cell {
        bits: *bits,
        label,
        target,
        class,
    };
    match item {
        BitItem::Field(field) => {
            let target = Some(field_anchor(field));
            let pieces = field.pieces().map(|(bits, at)| {
                let label = if field.bits.len() == 1 {
                    field.name.clone()
                } else {
                    let piece = Bits {
                        high: at + bits.width() - 1,
                        low: at,
                    };
                    format!("{}[{piece}]", field.name)
                };
                cell(&bits, label, target.clone(), "field")
            });
            pieces.collect()
        }
        BitItem::Reserved { bits, ones, .. } => {
            let value = if *ones { "1" } else { "0" };
            bits.iter()
                .map(|bits| cell(bits, value.to_owned(), None, "reserved"))
                .collect()
        }
        BitItem::Ignored { bits, .. } => bits
            .iter()
            .map(|bits| cell(bits, String::new(), None, "ignored"))
            .collect(),
    }
}

/// The id of a field's row.
pub(super) fn field_anchor(field: &BitField) -> String {
    format!("bits-{}", slug(&field.name))
}

/// The drawing of a word of `width` bits.
pub(super) fn diagram(name: &str, width: u32, cells: &[Cell]) -> String {
    let wide = Shape {
        columns: width.min(32),
        column: if width <= 16 { 40 } else { 23 },
        class: "wide",
    };
    let narrow = Shape {
        columns: width.min(16),
        column: 21,
        class: "narrow",
    };
    format!(
        "<div class=\"bits\">{}{}</div>",
        wide.draw(name, width, cells),
        narrow.draw(name, width, cells)
    )
}

/// Height of a line of bit numbers.
pub(super) const NUMBERS: u32 = 14;
/// Width of a letter.
const LETTER: f32 = 6.7;
/// Height of a cell whose label lies flat.
pub(super) const FLAT: u32 = 26;

struct Shape {
    /// Bits in a row.
    columns: u32,
    /// Width of a bit.
    column: u32,
    class: &'static str,
}

/// A cell, or the part of it in one row.
struct Placed<'c> {
    cell: &'c Cell,
    high: u32,
    low: u32,
    label: String,
}

impl Shape {
    fn draw(&self, name: &str, width: u32, cells: &[Cell]) -> String {
        let rows = width / self.columns;
        let mut body = String::new();
        let mut y = 0;
        for row in (0..rows).rev() {
            let (low, high) = (row * self.columns, (row + 1) * self.columns - 1);
            let placed: Vec<Placed<'_>> = cells
                .iter()
                .filter_map(|cell| self.place(cell, low, high))
                .collect();
            let height = placed
                .iter()
                .map(|placed| self.height(placed))
                .max()
                .unwrap_or(FLAT);
            y += NUMBERS;
            for placed in &placed {
                self.cell(&mut body, placed, high, y, height);
            }
            y += height + 4;
        }
        let total = self.columns * self.column + 2;
        format!(
            "<svg class=\"{}\" viewBox=\"0 0 {total} {y}\" width=\"{total}\" height=\"{y}\" role=\"img\" aria-label=\"Bits of {}\">{body}</svg>",
            self.class,
            html(name)
        )
    }

    fn place<'c>(&self, cell: &'c Cell, low: u32, high: u32) -> Option<Placed<'c>> {
        let bits = cell.bits;
        if bits.high < low || bits.low > high {
            return None;
        }
        let (part_high, part_low) = (bits.high.min(high), bits.low.max(low));
        // The label stands in the widest part, the first of them; a name is not written twice.
        let parts = (bits.low / self.columns..=bits.high / self.columns).rev();
        let width_of = |row: u32| {
            bits.high.min((row + 1) * self.columns - 1) - bits.low.max(row * self.columns) + 1
        };
        let mut best = bits.high / self.columns;
        for row in parts {
            if width_of(row) > width_of(best) {
                best = row;
            }
        }
        let here = low / self.columns == best;
        Some(Placed {
            cell,
            high: part_high,
            low: part_low,
            label: if here {
                cell.label.clone()
            } else {
                String::new()
            },
        })
    }

    fn width(&self, placed: &Placed<'_>) -> u32 {
        (placed.high - placed.low + 1) * self.column
    }

    fn is_flat(&self, placed: &Placed<'_>) -> bool {
        length(&placed.label) + 6.0 <= self.width(placed) as f32
    }

    fn height(&self, placed: &Placed<'_>) -> u32 {
        if self.is_flat(placed) {
            FLAT
        } else {
            length(&placed.label) as u32 + 14
        }
    }

    fn cell(&self, body: &mut String, placed: &Placed<'_>, row_high: u32, y: u32, height: u32) {
        let x = (row_high - placed.high) * self.column + 1;
        let width = self.width(placed);
        let middle = x + width / 2;
        let number = |body: &mut String, bit: u32, x: u32| {
            let _ = write!(
                body,
                "<text class=\"number\" x=\"{x}\" y=\"{}\">{bit}</text>",
                y - 3
            );
        };
        if placed.high == placed.low {
            number(body, placed.high, middle);
        } else {
            number(body, placed.high, x + self.column / 2);
            number(body, placed.low, x + width - self.column / 2);
        }
        let cell = placed.cell;
        if let Some(target) = &cell.target {
            let _ = write!(body, "<a href=\"#{target}\">");
        }
        let title = match cell.class {
            "reserved" => format!("bits {} must be {}", cell.bits, cell.label),
            "ignored" => format!("bits {} are ignored", cell.bits),
            _ => format!("bits {}: {}", cell.bits, cell.label),
        };
        let _ = write!(
            body,
            "<rect class=\"{}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"><title>{}</title></rect>",
            cell.class,
            html(&title)
        );
        if !placed.label.is_empty() {
            let label = html(&placed.label);
            let centre = y + height / 2;
            if self.is_flat(placed) {
                let _ = write!(
                    body,
                    "<text x=\"{middle}\" y=\"{}\">{label}</text>",
                    centre + 4
                );
            } else {
                let x = middle + 4;
                let _ = write!(
                    body,
                    "<text transform=\"translate({x} {centre}) rotate(-90)\">{label}</text>"
                );
            }
        }
        if cell.target.is_some() {
            body.push_str("</a>");
        }
    }
}

/// Width of a label.
pub(super) fn length(label: &str) -> f32 {
    label.chars().count() as f32 * LETTER
}
