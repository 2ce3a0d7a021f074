//! A checked model written out.

#[cfg(feature = "generate")]
pub mod book;
#[cfg(feature = "generate")]
pub mod c;
#[cfg(feature = "generate")]
pub mod json;
pub mod rust;
#[cfg(feature = "generate")]
pub mod vendor;

/// A file to be written.
#[cfg(feature = "generate")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Path below the folder that it is written to, with `/`.
    pub name: String,
    /// What it holds.
    pub text: String,
}

#[cfg(feature = "generate")]
impl File {
    /// The file called `name` with this text.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }
}

/// A text up to its first full stop.
pub fn first_sentence(text: &str) -> &str {
    text.find(". ").map_or(text, |end| &text[..=end])
}

/// `TDH.MEM.PAGE.ADD`, `Guest CR0` or `1.5.01` as (part of) the name of a constant.
pub(crate) fn constant_name(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_uppercase());
        } else if !out.ends_with('_') && !out.is_empty() {
            out.push('_');
        }
    }
    out.trim_end_matches('_').to_owned()
}

/// A text in lines of at most `width` characters, where words allow that; no line that is broken begins with a word that `stays`.
#[cfg(feature = "generate")]
pub(crate) fn wrapped(text: &str, width: usize, stays: impl Fn(&str) -> bool) -> Vec<String> {
    let mut out = Vec::new();
    for line in text.split('\n') {
        let mut current = String::new();
        for word in line.split_whitespace() {
            let fits = current.chars().count() + 1 + word.chars().count() <= width;
            if !current.is_empty() && !fits && !stays(word) {
                out.push(core::mem::take(&mut current));
            }
            if !current.is_empty() {
                current.push(' ');
            }
            current.push_str(word);
        }
        out.push(current);
    }
    out
}
