//! A page in Markdown.

use core::fmt::Write as _;

use crate::emit::File;

/// A page being written.
pub(super) struct Page {
    /// Path below `src`.
    pub(super) path: String,
    pub(super) title: String,
    /// One line for the index, in Markdown.
    pub(super) about: String,
    body: String,
}

impl Page {
    pub(super) fn new(path: impl Into<String>, title: &str) -> Self {
        Self {
            body: format!("# {}\n", escaped(title)),
            path: path.into(),
            title: title.to_owned(),
            about: String::new(),
        }
    }

    /// A path below `src` as seen from this page.
    pub(super) fn relative(&self, path: &str) -> String {
        let depth = self.path.matches('/').count();
        format!("{}{path}", "../".repeat(depth))
    }

    pub(super) fn heading(&mut self, text: &str) {
        let _ = write!(self.body, "\n## {}\n", escaped(text));
    }

    /// A heading below that of a section.
    pub(super) fn subheading(&mut self, text: &str) {
        let _ = write!(self.body, "\n### {}\n", escaped(text));
    }

    /// A paragraph in Markdown.
    pub(super) fn text(&mut self, markdown: &str) {
        let _ = write!(self.body, "\n{markdown}\n");
    }

    /// A table; cells are Markdown.
    pub(super) fn table(&mut self, header: &[&str], rows: &[Vec<String>]) {
        if rows.is_empty() {
            return;
        }
        // The wrapper scrolls where the window is too narrow; the empty lines around it keep Markdown at work.
        self.body.push_str("\n<div class=\"table\">\n\n");
        let _ = writeln!(self.body, "| {} |", header.join(" | "));
        let _ = writeln!(self.body, "|{}", " --- |".repeat(header.len()));
        for row in rows {
            let _ = writeln!(self.body, "| {} |", row.join(" | "));
        }
        self.body.push_str("\n</div>\n");
    }

    /// Items of a list in Markdown.
    pub(super) fn list(&mut self, items: impl Iterator<Item = String>) {
        self.body.push('\n');
        for item in items {
            let _ = writeln!(self.body, "- {item}");
        }
    }

    pub(super) fn file(self) -> File {
        File::new(format!("src/{}", self.path), self.body)
    }
}

/// A text as Markdown that shows it as it is.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(
            c,
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' | '$' | '&'
        ) {
            out.push('\\');
        }
        out.push(if c == '\n' { ' ' } else { c });
    }
    out
}

/// A text as HTML that shows it as it is.
pub(super) fn html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A name as code.
pub(super) fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}

/// A place that links lead to.
pub(super) fn anchor(id: &str) -> String {
    format!("<span id=\"{}\"></span>", slug(id))
}

/// A name as the id of a place.
pub(super) fn slug(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect()
}
