//! Bytes of a structure as a drawing, once for wide windows and once for narrow ones, as [`diagram`] draws bits.
//!
//! Rows that lie whole inside one field are drawn as one block, so that a page of 4096 bytes needs no more room than its
//! fields do.
//!
//! [`diagram`]: super::diagram

use core::fmt::Write as _;

use super::diagram::FLAT;
use super::diagram::NUMBERS;
use super::diagram::length;
use super::page::html;
use super::page::slug;
use crate::model::Structure;
use crate::model::StructureField;
use crate::model::StructureItem;

/// The id of a field's row.
pub(super) fn field_anchor(field: &StructureField) -> String {
    format!("bytes-{}", slug(&field.name))
}

/// A run of bytes of one field, or of none.
struct Run {
    start: u32,
    end: u32,
    label: String,
    target: Option<String>,
    class: &'static str,
}

/// The drawing of a structure; `size_of` gives the bytes of a field with all its elements.
pub(super) fn layout(structure: &Structure, size_of: impl Fn(&StructureField) -> u32) -> String {
    let runs: Vec<Run> = structure
        .items
        .iter()
        .map(|item| match item {
            StructureItem::Field(field) => Run {
                start: field.offset,
                end: field.offset + size_of(field),
                label: match field.count {
                    Some(count) => format!("{}[{count}]", field.name),
                    None => field.name.clone(),
                },
                target: Some(field_anchor(field)),
                class: "field",
            },
            StructureItem::Reserved {
                offset, size, ones, ..
            } => Run {
                start: *offset,
                end: offset + size,
                label: if *ones { "ones" } else { "0" }.to_owned(),
                target: None,
                class: "reserved",
            },
        })
        .collect();
    let wide = Shape {
        columns: 16,
        column: 40,
        class: "wide",
    };
    let narrow = Shape {
        columns: 8,
        column: 37,
        class: "narrow",
    };
    format!(
        "<div class=\"bits\">{}{}</div>",
        wide.draw(structure, &runs),
        narrow.draw(structure, &runs)
    )
}

/// Room for the offset at the left of a row.
const GUTTER: u32 = 42;
/// Height of a block of several rows.
const TALL: u32 = 44;

struct Shape {
    /// Bytes in a row.
    columns: u32,
    /// Width of a byte.
    column: u32,
    class: &'static str,
}

/// The part of a run that is drawn as one box.
struct Block<'r> {
    run: &'r Run,
    start: u32,
    end: u32,
    label: &'r str,
}

impl Shape {
    fn draw(&self, structure: &Structure, runs: &[Run]) -> String {
        let mut body = String::new();
        let mut y = NUMBERS;
        let columns = self.columns.min(structure.size);
        for byte in 0..columns {
            let x = GUTTER + byte * self.column + self.column / 2;
            number(&mut body, &byte.to_string(), x, y);
        }
        y += 3;
        for blocks in self.rows(structure.size, runs) {
            let height = blocks.iter().map(|block| self.height(block)).max();
            let height = height.unwrap_or(FLAT);
            if let Some(first) = blocks.first() {
                let text = format!("{:#x}", first.start);
                number(&mut body, &text, GUTTER / 2, y + height / 2 + 3);
            }
            for block in &blocks {
                self.block(&mut body, block, y, height);
            }
            y += height;
        }
        let total = GUTTER + columns * self.column + 2;
        format!(
            "<svg class=\"{}\" viewBox=\"0 0 {total} {}\" width=\"{total}\" height=\"{}\" role=\"img\" aria-label=\"Bytes of {}\">{body}</svg>",
            self.class,
            y + 2,
            y + 2,
            html(&structure.name)
        )
    }

    /// What stands side by side, from the first byte on.
    fn rows<'r>(&self, size: u32, runs: &'r [Run]) -> Vec<Vec<Block<'r>>> {
        let mut rows = Vec::new();
        let mut start = 0;
        while start < size {
            let mut end = (start + self.columns).min(size);
            if let Some(run) = runs.iter().find(|run| run.start <= start && end <= run.end) {
                // As many whole rows as the run has.
                end = if run.end == size {
                    size
                } else {
                    start + (run.end - start) / self.columns * self.columns
                };
            }
            let parts = runs
                .iter()
                .filter(|run| run.start < end && start < run.end)
                .map(|run| Block {
                    run,
                    start: run.start.max(start),
                    end: run.end.min(end),
                    label: if self.best_row(run) == start / self.columns {
                        &run.label
                    } else {
                        ""
                    },
                });
            rows.push(parts.collect());
            start = end;
        }
        rows
    }

    /// The row with the label of a run: the first in which the run has most room.
    fn best_row(&self, run: &Run) -> u32 {
        let room =
            |row: u32| run.end.min((row + 1) * self.columns) - run.start.max(row * self.columns);
        let rows = run.start / self.columns..run.end.div_ceil(self.columns);
        let first = run.start / self.columns;
        rows.fold(
            first,
            |best, row| if room(row) > room(best) { row } else { best },
        )
    }

    fn width(&self, block: &Block<'_>) -> u32 {
        (block.end - block.start).min(self.columns) * self.column
    }

    fn is_flat(&self, block: &Block<'_>) -> bool {
        length(block.label) + 6.0 <= self.width(block) as f32
    }

    fn height(&self, block: &Block<'_>) -> u32 {
        if block.end - block.start > self.columns {
            TALL
        } else if self.is_flat(block) {
            FLAT
        } else {
            length(block.label) as u32 + 14
        }
    }

    fn block(&self, body: &mut String, block: &Block<'_>, y: u32, height: u32) {
        let x = GUTTER + block.start % self.columns * self.column + 1;
        let width = self.width(block);
        let run = block.run;
        if let Some(target) = &run.target {
            let _ = write!(body, "<a href=\"#{target}\">");
        }
        let what = match run.class {
            "reserved" => format!("must be {}", run.label),
            _ => run.label.clone(),
        };
        let _ = write!(
            body,
            "<rect class=\"{}\" data-bytes=\"{}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"><title>{}</title></rect>",
            run.class,
            block.end - block.start,
            html(&format!("bytes {} to {}: {what}", run.start, run.end - 1))
        );
        let (middle, centre) = (x + width / 2, y + height / 2);
        if !block.label.is_empty() {
            let label = html(block.label);
            let _ = if self.is_flat(block) {
                write!(
                    body,
                    "<text x=\"{middle}\" y=\"{}\">{label}</text>",
                    centre + 4
                )
            } else {
                write!(
                    body,
                    "<text transform=\"translate({} {centre}) rotate(-90)\">{label}</text>",
                    middle + 4
                )
            };
        }
        if run.target.is_some() {
            body.push_str("</a>");
        }
    }
}

fn number(body: &mut String, text: &str, x: u32, y: u32) {
    let _ = write!(
        body,
        "<text class=\"number\" x=\"{x}\" y=\"{y}\">{text}</text>"
    );
}
