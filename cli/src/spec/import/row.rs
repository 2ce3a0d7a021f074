//! Rows of a table as text: one flow mapping a line, so that what is not imported stays as it was written.

/// A line of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A row.
    Row(Row),
    /// Anything else.
    Other(String),
}

/// A row: its keys with their values as they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) pairs: Vec<(String, String)>,
}

impl Row {
    /// A row from its line `  - { key: value, .. }`.
    pub(super) fn parse(line: &str) -> Option<Self> {
        pairs(line).map(|pairs| Self { pairs })
    }

    /// The value of `key` as written.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let pair = self.pairs.iter().find(|(name, _)| name == key);
        pair.map(|(_, value)| value.as_str())
    }

    /// The row's name.
    pub(super) fn name(&self) -> &str {
        self.get("name").unwrap_or_default().trim_matches('"')
    }

    /// The modules that the row is for; `None`: those of the file.
    pub(super) fn modules(&self) -> Option<Vec<String>> {
        self.get("modules").map(list)
    }

    /// Gives `key` a value, or takes it away. A new key stands after `after`, or else at the end.
    pub(super) fn set(&mut self, key: &str, value: Option<String>, after: &[&str]) {
        let at = self.pairs.iter().position(|(name, _)| name == key);
        match (at, value) {
            (Some(at), Some(value)) => self.pairs[at].1 = value,
            (Some(at), None) => {
                self.pairs.remove(at);
            }
            (None, Some(value)) => {
                let last = |(name, _): &(String, String)| after.contains(&name.as_str());
                let at = self.pairs.iter().rposition(last);
                let at = at.map_or(self.pairs.len(), |at| at + 1);
                self.pairs.insert(at, (key.to_owned(), value));
            }
            (None, None) => {}
        }
    }

    /// Names the modules that the row is for; `None`: those of the file.
    pub(super) fn set_modules(&mut self, modules: Option<&[String]>) {
        self.set("modules", modules.map(written), &["name", "id", "value"]);
    }

    /// The row's line.
    pub(super) fn text(&self) -> String {
        let pairs = self.pairs.iter();
        let pairs: Vec<String> = pairs
            .map(|(key, value)| format!("{key}: {value}"))
            .collect();
        format!("  - {{ {} }}", pairs.join(", "))
    }
}

/// A list of strings as it was written.
pub(super) fn list(text: &str) -> Vec<String> {
    let inside = text.trim().trim_start_matches('[').trim_end_matches(']');
    let parts = inside.split(',').map(|part| part.trim().trim_matches('"'));
    parts
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A list of versions; quoted, because some would be numbers.
pub(super) fn written(modules: &[String]) -> String {
    let quoted: Vec<String> = modules
        .iter()
        .map(|module| format!("\"{module}\""))
        .collect();
    format!("[{}]", quoted.join(", "))
}

/// A file with a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// Lines up to the list's key, it included.
    pub(super) head: Vec<String>,
    pub(super) lines: Vec<Line>,
    /// Lines from the next key of the file on.
    pub(super) tail: Vec<String>,
}

impl File {
    /// Splits the text of a file whose list is called `key`.
    ///
    /// # Errors
    ///
    /// There is no such list, or a row that is no flow mapping on one line: its number.
    pub(super) fn parse(text: &str, key: &str) -> Result<Self, String> {
        let start = format!("{key}:");
        let mut lines = text.lines().enumerate();
        let mut head = Vec::new();
        loop {
            let (_, line) = lines.next().ok_or_else(|| format!("no list `{key}`"))?;
            head.push(line.to_owned());
            if line.trim_end() == start {
                break;
            }
        }
        let mut rest: Vec<(usize, &str)> = lines.collect();
        let is_key = |(_, line): &(usize, &str)| line.starts_with(|c: char| c.is_alphanumeric());
        let end = rest.iter().position(is_key).unwrap_or(rest.len());
        let tail = rest.split_off(end);
        let rest = rest.into_iter().map(|(number, line)| {
            if !line.trim_start().starts_with("- ") {
                return Ok(Line::Other(line.to_owned()));
            }
            Row::parse(line)
                .map(Line::Row)
                .ok_or_else(|| format!("line {}: not a row on one line", number + 1))
        });
        Ok(Self {
            head,
            lines: rest.collect::<Result<_, String>>()?,
            tail: tail.into_iter().map(|(_, line)| line.to_owned()).collect(),
        })
    }

    /// The file's text.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.head {
            text.push_str(line);
            text.push('\n');
        }
        for line in &self.lines {
            match line {
                Line::Row(row) => text.push_str(&row.text()),
                Line::Other(line) => text.push_str(line),
            }
            text.push('\n');
        }
        for line in &self.tail {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// The modules that the file is for.
    pub(super) fn modules(&self) -> Vec<String> {
        let line = self
            .head
            .iter()
            .find_map(|line| line.strip_prefix("modules:"));
        line.map(list).unwrap_or_default()
    }

    /// Names the modules that the file is for.
    pub(super) fn set_modules(&mut self, modules: &[String]) {
        let line = self
            .head
            .iter_mut()
            .find(|line| line.starts_with("modules:"));
        if let Some(line) = line {
            *line = format!("modules: {}", written(modules));
        }
    }
}

/// The pairs of `  - { key: value, .. }`.
fn pairs(line: &str) -> Option<Vec<(String, String)>> {
    let inside = line.trim().strip_prefix('-')?.trim();
    let inside = inside.strip_prefix('{')?.strip_suffix('}')?;
    let mut pairs = Vec::new();
    for part in split(inside)? {
        let (key, value) = part.split_once(':')?;
        pairs.push((key.trim().to_owned(), value.trim().to_owned()));
    }
    Some(pairs)
}

/// Splits at the commas that are in no quotes, braces or brackets.
fn split(text: &str) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut depth = 0_usize;
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if let Some(end) = quote {
            if c == end && !escaped {
                quote = None;
            }
            escaped = c == '\\' && end == '"' && !escaped;
            continue;
        }
        match c {
            // Quotes inside a plain scalar are characters like any other.
            '"' | '\'' if text.get(start..at)?.trim_end().ends_with([':', '[', ',']) => {
                quote = Some(c)
            }
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                parts.push(text.get(start..at)?);
                start = at + 1;
            }
            _ => {}
        }
    }
    if text.get(start..)?.trim().is_empty() {
        return Some(parts);
    }
    parts.push(text.get(start..)?);
    (depth == 0 && quote.is_none()).then_some(parts)
}
