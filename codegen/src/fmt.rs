//! The canonical form of a specification file.
//!
//! Only the form is changed: order, comments and the spelling of numbers stay as they were written, and so does whether a
//! collection is written in braces. The formatted text is read back; if it does not hold exactly what the file held, the file
//! is refused instead.

mod parse;
mod print;

use crate::yaml;
use crate::yaml::Node;
use crate::yaml::Value;

/// Why a file is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// It is not YAML: what the parser says.
    Syntax(yaml::SyntaxError),
    /// It uses YAML that specifications do not need: the line, from 1, and what stands there.
    Unsupported(usize, &'static str),
    /// What was written does not hold what was read; a mistake of this program.
    Changed,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Syntax(error) => match error.position {
                Some(position) => write!(f, "line {}: {}", position.line, error.message),
                None => f.write_str(&error.message),
            },
            Self::Unsupported(line, what) => write!(f, "line {line}: {what} cannot be formatted"),
            Self::Changed => f.write_str("formatting would change what the file says"),
        }
    }
}

impl core::error::Error for Error {}

/// `text` in its canonical form.
///
/// # Errors
///
/// The text is no YAML, or uses a part of it that is not formatted.
pub fn format(text: &str) -> Result<String, Error> {
    let before = yaml::parse(text).map_err(Error::Syntax)?;
    let mut values = Vec::new();
    scalars(&before, &mut values);
    let document = parse::parse(text)?;
    let formatted = print::print(&document, &values).ok_or(Error::Changed)?;
    match yaml::parse(&formatted) {
        Ok(after) if after == before => Ok(formatted),
        _ => Err(Error::Changed),
    }
}

/// The scalars of a tree in reading order.
fn scalars<'n>(node: &'n Node, list: &mut Vec<&'n Value>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| scalars(item, list)),
        Value::Map(entries) => entries.iter().for_each(|(key, value)| {
            scalars(key, list);
            scalars(value, list);
        }),
        scalar => list.push(scalar),
    }
}
