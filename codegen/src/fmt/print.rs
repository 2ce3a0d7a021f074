//! A form written out in the canonical way.

use core::fmt::Write as _;

use super::parse::Document;
use super::parse::Entry;
use super::parse::Form;
use super::parse::Remark;
use crate::yaml;
use crate::yaml::Value;

/// `document` with `values` in the places of its scalars; `None` if they are not as many.
pub(super) fn print(document: &Document, values: &[&Value]) -> Option<String> {
    let mut printer = Printer {
        out: String::new(),
        values: values.iter(),
    };
    printer.block(&document.root, 0)?;
    printer.remarks(&document.after, 0);
    if printer.values.next().is_some() {
        return None;
    }
    let text = printer.out.trim_end_matches('\n');
    Some(if text.is_empty() {
        String::new()
    } else {
        format!("{}\n", text.trim_start_matches('\n'))
    })
}

struct Printer<'v> {
    out: String,
    values: core::slice::Iter<'v, &'v Value>,
}

impl Printer<'_> {
    fn remarks(&mut self, remarks: &[Remark], indent: usize) {
        for (index, remark) in remarks.iter().enumerate() {
            match remark {
                // Of several empty lines one stays.
                Remark::Empty if index > 0 && remarks[index - 1] == Remark::Empty => {}
                Remark::Empty => self.out.push('\n'),
                Remark::Comment(text) => {
                    let _ = writeln!(self.out, "{:indent$}{text}", "");
                }
            }
        }
    }

    /// A node in lines of its own.
    fn block(&mut self, form: &Form, indent: usize) -> Option<()> {
        let entries = match form {
            Form::Map(entries) | Form::List(entries) => entries,
            _ => {
                let text = self.inline(form)?;
                if !text.is_empty() {
                    let _ = writeln!(self.out, "{:indent$}{text}", "");
                }
                return Some(());
            }
        };
        for entry in entries {
            self.remarks(&entry.before, indent);
            let _ = write!(self.out, "{:indent$}", "");
            self.entry(entry, indent)?;
        }
        Some(())
    }

    /// An entry whose indentation is written.
    fn entry(&mut self, entry: &Entry, indent: usize) -> Option<()> {
        let mut head = match &entry.key {
            Some(raw) => format!("{}:", scalar(raw, self.values.next()?)),
            None => "-".to_owned(),
        };
        let comment = entry.comment.as_ref();
        let comment = comment.map(|text| format!(" {text}")).unwrap_or_default();
        match &entry.value {
            Form::Map(entries) | Form::List(entries)
                if entry.key.is_none() && comment.is_empty() =>
            {
                // The first line of a nested block stands behind the dash.
                let first = entries.first()?;
                if !first.before.is_empty() {
                    let _ = writeln!(self.out, "{head}");
                    return self.block(&entry.value, indent + 2);
                }
                let _ = write!(self.out, "{head} ");
                self.entry(first, indent + 2)?;
                for entry in &entries[1..] {
                    self.remarks(&entry.before, indent + 2);
                    let _ = write!(self.out, "{:width$}", "", width = indent + 2);
                    self.entry(entry, indent + 2)?;
                }
                Some(())
            }
            Form::Map(_) | Form::List(_) => {
                let _ = writeln!(self.out, "{head}{comment}");
                self.block(&entry.value, indent + 2)
            }
            value => {
                let text = self.inline(value)?;
                if !text.is_empty() {
                    head.push(' ');
                    head.push_str(&text);
                }
                let _ = writeln!(self.out, "{head}{comment}");
                Some(())
            }
        }
    }

    /// A node on one line.
    fn inline(&mut self, form: &Form) -> Option<String> {
        Some(match form {
            Form::Scalar(raw) => scalar(raw, self.values.next()?),
            Form::FlowList(items) => {
                let items: Option<Vec<String>> =
                    items.iter().map(|item| self.inline(item)).collect();
                format!("[{}]", items?.join(", "))
            }
            Form::FlowMap(pairs) if pairs.is_empty() => "{}".to_owned(),
            Form::FlowMap(pairs) => {
                let mut texts = Vec::new();
                for (key, value) in pairs {
                    let (key, value) = (self.inline(key)?, self.inline(value)?);
                    texts.push(format!("{key}: {value}").trim_end().to_owned());
                }
                format!("{{ {} }}", texts.join(", "))
            }
            Form::Map(_) | Form::List(_) => return None,
        })
    }
}

/// A scalar: texts with as few quotes as are safe everywhere, all else as it was written.
fn scalar(raw: &str, value: &Value) -> String {
    match value {
        Value::Text(text) if is_plain(text) => text.clone(),
        Value::Text(text) => quoted(text),
        _ => raw.to_owned(),
    }
}

/// Whether a text needs no quotes, within braces or outside: it begins with a letter, has no character that YAML gives a
/// meaning anywhere (nor `;`, which ends a thought and looks like one), and is read as a text.
fn is_plain(text: &str) -> bool {
    let special = |c: char| {
        matches!(
            c,
            ',' | ';'
                | ':'
                | '#'
                | '['
                | ']'
                | '{'
                | '}'
                | '"'
                | '\''
                | '&'
                | '*'
                | '!'
                | '|'
                | '>'
                | '%'
                | '@'
                | '`'
        ) || c.is_control()
            || c == '\u{feff}'
    };
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !text.ends_with(' ')
        && !text.contains(special)
        && matches!(yaml::parse(text), Ok(node) if node.value == Value::Text(text.to_owned()))
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
