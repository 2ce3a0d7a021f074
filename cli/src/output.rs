//! How results look: tables, units, colour.

use std::io;
use std::io::Write;

use anstream::AutoStream;
use anstyle::AnsiColor;
use anstyle::Style;
use comfy_table::CellAlignment;
use comfy_table::ContentArrangement;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;
use terminal_size::terminal_size_of;

/// Headings.
pub const HEADING: Style = Style::new().bold();
/// What holds.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// What does not hold.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// What is less important.
pub const FAINT: Style = Style::new().dimmed();
/// Private memory in pictures.
pub const PRIVATE: Style = AnsiColor::Cyan.on_default();
/// Shared memory in pictures.
pub const SHARED: Style = AnsiColor::Yellow.on_default();

/// Where results go. Colours are kept only where a terminal will show them.
pub struct Output {
    stream: Box<dyn Write>,
    /// Columns of the terminal; `None` elsewhere, where each row stays on its line.
    width: Option<u16>,
}

impl Output {
    /// Standard output.
    pub fn stdout() -> Self {
        Self {
            stream: Box::new(AutoStream::auto(io::stdout())),
            width: terminal_size_of(io::stdout()).map(|(width, _)| width.0),
        }
    }

    /// Nowhere.
    pub(crate) fn sink() -> Self {
        Self {
            stream: Box::new(io::sink()),
            width: None,
        }
    }

    /// A heading with an empty line above.
    pub fn heading(&mut self, text: &str) -> io::Result<()> {
        writeln!(self, "\n{HEADING}{text}{HEADING:#}")
    }

    /// A table without borders; columns are separated by two spaces, those in `right` are aligned
    /// to the right. Cells are wrapped where the terminal is too narrow for them.
    pub fn table(
        &mut self,
        header: &[&str],
        rows: Vec<Vec<String>>,
        right: &[usize],
    ) -> io::Result<()> {
        let mut table = Table::new();
        table.load_preset(NOTHING);
        if let Some(width) = self.width {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(width);
        }
        if !header.is_empty() {
            table.set_header(header);
        }
        table.add_rows(rows);
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((if index == 0 { 2 } else { 1 }, 1));
            if right.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for line in table.lines() {
            writeln!(self, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// `value` as indented JSON and a newline.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *self, value)?;
        writeln!(self)?;
        self.flush()
    }

    /// A line that says whether `what` holds.
    pub fn verdict(&mut self, what: &str, holds: bool) -> io::Result<()> {
        let (style, word) = if holds { (GOOD, "yes") } else { (BAD, "NO") };
        writeln!(self, "  {what:<44} {style}{word}{style:#}")
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A number with its thousands set apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest binary unit that leaves at least 1, one decimal unless it is whole.
pub fn bytes(count: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = (count.max(1).ilog2() / 10) as usize;
    let unit = 1_u64 << (10 * power);
    if count.is_multiple_of(unit) {
        format!("{} {}", count / unit, units[power])
    } else {
        format!("{:.1} {}", count as f64 / unit as f64, units[power])
    }
}
